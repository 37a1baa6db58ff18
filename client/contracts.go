package client

import (
	"context"
	"encoding/json"
	"time"
)

// Deployment is a contract to be created.
type Deployment struct {
	Key            string          `json:"key,omitempty"` // address, name or DID; the node's default if empty
	Contract       string          `json:"contract"`      // bytecode, hexadecimal
	Definition     json.RawMessage `json:"definition"`    // ABI
	Input          json.RawMessage `json:"input"`         // arguments of the constructor
	Options        json.RawMessage `json:"options,omitempty"`
	IdempotencyKey string          `json:"idempotencyKey,omitempty"`
}

// ContractCall is a call of a contract's method: given inline, or by an interface
// and a path name.
type ContractCall struct {
	Interface      string          `json:"interface,omitempty"`
	MethodPath     string          `json:"methodPath,omitempty"`
	Method         json.RawMessage `json:"method,omitempty"`
	Location       json.RawMessage `json:"location,omitempty"` // {"address"}
	Key            string          `json:"key,omitempty"`
	Input          json.RawMessage `json:"input"` // by parameter name
	Options        json.RawMessage `json:"options,omitempty"`
	IdempotencyKey string          `json:"idempotencyKey,omitempty"`
}

// Operation is an outward effect of the node, such as a transaction.
type Operation struct {
	ID      string          `json:"id"`
	Tx      string          `json:"tx"`
	Type    string          `json:"type"`
	Status  string          `json:"status"` // Initialized, Pending, Succeeded, Failed
	Input   json.RawMessage `json:"input,omitempty"`
	Output  json.RawMessage `json:"output,omitempty"`
	Error   string          `json:"error,omitempty"`
	Created time.Time       `json:"created"`
	Updated time.Time       `json:"updated"`
}

// Deploy creates a contract. With Confirm it returns when the transaction is
// final.
func (c *Client) Deploy(ctx context.Context, d Deployment, options ...CallOption) (*Operation, error) {
	return post[Operation](ctx, c, d, queryOf(options), "contracts", "deploy")
}

// Invoke calls a method of a contract by a transaction.
func (c *Client) Invoke(ctx context.Context, call ContractCall, options ...CallOption) (*Operation, error) {
	return post[Operation](ctx, c, call, queryOf(options), "contracts", "invoke")
}

// Query calls a method of a contract without a transaction, and returns its
// outputs by name.
func (c *Client) Query(ctx context.Context, call ContractCall) (*json.RawMessage, error) {
	return post[json.RawMessage](ctx, c, call, nil, "contracts", "query")
}
