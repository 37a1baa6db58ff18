package main

import (
	"context"
	"io"
	"os"
	"runtime/debug"

	"github.com/parley-node/parley/internal/node"
)

type nodeCmd struct {
	Run nodeRunCmd `cmd:"" help:"Run the node of a member's folder until it is told to stop (SIGINT or SIGTERM)."`
}

// folder says which member a command is about.
type folder struct {
	Dir    string `short:"d" type:"path" default:"." env:"PARLEY_DIR" help:"The member's folder, made by parley init." placeholder:"DIR"`
	Config string `type:"path" help:"Its configuration, if that is not parley.yaml in the folder." placeholder:"FILE"`
}

func (f folder) path() string {
	if f.Config != "" {
		return f.Config
	}
	return f.Dir
}

// read gives the folder's configuration, complete and checked.
func (f folder) read() (*node.Config, error) {
	c, err := node.ReadConfig(f.path())
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// gcPercent is how much a node's heap may grow, in per cent of what it holds,
// before garbage is collected. It holds little and allocates much: with the
// usual 100 it would spend a tenth of its time on collecting.
const gcPercent = 300

// collectLess sets gcPercent, unless the environment says otherwise.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

type nodeRunCmd struct {
	folder
	WithParent bool `hidden:"" help:"Stop when standard input closes: the end of the process that started this one."`
}

func (cmd nodeRunCmd) Run(ctx context.Context) error {
	c, err := cmd.read()
	if err != nil {
		return err
	}
	collectLess()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if cmd.WithParent {
		go func() {
			defer cancel()
			_, _ = io.Copy(io.Discard, os.Stdin) // an error is an end too
		}()
	}
	log := c.Logger().With("org", c.Org.Name)
	return node.Serve(ctx, c, log, version(), func(p *node.Process) {
		log.Info("the node runs", "version", version(), "pid", os.Getpid(), "api", p.URL("api"), "admin", p.URL("admin"), "metrics", p.URL("metrics"), "exchange", p.Addresses()["exchange"])
	})
}
