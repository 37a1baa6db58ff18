// Package node wires one member's node together and runs it: it is the only
// place that names drivers. New takes the parts of a namespace's node. Host is
// the process: Open builds one or more namespaces from a configuration, and Run
// runs them behind the same ports.
package node
