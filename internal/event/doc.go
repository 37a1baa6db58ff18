// Package event is the node's ordered event log as applications see it: the log
// itself and waiting on it (log.go), the objects that events speak of
// (enrich.go), subscriptions (subscription.go, options.go, filter.go,
// history.go), delivery with acknowledgement (dispatch.go, delivery.go,
// position.go) and the WebSocket transport (websocket.go, connection.go,
// frame.go).
//
// Every event has a sequence number, given in commit order. A consumer reads the
// log upwards from a position; nothing is pushed at it that is not in the log
// first, so a lost signal or a crash costs time and never an event. Delivery is
// at least once and in order of sequence.
package event
