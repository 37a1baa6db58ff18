// Package store holds a node's state: all SQL of the product, on one SQLite
// file (or, later, one PostgreSQL database).
//
// A write is a function of a transaction (DB.Write); concurrent writes share
// one commit, and what Write acknowledged is on disk. Protocol rows (records,
// pins, epochs, batches, outbox …) have hand-written statements beside their
// types; what the API lists is queried through one Collection descriptor each.
package store
