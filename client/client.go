// Package client speaks to the API of a Parley node.
//
// A Client is safe for concurrent use and keeps connections open for reuse. Its
// methods return what the API returns, in types of their own; an error of the
// node is an *Error with code and HTTP status. Listen follows the node's events
// over a WebSocket and reconnects by itself.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client calls one namespace of one node.
type Client struct {
	base      string // http://host:port
	namespace string
	http      *http.Client
	header    http.Header
}

// Option changes how a Client is made.
type Option func(*Client)

// WithNamespace chooses a namespace other than "default".
func WithNamespace(name string) Option { return func(c *Client) { c.namespace = name } }

// WithHTTPClient uses another HTTP client, for TLS or a transport of one's own.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithHeader sends a header with each request, such as Authorization.
func WithHeader(name, value string) Option { return func(c *Client) { c.header.Set(name, value) } }

// WithAPIKey sends an API key with each request, also of WebSockets.
func WithAPIKey(key string) Option { return WithHeader("Authorization", "Bearer "+key) }

// WithBasicAuth sends a user name and password with each request.
func WithBasicAuth(user, password string) Option {
	return func(c *Client) {
		r := http.Request{Header: c.header}
		r.SetBasicAuth(user, password)
	}
}

// maxIdle is how many idle connections are kept for reuse: a load generator
// with fewer would spend its time on opening connections.
const maxIdle = 256

// New returns a client of the node at a base URL such as http://127.0.0.1:5000.
// It makes no request.
func New(baseURL string, options ...Option) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("node address: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("node address %q: write it as http://host:port or https://host:port", baseURL)
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConns:        maxIdle,
		MaxIdleConnsPerHost: maxIdle,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	c := &Client{base: strings.TrimRight(baseURL, "/"), namespace: "default", http: &http.Client{Transport: transport}, header: http.Header{}}
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// URL is the node's address as New was told, without a slash at the end.
func (c *Client) URL() string { return c.base }

// Namespace is the namespace that the client calls.
func (c *Client) Namespace() string { return c.namespace }

// Close closes the connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is an error that the node answered with.
type Error struct {
	Status     int           // of HTTP
	Code       string        // FFnnnnn; "" if the answer has none
	Text       string        // as the node wrote it, with the code
	RetryAfter time.Duration // how long the node asks to wait; 0 if it does not
}

func (e *Error) Error() string { return fmt.Sprintf("HTTP %d: %s", e.Status, e.Text) }

// IsNotFound reports whether err is a node's answer that something is not there.
func IsNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// IsDuplicate reports whether err refuses an idempotency key that was used
// before.
func IsDuplicate(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Code == "FF10430" || e.Code == "FF10431")
}

// IsOverload reports whether the node asks to come back later; RetryAfter says
// when.
func IsOverload(err error) bool {
	return hasStatus(err, http.StatusTooManyRequests) || hasStatus(err, http.StatusServiceUnavailable)
}

// IsStarting reports whether the node runs, and the namespace does not yet: try
// again in a moment.
func IsStarting(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == "FF10441"
}

func hasStatus(err error, status int) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == status
}

// maxError bounds how much of an error's body is read.
const maxError = 64 << 10

func errorOf(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode, Text: resp.Status}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		return e // the status tells enough
	}
	var body struct {
		Error string `json:"error"`
	}
	switch {
	case json.Unmarshal(b, &body) == nil && body.Error != "":
		e.Text = body.Error
	case len(bytes.TrimSpace(b)) > 0:
		e.Text = string(bytes.TrimSpace(b))
	}
	if len(e.Text) > 7 && strings.HasPrefix(e.Text, "FF") && e.Text[7] == ':' {
		e.Code = e.Text[:7]
	}
	return e
}

// path is the URL of an operation of the namespace. Parts are escaped.
func (c *Client) path(query url.Values, parts ...string) string {
	return c.url(query, append([]string{"namespaces", c.namespace}, parts...)...)
}

func (c *Client) url(query url.Values, parts ...string) string {
	var b strings.Builder
	b.WriteString(c.base + "/api/v1")
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(escape(p))
	}
	if len(query) > 0 {
		b.WriteByte('?')
		b.WriteString(query.Encode())
	}
	return b.String()
}

// escape writes one segment of a path; the node reads + as a space.
func escape(segment string) string { return strings.ReplaceAll(url.PathEscape(segment), "+", "%2B") }

// do sends a request and decodes the answer into out, unless that is nil.
func (c *Client) do(ctx context.Context, method, address string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, address, "application/json", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return drain(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", method, address, err)
	}
	return drain(resp)
}

// drain reads what follows an answer, so that the connection can be reused.
func drain(resp *http.Response) error {
	_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxError))
	return err
}

// send sends a request; an answer that is no success becomes an error.
func (c *Client) send(ctx context.Context, method, address, kind string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if deadline, ok := ctx.Deadline(); ok {
		// The node is not to work for a caller that has given up.
		req.Header.Set("Request-Timeout", strconv.FormatFloat(max(time.Until(deadline).Seconds(), 0.001), 'f', 3, 64))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer resp.Body.Close()
		return nil, errorOf(resp)
	}
	return resp, nil
}

// get reads one object.
func get[T any](ctx context.Context, c *Client, query url.Values, parts ...string) (*T, error) {
	out := new(T)
	if err := c.do(ctx, http.MethodGet, c.path(query, parts...), nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// all reads a list.
func all[T any](ctx context.Context, c *Client, query url.Values, parts ...string) (out []T, err error) {
	return out, c.do(ctx, http.MethodGet, c.path(query, parts...), nil, &out)
}

// post sends an object and reads the answer.
func post[T any](ctx context.Context, c *Client, in any, query url.Values, parts ...string) (*T, error) {
	out := new(T)
	if err := c.do(ctx, http.MethodPost, c.path(query, parts...), in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// CallOption changes one call.
type CallOption func(url.Values)

// Confirm makes a call wait until the network has confirmed what it does; the
// context's deadline bounds the wait.
func Confirm() CallOption { return func(q url.Values) { q.Set("confirm", "true") } }

func queryOf(options []CallOption) url.Values {
	q := url.Values{}
	for _, o := range options {
		o(q)
	}
	return q
}

// Ready reports whether the node answers and its organisation and node are
// registered with the network.
func (c *Client) Ready(ctx context.Context) (bool, error) {
	st, err := c.Status(ctx)
	if err != nil {
		return false, err
	}
	return st.Org.Registered && st.Node.Registered, nil
}

// WaitReady waits until Ready, or until ctx ends; then its error says what the
// last attempt found.
func (c *Client) WaitReady(ctx context.Context) error {
	const pause = 50 * time.Millisecond
	for {
		ready, err := c.Ready(ctx)
		if ready {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if err == nil {
				err = errors.New("it is not registered with the network yet")
			}
			return fmt.Errorf("node %s is not ready: %w", c.base, err)
		}
	}
}
