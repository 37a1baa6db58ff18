package api

import (
	"net/http"
	"strconv"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// transfer is what anybody who reads the ledger can know of a pin: who sent
// something and when, not what, to whom, or about which topic.
type transfer struct {
	Number          uint64        `json:"number"` // of the contract's record
	Author          organisation  `json:"author"`
	Key             wire.Address  `json:"key"`
	Root            wire.Hash     `json:"root"` // of the batch; zero if the pin carries none
	Tag             wire.Tag      `json:"tag"`
	Handles         int           `json:"handles"` // how many contexts it touches
	Control         bool          `json:"control"` // whether it changes something in its audience
	Via             *wire.Address `json:"via,omitempty"`
	Block           uint64        `json:"block"`
	Log             uint32        `json:"log"`
	BlockHash       wire.Hash     `json:"blockHash"`
	Time            store.Time    `json:"time"`
	TransactionHash wire.Hash     `json:"transactionHash"`
	Member          bool          `json:"member"` // whether this node belongs to its audience
	State           string        `json:"state,omitempty"`
	Reason          string        `json:"reason,omitempty"` // why it is void
}

// Inclusion is what the chain says of a record when it is asked again.
type Inclusion struct {
	Included        bool       `json:"included"` // the record stands on the chain as it is stored here
	Number          uint64     `json:"number"`
	Block           uint64     `json:"block,omitempty"`
	Log             uint32     `json:"log"`
	BlockHash       wire.Hash  `json:"blockHash"`
	BlockTime       store.Time `json:"blockTime"`
	TransactionHash wire.Hash  `json:"transactionHash"`
	FinalBlock      uint64     `json:"finalBlock,omitempty"` // the chain's final block at the time
	Reason          string     `json:"reason,omitempty"`     // what differs, if it is not included
}

func transferOf(p *store.Pin, author organisation) transfer {
	t := transfer{
		Number: p.Number, Author: author, Key: p.Signer, Root: p.Pin.Pin.Root, Tag: p.Pin.Pin.Tag, Handles: len(p.Pin.Pin.Handles),
		Control: len(p.Pin.Pin.Control) > 0, Block: p.Position.Block, Log: p.Position.Log, BlockHash: p.BlockHash, Time: p.BlockTime,
		TransactionHash: p.TxHash, Member: p.Audience != nil, State: p.State, Reason: p.Reason,
	}
	if !p.Pin.Via.IsZero() {
		t.Via = &p.Pin.Via
	}
	return t
}

// getTransfers lists pins, newest first: limit of them, below the record number
// before.
func getTransfers(c *call) (any, error) {
	limit, err := c.bounded("limit", store.DefaultLimits.DefaultLimit, store.DefaultLimits.MaxLimit)
	if err != nil {
		return nil, err
	}
	before, err := c.bounded("before", 0, 1<<62)
	if err != nil {
		return nil, err
	}
	all := []transfer{}
	err = c.DB.Read(c.ctx(), func(tx *store.Tx) error {
		pins, err := tx.PinsBefore(before, int(limit))
		if err != nil {
			return err
		}
		names := organisations{tx: tx, namespace: c.Namespace}
		for i := range pins {
			author, err := names.name(pins[i].Pin.Org)
			if err != nil {
				return err
			}
			all = append(all, transferOf(&pins[i], author))
		}
		return nil
	})
	return all, err
}

func getTransfer(c *call) (any, error) {
	number, err := c.number("number")
	if err != nil {
		return nil, err
	}
	var t transfer
	err = c.DB.Read(c.ctx(), func(tx *store.Tx) error {
		p, err := tx.PinByNumber(number)
		if err != nil {
			return err
		}
		if p == nil {
			return errs.NoSuch("transfer", c.path("number"))
		}
		names := organisations{tx: tx, namespace: c.Namespace}
		author, err := names.name(p.Pin.Org)
		t = transferOf(p, author)
		return err
	})
	return t, err
}

// verifyTransfer asks the chain itself, instead of this node's database.
func verifyTransfer(c *call) (any, error) {
	number, err := c.number("number")
	if err != nil {
		return nil, err
	}
	if c.Verify == nil {
		return nil, errs.New(codeUnsupported, http.StatusNotImplemented, "This node has no connection to the chain that it could ask")
	}
	result, err := c.Verify(c.ctx(), number)
	if err != nil {
		return nil, err
	}
	if result == nil {
		return nil, errs.NoSuch("transfer", c.path("number"))
	}
	return result, nil
}

// number is a variable of the path that must be a whole number above zero.
func (c *call) number(name string) (uint64, error) {
	n, err := strconv.ParseUint(c.path(name), 10, 62)
	if err != nil || n == 0 {
		return 0, errs.New(errs.CodeBadValue, http.StatusBadRequest, "The path has %q where a number above zero is needed", shorten(c.path(name)))
	}
	return n, nil
}

// bounded is a query parameter that holds a whole number up to a maximum.
func (c *call) bounded(name string, otherwise, most uint64) (uint64, error) {
	text := c.param(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > most {
		return 0, errs.New(errs.CodeBadValue, http.StatusBadRequest, "%s is %q; give a whole number up to %d", name, shorten(text), most)
	}
	return n, nil
}
