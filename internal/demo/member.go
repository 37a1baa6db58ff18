package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/node"
	"github.com/parley-node/parley/wire"
)

// Member is one organisation of the demonstration: a folder and a process.
type Member struct {
	Name   string
	Config *node.Config
	API    string // URL

	admin string
	proc  *process // nil while it is down
	relay *relay   // where the others reach its exchange
}

// Org is the organisation's id on the ledger.
func (m *Member) Org() wire.OrgID { return m.Config.OrgID() }

// StatusError is an answer of an API other than success.
type StatusError struct {
	Status int
	Text   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Text) }

// requestTimeout bounds one request of the demonstration.
const requestTimeout = 30 * time.Second

// get reads a resource of the member's API; path is below /api/v1.
func (m *Member) get(ctx context.Context, path string, out any) error {
	return m.call(ctx, http.MethodGet, m.API+"/api/v1/"+path, "", nil, out)
}

// post sends a JSON body to the member's API.
func (m *Member) post(ctx context.Context, path string, body, out any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return m.call(ctx, http.MethodPost, m.API+"/api/v1/"+path, "application/json", bytes.NewReader(text), out)
}

// call makes a request and decodes its answer: JSON, or bytes if out is a
// *[]byte.
func (m *Member) call(ctx context.Context, method, url, contentType string, body io.Reader, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: %s %s: read the answer: %w", m.Name, method, url, err)
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s: %s %s: %w", m.Name, method, url, &StatusError{resp.StatusCode, strings.TrimSpace(string(text))})
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = text
		return nil
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s: %s %s: %w", m.Name, method, url, err)
	}
	return nil
}

// ledgerStatus is what the demonstration reads of status/ledger.
type ledgerStatus struct {
	Records    uint64 `json:"records"`
	Applied    uint64 `json:"applied"`
	Connection struct {
		State     string `json:"state"`
		Waiting   string `json:"waiting"`
		Validator struct {
			PID int    `json:"pid"`
			RPC string `json:"rpc"`
		} `json:"validator"`
	} `json:"connection"`
}

// ledger is how the member's node stands with the ledger.
func (m *Member) ledger(ctx context.Context) (s ledgerStatus, err error) {
	err = m.call(ctx, http.MethodGet, m.admin+"/api/v1/status/ledger", "", nil, &s)
	return s, err
}
