package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

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

// settings are values of the configuration from the command line.
type settings struct {
	Set []string `sep:"none" help:"Set a key of the configuration for this run, above file and environment." placeholder:"KEY=VALUE"`
}

// source is where the configuration of a folder comes from.
func (s settings) source(f folder) node.Source {
	return node.Source{Path: f.path(), Environ: os.Environ(), Set: s.Set}
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
	settings
	WithParent bool `hidden:"" help:"Stop when standard input closes: the end of the process that started this one."`
}

func (cmd nodeRunCmd) Run(ctx context.Context) error {
	c, err := cmd.config()
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
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		if err := cmd.serve(ctx, c.Logger(), hup); !errors.Is(err, node.ErrRestart) || ctx.Err() != nil {
			return err
		}
		if c, err = cmd.config(); err != nil {
			return err
		}
	}
}

// config reads the configuration.
func (cmd nodeRunCmd) config() (*node.Config, error) {
	c, _, err := cmd.source(cmd.folder).Read()
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// serve runs the process until it ends or its own configuration changes. SIGHUP
// makes it read the configuration again.
func (cmd nodeRunCmd) serve(ctx context.Context, log *slog.Logger, hup <-chan os.Signal) error {
	h, err := node.Open(ctx, cmd.config, log, version())
	if err != nil {
		return fmt.Errorf("start the node of %s: %w", cmd.path(), err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				if err := h.Reset(ctx); err != nil {
					log.Error("SIGHUP: the configuration is not read again", "err", err)
				}
			}
		}
	}()
	attrs := []any{"version", version(), "pid", os.Getpid()}
	a := h.Addresses()
	for _, name := range slices.Sorted(maps.Keys(a)) {
		address := a[name]
		if !strings.HasPrefix(name, "exchange") {
			address = h.URL(name)
		}
		attrs = append(attrs, name, address)
	}
	log.Info("the node runs", attrs...)
	return h.Run(ctx)
}
