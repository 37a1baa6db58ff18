// Package node wires one member's node together and runs it: it is the only
// place that names drivers. New takes the parts, Open builds them from a
// configuration file, Run starts the workers.
package node
