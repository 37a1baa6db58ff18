package ethtest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Proxy stands between a driver and a node, and can lie.
type Proxy struct {
	target string
	server *httptest.Server

	mu     sync.Mutex
	down   bool
	change func(method string, params []json.RawMessage, result json.RawMessage) json.RawMessage
	asked  map[string]int // calls by method
	fault  func(method string, done bool) bool
}

// NewProxy starts a proxy in front of an endpoint.
func NewProxy(t testing.TB, target string) *Proxy {
	p := &Proxy{target: target, asked: map[string]int{}}
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

// URL is the proxy's own endpoint.
func (p *Proxy) URL() string { return p.server.URL }

// Cut makes every request fail until it is restored.
func (p *Proxy) Cut() (restore func()) {
	p.Set(true)
	return func() { p.Set(false) }
}

func (p *Proxy) Set(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// Lie changes results from now on; nil makes the answer an error.
func (p *Proxy) Lie(change func(method string, params []json.RawMessage, result json.RawMessage) json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change = change
}

// Fail sets a function that is asked about each call before it is passed on, and
// again when the chain has answered it (done). If it says true, the request fails:
// lost in the first case, done but unknown to the caller in the second. Nil ends
// that.
func (p *Proxy) Fail(fault func(method string, done bool) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// fails asks about all calls of a request.
func (p *Proxy) fails(requests []rpcRequest, done bool) bool {
	p.mu.Lock()
	fault := p.fault
	p.mu.Unlock()
	if fault == nil {
		return false
	}
	for _, q := range requests {
		if fault(q.Method, done) {
			return true
		}
	}
	return false
}

// Count is how often a method was asked for.
func (p *Proxy) Count(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[method]
}

type rpcRequest struct {
	ID     json.RawMessage   `json:"id"`
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
}

// ServeHTTP passes requests on, or fails them.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	single := !bytes.HasPrefix(bytes.TrimSpace(body), []byte("["))
	var requests []rpcRequest
	if single {
		requests = make([]rpcRequest, 1)
		err = json.Unmarshal(body, &requests[0])
	} else {
		err = json.Unmarshal(body, &requests)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	down, change := p.down, p.change
	for _, q := range requests {
		p.asked[q.Method]++
	}
	p.mu.Unlock()
	if down || p.fails(requests, false) {
		http.Error(w, "down", http.StatusBadGateway)
		return
	}
	resp, err := http.Post(p.target, "application/json", bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if p.fails(requests, true) {
		http.Error(w, "lost", http.StatusBadGateway)
		return
	}
	if change != nil {
		answer = rewrite(single, requests, answer, change)
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(answer); err != nil {
		return // the driver hung up
	}
}

func rewrite(single bool, requests []rpcRequest, answer []byte, change func(string, []json.RawMessage, json.RawMessage) json.RawMessage) []byte {
	var answers []map[string]json.RawMessage
	if single {
		answers = make([]map[string]json.RawMessage, 1)
		if json.Unmarshal(answer, &answers[0]) != nil {
			return answer
		}
	} else if json.Unmarshal(answer, &answers) != nil {
		return answer
	}
	for _, a := range answers {
		for _, q := range requests {
			if bytes.Equal(q.ID, a["id"]) && a["result"] != nil {
				if a["result"] = change(q.Method, q.Params, a["result"]); a["result"] == nil {
					delete(a, "result")
					a["error"] = json.RawMessage(`{"code":-32005,"message":"limit exceeded"}`)
				}
			}
		}
	}
	var out []byte
	var err error
	if single {
		out, err = json.Marshal(answers[0])
	} else {
		out, err = json.Marshal(answers)
	}
	if err != nil {
		return answer
	}
	return out
}
