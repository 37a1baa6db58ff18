package event

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/errs"
)

// The JSON names of the options that only some transports have.
const (
	optParallelTopics = "parallelTopics"
	optSecret         = "secret"
	optTLSConfig      = "tlsConfigName"
	optEnvelope       = "envelope"
)

// hiddenSecret stands in the options for a secret that is kept apart from them.
const hiddenSecret = "********"

const (
	defaultRetries      = 100 // about 45 minutes with the default delays
	defaultCountedRetry = 5   // where an application turns the retry on as existing clients do
	defaultFirstDelay   = 250 * time.Millisecond
	defaultLongestDelay = 30 * time.Second
	defaultRequestTime  = 30 * time.Second
)

// webhookOptions is how a webhook is called.
type webhookOptions struct {
	URL            string
	Method         string            // POST if empty
	Headers, Query map[string]string // of every request
	TLSConfigName  string
	Secret         string // hiddenSecret if requests are signed
	Envelope       string // "" or cloudevents
	Input          inputOptions
	FastAck        bool // acknowledge first, call later
	Reply          bool // send the answer as a message
	ReplyTag       string
	ReplyTx        string
	JSON           bool // take the answer for JSON whatever its type
	ParallelTopics bool // topics do not wait for each other
	AckAnyStatus   bool // acknowledge whatever the answer
	DeadLetter     *bool
	Retry          retryOptions
	HTTP           httpOptions

	withData, batch bool
}

// inputOptions name fields of a message's first data value that make the request.
type inputOptions struct {
	Query   string `json:"query"`
	Headers string `json:"headers"`
	Path    string `json:"path"`
	Body    string `json:"body"`
	ReplyTx string `json:"replytx"`
}

type retryOptions struct {
	Enabled      *bool    `json:"enabled"`
	Count        *int     `json:"count"`
	InitialDelay duration `json:"initialDelay"`
	MaxDelay     duration `json:"maxDelay"`
}

// httpOptions tune the HTTP client; zero means the default.
type httpOptions struct {
	ProxyURL              string   `json:"proxyURL"`
	TLSHandshakeTimeout   duration `json:"tlsHandshakeTimeout"`
	RequestTimeout        duration `json:"requestTimeout"`
	MaxIdleConns          int      `json:"maxIdleConns"`
	IdleTimeout           duration `json:"idleTimeout"`
	ConnectionTimeout     duration `json:"connectionTimeout"`
	ExpectContinueTimeout duration `json:"expectContinueTimeout"`
}

// duration is "50ms", or a number of milliseconds.
type duration time.Duration

func (d *duration) UnmarshalJSON(text []byte) error {
	s, err := textOrNumber(text)
	if err != nil || s == "" {
		return err
	}
	v, err := parseDuration(s)
	if err != nil {
		return errs.BadRequest(errs.CodeBadValue, "%q is not a duration such as 50ms or a number of milliseconds, not below 0", s)
	}
	*d = duration(v)
	return nil
}

// or is d, or a default for zero.
func (d duration) or(absent time.Duration) time.Duration { return cmp.Or(time.Duration(d), absent) }

// webhook reads the options of a webhook.
func (o *Options) webhook() (*webhookOptions, error) {
	w := &webhookOptions{
		withData: o.WithData == nil || *o.WithData,
		batch:    o.Batch != nil && *o.Batch,
	}
	w.withData = w.withData && !w.batch
	for _, f := range []struct {
		name string
		to   any
		want string
	}{
		{"url", &w.URL, "a text"},
		{"method", &w.Method, "a text"},
		{optTLSConfig, &w.TLSConfigName, "a text"},
		{optSecret, &w.Secret, "a text"},
		{optEnvelope, &w.Envelope, `"cloudevents"`},
		{"input", &w.Input, "an object with query, headers, path, body and replytx, each a text"},
		{"fastack", &w.FastAck, "true or false"},
		{"reply", &w.Reply, "true or false"},
		{"replytag", &w.ReplyTag, "a text"},
		{"replytx", &w.ReplyTx, "a text"},
		{"json", &w.JSON, "true or false"},
		{optParallelTopics, &w.ParallelTopics, "true or false"},
		{"ackAnyStatus", &w.AckAnyStatus, "true or false"},
		{"deadLetter", &w.DeadLetter, "true or false"},
		{"retry", &w.Retry, "an object with enabled (true or false), count (a whole number), initialDelay and maxDelay (durations)"},
		{"httpOptions", &w.HTTP, "an object with proxyURL, maxIdleConns and the durations requestTimeout, connectionTimeout, tlsHandshakeTimeout, idleTimeout and expectContinueTimeout"},
	} {
		if err := o.read(f.name, f.to, f.want); err != nil {
			return nil, err
		}
	}
	for name, to := range map[string]*map[string]string{"headers": &w.Headers, "query": &w.Query} {
		text, given := o.other[name]
		if given && json.Unmarshal(text, to) != nil {
			return nil, errs.BadRequest("FF10243", "options.%s is %s; it must be an object whose values are texts", name, text)
		}
	}
	w.Method = strings.ToUpper(cmp.Or(w.Method, http.MethodPost))
	return w, nil
}

// hideSecret takes the secret of a webhook out of the options and leaves
// hiddenSecret in its place. The secret may be hiddenSecret itself.
func (o *Options) hideSecret(transport string) (secret string, err error) {
	if transport != TransportWebhooks {
		return "", nil
	}
	if err := o.read(optSecret, &secret, "a text"); err != nil {
		// The text is not shown: it may be a secret.
		return "", errs.BadRequest(errs.CodeBadValue, "options.secret is no text; it must be whsec_ and 24 to 64 bytes in base64")
	}
	if secret == "" {
		return "", nil
	}
	if secret != hiddenSecret {
		if _, err := parseSecret(secret); err != nil {
			return "", err
		}
	}
	o.other = maps.Clone(o.other)
	o.other[optSecret] = json.RawMessage(`"` + hiddenSecret + `"`)
	return secret, nil
}

// checkTLS refuses the name of a TLS configuration that the operator has not
// made.
func (o *Options) checkTLS(outbound *Outbound) error {
	var name string
	if err := o.read(optTLSConfig, &name, "a text"); err != nil || name == "" {
		return err
	}
	var known map[string]*tls.Config
	if outbound != nil {
		known = outbound.cfg.TLS
	}
	if _, there := known[name]; !there {
		return errs.BadRequest("FF10455", "options.tlsConfigName is %q, which the node's configuration does not have in events.tls (it has %v); leave it out, or add it there", name, slices.Sorted(maps.Keys(known)))
	}
	return nil
}

var (
	// token is what a header's name and a method may be (RFC 9110, section 5.6.2).
	token = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

	// ours are headers that belong to the connection or to the signature.
	ours = []string{"Host", "Connection", "Content-Length", "Transfer-Encoding", "Trailer", "Upgrade", "Te", "Keep-Alive", "Proxy-Connection",
		"Proxy-Authorization", headerWebhookID, headerWebhookTime, headerWebhookSignature}
)

func checkHeader(name, value string) error {
	switch {
	case !token.MatchString(name):
		return errs.BadRequest(errs.CodeBadValue, "%q cannot be the name of an HTTP header", name)
	case slices.Contains(ours, http.CanonicalHeaderKey(name)):
		return errs.BadRequest(errs.CodeBadValue, "the HTTP header %q is set by the node; leave it out", name)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return errs.BadRequest(errs.CodeBadValue, "the HTTP header %q has a value with control characters; take them out", name)
	}
	return nil
}

// check says what is wrong with the options.
func (w *webhookOptions) check(o *Outbound) error {
	if w.URL == "" {
		return errs.BadRequest("FF10242", "options.url is missing; give the URL that webhooks are to call")
	}
	if err := o.checkURL("options.url", w.URL); err != nil {
		return err
	}
	if w.HTTP.ProxyURL != "" {
		if err := o.checkURL("options.httpOptions.proxyURL", w.HTTP.ProxyURL); err != nil {
			return err
		}
	}
	if !token.MatchString(w.Method) || w.Method == http.MethodConnect {
		return errs.BadRequest(errs.CodeBadValue, "options.method is %q; it must be an HTTP method such as POST or PUT", w.Method)
	}
	for name, value := range w.Headers {
		if err := checkHeader(name, value); err != nil {
			return errs.Wrap(err, errs.CodeBadValue, http.StatusBadRequest, "options.headers cannot be sent")
		}
	}
	if err := checkEnvelope(w.Envelope); err != nil {
		return err
	}
	if n := w.Retry.Count; n != nil && (*n < 0 || *n > 1_000_000) {
		return errs.BadRequest(errs.CodeBadValue, "options.retry.count is %d; it must be a whole number from 0 to 1000000", *n)
	}
	if w.HTTP.MaxIdleConns < 0 {
		return errs.BadRequest(errs.CodeBadValue, "options.httpOptions.maxIdleConns is %d; it must not be below 0", w.HTTP.MaxIdleConns)
	}
	switch {
	case w.Reply && o.cfg.Reply == nil:
		return errs.BadRequest(errs.CodeBadValue, "options.reply is true, and this namespace sends no messages; leave it out")
	case w.Reply && w.batch:
		return errs.BadRequest(errs.CodeBadValue, "options.reply and options.batch are both true; a batch has no request to reply to: set one of them to false")
	case w.ParallelTopics && w.batch:
		return errs.BadRequest(errs.CodeBadValue, "options.parallelTopics and options.batch are both true; a batch has no one topic: set one of them to false")
	case w.ParallelTopics && w.FastAck:
		return errs.BadRequest(errs.CodeBadValue, "options.parallelTopics and options.fastack are both true; with fastack nothing waits: set one of them to false")
	}
	return nil
}

// checkURL refuses what cannot be called, as far as that can be told without a
// look at the network.
func (o *Outbound) checkURL(field, text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errs.BadRequest(errs.CodeBadValue, "%s is %q; it must be of the form https://host[:port]/path", field, text)
	case u.User != nil:
		return errs.BadRequest(errs.CodeBadValue, "%s holds a user name; give credentials in options.headers", field)
	}
	if err := o.guard.literal(u.Hostname()); err != nil {
		return errs.Wrap(err, errs.CodeBadValue, http.StatusBadRequest, "%s is %q", field, text)
	}
	return nil
}

// policy is how often to try.
//
// Without retry options an event that cannot be delivered is tried for about
// three quarters of an hour. Those of existing clients turn on a retry that ends
// soon, or turn it off; and where every answer counts, one that comes counts.
func (w *webhookOptions) policy() policy {
	r := w.Retry
	reference := w.AckAnyStatus || w.Reply // no retry unless asked for
	p := policy{
		retries:  defaultRetries,
		first:    max(r.InitialDelay.or(defaultFirstDelay), time.Millisecond),
		longest:  max(r.MaxDelay.or(defaultLongestDelay), time.Millisecond),
		tolerant: reference,
		parallel: w.ParallelTopics,
		fast:     w.FastAck && !w.Reply,
	}
	switch {
	case r.Enabled != nil && !*r.Enabled:
		p.retries = 0
	case r.Count != nil:
		p.retries = *r.Count
	case r.Enabled != nil:
		p.retries = defaultCountedRetry
	case reference:
		p.retries = 0
	}
	if w.DeadLetter != nil && !*w.DeadLetter && !reference {
		p.retries = -1
	}
	return p
}

// trimJSON is text without the white space around it.
func trimJSON(text json.RawMessage) json.RawMessage { return bytes.TrimSpace(text) }
