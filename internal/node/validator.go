package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/parley-node/parley/internal/api"
	"github.com/parley-node/parley/internal/ledger/bundled"
	"github.com/parley-node/parley/internal/store"
)

// validator is this member's validator of the bundled ledger, a child process
// of the same binary.
type validator struct {
	cfg     bundled.ChildConfig
	log     *slog.Logger
	running func() // called when its JSON-RPC answers

	mu    sync.Mutex
	state bundled.ChildState
}

func newValidator(c *Config, log *slog.Logger) *validator {
	dir := c.path(c.Ledger.Bundled.Dir)
	return &validator{log: log, cfg: bundled.ChildConfig{
		Args: LedgerArgs(dir, *c.Ledger.Bundled), Log: filepath.Join(dir, "ledger.log"), Logger: log,
	}}
}

// LedgerArgs are the arguments that make the binary a validator process, for
// bundled.Supervise. dir is the validator's folder.
func LedgerArgs(dir string, c BundledConfig) []string {
	args := []string{"ledger", "run", "--supervised", "--dir", dir, "--rpc", c.RPC, "--p2p", c.P2P}
	if c.Advertise != "" {
		args = append(args, "--advertise", c.Advertise)
	}
	for _, p := range c.Peers {
		args = append(args, "--peer", p)
	}
	for _, id := range c.Allow {
		args = append(args, "--allow", id)
	}
	return args
}

// run keeps the validator running until ctx ends. Without one it waits for ctx.
func (v *validator) run(ctx context.Context) error {
	if v == nil {
		<-ctx.Done()
		return nil
	}
	return bundled.Supervise(ctx, v.cfg, func(s bundled.ChildState) {
		v.mu.Lock()
		v.state = s
		v.mu.Unlock()
		if s.Phase == bundled.Running {
			v.running()
		}
	})
}

func (v *validator) status() *api.Validator {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := &api.Validator{Phase: string(v.state.Phase), PID: v.state.PID, RPC: v.state.Info.HTTP, Restarts: v.state.Restarts}
	if !v.state.Since.IsZero() {
		t := store.At(v.state.Since)
		s.Since = &t
	}
	if v.state.Err != nil {
		s.Error = v.state.Err.Error()
	}
	return s
}
