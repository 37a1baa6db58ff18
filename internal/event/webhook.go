package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/trace"
)

const (
	maxAnswer     = 512 << 10 // bytes of an answer that becomes a reply
	maxDiscarded  = 64 << 10  // bytes of another answer that are read, so that its connection can be used again
	maxExcerpt    = 200       // bytes of a refusal that the log keeps
	maxRedirects  = 5
	userAgent     = "parley-webhook"
	mediaJSON     = "application/json"
	maxPathPieces = 64
)

// webhook calls a URL with each frame. An answer of 2xx means that the receiver
// has taken it.
type webhook struct {
	options *webhookOptions
	url     *url.URL
	key     []byte // signs; nil for none
	client  *http.Client
	guard   *guard
	source  string // of CloudEvents
}

// open completes an outlet that calls a webhook.
func (w *webhookOptions) open(out *outlet) error {
	u, err := url.Parse(w.URL)
	if err != nil {
		return fmt.Errorf("options.url: %w", err)
	}
	hook := &webhook{options: w, url: u, guard: out.guard, source: out.cfg.Source}
	if out.sub.Secret != "" {
		if hook.key, err = parseSecret(out.sub.Secret); err != nil {
			return err
		}
	}
	transport, err := w.transport(out.Outbound)
	if err != nil {
		return err
	}
	hook.client = &http.Client{Transport: transport, CheckRedirect: checkRedirect}
	out.target, out.policy = hook, w.policy()
	if w.Reply {
		out.skip = isReply
		out.reply = func(ctx context.Context, f *Frame, o attempt) error { return w.sendReply(ctx, out, f, o) }
	}
	return nil
}

// transport is an HTTP client's connections: its own, so that one receiver
// cannot use up those of another.
func (w *webhookOptions) transport(o *Outbound) (*http.Transport, error) {
	h := w.HTTP
	t := &http.Transport{
		DialContext:           o.guard.dial(net.Dialer{Timeout: h.ConnectionTimeout.or(30 * time.Second)}),
		TLSHandshakeTimeout:   h.TLSHandshakeTimeout.or(10 * time.Second),
		ExpectContinueTimeout: h.ExpectContinueTimeout.or(time.Second),
		IdleConnTimeout:       h.IdleTimeout.or(90 * time.Second),
		MaxIdleConns:          h.MaxIdleConns,
		MaxIdleConnsPerHost:   maxFast,
		ForceAttemptHTTP2:     true,
	}
	if w.TLSConfigName != "" {
		c, known := o.cfg.TLS[w.TLSConfigName]
		if !known {
			return nil, fmt.Errorf("options.tlsConfigName: the configuration has no events.tls.%s any more", w.TLSConfigName)
		}
		t.TLSClientConfig = c.Clone()
	}
	if h.ProxyURL != "" {
		proxy, err := url.Parse(h.ProxyURL)
		if err != nil {
			return nil, fmt.Errorf("options.httpOptions.proxyURL: %w", err)
		}
		t.Proxy = http.ProxyURL(proxy)
	}
	return t, nil
}

// checkRedirect follows only what repeats the request as it is, to where it was
// sent: a redirect to a login page, whose 200 would acknowledge an event that
// nobody has seen, and one to somebody else's server are failures.
func checkRedirect(next *http.Request, via []*http.Request) error {
	first := via[0]
	same := next.URL.Scheme == first.URL.Scheme && next.URL.Host == first.URL.Host
	secured := next.URL.Scheme == "https" && next.URL.Hostname() == first.URL.Hostname()
	if !(same || secured) || next.Method != first.Method || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}

func (h *webhook) close() { h.client.CloseIdleConnections() }

// send makes one request and waits for its answer.
func (h *webhook) send(ctx context.Context, f *Frame) attempt {
	ctx, cancel := context.WithTimeout(ctx, h.options.HTTP.RequestTimeout.or(defaultRequestTime))
	defer cancel()
	req, err := h.request(ctx, f)
	if err != nil {
		return h.failed(attempt{err: err, permanent: true})
	}
	if h.options.HTTP.ProxyURL != "" {
		if err := h.guard.resolve(ctx, h.url.Hostname()); err != nil {
			return h.failed(attempt{err: err})
		}
	}
	resp, err := h.client.Do(req)
	if err != nil {
		if cause := (*url.Error)(nil); errors.As(err, &cause) {
			err = cause.Err // without the URL, whose query may hold secrets
		}
		return h.failed(attempt{err: err})
	}
	defer resp.Body.Close()
	out := attempt{status: resp.StatusCode}
	body, err := h.read(resp)
	if err != nil && h.options.Reply {
		return h.failed(attempt{err: fmt.Errorf("read the answer: %w", err), status: resp.StatusCode})
	}
	// Without a reply the status alone counts, and it has come.
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		out.err = fmt.Errorf("the receiver answered %s: %s", resp.Status, cut(string(body), maxExcerpt))
		if to := resp.Header.Get("Location"); to != "" {
			out.err = fmt.Errorf("the receiver answered %s, a redirect to %q that is not followed; give the final URL", resp.Status, cut(to, maxExcerpt))
		}
		out.after = retryAfter(resp.Header)
	}
	if h.options.Reply {
		out.answer = answerOf(resp, body, h.options.JSON)
	}
	return out
}

// read reads as much of an answer as is needed.
func (h *webhook) read(resp *http.Response) ([]byte, error) {
	if !h.options.Reply {
		return io.ReadAll(io.LimitReader(resp.Body, maxDiscarded))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("it has more than the %d bytes that a reply may have", maxAnswer)
	}
	return body, err
}

// failed completes the attempt of a request without an answer: whoever waits for
// a reply hears that, too.
func (h *webhook) failed(out attempt) attempt {
	if h.options.Reply {
		out.answer = failedAnswer(out.err)
	}
	return out
}

// retryAfter is how long a receiver asks to be left alone (RFC 9110, section
// 10.2.3), 0 if it does not.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// request makes the request of a frame.
func (h *webhook) request(ctx context.Context, f *Frame) (*http.Request, error) {
	c, err := h.content(f)
	if err != nil {
		return nil, err
	}
	var body io.Reader
	switch h.options.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		body = bytes.NewReader(c.body)
	default:
		c.body = nil
	}
	req, err := http.NewRequestWithContext(ctx, h.options.Method, c.url.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header = c.header
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", c.kind)
	}
	if parent := f.Events[0].trace(); parent != "" && !f.Batch {
		req.Header.Set(trace.Header, parent)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", userAgent)
	}
	sign(req.Header, h.key, f.ID.String(), time.Now(), c.body)
	return req, nil
}

// content is what a request is made of.
type content struct {
	url    *url.URL
	header http.Header
	body   []byte
	kind   string // of the body
}

// content makes the parts of a request. Those that the message's data chooses
// come first, so that those of the subscription win: a sender of messages may
// not replace a receiver's credentials.
func (h *webhook) content(f *Frame) (*content, error) {
	o := h.options
	c := &content{url: h.url, header: http.Header{}, kind: mediaJSON}
	query := h.url.Query()
	first := firstValue(f)
	if !f.Batch && first != nil {
		headers, err := texts(first, o.Input.Headers)
		if err != nil {
			return nil, err
		}
		for name, value := range headers {
			if err := checkHeader(name, value); err != nil {
				return nil, fmt.Errorf("the data's field %q: %w", o.Input.Headers, err)
			}
			c.header.Set(name, value)
		}
		added, err := texts(first, o.Input.Query)
		if err != nil {
			return nil, err
		}
		for name, value := range added {
			query.Set(name, value)
		}
		if c.url, err = extend(c.url, first, o.Input.Path); err != nil {
			return nil, err
		}
	}
	for name, value := range o.Query {
		query.Set(name, value)
	}
	if encoded := query.Encode(); len(o.Query) > 0 || encoded != h.url.Query().Encode() {
		u := *c.url
		u.RawQuery = encoded
		c.url = &u
	}
	for name, value := range o.Headers {
		c.header.Set(name, value)
	}
	var err error
	if o.Envelope != "" {
		c.body, c.kind, err = cloudEvents(f, h.source, h.payload)
		return c, err
	}
	c.body, err = h.body(f)
	return c, err
}

// body is the request's body without an envelope.
func (h *webhook) body(f *Frame) ([]byte, error) {
	if !f.Batch {
		return h.payload(f, 0)
	}
	all := make([]json.RawMessage, len(f.Events))
	for i := range f.Events {
		var err error
		if all[i], err = h.payload(f, i); err != nil {
			return nil, err
		}
	}
	return json.Marshal(all)
}

// payload is what a receiver gets of an event: the data of its message, or else
// the event itself.
func (h *webhook) payload(f *Frame, i int) (json.RawMessage, error) {
	e := &f.Events[i]
	if !h.options.withData || len(e.Data) == 0 {
		return json.Marshal(deliveryFrame{e, &f.Subscription})
	}
	if field := h.options.Input.Body; field != "" {
		if value, there := firstValue(f)[field]; there {
			return value, nil
		}
		return json.RawMessage("{}"), nil // as existing receivers know it
	}
	values := make([]json.RawMessage, len(e.Data))
	for i, d := range e.Data {
		values[i] = d.Value
		if len(trimJSON(d.Value)) == 0 {
			values[i] = json.RawMessage("null") // a blob without a value
		}
	}
	if len(values) == 1 {
		return values[0], nil
	}
	return json.Marshal(values)
}

// firstValue is the first data value of an event's message, nil if it is no
// object.
func firstValue(f *Frame) map[string]json.RawMessage {
	if f.Batch || len(f.Events[0].Data) == 0 {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(f.Events[0].Data[0].Value, &fields) != nil {
		return nil
	}
	return fields
}

// texts reads the field of a value that holds an object of texts; other values
// in it are written as JSON.
func texts(value map[string]json.RawMessage, field string) (map[string]string, error) {
	text, there := value[field]
	if field == "" || !there {
		return nil, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("the data's field %q is no object, so that it gives neither headers nor query", field)
	}
	out := make(map[string]string, len(all))
	for name, v := range all {
		var s string
		if json.Unmarshal(v, &s) != nil {
			s = string(trimJSON(v))
		}
		out[name] = s
	}
	return out, nil
}

// extend adds the path that a field of a value holds. Its pieces are escaped, and
// none may lead out of the URL's path.
func extend(u *url.URL, value map[string]json.RawMessage, field string) (*url.URL, error) {
	text, there := value[field]
	if field == "" || !there {
		return u, nil
	}
	var path string
	if err := json.Unmarshal(text, &path); err != nil {
		return nil, fmt.Errorf("the data's field %q is no text, so that it gives no path", field)
	}
	pieces := strings.Split(strings.Trim(path, "/"), "/")
	if len(pieces) > maxPathPieces {
		return nil, fmt.Errorf("the data's field %q has a path of %d pieces; at most %d are taken", field, len(pieces), maxPathPieces)
	}
	for i, piece := range pieces {
		if piece == "." || piece == ".." {
			return nil, fmt.Errorf("the data's field %q has the path %q, which would leave that of the webhook", field, cut(path, maxExcerpt))
		}
		pieces[i] = url.PathEscape(piece)
	}
	return u.JoinPath(pieces...), nil
}

// permanent says whether an error will be the same the next time.
func permanent(err error) bool {
	status := errs.Status(err)
	return errs.Code(err) != "" && status >= 400 && status < 500 && status != http.StatusRequestTimeout
}
