// Package signer is a signing service: it lets keys live on another machine than
// the node that uses them. It speaks the web3signer API (below /api/v1/eth1) and
// Ethereum JSON-RPC (eth_accounts, eth_signTransaction), and signs only what is a
// transaction.
package signer

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/keys/remote"
	"github.com/parley-node/parley/wire"
)

// maxBody bounds a request: a transaction's data.
const maxBody = 1 << 20

// Config is what the service stands on.
type Config struct {
	Keys  keys.Signer
	Token string // callers must show as Authorization: Bearer; empty for none
	Log   *slog.Logger
}

// Handler serves the API.
func Handler(cfg Config) http.Handler {
	s := &server{cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /upcheck", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "OK") })
	mux.HandleFunc("GET /api/v1/eth1/publicKeys", s.guard(s.publicKeys))
	mux.HandleFunc("POST /api/v1/eth1/sign/{key}", s.guard(s.sign))
	mux.HandleFunc("POST /{$}", s.guard(s.rpc))
	return mux
}

type server struct{ Config }

// guard lets in who has the token.
func (s *server) guard(h http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte("Bearer " + s.Token))
	return func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if s.Token != "" && subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			s.Log.Warn("a caller without the token was refused", "from", r.RemoteAddr)
			http.Error(w, "the token is missing or wrong", http.StatusUnauthorized)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h(w, r)
	}
}

// probe is an unsigned transaction that no chain takes: its signature shows an
// account's public key.
var probe = ethereum.Offer{Price: new(big.Int)}.Transaction(new(big.Int), 0, 0, &common.Address{}, new(big.Int), nil)

// publicKey is the key of an account, uncompressed, without its first byte.
func (s *server) publicKey(r *http.Request, account wire.Address) (string, error) {
	unsigned, err := ethereum.Unsigned(new(big.Int), probe)
	if err != nil {
		return "", err
	}
	signature, err := s.Keys.SignTransaction(r.Context(), account, unsigned, "tell the public key")
	if err != nil {
		return "", err
	}
	public, err := crypto.Ecrecover(crypto.Keccak256(unsigned), signature[:])
	if err != nil {
		return "", err
	}
	return "0x" + hex.EncodeToString(public[1:]), nil
}

func (s *server) publicKeys(w http.ResponseWriter, r *http.Request) {
	accounts, err := s.Keys.Accounts(r.Context())
	list := []string{}
	for _, a := range accounts {
		if err != nil {
			break
		}
		var key string
		if key, err = s.publicKey(r, a); err == nil {
			list = append(list, key)
		}
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, list)
}

// sign signs the bytes of a transaction with the key that the path names.
func (s *server) sign(w http.ResponseWriter, r *http.Request) {
	public := common.FromHex(r.PathValue("key"))
	if len(public) == 64 {
		public = append([]byte{4}, public...)
	}
	key, err := crypto.UnmarshalPubkey(public)
	if err != nil {
		http.Error(w, "the path names no public key", http.StatusNotFound)
		return
	}
	var in struct {
		Data hexutil.Bytes `json:"data"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, "the body is no JSON with data in hexadecimal", http.StatusBadRequest)
		return
	}
	account := wire.Address(crypto.PubkeyToAddress(*key))
	args, err := remote.Arguments(account, in.Data)
	if err != nil { // never anything that could be mistaken for another kind of signature
		http.Error(w, "data is no unsigned transaction", http.StatusBadRequest)
		return
	}
	signature, err := s.signature(r, account, in.Data, args)
	if err != nil {
		s.fail(w, err)
		return
	}
	signature[64] += 27
	fmt.Fprintf(w, "0x%x", signature[:])
}

// signature signs, and logs who asked for what.
func (s *server) signature(r *http.Request, account wire.Address, unsigned []byte, args *remote.TransactionArgs) (wire.Signature, error) {
	purpose := r.Header.Get(remote.PurposeHeader)
	who := r.RemoteAddr
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		who = r.TLS.PeerCertificates[0].Subject.String() + " " + who
	}
	signature, err := s.Keys.SignTransaction(r.Context(), account, unsigned, purpose)
	s.Log.Info("signature", "account", account, "chain", args.ChainID, "nonce", uint64(args.Nonce), "to", args.To, "value", args.Value, "from", who, "purpose", purpose, "err", err)
	return signature, err
}

// rpcRequest and rpcAnswer are JSON-RPC 2.0.
type rpcRequest struct {
	ID     json.RawMessage   `json:"id"`
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
}

type rpcAnswer struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  any             `json:"result,omitempty"`
	Error   *rpcError       `json:"error,omitempty"`
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (s *server) rpc(w http.ResponseWriter, r *http.Request) {
	var in rpcRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		answer(w, rpcAnswer{Version: "2.0", Error: &rpcError{-32700, "the body is no JSON-RPC request"}})
		return
	}
	out := rpcAnswer{Version: "2.0", ID: in.ID}
	var err error
	switch in.Method {
	case "eth_accounts":
		out.Result, err = s.Keys.Accounts(r.Context())
	case "eth_signTransaction":
		out.Result, err = s.signTransaction(r, in.Params)
	default:
		out.Error = &rpcError{ethereum.MethodNotFound, "the method " + in.Method + " does not exist here; there are eth_accounts and eth_signTransaction"}
	}
	if err != nil {
		out.Result, out.Error = nil, &rpcError{-32000, err.Error()}
	}
	answer(w, out)
}

// signTransaction answers eth_signTransaction with the signed bytes.
func (s *server) signTransaction(r *http.Request, params []json.RawMessage) (hexutil.Bytes, error) {
	var a remote.TransactionArgs
	if len(params) != 1 {
		return nil, fmt.Errorf("%d parameters, want one transaction", len(params))
	}
	if err := json.Unmarshal(params[0], &a); err != nil {
		return nil, fmt.Errorf("the transaction: %w", err)
	}
	if a.ChainID == nil || (*big.Int)(a.ChainID).Sign() <= 0 {
		return nil, errors.New("chainId is missing: a transaction without one is good on every chain")
	}
	offer := ethereum.Offer{Price: (*big.Int)(a.GasPrice)}
	if a.MaxFeePerGas != nil || a.MaxPriorityFeePerGas != nil {
		offer = ethereum.Offer{Tip: (*big.Int)(a.MaxPriorityFeePerGas), Cap: (*big.Int)(a.MaxFeePerGas)}
	}
	if offer.Price == nil && (offer.Tip == nil || offer.Cap == nil) {
		return nil, errors.New("give gasPrice, or both maxFeePerGas and maxPriorityFeePerGas")
	}
	id := (*big.Int)(a.ChainID)
	value := (*big.Int)(a.Value)
	if value == nil {
		value = new(big.Int)
	}
	tx := offer.Transaction(id, uint64(a.Nonce), uint64(a.Gas), a.To, value, a.Data)
	unsigned, err := ethereum.Unsigned(id, tx)
	if err != nil {
		return nil, err
	}
	signature, err := s.signature(r, a.From, unsigned, &a)
	if err != nil {
		return nil, err
	}
	if tx, err = tx.WithSignature(types.LatestSignerForChainID(id), signature[:]); err != nil {
		return nil, err
	}
	return tx.MarshalBinary()
}

// fail answers an error; only an unknown key is the caller's.
func (s *server) fail(w http.ResponseWriter, err error) {
	var unknown keys.ErrUnknownKey
	if errors.As(err, &unknown) {
		http.Error(w, strings.TrimSpace(unknown.Error()), http.StatusNotFound)
		return
	}
	s.Log.Error("signing failed", "err", err)
	http.Error(w, "signing failed; the signer's log has the details", http.StatusInternalServerError)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a caller that has gone needs no answer
}
