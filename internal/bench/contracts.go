package bench

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/contract/contracttest"
)

// runContracts deploys a contract and invokes it over and over with the node's
// own key. What counts is the time from the POST to the event that the
// transaction is final.
func runContracts(ctx context.Context, o Options) (*Result, error) {
	o.Receiver = o.Sender
	op, err := o.Sender.Deploy(ctx, client.Deployment{Contract: contracttest.Code(), Definition: contracttest.ABI(), Input: json.RawMessage(`[0]`)}, client.Confirm())
	if err != nil {
		return nil, fmt.Errorf("deploy the contract: %w", err)
	}
	var out struct {
		ContractLocation json.RawMessage `json:"contractLocation"`
	}
	if err := json.Unmarshal(op.Output, &out); err != nil {
		return nil, fmt.Errorf("output of the deployment: %w", err)
	}
	method := json.RawMessage(`{"name":"set","params":[{"name":"x","schema":{"type":"integer","details":{"type":"uint256"}}}],"returns":[]}`)
	l := &load{o: o, track: newTracker(), call: &client.ContractCall{Location: out.ContractLocation, Method: method, Input: json.RawMessage(`{"x":1}`)}}
	return l.measure(ctx, client.Filter{Events: "^blockchain_invoke_op_"})
}
