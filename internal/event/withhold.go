package event

import "github.com/parley-node/parley/internal/store"

// WithoutPayload is the event for who may see records and proofs only.
func (e Enriched) WithoutPayload() Enriched {
	if e.Message != nil {
		m := e.Message.WithoutPayload()
		e.Message = &m
	}
	if e.Operation != nil {
		o := e.Operation.WithoutPayload()
		e.Operation = &o
	}
	if e.Data != nil {
		data := make([]*store.Data, len(e.Data))
		for i, d := range e.Data {
			bare := d.WithoutPayload()
			data[i] = &bare
		}
		e.Data = data
	}
	return e
}

// withhold is a transport that hands on events without their payloads.
func withhold(to Transport) Transport {
	return func(f *Frame) error {
		bare := *f
		bare.Events = make([]Enriched, len(f.Events))
		for i := range f.Events {
			bare.Events[i] = f.Events[i].WithoutPayload()
		}
		return to(&bare)
	}
}
