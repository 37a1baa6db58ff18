package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/bench"
	"github.com/parley-node/parley/internal/demo"
)

type benchCmd struct {
	Demo     bool   `help:"Start a network for this, on this machine, and stop it afterwards."`
	Members  int    `default:"2" help:"Members of that network."`
	Ledger   string `default:"dev" enum:"bundled,dev" help:"Its ledger: dev, or bundled with one validator for each member."`
	Sender   string `help:"API of the node to post to, instead of --demo." placeholder:"URL"`
	Receiver string `help:"API of the node to listen at." placeholder:"URL"`
	login
	ReceiverKeyFile string `type:"path" help:"File with the API key for the receiver, if it is another one." placeholder:"FILE"`
	PID             []int  `name:"pid" help:"Process to measure; may be repeated." placeholder:"PID"`

	Kind     []string      `default:"private" enum:"private,broadcast,blob,list,contracts" help:"What to measure, one after the other: private, broadcast, blob, list, contracts."`
	Rate     float64       `help:"Messages a second; without it, as fast as it goes." placeholder:"N"`
	Dir      string        `type:"existingdir" help:"Folder on the volume of the nodes: measures what the machine can do, to compare with. --demo does so by itself." placeholder:"DIR"`
	Posters  int           `default:"50" help:"Concurrent requests."`
	Size     byteSize      `help:"Bytes of a message's value (100), or of a blob (100M). K and M are understood." placeholder:"SIZE"`
	Duration time.Duration `default:"10s" help:"How long to post."`
	Warmup   time.Duration `default:"2s" help:"Posting before that, which does not count."`
	Count    int           `default:"3" help:"Number of blobs, one after the other."`
	JSON     bool          `name:"json" help:"Print one JSON object a measurement."`
}

// Help adds to --help.
func (benchCmd) Help() string {
	return `Posts to one node and listens at another: the latency is the time from the POST to
the event message_confirmed at the receiver; of contracts, to the event at the sender
that a transaction is final. Ends with 1 if a request fails, or a
message is missing or arrives twice.`
}

// byteSize is a number of bytes such as 100, 64K or 100M.
type byteSize int

// UnmarshalText reads it.
func (s *byteSize) UnmarshalText(text []byte) error {
	digits, unit := strings.TrimSuffix(string(text), "B"), 1
	for suffix, factor := range map[string]int{"K": 1_000, "M": 1_000_000, "G": 1_000_000_000} {
		if rest, ok := strings.CutSuffix(digits, suffix); ok {
			digits, unit = rest, factor
			break
		}
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 1<<40/unit {
		return fmt.Errorf("%q is not a size such as 100, 64K or 100M", text)
	}
	*s = byteSize(n * unit)
	return nil
}

func (cmd benchCmd) Run(ctx context.Context) (err error) {
	collectLess()
	o := bench.Options{Dir: cmd.Dir, Rate: cmd.Rate, Posters: cmd.Posters, Duration: cmd.Duration, Warmup: cmd.Warmup, Count: cmd.Count}
	switch {
	case cmd.Demo == (cmd.Sender != "" || cmd.Receiver != ""):
		return usageError{errors.New("give either --demo, or --sender and --receiver")}
	case !cmd.Demo && (cmd.Sender == "" || cmd.Receiver == ""):
		return usageError{errors.New("--sender and --receiver belong together")}
	case cmd.Posters < 1 || cmd.Rate < 0 || cmd.Duration <= 0:
		return usageError{errors.New("--posters, --rate and --duration must be positive")}
	case cmd.Members < demo.MinMembers || cmd.Members > demo.MaxMembers:
		return usageError{fmt.Errorf("--members %d: give a number from %d to %d", cmd.Members, demo.MinMembers, demo.MaxMembers)}
	}
	if cmd.Demo {
		n, stop, err := cmd.network(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		if o.Processes, err = processes(ctx, n); err != nil {
			return err
		}
		o.Dir = n.Members[0].Config.Dir
		o.Sender, o.Receiver = n.Members[0].API, n.Members[1].API
	} else {
		if o.Sender, err = cmd.open(cmd.Sender); err != nil {
			return usageError{fmt.Errorf("--sender: %w", err)}
		}
		at := cmd.login
		if cmd.ReceiverKeyFile != "" {
			at.KeyFile = cmd.ReceiverKeyFile
		}
		if o.Receiver, err = at.open(cmd.Receiver); err != nil {
			return usageError{fmt.Errorf("--receiver: %w", err)}
		}
		for _, pid := range cmd.PID {
			o.Processes = append(o.Processes, bench.Process{Name: fmt.Sprint("process ", pid), PID: pid})
		}
	}
	o.Processes = append(o.Processes, bench.Process{Name: "bench itself", PID: os.Getpid()})
	for _, kind := range cmd.Kind {
		o.Kind, o.Size = kind, cmd.size(kind)
		r, err := bench.Run(ctx, o)
		if err != nil {
			return err
		}
		if err := cmd.print(r); err != nil {
			return err
		}
		if err := r.Failed(); err != nil {
			return err
		}
	}
	return nil
}

func (cmd benchCmd) size(kind string) int {
	switch {
	case cmd.Size > 0:
		return int(cmd.Size)
	case kind == bench.Blob:
		return 100_000_000
	}
	return 100
}

func (cmd benchCmd) print(r *bench.Result) error {
	if cmd.JSON {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	r.Print(os.Stdout)
	return nil
}

// network starts the network of --demo.
func (cmd benchCmd) network(ctx context.Context) (n *demo.Network, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "parley-bench-")
	if err != nil {
		return nil, nil, err
	}
	n, err = demo.NewNetwork(ctx, demo.NetworkOptions{Dir: dir, Names: demo.Names(cmd.Members), Ledger: cmd.Ledger, LogLevel: "warn"})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop = func() error { return errors.Join(n.Stop(), os.RemoveAll(dir)) }
	ready, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the network was not ready within a minute"))
	defer cancel()
	if err := n.Start(ready); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	if err := n.Ready(ready); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return n, stop, nil
}

// processes are those of a network, to be measured.
func processes(ctx context.Context, n *demo.Network) ([]bench.Process, error) {
	var all []bench.Process
	for _, m := range n.Members {
		pid, validator, err := m.PIDs(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, bench.Process{Name: m.Name, PID: pid})
		if validator != 0 {
			all = append(all, bench.Process{Name: m.Name + " validator", PID: validator})
		}
	}
	if pid := n.LedgerPID(); pid != 0 {
		all = append(all, bench.Process{Name: "ledger", PID: pid})
	}
	return all, nil
}
