// Package remote signs chain transactions with a signing service on another
// machine: parley signer, or any server of the web3signer API or of
// eth_signTransaction. A driver of the port keys.Signer.
//
// What comes back is checked: a signature that is not the account's over just
// these bytes is an error.
package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/rpc"

	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/wire"
)

// Protocols that a service speaks.
const (
	Web3Signer = "web3signer" // GET and POST below /api/v1/eth1
	JSONRPC    = "jsonrpc"    // eth_accounts and eth_signTransaction
)

// PurposeHeader carries what a signature is for, to the service's log.
const PurposeHeader = "X-Parley-Purpose"

// Config says where the service is.
type Config struct {
	URL      string // http(s)://host:port
	Protocol string // Web3Signer if empty
	Token    string // sent as Authorization: Bearer; empty for none
	TLS      *tls.Config
}

// Signer is a client of the service. Safe for concurrent use.
type Signer struct {
	cfg  Config
	http *http.Client
}

var _ keys.Signer = (*Signer)(nil)

// New makes a client. It makes no connection.
func New(cfg Config) (*Signer, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("the signer's URL is not of the form http(s)://host:port")
	}
	if cfg.Protocol == "" {
		cfg.Protocol = Web3Signer
	}
	if cfg.Protocol != Web3Signer && cfg.Protocol != JSONRPC {
		return nil, fmt.Errorf("the signer's protocol %q is neither %s nor %s", cfg.Protocol, Web3Signer, JSONRPC)
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig, t.MaxIdleConnsPerHost = cfg.TLS, 16
	return &Signer{cfg: cfg, http: &http.Client{Transport: t, Timeout: 15 * time.Second}}, nil
}

// Accounts implements keys.Signer.
func (s *Signer) Accounts(ctx context.Context) (all []wire.Address, err error) {
	if s.cfg.Protocol == JSONRPC {
		err = s.call(ctx, "", &all, "eth_accounts")
		return all, err
	}
	byKey, order, err := s.publicKeys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range order {
		all = append(all, byKey[k])
	}
	return all, nil
}

// publicKeys asks a web3signer for its keys, in its order.
func (s *Signer) publicKeys(ctx context.Context) (map[string]wire.Address, []string, error) {
	var list []string
	body, err := s.do(ctx, http.MethodGet, "/api/v1/eth1/publicKeys", nil, "")
	if err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, nil, fmt.Errorf("the signer's list of keys: %w", err)
	}
	byKey := map[string]wire.Address{}
	for _, text := range list {
		b := common.FromHex(text)
		if len(b) == 64 {
			b = append([]byte{4}, b...)
		}
		key, err := crypto.UnmarshalPubkey(b)
		if err != nil {
			return nil, nil, fmt.Errorf("the signer's key %s: %w", text, err)
		}
		byKey[text] = wire.Address(crypto.PubkeyToAddress(*key))
	}
	return byKey, list, nil
}

// SignTransaction implements keys.Signer.
func (s *Signer) SignTransaction(ctx context.Context, account wire.Address, unsigned []byte, purpose string) (signature wire.Signature, err error) {
	if s.cfg.Protocol == JSONRPC {
		signature, err = s.overRPC(ctx, account, unsigned, purpose)
	} else {
		signature, err = s.overREST(ctx, account, unsigned, purpose)
	}
	if err != nil {
		return signature, err
	}
	signer, err := wire.RecoverAddress(wire.Hash(crypto.Keccak256Hash(unsigned)), signature)
	if err != nil {
		return signature, fmt.Errorf("the signer's answer: %w", err)
	}
	if signer != account {
		return signature, fmt.Errorf("the signer signed as %s, asked for %s", signer, account)
	}
	return signature, nil
}

func (s *Signer) overREST(ctx context.Context, account wire.Address, unsigned []byte, purpose string) (signature wire.Signature, err error) {
	byKey, _, err := s.publicKeys(ctx)
	if err != nil {
		return signature, err
	}
	id := ""
	for key, address := range byKey {
		if address == account {
			id = key
		}
	}
	if id == "" {
		return signature, keys.ErrUnknownKey{Key: account}
	}
	request, err := json.Marshal(map[string]string{"data": "0x" + hex.EncodeToString(unsigned)})
	if err != nil {
		return signature, err
	}
	text, err := s.do(ctx, http.MethodPost, "/api/v1/eth1/sign/"+url.PathEscape(id), request, purpose)
	if err != nil {
		return signature, err
	}
	b := common.FromHex(strings.Trim(strings.TrimSpace(string(text)), `"`))
	if len(b) != len(signature) {
		return signature, fmt.Errorf("the signer's signature has %d bytes, want %d", len(b), len(signature))
	}
	copy(signature[:], b)
	if signature[64] >= 27 {
		signature[64] -= 27
	}
	return signature, nil
}

// do makes one HTTP request of the web3signer API.
func (s *Signer) do(ctx context.Context, method, path string, body []byte, purpose string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.cfg.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	for name, value := range s.headers(purpose) {
		r.Header[name] = value
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask the signer: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("ask the signer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the signer answers %s: %s", resp.Status, strings.TrimSpace(string(text[:min(len(text), 300)])))
	}
	return text, nil
}

func (s *Signer) headers(purpose string) http.Header {
	h := http.Header{}
	if purpose != "" {
		h.Set(PurposeHeader, purpose)
	}
	if s.cfg.Token != "" {
		h.Set("Authorization", "Bearer "+s.cfg.Token)
	}
	return h
}

// call makes one JSON-RPC call.
func (s *Signer) call(ctx context.Context, purpose string, result any, method string, args ...any) error {
	c, err := rpc.DialOptions(ctx, s.cfg.URL, rpc.WithHTTPClient(s.http), rpc.WithHeaders(s.headers(purpose)))
	if err != nil {
		return fmt.Errorf("ask the signer: %w", err)
	}
	defer c.Close()
	if err := c.CallContext(ctx, result, method, args...); err != nil {
		return fmt.Errorf("ask the signer: %w", err)
	}
	return nil
}

// overRPC asks for a signed transaction, and takes the signature out of it.
func (s *Signer) overRPC(ctx context.Context, account wire.Address, unsigned []byte, purpose string) (signature wire.Signature, err error) {
	var here []wire.Address
	if err := s.call(ctx, "", &here, "eth_accounts"); err != nil {
		return signature, err
	}
	known := false
	for _, a := range here {
		known = known || a == account
	}
	if !known {
		return signature, keys.ErrUnknownKey{Key: account}
	}
	args, err := Arguments(account, unsigned)
	if err != nil {
		return signature, err
	}
	var answer json.RawMessage
	if err := s.call(ctx, purpose, &answer, "eth_signTransaction", args); err != nil {
		return signature, err
	}
	var raw hexutil.Bytes
	var whole struct { // go-ethereum answers with an object
		Raw hexutil.Bytes `json:"raw"`
	}
	if json.Unmarshal(answer, &raw) != nil {
		if err := json.Unmarshal(answer, &whole); err != nil {
			return signature, fmt.Errorf("the signer's answer: %w", err)
		}
		raw = whole.Raw
	}
	var tx types.Transaction
	if err := tx.UnmarshalBinary(raw); err != nil {
		return signature, fmt.Errorf("the signer's answer: %w", err)
	}
	v, r, sig := tx.RawSignatureValues()
	if r.BitLen() > 256 || sig.BitLen() > 256 {
		return signature, errors.New("the signer's answer: its signature is too long")
	}
	r.FillBytes(signature[:32])
	sig.FillBytes(signature[32:64])
	parity := new(big.Int).Set(v)
	if tx.Type() == types.LegacyTxType { // EIP-155: chain id · 2 + 35 + parity
		parity.Sub(parity, big.NewInt(35)).And(parity, big.NewInt(1))
	}
	signature[64] = byte(parity.Uint64() & 1)
	return signature, nil
}

// TransactionArgs are the arguments of eth_signTransaction.
type TransactionArgs struct {
	From                 wire.Address    `json:"from"`
	To                   *common.Address `json:"to,omitempty"`
	Gas                  hexutil.Uint64  `json:"gas"`
	GasPrice             *hexutil.Big    `json:"gasPrice,omitempty"`
	MaxFeePerGas         *hexutil.Big    `json:"maxFeePerGas,omitempty"`
	MaxPriorityFeePerGas *hexutil.Big    `json:"maxPriorityFeePerGas,omitempty"`
	Value                *hexutil.Big    `json:"value"`
	Nonce                hexutil.Uint64  `json:"nonce"`
	Data                 hexutil.Bytes   `json:"data"`
	ChainID              *hexutil.Big    `json:"chainId"`
}

// Arguments reads an unsigned transaction (see keys.Signer) as the arguments of
// eth_signTransaction.
func Arguments(account wire.Address, unsigned []byte) (*TransactionArgs, error) {
	a := &TransactionArgs{From: account}
	if len(unsigned) > 0 && unsigned[0] == types.DynamicFeeTxType {
		var t struct {
			ChainID   *big.Int
			Nonce     uint64
			Tip, Cap  *big.Int
			Gas       uint64
			To        *common.Address `rlp:"nil"`
			Value     *big.Int
			Data      []byte
			AccessSet types.AccessList
		}
		if err := rlp.DecodeBytes(unsigned[1:], &t); err != nil {
			return nil, fmt.Errorf("the unsigned transaction: %w", err)
		}
		if len(t.AccessSet) > 0 {
			return nil, errors.New("the unsigned transaction has an access list, which cannot be passed on")
		}
		a.Nonce, a.Gas, a.To, a.Data = hexutil.Uint64(t.Nonce), hexutil.Uint64(t.Gas), t.To, t.Data
		a.ChainID, a.Value, a.MaxFeePerGas, a.MaxPriorityFeePerGas = (*hexutil.Big)(t.ChainID), (*hexutil.Big)(t.Value), (*hexutil.Big)(t.Cap), (*hexutil.Big)(t.Tip)
		return a, nil
	}
	var t struct {
		Nonce       uint64
		Price       *big.Int
		Gas         uint64
		To          *common.Address `rlp:"nil"`
		Value       *big.Int
		Data        []byte
		ChainID     *big.Int
		Zero, Empty uint
	}
	if err := rlp.DecodeBytes(unsigned, &t); err != nil {
		return nil, fmt.Errorf("the unsigned transaction: %w", err)
	}
	if t.Zero != 0 || t.Empty != 0 {
		return nil, errors.New("the unsigned transaction does not end as EIP-155 says")
	}
	a.Nonce, a.Gas, a.To, a.Data = hexutil.Uint64(t.Nonce), hexutil.Uint64(t.Gas), t.To, t.Data
	a.ChainID, a.Value, a.GasPrice = (*hexutil.Big)(t.ChainID), (*hexutil.Big)(t.Value), (*hexutil.Big)(t.Price)
	return a, nil
}
