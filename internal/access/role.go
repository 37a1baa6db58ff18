package access

import (
	"fmt"
	"strings"
)

// Role is what a caller may do in a namespace. Each includes those before it,
// but for one thing: an auditor does not see payloads unless that is granted.
type Role uint8

const (
	None     Role = iota // nothing
	Auditor              // read records and proofs
	Reader               // read payloads, and take events from subscriptions
	Operator             // send, define, subscribe: what an application does
	Admin                // members, keys, votes, the node itself
)

var roleNames = [...]string{"none", "auditor", "reader", "operator", "admin"}

func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// MarshalText writes the role's name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the name of a role that can be granted.
func (r *Role) UnmarshalText(text []byte) error {
	for i, name := range roleNames[1:] {
		if name == string(text) {
			*r = Role(i + 1)
			return nil
		}
	}
	return fmt.Errorf("role %q is none of %s", text, strings.Join(roleNames[1:], ", "))
}

// AllNamespaces is the namespace of a grant that holds in every one.
const AllNamespaces = "*"

// Grant gives a role in a namespace.
type Grant struct {
	Namespace string `json:"namespace"` // AllNamespaces for every one
	Role      Role   `json:"role"`
	Payloads  bool   `json:"payloads,omitempty"` // an auditor may see payloads too
}

// Limits bound what one caller may ask for. A zero field means the limit that
// the node has for everybody.
type Limits struct {
	Rate    float64 `json:"rate,omitempty"`    // requests a second, on average
	Burst   int     `json:"burst,omitempty"`   // requests at once
	Sockets int     `json:"sockets,omitempty"` // WebSockets and event streams open at a time
	Body    int64   `json:"body,omitempty"`    // bytes of a JSON body
}

// Caller is who makes a request. It does not change.
type Caller struct {
	Name   string
	Grants []Grant
	Limits Limits // complete
}

// Local is the caller of a node without access control, which listens on
// loopback only: whoever is on the machine.
const Local = "local"

// Role is the caller's highest role in a namespace.
func (c *Caller) Role(namespace string) Role {
	highest := None
	for _, g := range c.Grants {
		if g.Namespace == namespace || g.Namespace == AllNamespaces {
			highest = max(highest, g.Role)
		}
	}
	return highest
}

// Anywhere is the caller's highest role in any namespace.
func (c *Caller) Anywhere() Role {
	highest := None
	for _, g := range c.Grants {
		highest = max(highest, g.Role)
	}
	return highest
}

// Payloads reports whether the caller may see values and blobs of a namespace.
func (c *Caller) Payloads(namespace string) bool {
	for _, g := range c.Grants {
		if (g.Namespace == namespace || g.Namespace == AllNamespaces) && (g.Role >= Reader || g.Payloads) {
			return true
		}
	}
	return false
}
