package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/parley-node/parley/internal/ledger/bundled"
)

type ledgerCmd struct {
	Run ledgerRunCmd `cmd:"" help:"Run the validator of a folder. A node with the bundled ledger does this by itself; run it alone to share one chain between nodes on a developer's machine."`
}

type ledgerRunCmd struct {
	Dir        string   `required:"" type:"path" help:"The validator's folder." placeholder:"DIR"`
	RPC        string   `name:"rpc" default:"127.0.0.1:8545" help:"Loopback host:port of Ethereum JSON-RPC."`
	P2P        string   `name:"p2p" default:"0.0.0.0:26656" help:"host:port for other validators."`
	Advertise  string   `help:"host:port at which others reach p2p, if that differs." placeholder:"HOST:PORT"`
	Peer       []string `help:"nodeId@host:port of another validator; may be repeated." placeholder:"ID@HOST:PORT"`
	Allow      []string `help:"Node id that may connect besides the peers; without any, all may." placeholder:"ID"`
	LogLevel   string   `default:"info" enum:"debug,info,warn,error" help:"debug, info, warn or error."`
	Supervised bool     `hidden:"" help:"Stop when standard input closes, report on standard output, and leave SIGINT to the parent."`
}

func (cmd ledgerRunCmd) Run(ctx context.Context) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cmd.LogLevel)); err != nil {
		return usageError{err}
	}
	cfg := bundled.Config{
		Dir: cmd.Dir, RPC: cmd.RPC, P2P: cmd.P2P, Advertise: cmd.Advertise, Peers: cmd.Peer, Allow: cmd.Allow,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}
	if cmd.Supervised {
		// A Ctrl-C reaches the whole foreground group. The parent stops its node
		// first and this process last, by closing the pipe.
		ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM)
		defer stop()
		return bundled.Serve(ctx, cfg, os.Stdin, os.Stdout)
	}
	return bundled.Run(ctx, cfg, func(info bundled.Info) {
		// Standard output is for whoever started this; there is no one to tell if
		// it is gone.
		_ = json.NewEncoder(os.Stdout).Encode(info)
	})
}
