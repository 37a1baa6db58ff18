// Package access decides who may call a node: it knows the callers, their
// roles in each namespace, and how much each may ask for.
//
// A caller is an API key, or a user with a password. Keys are 256 random bits
// of which only the hash is stored; passwords are in a file of user:bcrypt
// lines, as existing installations have it. Roles stand in the access file
// (File), which the command "parley access" edits and a running node reads
// again by itself.
//
// The package judges callers and not requests: which role an operation needs
// is for package api to say.
package access
