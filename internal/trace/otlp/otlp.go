// Package otlp sends the steps of traces to an OpenTelemetry collector, over
// OTLP with HTTP. A node runs it only if it is configured to.
package otlp

import (
	"context"
	"fmt"
	"log/slog"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/parley-node/parley/internal/trace"
)

// Exporter sends steps, in batches, in the background. When the collector
// cannot be reached, or is slower than the node, steps are lost, and nothing
// waits for it.
type Exporter struct {
	provider *sdk.TracerProvider
	tracer   oteltrace.Tracer
}

// New makes an exporter to a collector's URL, such as
// http://127.0.0.1:4318/v1/traces, for a node of an organisation.
func New(ctx context.Context, url, node, org, version string) (*Exporter, error) {
	client, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(url))
	if err != nil {
		return nil, fmt.Errorf("send traces to %s: %w", url, err)
	}
	about := resource.NewSchemaless(
		attribute.String("service.name", "parley"), attribute.String("service.version", version),
		attribute.String("service.instance.id", node), attribute.String("parley.organisation", org))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(client), sdk.WithResource(about), sdk.WithIDGenerator(ids{}), sdk.WithSampler(sdk.AlwaysSample()))
	return &Exporter{provider, provider.Tracer("github.com/parley-node/parley")}, nil
}

// Export takes a step over, if its trace is to be recorded.
func (e *Exporter) Export(s trace.Step) {
	if !s.Context.Sampled {
		return
	}
	ctx := trace.With(context.Background(), s.Context)
	if s.Parent != (trace.SpanID{}) {
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{
			TraceID: oteltrace.TraceID(s.Context.Trace), SpanID: oteltrace.SpanID(s.Parent), TraceFlags: oteltrace.FlagsSampled, Remote: true,
		}))
	}
	kind := oteltrace.SpanKindInternal
	if s.Server {
		kind = oteltrace.SpanKindServer
	}
	_, span := e.tracer.Start(ctx, s.Name, oteltrace.WithTimestamp(s.Start), oteltrace.WithSpanKind(kind), oteltrace.WithAttributes(attributes(s.Attributes)...))
	if s.Err != nil {
		span.SetStatus(codes.Error, s.Err.Error())
	}
	span.End(oteltrace.WithTimestamp(s.End))
}

func attributes(in []slog.Attr) []attribute.KeyValue {
	out := make([]attribute.KeyValue, len(in))
	for i, a := range in {
		switch a.Value.Kind() {
		case slog.KindInt64:
			out[i] = attribute.Int64("parley."+a.Key, a.Value.Int64())
		default:
			out[i] = attribute.String("parley."+a.Key, a.Value.String())
		}
	}
	return out
}

// Close sends what waits, as long as ctx lets it.
func (e *Exporter) Close(ctx context.Context) error { return e.provider.Shutdown(ctx) }

// ids gives spans the ids that they were given out with: stored messages, and
// other nodes, know them already.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	c := trace.From(ctx)
	return oteltrace.TraceID(c.Trace), oteltrace.SpanID(c.Span)
}

func (ids) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	return oteltrace.SpanID(trace.From(ctx).Span)
}
