package client_test

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/parley-node/parley/client"
	"github.com/parley-node/parley/internal/store"
)

type storeTx = store.Tx

// hijacked keeps the connection that a WebSocket takes over, to cut it.
type hijacked struct {
	http.ResponseWriter
	mu   sync.Mutex
	conn net.Conn
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn = conn
	return conn, rw, err
}

func (h *hijacked) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != nil {
		h.conn.Close()
	}
}

func hasCode(err error, code string) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Code == code
}
