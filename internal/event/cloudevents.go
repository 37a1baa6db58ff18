package event

import (
	"encoding/json"
	"fmt"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
)

const (
	envelopeCloudEvents = "cloudevents"

	mediaCloudEvent  = "application/cloudevents+json"
	mediaCloudEvents = "application/cloudevents-batch+json"

	// cloudEventPrefix comes before the type of an event.
	cloudEventPrefix = "parley."
)

// cloudEvent is an event as a CloudEvent 1.0 in JSON (structured mode). The
// sequence is an extension: 20 digits, so that it sorts as text.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              store.UUID      `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject,omitempty"`
	Time            store.Time      `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Sequence        string          `json:"sequence"`
	TraceParent     string          `json:"traceparent,omitempty"` // extension "Distributed Tracing"
	Data            json.RawMessage `json:"data"`
}

func checkEnvelope(name string) error {
	if name != "" && name != envelopeCloudEvents {
		return errs.BadRequest(errs.CodeBadValue, `options.envelope is %q; it must be "cloudevents", or be left out`, name)
	}
	return nil
}

// trace is the traceparent of the message that the event speaks of; "" for none.
func (e *Enriched) trace() string {
	if e.Message == nil {
		return ""
	}
	return e.Message.Trace
}

// cloudEventOf wraps what a receiver gets of an event.
func cloudEventOf(e *Enriched, source string, data json.RawMessage) cloudEvent {
	return cloudEvent{
		SpecVersion: "1.0", ID: e.ID, Source: source, Type: cloudEventPrefix + e.Type, Subject: e.Topic, Time: e.Created,
		DataContentType: mediaJSON, Sequence: fmt.Sprintf("%020d", e.Sequence), TraceParent: e.trace(), Data: data,
	}
}

// cloudEvents wraps a frame: one event, or in batch mode an array of them.
func cloudEvents(f *Frame, source string, data func(f *Frame, i int) (json.RawMessage, error)) (text []byte, kind string, err error) {
	all := make([]cloudEvent, len(f.Events))
	for i := range f.Events {
		value, err := data(f, i)
		if err != nil {
			return nil, "", err
		}
		all[i] = cloudEventOf(&f.Events[i], source, value)
	}
	if f.Batch {
		text, err = json.Marshal(all)
		return text, mediaCloudEvents, err
	}
	text, err = json.Marshal(all[0])
	return text, mediaCloudEvent, err
}

// bare is an event without an envelope or data of its own: what a consumer of a
// stream or a broker gets.
func bare(f *Frame, i int) (json.RawMessage, error) {
	return json.Marshal(deliveryFrame{&f.Events[i], &f.Subscription})
}
