// Package event is the node's ordered event log as applications see it: the log
// itself and waiting on it (log.go), the objects that events speak of
// (enrich.go), subscriptions (subscription.go, options.go, filter.go,
// history.go), and delivery with acknowledgement (dispatch.go, delivery.go,
// position.go).
//
// Consumers connect for WebSockets (websocket.go, connection.go, frame.go) and
// server-sent events (sse.go). The node itself calls webhooks and message brokers
// (outbound.go, outlet.go): webhook.go with its options, signature, reply and the
// guard of the node's own network; nats.go and kafka.go on broker.go. What became
// of those deliveries is in a log (journal.go), from which they can be replayed
// (replay.go). cloudevents.go is the envelope that all but WebSockets offer.
//
// Every event has a sequence number, given in commit order. A consumer reads the
// log upwards from a position; nothing is pushed at it that is not in the log
// first, so a lost signal or a crash costs time and never an event. Delivery is
// at least once and in order of sequence.
package event
