// Package identity knows who is who: the members of the network with their
// keys and nodes, as the ledger records them (Network), and the names that go
// with them, as members claim them in messages (organisations, nodes and custom
// identities with their verifiers).
package identity
