package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/parley-node/parley/internal/keys/keystore"
	"github.com/parley-node/parley/internal/node"
	"github.com/parley-node/parley/internal/signer"
	"github.com/parley-node/parley/wire"
)

type signerCmd struct {
	Run signerRunCmd `cmd:"" help:"Sign transactions for nodes elsewhere, with the keys of a folder, until it is told to stop."`
	New signerNewCmd `cmd:"" help:"Put a new key into the folder."`
}

type signerRunCmd struct {
	Keystore       string `type:"path" required:"" help:"Folder of V3 key files; it is read again as it changes." placeholder:"DIR"`
	PassphraseFile string `type:"path" help:"Its first line opens files that have no .password file of their own." placeholder:"FILE"`
	Listen         string `default:"127.0.0.1:9000" help:"Address to serve the web3signer API and eth_signTransaction on." placeholder:"HOST:PORT"`
	TokenFile      string `type:"path" help:"Its first line is the bearer token that callers must show." placeholder:"FILE"`
	Cert           string `type:"path" help:"PEM certificate; with --key the service speaks TLS." placeholder:"FILE"`
	Key            string `type:"path" help:"PEM key of the certificate." placeholder:"FILE"`
	ClientCA       string `name:"client-ca" type:"path" help:"PEM certificates; callers must show one that they vouch for (mutual TLS)." placeholder:"FILE"`
}

// Help adds to --help.
func (signerRunCmd) Help() string {
	return `Keys stay on this machine; nodes name it in contracts.signer of parley.yaml. It signs
transactions only, and logs each with who asked and why. Away from loopback it wants
--token-file or --client-ca, and --cert with --key.`
}

func (cmd signerRunCmd) Run(ctx context.Context) (err error) {
	host, _, err := net.SplitHostPort(cmd.Listen)
	if err != nil {
		return usageError{fmt.Errorf("--listen %q is not of the form host:port", cmd.Listen)}
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		if cmd.TokenFile == "" && cmd.ClientCA == "" || cmd.Cert == "" {
			return usageError{errors.New("--listen is no loopback address: whoever reached it could sign with your keys; add --cert, --key and --token-file or --client-ca")}
		}
	}
	if (cmd.Cert == "") != (cmd.Key == "") || cmd.ClientCA != "" && cmd.Cert == "" {
		return usageError{errors.New("--cert and --key belong together, and --client-ca needs both")}
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg := signer.Config{Log: log}
	if cmd.TokenFile != "" {
		if cfg.Token, err = node.FirstLine(cmd.TokenFile); err != nil {
			return usageError{fmt.Errorf("--token-file: %w", err)}
		}
	}
	// The service logs each signature itself, with who asked.
	folder, err := keystore.Open(cmd.Keystore, keystore.Options{PassphraseFile: cmd.PassphraseFile})
	if err != nil {
		return usageError{err}
	}
	cfg.Keys = folder
	accounts, err := folder.Accounts(ctx)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: signer.Handler(cfg), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	listener, err := net.Listen("tcp", cmd.Listen)
	if err != nil {
		return err
	}
	if cmd.Cert != "" {
		conf, err := cmd.tls()
		if err != nil {
			return errors.Join(usageError{err}, listener.Close())
		}
		listener = tls.NewListener(listener, conf)
	}
	log.Info("the signer runs", "address", listener.Addr().String(), "keys", len(accounts))
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() }) // requests are short; a cut one is asked again
	defer stopped()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (cmd signerRunCmd) tls() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cmd.Cert, cmd.Key)
	if err != nil {
		return nil, fmt.Errorf("--cert and --key: %w", err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if cmd.ClientCA == "" {
		return conf, nil
	}
	text, err := os.ReadFile(cmd.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("--client-ca: %w", err)
	}
	conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !conf.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--client-ca: %s holds no certificate in PEM", cmd.ClientCA)
	}
	return conf, nil
}

type signerNewCmd struct {
	Keystore       string `type:"path" required:"" help:"The folder." placeholder:"DIR"`
	PassphraseFile string `type:"path" required:"" help:"Its first line encrypts the key." placeholder:"FILE"`
}

// scryptStrength is what Ethereum clients use: 2^18.
const scryptStrength = 18

func (cmd signerNewCmd) Run(context.Context) error {
	passphrase, err := node.FirstLine(cmd.PassphraseFile)
	if err != nil {
		return usageError{fmt.Errorf("--passphrase-file: %w", err)}
	}
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return err
	}
	text, err := keystore.Encrypt(key, passphrase, scryptStrength)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cmd.Keystore, 0o700); err != nil {
		return err
	}
	address := wire.AddressOf(key).String()
	path := filepath.Join(cmd.Keystore, address+".json")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	fmt.Println(address)
	return nil
}
