// Package store holds a node's state: all SQL of the product, on one SQLite file
// or one schema of a PostgreSQL database, by the name that Open is given. The two
// share every statement and differ in the few words of type dialect; where one of
// them is stricter, that is the rule for both: no statement after one that failed,
// a cast where a parameter alone has no type, no MAX of bytes, a LIMIT that is not
// negative, an ORDER BY with a NULLS clause only where NULL can be. The tests run
// on PostgreSQL with e2e/postgres/with go test ….
//
// A write is a function of a transaction (DB.Write); concurrent writes share
// one commit, and what Write acknowledged is on disk. Protocol rows (records,
// pins, epochs, batches, outbox …) have hand-written statements beside their
// types; what the API lists is queried through one Collection descriptor each.
package store
