package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/examples/healthcare"
	"github.com/parley-node/parley/internal/exchange"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/internal/ledger/evm"
	"github.com/parley-node/parley/wire"
)

// ledger: who does not belong to the group sees that a transfer took place, and
// verifies it with the chain.
func (s *story) ledger(ctx context.Context) (told, error) {
	a, b := s.insurerA(), s.outsiders()[0]
	batch, err := a.API.Batch(ctx, s.record.Batch)
	if err != nil {
		return told{}, err
	}
	s.root = batch.Hash
	transfers, err := b.API.Transfers(ctx, 0, 100)
	if err != nil {
		return told{}, err
	}
	var seen *client.Transfer
	for i := range transfers {
		if transfers[i].Root == s.root {
			seen = &transfers[i]
		}
	}
	ids := map[string]string{"root": s.root}
	if seen == nil {
		return told{ids: ids}, fmt.Errorf("%s does not see the transfer of root %s among %d", b.Name, s.root, len(transfers))
	}
	ids["record"], ids["transaction"] = fmt.Sprint(seen.Number), seen.TransactionHash
	if seen.Member {
		return told{ids: ids}, fmt.Errorf("%s says that it can read the transfer", b.Name)
	}
	if seen.Author.Name != a.Name {
		return told{ids: ids}, fmt.Errorf("%s sees %q as the author, it was %s", b.Name, seen.Author.Name, a.Name)
	}
	if s.broken {
		if err := b.tamper(ctx, `UPDATE records SET block_hash = zeroblob(32) WHERE number = $1`, int64(seen.Number)); err != nil {
			return told{ids: ids}, err
		}
	}
	included, err := b.API.VerifyTransfer(ctx, seen.Number)
	if err != nil {
		return told{ids: ids}, err
	}
	if !included.Included {
		return told{ids: ids}, fmt.Errorf("%s could not verify it: %s", b.Name, included.Reason)
	}
	// And without any node: the chain itself.
	if err := s.onChain(ctx, b, seen); err != nil {
		return told{ids: ids}, err
	}
	return told{fmt.Sprintf("%s sees that %s pinned root %s… at %s in block %d, and verified it with the chain",
		b.Name, seen.Author.Name, s.root[:12], seen.Time.Format("15:04:05.000"), seen.Block), ids}, nil
}

// onChain asks the ledger itself for a record, at a member's own endpoint.
func (s *story) onChain(ctx context.Context, m *Member, want *client.Transfer) error {
	c := m.Config.Ledger
	urls := c.URLs
	if c.Bundled != nil {
		urls = []string{"http://" + c.Bundled.RPC}
	}
	chain, err := evm.Open(ctx, evm.Config{URLs: urls, Contract: c.Contract, ChainID: c.ChainID})
	if err != nil {
		return err
	}
	defer chain.Close()
	found, err := chain.Verify(ctx, want.Number)
	if err != nil {
		return err
	}
	pinned, ok := found.Record.Body.(ledger.Pinned)
	switch {
	case !ok || pinned.Pin.Root.String() != want.Root:
		return fmt.Errorf("record %d on the chain is not the pin of root %s", want.Number, want.Root)
	case pinned.Org != s.insurerA().Org():
		return fmt.Errorf("on the chain, record %d is by organisation %s, not by insurer-a", want.Number, pinned.Org)
	case !found.Final || found.Record.Block.Hash.String() != want.BlockHash:
		return fmt.Errorf("record %d is not final in block %s", want.Number, want.BlockHash)
	}
	return nil
}

// names of the outsiders, for people.
func (s *story) outsiderNames() string {
	var names []string
	for _, m := range s.outsiders() {
		names = append(names, m.Name)
	}
	return strings.Join(names, " and ")
}

// outsiderAPI: the API shows the message to its receivers and not to others.
func (s *story) outsiderAPI(ctx context.Context) (told, error) {
	if s.broken {
		if err := s.leak(ctx); err != nil {
			return told{}, err
		}
	}
	if err := readable(ctx, s.hospital(), s.record, s.blob); err != nil {
		return told{}, fmt.Errorf("the hospital cannot read what was sent to it: %w", err)
	}
	for _, m := range s.outsiders() {
		if err := hidden(ctx, m, s.record, s.blob); err != nil {
			return told{}, err
		}
	}
	return told{fmt.Sprintf("asked for the message, its data and its attachment, the hospital's API gives them; those of %s answer 404", s.outsiderNames()), nil}, nil
}

// leak sends the record to everybody.
func (s *story) leak(ctx context.Context) error {
	g := s.group()
	g.Name = "leak"
	for _, m := range s.outsiders() {
		g.Members = append(g.Members, client.Member{Identity: m.Name})
	}
	sent, err := s.insurerA().API.Private(ctx, client.NewMessage{
		Header: client.Header{Topics: []string{claimTopic}}, Group: g, Data: []client.DataRef{{ID: s.record.Data[0].ID}, {ID: s.blob}},
	})
	if err != nil {
		return err
	}
	for _, m := range s.outsiders() {
		if _, err := m.confirmed(ctx, sent.Header.ID); err != nil {
			return err
		}
	}
	return nil
}

// readable says whether a member's API shows a message and its parts.
func readable(ctx context.Context, m *Member, msg *client.Message, blob string) error {
	if _, err := m.API.Message(ctx, msg.Header.ID); err != nil {
		return err
	}
	if _, err := m.API.Data(ctx, msg.Data[0].ID); err != nil {
		return err
	}
	return sameBlob(ctx, m, blob, healthcare.Scan)
}

// hidden says whether a member's API shows nothing of a message.
func hidden(ctx context.Context, m *Member, msg *client.Message, blob string) error {
	for what, ask := range map[string]func() error{
		"the message":    func() error { _, err := m.API.Message(ctx, msg.Header.ID); return err },
		"its data":       func() error { _, err := m.API.Data(ctx, msg.Data[0].ID); return err },
		"its attachment": func() error { _, _, err := m.API.Blob(ctx, blob); return err },
	} {
		switch err := ask(); {
		case err == nil:
			return fmt.Errorf("%s shows %s", m.Name, what)
		case !client.IsNotFound(err):
			return fmt.Errorf("%s, asked for %s: %w", m.Name, what, err)
		}
	}
	for _, query := range []url.Values{{"topics": {claimTopic}}, {"group": {msg.Header.Group}}} {
		found, err := m.API.Messages(ctx, query)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		if len(found) != 0 {
			return fmt.Errorf("%s lists message %s on topic %s", m.Name, found[0].Header.ID, claimTopic)
		}
	}
	return nil
}

// outsiderPull: whoever knows the true name of the sealed payload, which only
// its receivers can compute, gets it from their nodes only with a receiver's
// certificate.
func (s *story) outsiderPull(ctx context.Context) (told, error) {
	name, err := s.objectName()
	if err != nil {
		return told{}, err
	}
	if _, err := pull(ctx, s.hospital(), s.insurerA(), name); err != nil {
		return told{}, fmt.Errorf("the hospital cannot pull its own message from insurer-a: %w", err)
	}
	pulls := 0
	for _, m := range s.outsiders() {
		as := m
		if s.broken {
			as = s.hospital()
		}
		for _, from := range s.Members {
			if from == m || from == as {
				continue
			}
			body, err := pull(ctx, as, from, name)
			if err == nil {
				return told{}, fmt.Errorf("%s gave the sealed payload (%d bytes) to the certificate of %s", from.Name, len(body), m.Name)
			}
			if !errors.Is(err, exchange.ErrNotFound) {
				return told{}, fmt.Errorf("pull from %s with the certificate of %s: %w", from.Name, m.Name, err)
			}
			pulls++
		}
	}
	return told{fmt.Sprintf("told the payload's secret name, the hospital pulls it from insurer-a; with the certificates of %s, %d pulls from all peers find nothing", s.outsiderNames(), pulls), nil}, nil
}

// outsiderDecrypt: with all secrets and keys that an outsider holds, the sealed
// payload stays sealed.
func (s *story) outsiderDecrypt(ctx context.Context) (told, error) {
	name, err := s.objectName()
	if err != nil {
		return told{}, err
	}
	body, err := pull(ctx, s.hospital(), s.insurerA(), name)
	if err != nil {
		return told{}, err
	}
	var sealed wire.Envelope
	if err := wire.Unmarshal(body, &sealed); err != nil {
		return told{}, err
	}
	if opened, err := opens(s.hospital(), s.hospital(), &sealed); err != nil || !opened {
		return told{}, fmt.Errorf("the hospital cannot open what was sent to it (%v)", err)
	}
	for _, m := range s.outsiders() {
		secrets := m
		if s.broken {
			secrets = s.hospital()
		}
		opened, err := opens(secrets, m, &sealed)
		if err != nil {
			return told{}, err
		}
		if opened {
			return told{}, fmt.Errorf("%s can open the payload", m.Name)
		}
	}
	return told{fmt.Sprintf("given the sealed payload (%d bytes), the hospital's secrets open it; no secret and no key of %s does", len(sealed.Sealed), s.outsiderNames()), nil}, nil
}

// outsiderFiles: no plain text of it, and no piece of the attachment, is in an
// outsider's folder.
func (s *story) outsiderFiles(ctx context.Context) (told, error) {
	if s.broken {
		if err := os.WriteFile(filepath.Join(s.outsiders()[0].Config.Dir, "blobs", "stray"), healthcare.Scan, 0o600); err != nil {
			return told{}, err
		}
	}
	middle := len(healthcare.Scan) / 2
	needles := map[string][]byte{
		"the patient's id":          []byte("MBR-000-SYNTHETIC"),
		"the claim's number":        []byte("CLM-2026-000417"),
		"a piece of the scan":       healthcare.Scan[middle : middle+64],
		"the topic's name":          []byte(claimTopic),
		"a piece of the attachment": bytes.Clone(healthcare.ClaimBundle[2000:2064]),
	}
	found, size, err := search(ctx, s.hospital().Config.Dir, needles)
	if err != nil {
		return told{}, err
	}
	for what := range needles {
		if found[what] == "" {
			return told{}, fmt.Errorf("the search is worthless: it does not find %s in the hospital's folder", what)
		}
	}
	var total int64
	for _, m := range s.outsiders() {
		found, size, err := search(ctx, m.Config.Dir, needles)
		if err != nil {
			return told{}, err
		}
		for what, file := range found {
			return told{}, fmt.Errorf("%s has %s in %s", m.Name, what, file)
		}
		total += size
	}
	return told{fmt.Sprintf("searched byte by byte, the hospital's folder (%d MB) holds the record, the topic's name and the attachments; the folders of %s (%d MB) hold none of it",
		size>>20, s.outsiderNames(), total>>20), nil}, nil
}
