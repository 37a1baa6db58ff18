package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
)

// Status describes the node and its namespace.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return get[Status](ctx, c, nil, "status")
}

// LedgerStatus says how far the node has followed the ledger.
func (c *Client) LedgerStatus(ctx context.Context) (*LedgerStatus, error) {
	return get[LedgerStatus](ctx, c, nil, "status", "ledger")
}

// Peers lists the other members with what waits for them.
func (c *Client) Peers(ctx context.Context) ([]PeerStatus, error) {
	return all[PeerStatus](ctx, c, nil, "status", "peers")
}

// Incidents lists what an operator must know, newest first.
func (c *Client) Incidents(ctx context.Context, query url.Values) ([]Incident, error) {
	return all[Incident](ctx, c, query, "status", "incidents")
}

// Broadcast sends a message to all members. With Confirm it returns the message
// as it was confirmed.
func (c *Client) Broadcast(ctx context.Context, m NewMessage, options ...CallOption) (*Message, error) {
	return post[Message](ctx, c, m, queryOf(options), "messages", "broadcast")
}

// Private sends a message to the members of a group.
func (c *Client) Private(ctx context.Context, m NewMessage, options ...CallOption) (*Message, error) {
	return post[Message](ctx, c, m, queryOf(options), "messages", "private")
}

// RequestReply sends a message to a group and returns the first confirmed
// message that answers it, with its values.
func (c *Client) RequestReply(ctx context.Context, m NewMessage) (*Message, error) {
	return post[Message](ctx, c, m, nil, "messages", "requestreply")
}

// Message reads a message with its values.
func (c *Client) Message(ctx context.Context, id string) (*Message, error) {
	return get[Message](ctx, c, url.Values{"fetchdata": {"true"}}, "messages", id)
}

// Messages lists messages. The query has the API's syntax, such as
// {"tag": {"^claim"}, "limit": {"100"}, "fetchdata": {"true"}}.
func (c *Client) Messages(ctx context.Context, query url.Values) ([]Message, error) {
	return all[Message](ctx, c, query, "messages")
}

// Count is the number of rows of a collection, such as "messages" or "events",
// that match a query.
func (c *Client) Count(ctx context.Context, collection string, query url.Values) (int64, error) {
	q := url.Values{}
	for name, values := range query {
		q[name] = values
	}
	q.Set("count", "true")
	q.Set("limit", "1")
	var counted struct {
		Total int64 `json:"total"`
	}
	err := c.do(ctx, http.MethodGet, c.path(q, collection), nil, &counted)
	return counted.Total, err
}

// Batch reads a batch.
func (c *Client) Batch(ctx context.Context, id string) (*Batch, error) {
	return get[Batch](ctx, c, nil, "batches", id)
}

// MessageData lists the data of a message, values and blob references.
func (c *Client) MessageData(ctx context.Context, id string) ([]Data, error) {
	return all[Data](ctx, c, nil, "messages", id, "data")
}

// UploadData stores a value, to be sent later by its id.
func (c *Client) UploadData(ctx context.Context, d DataRef) (*Data, error) {
	return post[Data](ctx, c, d, nil, "data")
}

// BlobUpload describes a blob.
type BlobUpload struct {
	Filename    string
	ContentType string          // application/octet-stream if empty
	Metadata    json.RawMessage // becomes the value of the data item; may be nil
	AutoMeta    bool            // adds file name and type to the value
	Datatype    *DatatypeRef
	Validator   string
}

// UploadBlob stores what r gives as a blob. It is read once, as it is sent.
func (c *Client) UploadBlob(ctx context.Context, r io.Reader, b BlobUpload) (*Data, error) {
	pr, pw := io.Pipe()
	form := multipart.NewWriter(pw)
	written := make(chan struct{})
	go func() {
		defer close(written)
		// The reader of the pipe, which is the request, reports the error.
		pw.CloseWithError(writeForm(form, r, b))
	}()
	resp, err := c.send(ctx, http.MethodPost, c.path(nil, "data"), form.FormDataContentType(), pr)
	// If the node answered before it had read all, the writer stops here. The
	// writer must have ended before r is the caller's again.
	pr.CloseWithError(io.ErrClosedPipe)
	<-written
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var d Data
	if err := json.NewDecoder(resp.Body).Decode(&d); err != nil {
		return nil, fmt.Errorf("read the answer to an upload: %w", err)
	}
	return &d, drain(resp)
}

// writeForm writes the fields, and then the file.
func writeForm(form *multipart.Writer, r io.Reader, b BlobUpload) error {
	fields := map[string]string{"validator": b.Validator, "metadata": string(b.Metadata)}
	if b.AutoMeta {
		fields["autometa"] = "true"
	}
	if b.Datatype != nil {
		fields["datatype.name"], fields["datatype.version"] = b.Datatype.Name, b.Datatype.Version
	}
	for name, value := range fields {
		if value == "" {
			continue
		}
		if err := form.WriteField(name, value); err != nil {
			return err
		}
	}
	if b.Filename == "" {
		b.Filename = "blob"
	}
	if b.ContentType == "" {
		b.ContentType = "application/octet-stream"
	}
	part, err := form.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {multipart.FileContentDisposition("file", b.Filename)},
		"Content-Type":        {b.ContentType},
	})
	if err != nil {
		return err
	}
	if _, err := io.Copy(part, r); err != nil {
		return err
	}
	return form.Close()
}

// Data reads a data item.
func (c *Client) Data(ctx context.Context, id string) (*Data, error) {
	return get[Data](ctx, c, nil, "data", id)
}

// Blob opens the blob of a data item; size is its number of bytes. Close it. A
// blob that has not arrived yet is not found.
func (c *Client) Blob(ctx context.Context, dataID string) (r io.ReadCloser, size int64, err error) {
	resp, err := c.send(ctx, http.MethodGet, c.path(nil, "data", dataID, "blob"), "", nil)
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// DeleteData deletes a data item at this node, and its blob.
func (c *Client) DeleteData(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, c.path(nil, "data", id), nil, nil)
}

// CreateDatatype defines a datatype for all members.
func (c *Client) CreateDatatype(ctx context.Context, d Datatype, options ...CallOption) (*Datatype, error) {
	return post[Datatype](ctx, c, d, queryOf(options), "datatypes")
}

// Datatype reads a datatype.
func (c *Client) Datatype(ctx context.Context, name, version string) (*Datatype, error) {
	return get[Datatype](ctx, c, nil, "datatypes", name, version)
}

// Identities lists identities with their keys.
func (c *Client) Identities(ctx context.Context, query url.Values) ([]Identity, error) {
	q := url.Values{"fetchverifiers": {"true"}}
	for name, values := range query {
		q[name] = values
	}
	return all[Identity](ctx, c, q, "identities")
}

// Identity reads an identity by id or DID, with its keys.
func (c *Client) Identity(ctx context.Context, idOrDID string) (*Identity, error) {
	return get[Identity](ctx, c, url.Values{"fetchverifiers": {"true"}}, "identities", idOrDID)
}

// CreateIdentity claims a custom identity of the node's organisation.
func (c *Client) CreateIdentity(ctx context.Context, i NewIdentity, options ...CallOption) (*Identity, error) {
	return post[Identity](ctx, c, i, queryOf(options), "identities")
}

// Organisations lists the organisations that have a name.
func (c *Client) Organisations(ctx context.Context, query url.Values) ([]Identity, error) {
	return all[Identity](ctx, c, query, "network", "organizations")
}

// Nodes lists the nodes that have a name.
func (c *Client) Nodes(ctx context.Context, query url.Values) ([]Identity, error) {
	return all[Identity](ctx, c, query, "network", "nodes")
}

// Events lists events with the objects they speak of.
func (c *Client) Events(ctx context.Context, query url.Values) ([]Event, error) {
	q := url.Values{"fetchreferences": {"true"}}
	for name, values := range query {
		q[name] = values
	}
	return all[Event](ctx, c, q, "events")
}

// PutSubscription creates a subscription, or replaces the one of its name; a
// position it has stays.
func (c *Client) PutSubscription(ctx context.Context, s Subscription) (*Subscription, error) {
	out := new(Subscription)
	if err := c.do(ctx, http.MethodPut, c.path(nil, "subscriptions"), s, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Subscriptions lists the subscriptions.
func (c *Client) Subscriptions(ctx context.Context, query url.Values) ([]Subscription, error) {
	return all[Subscription](ctx, c, query, "subscriptions")
}

// Subscription reads a subscription and how far it has got.
func (c *Client) Subscription(ctx context.Context, id string) (*Subscription, error) {
	return get[Subscription](ctx, c, url.Values{"fetchstatus": {"true"}}, "subscriptions", id)
}

// DeleteSubscription deletes a subscription and its position.
func (c *Client) DeleteSubscription(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, c.path(nil, "subscriptions", id), nil, nil)
}

// Members lists the members of the network as the ledger knows them.
func (c *Client) Members(ctx context.Context) ([]NetworkMember, error) {
	return all[NetworkMember](ctx, c, nil, "network", "members")
}

// Administration reads the network's policy and all proposals.
func (c *Client) Administration(ctx context.Context) (*Administration, error) {
	return get[Administration](ctx, c, nil, "network", "proposals")
}

// Propose proposes a change of the network; its effect shows in Administration.
func (c *Client) Propose(ctx context.Context, change Change) error {
	return c.do(ctx, http.MethodPost, c.path(nil, "network", "proposals"), change, nil)
}

// Vote votes on a proposal.
func (c *Client) Vote(ctx context.Context, proposal uint64, approve bool) error {
	return c.do(ctx, http.MethodPost, c.path(nil, "network", "proposals", strconv.FormatUint(proposal, 10), "vote"), map[string]bool{"approve": approve}, nil)
}

// AddKey adds a signing key to the node's organisation.
func (c *Client) AddKey(ctx context.Context, address string) error {
	return c.do(ctx, http.MethodPost, c.path(nil, "network", "keys"), map[string]string{"key": address}, nil)
}

// RevokeKey revokes a signing key of the node's organisation.
func (c *Client) RevokeKey(ctx context.Context, address string) error {
	return c.do(ctx, http.MethodDelete, c.path(nil, "network", "keys", address), nil, nil)
}

// Transfers lists the transfers of the whole network, newest first, from below
// a number (0 for the newest).
func (c *Client) Transfers(ctx context.Context, before uint64, limit int) ([]Transfer, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if before > 0 {
		q.Set("before", strconv.FormatUint(before, 10))
	}
	return all[Transfer](ctx, c, q, "network", "transfers")
}

// VerifyTransfer has the node ask the chain itself whether it includes a
// transfer.
func (c *Client) VerifyTransfer(ctx context.Context, number uint64) (*Inclusion, error) {
	return get[Inclusion](ctx, c, nil, "network", "transfers", strconv.FormatUint(number, 10), "verify")
}

// Blockers lists what a topic waits for; audience is "network" or the hash of a
// group.
func (c *Client) Blockers(ctx context.Context, audience, topic string) ([]Blocker, error) {
	return all[Blocker](ctx, c, nil, "contexts", audience, topic, "blockers")
}

// EraseMessage erases the data of a message at this node. What was erased before
// is no error.
func (c *Client) EraseMessage(ctx context.Context, id string, e Erase) (*Erasure, error) {
	return post[Erasure](ctx, c, e, nil, "messages", id, "erase")
}

// EraseData erases a data item at this node, in whatever messages it is.
func (c *Client) EraseData(ctx context.Context, id string, e Erase) (*Erasure, error) {
	return post[Erasure](ctx, c, e, nil, "data", id, "erase")
}

// Erasure reads an erasure with the signed answers of the members that were
// asked to erase as well.
func (c *Client) Erasure(ctx context.Context, id string) (*Erasure, error) {
	return get[Erasure](ctx, c, nil, "erasures", id)
}
