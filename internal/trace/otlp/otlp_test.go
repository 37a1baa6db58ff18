package otlp

import (
	"compress/gzip"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/parley-node/parley/internal/trace"
)

// A collector gets the steps with the ids that they were given out with.
func TestExport(t *testing.T) {
	got := make(chan *collector.ExportTraceServiceRequest, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			unzipped, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = unzipped
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		in := new(collector.ExportTraceServiceRequest)
		if err := proto.Unmarshal(text, in); err != nil {
			t.Error(err)
		}
		got <- in
	}))
	defer server.Close()
	e, err := New(t.Context(), server.URL+"/v1/traces", "node-1", "acme", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	record := trace.NewRecorder(slog.New(slog.DiscardHandler), e.Export, 1)
	first := trace.New()
	first.Sampled = true
	start := time.Now()
	record.Step(trace.Step{Name: "postNewMessagePrivate", Context: first, Start: start, End: start.Add(time.Second), Server: true, Err: errors.New("no")})
	record.After(first.String(), "seal", start, start.Add(2*time.Second), slog.String("message", "m"), slog.Int64("n", 7))
	record.After(trace.New().String(), "seal", start, start) // not sampled
	record.After("", "seal", start, start)
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	in := <-got
	spans := in.ResourceSpans[0].ScopeSpans[0].Spans
	if len(spans) != 2 {
		t.Fatalf("%d spans were sent, want 2: %v", len(spans), spans)
	}
	root, child := spans[0], spans[1]
	if hex.EncodeToString(root.TraceId) != first.Trace.String() || hex.EncodeToString(root.SpanId) != first.Span.String() || len(root.ParentSpanId) != 0 || root.Status.GetMessage() != "no" {
		t.Errorf("the first span is %v, want the ids of %v", root, first)
	}
	if hex.EncodeToString(child.TraceId) != first.Trace.String() || hex.EncodeToString(child.ParentSpanId) != first.Span.String() || child.Name != "seal" ||
		child.EndTimeUnixNano-child.StartTimeUnixNano != uint64(2*time.Second) || len(child.Attributes) != 2 {
		t.Errorf("the second span is %v", child)
	}
}
