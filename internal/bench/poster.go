package bench

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
)

// poster posts one message over and over on a connection of its own. The request
// is written once and sent as bytes, so that the load takes little of the machine
// that it measures.
type poster struct {
	address *url.URL
	request []byte

	conn net.Conn // nil until dialled, and after a failure
	in   *bufio.Reader
	body bytes.Buffer
}

// prepare makes the request that all posters of a load send.
func prepare(base, path string, message any) (*url.URL, []byte, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, nil, fmt.Errorf("address of the sender: %w", err)
	}
	body, err := json.Marshal(message)
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, u.Host, len(body))
	b.Write(body)
	return u, b.Bytes(), nil
}

// post sends the message, or the call, and returns its id.
func (p *poster) post(timeout time.Duration) (id uuid.UUID, err error) {
	if p.conn == nil {
		if err := p.dial(timeout); err != nil {
			return id, err
		}
	}
	defer func() {
		if err != nil {
			p.close() // what follows on it is not known
		}
	}()
	if err := p.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return id, err
	}
	if _, err := p.conn.Write(p.request); err != nil {
		return id, fmt.Errorf("post: %w", err)
	}
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return id, fmt.Errorf("read the answer: %w", err)
	}
	defer resp.Body.Close()
	p.body.Reset()
	if _, err := io.Copy(&p.body, resp.Body); err != nil {
		return id, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusAccepted {
		return id, fmt.Errorf("HTTP %s: %s", resp.Status, bytes.TrimSpace(p.body.Bytes()))
	}
	var m struct {
		ID     uuid.UUID `json:"id"` // of an operation
		Header struct {
			ID uuid.UUID `json:"id"` // of a message
		} `json:"header"`
	}
	if err := json.Unmarshal(p.body.Bytes(), &m); err != nil {
		return id, fmt.Errorf("read the answer: %w", err)
	}
	if m.ID != uuid.Nil {
		return m.ID, nil
	}
	return m.Header.ID, nil
}

func (p *poster) dial(timeout time.Duration) (err error) {
	d := &net.Dialer{Timeout: timeout}
	host := p.address.Host
	if p.address.Scheme == "https" {
		if p.address.Port() == "" {
			host = net.JoinHostPort(host, "443")
		}
		p.conn, err = tls.DialWithDialer(d, "tcp", host, nil)
	} else {
		if p.address.Port() == "" {
			host = net.JoinHostPort(host, "80")
		}
		p.conn, err = d.Dial("tcp", host)
	}
	if err != nil {
		p.conn = nil
		return fmt.Errorf("connect to the sender: %w", err)
	}
	p.in = bufio.NewReader(p.conn)
	return nil
}

func (p *poster) close() {
	if p.conn != nil {
		_ = p.conn.Close() // nothing more is expected of it
		p.conn = nil
	}
}
