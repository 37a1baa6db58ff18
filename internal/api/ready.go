package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
)

// readyTimeout bounds how long the node thinks about whether it is ready.
const readyTimeout = 2 * time.Second

// readiness says whether the node can take part in its network, and why not.
type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
}

// readyz answers 200 if messages that are handed in now can get on their way,
// else 503 with what is in the way. It names no members and quotes no errors:
// whoever can reach the port may ask.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	var out readiness
	if s.Namespace != "" {
		out.Reasons = s.obstacles(ctx)
	} else {
		for name, api := range s.Host.all() {
			if api == nil {
				out.Reasons = append(out.Reasons, "namespace "+name+" does not run")
				continue
			}
			for _, reason := range api.server.obstacles(ctx) {
				out.Reasons = append(out.Reasons, "namespace "+name+": "+reason)
			}
		}
		slices.Sort(out.Reasons)
	}
	out.Ready = len(out.Reasons) == 0
	status := http.StatusOK
	if !out.Ready {
		status = http.StatusServiceUnavailable
	}
	_ = writeJSON(w, status, out) // it always becomes JSON
}

// obstacles are what is in the way of a namespace's messages.
func (s *server) obstacles(ctx context.Context) (reasons []string) {
	not := func(reason string) { reasons = append(reasons, reason) }
	err := s.DB.Read(ctx, func(tx *store.Tx) error {
		if !s.networked() {
			return nil
		}
		org, err := identity.OrgIdentity(tx, s.Namespace, s.Messages.Self.Org)
		if err != nil {
			return err
		}
		node, err := identity.NodeIdentity(tx, s.Namespace, s.Messages.Self.Org)
		if err != nil {
			return err
		}
		if org == nil {
			not("the organisation is not registered with the network yet")
		}
		if node == nil {
			not("the node is not registered with the network yet")
		}
		return nil
	})
	if err != nil {
		s.Logger.Error("the database cannot be read for readyz", "error", err)
		not("the database cannot be read")
	}
	if s.Connection != nil {
		if state := s.Connection().State; state != stateConnected {
			not("the ledger is not followed: its connection is " + state)
		}
	}
	if err := s.gate.enter(ctx); err != nil {
		not("too much waits: new messages are refused")
	}
	return reasons
}
