package evm

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/google/go-cmp/cmp"

	"github.com/parley-node/parley/contracts"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

var someParams = ledger.Params{Confirmations: 1, ProtocolVersion: 2, ProtocolFrom: 3, Window: 4, ReceiptAge: 5, SkipAfter: 6 * time.Second, SkipGrace: 7}

func someProposals() []ledger.Proposal {
	org, next := wire.OrgID{1, 31: 2}, wire.Address{3, 19: 4}
	return []ledger.Proposal{
		{Admit: &ledger.MemberAdmitted{Org: org, Key: next}},
		{Suspend: &org}, {Resume: &org}, {Remove: &org},
		{Policy: &ledger.Policy{Approvals: 1<<64 - 1}},
		{Params: &someParams},
		{Validator: &ledger.ValidatorChanged{Key: org, Power: 9}},
		{Successor: &next},
		{Terminate: true},
	}
}

func TestProposals(t *testing.T) {
	for _, p := range someProposals() {
		action, arguments, err := encodeProposal(p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeProposal(action, arguments)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, got); d != "" {
			t.Error(d)
		}
		if _, err := decodeProposal(action, append(arguments, 0)); err == nil {
			t.Errorf("action %d takes a byte too much", action)
		}
		if len(arguments) > 0 {
			if _, err := decodeProposal(action, arguments[1:]); err == nil {
				t.Errorf("action %d takes a byte too few", action)
			}
		}
	}
	two := ledger.Proposal{Terminate: true, Policy: &ledger.Policy{}}
	negative := someParams
	negative.SkipAfter = -1
	for _, p := range []ledger.Proposal{{}, two, {Params: &negative}} {
		if _, _, err := encodeProposal(p); err == nil {
			t.Errorf("%+v was encoded", p)
		}
	}
	if _, err := decodeProposal(9, nil); err == nil {
		t.Error("action 9 was decoded")
	}
}

// A word that holds more than its type is not another spelling of it.
func TestStrictWords(t *testing.T) {
	full := bytes.Repeat([]byte{0xff}, 32)
	for name, read := range map[string]func(*words){
		"number":   func(r *words) { r.number() },
		"address":  func(r *words) { r.address() },
		"truth":    func(r *words) { r.truth() },
		"duration": func(r *words) { r.duration() },
	} {
		r := words{rest: full}
		if read(&r); r.end() == nil {
			t.Errorf("%s takes 32 bytes of ones", name)
		}
	}
	long := words{rest: append(make([]byte, 24), full[:8]...)}
	if long.duration(); long.end() == nil {
		t.Error("a duration above 2^63 ns is taken")
	}
}

// Every error of the contract is said in words, with all its arguments.
func TestMeanings(t *testing.T) {
	for name, e := range contracts.NetworkABI.Errors {
		data := append([]byte{}, e.ID[:4]...)
		var values []any
		for _, in := range e.Inputs {
			switch in.Type.String() {
			case "bytes32":
				values = append(values, [32]byte{0xab})
			case "address":
				values = append(values, common.Address{0xcd})
			case "string":
				values = append(values, "field")
			case "uint64":
				values = append(values, uint64(7))
			default:
				values = append(values, common.Big3)
			}
		}
		arguments, err := e.Inputs.Pack(values...)
		if err != nil {
			t.Fatal(err)
		}
		text := reason(append(data, arguments...))
		if text == "" || strings.Contains(text, "%") || strings.Contains(text, name) {
			t.Errorf("%s is said as %q", name, text)
		}
		if len(e.Inputs) > 0 && strings.Count(meanings[name], "%v") != len(e.Inputs) {
			t.Errorf("%s has %d arguments, its text %q uses others", name, len(e.Inputs), meanings[name])
		}
	}
	if len(meanings) != len(contracts.NetworkABI.Errors) {
		t.Errorf("%d texts for %d errors", len(meanings), len(contracts.NetworkABI.Errors))
	}
	if got := reason([]byte{1, 2, 3, 4}); !strings.Contains(got, "0x01020304") {
		t.Errorf("a foreign error is said as %q", got)
	}
}

// logOf encodes a record as the contract would.
func logOf(t testing.TB, event string, values ...any) *types.Log {
	t.Helper()
	e := contracts.NetworkABI.Events[event]
	data, err := e.Inputs.NonIndexed().Pack(values...)
	if err != nil {
		t.Fatal(err)
	}
	return &types.Log{Topics: []common.Hash{e.ID, common.BigToHash(common.Big3), {9}, common.BytesToHash([]byte{5})}, Data: data}
}

func TestDecodeNamesNewKinds(t *testing.T) {
	l := logOf(t, "Terminated")
	l.Topics[0][0] ^= 1
	if _, err := decode(l); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("an unknown kind: %v", err)
	}
	l = logOf(t, "Terminated")
	l.Topics = l.Topics[:3]
	if _, err := decode(l); err == nil {
		t.Error("a log with three topics was decoded")
	}
}

func FuzzDecode(f *testing.F) {
	type handles = [][16]byte
	org := [32]byte{1}
	for event, values := range map[string][]any{
		"Founded":          {*paramsOf(someParams), uint64(1), org},
		"MemberAdmitted":   {org, common.Address{2}},
		"MemberRemoved":    {org},
		"NodeRegistered":   {org, org, []byte{1, 2}, []string{"a:1", "b:2"}},
		"ParamsChanged":    {*paramsOf(someParams)},
		"PolicyChanged":    {uint64(1)},
		"ValidatorChanged": {org, uint64(3)},
		"Proposed":         {uint64(1), actSuspend, org[:]},
		"Voted":            {uint64(1), org, true},
		"Terminated":       {},
		"Pinned":           {org, org, [16]byte{3}, handles{{4}, {5}}, []byte("control"), common.Address{6}},
	} {
		l := logOf(f, event, values...)
		if _, err := decode(l); err != nil {
			f.Fatalf("%s: %v", event, err)
		}
		f.Add(l.Topics[0][:], l.Data)
	}
	f.Fuzz(func(t *testing.T, kind, data []byte) {
		l := &types.Log{Topics: []common.Hash{common.BytesToHash(kind), {31: 1}, {}, {}}, Data: data}
		r, err := decode(l)
		if err == nil && (r.Number != 1 || r.Body == nil) {
			t.Errorf("decoded to %+v", r)
		}
	})
}

func FuzzQuantity(f *testing.F) {
	for _, s := range []string{`"0x0"`, `"0x"`, `"0xffffffffffffffff"`, `"0x10000000000000000"`, `"7"`, `7`, `"0x` + strings.Repeat("0", 63) + `9"`, `"-0x1"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var q ethereum.Quantity
		if q.UnmarshalJSON(b) != nil {
			return
		}
		var again ethereum.Quantity
		if err := again.UnmarshalJSON([]byte(`"` + ethereum.BlockTag(q) + `"`)); err != nil || again != q {
			t.Errorf("%s is %d, written again it is %d (%v)", b, q, again, err)
		}
	})
}
