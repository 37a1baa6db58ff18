package event

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/parley-node/parley/internal/errs"
)

// streaming is a bench whose streams are on a real HTTP server.
type streaming struct {
	*bench
	streams *Streams
	http    *httptest.Server
}

func newStreaming(t testing.TB, cfg StreamConfig) *streaming {
	b := newBench(t)
	cfg.Logger = b.subs.logger
	s := &streaming{bench: b, streams: NewStreams(b.subs, cfg)}
	answer := func(w http.ResponseWriter, err error) {
		if err != nil {
			http.Error(w, err.Error(), errs.Status(err))
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) { answer(w, s.streams.ServeEphemeral(w, r, true)) })
	mux.HandleFunc("/subs/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, s.streams.ServeDurable(w, r, r.PathValue("id")))
	})
	s.http = httptest.NewServer(mux)
	t.Cleanup(func() {
		s.streams.Close()
		s.http.Close()
	})
	return s
}

// reader is a client of a stream.
type reader struct {
	t      testing.TB
	resp   *http.Response
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

func (s *streaming) open(t testing.TB, path, last string) *reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	req, err := http.NewRequestWithContext(ctx, "GET", s.http.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, resp: resp, lines: bufio.NewScanner(resp.Body), cancel: cancel}
	t.Cleanup(r.close)
	return r
}

func (r *reader) close() {
	r.cancel()
	_ = r.resp.Body.Close()
}

// next reads an event: its id and data.
func (r *reader) next() (id string, data []byte) {
	r.t.Helper()
	for r.lines.Scan() {
		line := r.lines.Text()
		if rest, ok := strings.CutPrefix(line, "id: "); ok {
			id = rest
		}
		if rest, ok := strings.CutPrefix(line, "data: "); ok {
			return id, []byte(rest)
		}
	}
	r.t.Fatalf("the stream ended: %v", r.lines.Err())
	return "", nil
}

func (r *reader) expect(topics ...string) (last string) {
	r.t.Helper()
	for _, want := range topics {
		id, data := r.next()
		var e received
		if err := json.Unmarshal(data, &e); err != nil || e.Topic != want || fmt.Sprint(e.Sequence) != id {
			r.t.Fatalf("got id %s with %s, want topic %s", id, data, want)
		}
		last = id
	}
	return last
}

func TestStreamResumesAfterTheLastEvent(t *testing.T) {
	s := newStreaming(t, StreamConfig{})
	s.fill(t, 5)
	r := s.open(t, "/events?filter.topic=t[13]", "")
	if got := r.resp.Header.Get("Content-Type"); r.resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("%s with type %q", r.resp.Status, got)
	}
	s.fill(t, 5)
	last := r.expect("t1")
	r.close()
	r = s.open(t, "/events?filter.topic=t[13]", last)
	r.expect("t3")
	s.open(t, "/events?firstevent=oldest", "").expect("t0", "t1", "t2", "t3", "t4", "t0")
	for path, want := range map[string]int{"/events?filter.topic=(": 500, "/events?lasteventid=x": 400, "/events?envelope=x": 400, "/events?firstevent=x": 400, "/subs/none": 404} {
		if r := s.open(t, path, ""); r.resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, r.resp.Status, want)
		}
	}
}

func TestDurableStreamMovesByWhatTheClientSays(t *testing.T) {
	s := newStreaming(t, StreamConfig{})
	sub := s.create(t, `{"name":"app","transport":"sse"}`)
	s.fill(t, 6)
	r := s.open(t, "/subs/app", "")
	second := r.expect("t0", "t1")
	r.close()
	// Nothing was said, so that nothing counts.
	r = s.open(t, "/subs/"+sub.ID.String(), "")
	r.expect("t0", "t1", "t2")
	r.close()
	r = s.open(t, "/subs/app", second)
	r.expect("t2", "t3")
	r.close()
	r = s.open(t, "/subs/app", "")
	r.expect("t2")
	if err := s.subs.Acknowledge(t.Context(), sub.ID, 4); err != nil {
		t.Fatal(err)
	}
	if err := s.subs.Acknowledge(t.Context(), sub.ID, 2); err != nil {
		t.Fatal(err)
	}
	r.close()
	r = s.open(t, "/subs/app", "")
	r.expect("t4", "t5")
	if err := s.subs.Acknowledge(t.Context(), sub.ID, 400); errs.Status(err) != 400 {
		t.Errorf("acknowledging what is not there: %v", err)
	}
	s.create(t, `{"name":"socket"}`)
	if r := s.open(t, "/subs/socket", ""); r.resp.StatusCode != 409 {
		t.Errorf("a stream of a websockets subscription: %s", r.resp.Status)
	}
}

func TestAutoAckedStreamOfCloudEvents(t *testing.T) {
	s := newStreaming(t, StreamConfig{Source: "did:firefly:org/acme"})
	s.create(t, `{"name":"app","transport":"sse","options":{"envelope":"cloudevents","withData":true}}`)
	s.message(t, "", `{"a":1}`)
	r := s.open(t, "/subs/app?autoack", "")
	_, data := r.next()
	var e struct {
		Source string
		Data   struct {
			Data []struct{ Value json.RawMessage }
		}
	}
	if err := json.Unmarshal(data, &e); err != nil || e.Source != "did:firefly:org/acme" || len(e.Data.Data) != 1 || string(e.Data.Data[0].Value) != `{"a":1}` {
		t.Errorf("%s: %v", data, err)
	}
	r.close()
	s.fill(t, 1)
	if id, data := s.open(t, "/subs/app?autoack", "").next(); id != "2" {
		t.Errorf("the first event came again: %s", data)
	}
}

func TestStreamHeartbeatAndEnd(t *testing.T) {
	s := newStreaming(t, StreamConfig{Heartbeat: time.Millisecond})
	r := s.open(t, "/events", "")
	for r.lines.Scan() && r.lines.Text() != ":" {
	}
	s.streams.Close()
	for r.lines.Scan() {
	}
	if r := s.open(t, "/events", ""); r.resp.StatusCode != 503 {
		t.Errorf("a stream of a node that stops: %s", r.resp.Status)
	}
}

// A client that does not read holds up its own stream, and Close all the same
// ends it.
func TestSlowStreamHoldsUpNobody(t *testing.T) {
	s := newStreaming(t, StreamConfig{})
	slow := s.open(t, "/events", "")
	quick := s.open(t, "/events", "")
	big := strings.Repeat("x", 20_000)
	for range 20 {
		s.message(t, "", `"`+big+`"`)
		s.fill(t, 100)
	}
	for range 2020 {
		quick.next()
	}
	s.streams.Close()
	slow.close()
}

func FuzzLastEventID(f *testing.F) {
	f.Add("5")
	f.Add("-1")
	f.Add("9223372036854775807")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := lastEvent(&http.Request{Header: http.Header{"Last-Event-Id": {text}}, URL: httptest.NewRequest("GET", "/", nil).URL})
		if err == nil && n != nil && *n < -1 {
			t.Errorf("%q is %d", text, *n)
		}
	})
}
