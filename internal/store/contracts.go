package store

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/parley-node/parley/wire"
)

// Interface describes a contract. Lists leave out the children.
type Interface struct {
	ID          UUID            `json:"id"`
	Message     *UUID           `json:"message,omitempty"`
	Namespace   string          `json:"namespace,omitempty"`
	Name        string          `json:"name"`
	NetworkName string          `json:"networkName,omitempty"`
	Description string          `json:"description"`
	Version     string          `json:"version"`
	Methods     json.RawMessage `json:"methods,omitempty"` // JSON arrays
	Events      json.RawMessage `json:"events,omitempty"`
	Errors      json.RawMessage `json:"errors,omitempty"`
	Published   bool            `json:"published"`
}

// InterfaceRef names an interface: by id, or by name and version.
type InterfaceRef struct {
	ID      *UUID  `json:"id,omitempty"`
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
}

// ContractAPI is an interface at a place.
type ContractAPI struct {
	ID          UUID            `json:"id"`
	Namespace   string          `json:"namespace,omitempty"`
	Interface   InterfaceRef    `json:"interface"`
	Location    json.RawMessage `json:"location,omitempty"`
	Name        string          `json:"name"`
	NetworkName string          `json:"networkName,omitempty"`
	Message     *UUID           `json:"message,omitempty"`
	URLs        ContractURLs    `json:"urls"` // set by who knows the public URL
	Published   bool            `json:"published"`
}

// ContractURLs are where a contract API is served.
type ContractURLs struct {
	API     string `json:"api"`
	OpenAPI string `json:"openapi"`
	UI      string `json:"ui"`
}

// Listener wants events of contracts.
type Listener struct {
	ID        UUID             `json:"id"`
	Interface *InterfaceRef    `json:"interface,omitempty"` // of the first filter
	Namespace string           `json:"namespace,omitempty"`
	Name      string           `json:"name,omitempty"`
	BackendID string           `json:"backendId,omitempty"`
	Location  json.RawMessage  `json:"location,omitempty"`
	Created   Time             `json:"created,omitempty"`
	Event     json.RawMessage  `json:"event,omitempty"`
	Signature string           `json:"signature,omitempty"`
	Topic     string           `json:"topic,omitempty"`
	Options   *ListenerOptions `json:"options,omitempty"`
	Filters   []ListenerFilter `json:"filters,omitempty"`

	Chain     uint64 `json:"-"`
	Start     uint64 `json:"-"` // first block it wants
	NextBlock uint64 `json:"-"` // everything below is stored
	BlockHash []byte `json:"-"` // of the block below NextBlock; empty before the first
	LastLog   string `json:"-"` // protocol id of the last event that was stored
}

// ListenerOptions say where a listener starts.
type ListenerOptions struct {
	FirstEvent string `json:"firstEvent,omitempty"` // newest, oldest, or a block number
}

// ListenerFilter is one kind of event at one place, or anywhere.
type ListenerFilter struct {
	Event     json.RawMessage `json:"event,omitempty"`
	Location  json.RawMessage `json:"location,omitempty"`
	Interface *InterfaceRef   `json:"interface,omitempty"`
	Signature string          `json:"signature"`
}

const (
	selectInterfaces = `SELECT id, message, namespace, name, network_name, description, version, published FROM interfaces`
	interfaceColumns = `SELECT id, message, namespace, name, network_name, description, version, published, methods, events, errors FROM interfaces`
	selectAPIs       = `SELECT id, message, namespace, name, network_name, interface, location, published FROM contract_apis`
	selectListeners  = `SELECT id, namespace, name, backend, interface, location, event, signature, topic, options, filters, created, chain, start, next_block, block_hash, last_log FROM listeners`
)

func scanInterface(r *Rows, i *Interface) error {
	err := r.Scan(&i.ID, &i.Message, &i.Namespace, &i.Name, nullable(&i.NetworkName), &i.Description, &i.Version, &i.Published)
	if err != nil {
		return fmt.Errorf("reading an interface row: %w", err)
	}
	return nil
}

func scanWholeInterface(r *Rows, i *Interface) error {
	err := r.Scan(&i.ID, &i.Message, &i.Namespace, &i.Name, nullable(&i.NetworkName), &i.Description, &i.Version, &i.Published,
		(*[]byte)(&i.Methods), (*[]byte)(&i.Events), (*[]byte)(&i.Errors))
	if err != nil {
		return fmt.Errorf("reading an interface row: %w", err)
	}
	return nil
}

// Interfaces lists without children.
var Interfaces = &Table[Interface]{Collection{
	Name: "interfaces", One: "interface", table: "interfaces", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"name", KindText, "name"}, {"networkname", KindText, "network_name"}, {"version", KindText, "version"},
		{"published", KindBool, "published"},
	},
}, selectInterfaces, scanInterface}

// ContractAPIs of a namespace.
var ContractAPIs = &Table[ContractAPI]{Collection{
	Name: "contract APIs", One: "contract API", table: "contract_apis", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"name", KindText, "name"}, {"networkname", KindText, "network_name"}, {"interface", KindUUID, "interface"},
		{"published", KindBool, "published"},
	},
}, selectAPIs, scanAPI}

// Listeners of a namespace.
var Listeners = &Table[Listener]{Collection{
	Name: "listeners", One: "listener", table: "listeners", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"name", KindText, "name"}, {"interface", KindUUID, "interface"}, {"location", KindJSON, "location"},
		{"topic", KindText, "topic"}, {"signature", KindText, "signature"}, {"backendid", KindText, "backend"}, {"created", KindTime, "created"},
		{"updated", KindTime, ""}, {"state", KindJSON, ""}, {"filters", KindJSON, "filters"},
	},
}, selectListeners, scanListener}

// InsertInterface stores an interface with its children; a name and version, or a
// network name, that is taken is ErrExists.
func (tx *Tx) InsertInterface(i *Interface) error {
	return tx.insertNew("interface "+i.Name+" "+i.Version, `INSERT INTO interfaces
		(id, message, namespace, name, network_name, version, description, published, methods, events, errors)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING`,
		i.ID, i.Message, i.Namespace, i.Name, textOrNull(i.NetworkName), i.Version, i.Description, i.Published,
		string(i.Methods), string(i.Events), string(i.Errors))
}

// InterfaceByID returns an interface with its children, or ErrNoRows.
func (tx *Tx) InterfaceByID(namespace string, id UUID) (*Interface, error) {
	i, err := queryOne(tx, scanWholeInterface, interfaceColumns+` WHERE id = $1 AND namespace = $2`, id, namespace)
	return &i, err
}

// InterfaceByName returns an interface with its children, or ErrNoRows.
func (tx *Tx) InterfaceByName(namespace, name, version string) (*Interface, error) {
	i, err := queryOne(tx, scanWholeInterface, interfaceColumns+` WHERE namespace = $1 AND name = $2 AND version = $3`, namespace, name, version)
	return &i, err
}

// InterfaceByNetworkName returns a published interface with its children, or
// ErrNoRows.
func (tx *Tx) InterfaceByNetworkName(namespace, name, version string) (*Interface, error) {
	i, err := queryOne(tx, scanWholeInterface, interfaceColumns+` WHERE namespace = $1 AND network_name = $2 AND version = $3`, namespace, name, version)
	return &i, err
}

// PublishInterface notes that a definition of an interface was confirmed.
func (tx *Tx) PublishInterface(id UUID, message *UUID, networkName string) error {
	return tx.must(`UPDATE interfaces SET published = TRUE, message = $1, network_name = $2 WHERE id = $3`, message, networkName, id)
}

// DeleteInterface removes an interface.
func (tx *Tx) DeleteInterface(id UUID) error {
	return tx.must(`DELETE FROM interfaces WHERE id = $1`, id)
}

func scanAPI(r *Rows, a *ContractAPI) error {
	a.Interface.ID = new(UUID)
	err := r.Scan(&a.ID, &a.Message, &a.Namespace, &a.Name, nullable(&a.NetworkName), a.Interface.ID, (*[]byte)(&a.Location), &a.Published)
	if err != nil {
		return fmt.Errorf("reading a contract API row: %w", err)
	}
	return nil
}

// InsertAPI stores a contract API; a name or network name that is taken is
// ErrExists.
func (tx *Tx) InsertAPI(a *ContractAPI) error {
	return tx.insertNew("contract API "+a.Name, `INSERT INTO contract_apis
		(id, message, namespace, name, network_name, interface, location, published)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
		a.ID, a.Message, a.Namespace, a.Name, textOrNull(a.NetworkName), a.Interface.ID, jsonOrNull(a.Location), a.Published)
}

// UpdateAPI gives a contract API another interface and, if it had none, a
// location; ErrNoRows if there is none with this id.
func (tx *Tx) UpdateAPI(a *ContractAPI) error {
	return tx.must(`UPDATE contract_apis SET interface = $1, location = $2, network_name = $3 WHERE id = $4`,
		a.Interface.ID, jsonOrNull(a.Location), textOrNull(a.NetworkName), a.ID)
}

// APIByName returns a contract API, or ErrNoRows.
func (tx *Tx) APIByName(namespace, name string) (*ContractAPI, error) {
	a, err := queryOne(tx, scanAPI, selectAPIs+` WHERE namespace = $1 AND name = $2`, namespace, name)
	return &a, err
}

// APIByID returns a contract API, or ErrNoRows.
func (tx *Tx) APIByID(namespace string, id UUID) (*ContractAPI, error) {
	a, err := queryOne(tx, scanAPI, selectAPIs+` WHERE namespace = $1 AND id = $2`, namespace, id)
	return &a, err
}

// APIByNetworkName returns a published contract API, or ErrNoRows.
func (tx *Tx) APIByNetworkName(namespace, name string) (*ContractAPI, error) {
	a, err := queryOne(tx, scanAPI, selectAPIs+` WHERE namespace = $1 AND network_name = $2`, namespace, name)
	return &a, err
}

// PublishAPI notes that a definition of a contract API was confirmed.
func (tx *Tx) PublishAPI(id UUID, message *UUID, networkName string) error {
	return tx.must(`UPDATE contract_apis SET published = TRUE, message = $1, network_name = $2 WHERE id = $3`, message, networkName, id)
}

// DeleteAPI removes a contract API.
func (tx *Tx) DeleteAPI(id UUID) error {
	return tx.must(`DELETE FROM contract_apis WHERE id = $1`, id)
}

// APIsOfInterface counts the contract APIs of an interface.
func (tx *Tx) APIsOfInterface(id UUID) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM contract_apis WHERE interface = $1`, id).Scan(&n)
	return n, err
}

func scanListener(r *Rows, l *Listener) error {
	var of *UUID
	var options, filters []byte
	err := r.Scan(&l.ID, &l.Namespace, &l.Name, &l.BackendID, &of, (*[]byte)(&l.Location), (*[]byte)(&l.Event), &l.Signature, &l.Topic,
		&options, &filters, &l.Created, &l.Chain, &l.Start, &l.NextBlock, &l.BlockHash, &l.LastLog)
	if err != nil {
		return fmt.Errorf("reading a listener row: %w", err)
	}
	if of != nil {
		l.Interface = &InterfaceRef{ID: of}
	}
	if err := errors.Join(json.Unmarshal(options, &l.Options), json.Unmarshal(filters, &l.Filters)); err != nil {
		return fmt.Errorf("listener %s: %w", l.ID, err)
	}
	return nil
}

// InsertListener stores a listener; a name that is taken is ErrExists.
func (tx *Tx) InsertListener(l *Listener) error {
	options, err := json.Marshal(l.Options)
	if err != nil {
		return err
	}
	filters, err := json.Marshal(l.Filters)
	if err != nil {
		return err
	}
	var of *UUID
	if l.Interface != nil {
		of = l.Interface.ID
	}
	return tx.insertNew("listener "+l.Name, `INSERT INTO listeners
		(id, namespace, name, backend, interface, location, event, signature, topic, options, filters, created, chain, start, next_block, block_hash)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING`,
		l.ID, l.Namespace, l.Name, l.BackendID, of, jsonOrNull(l.Location), jsonObject(l.Event), l.Signature, l.Topic, string(options), string(filters),
		l.Created, int64(l.Chain), int64(l.Start), int64(l.NextBlock), append([]byte{}, l.BlockHash...))
}

// ListenerByNameOrID returns a listener, or ErrNoRows.
func (tx *Tx) ListenerByNameOrID(namespace, nameOrID string) (*Listener, error) {
	l, err := queryOne(tx, scanListener, selectListeners+` WHERE namespace = $1 AND (name = $2 OR id = $2) ORDER BY seq LIMIT 1`, namespace, nameOrID)
	return &l, err
}

// ListenersOfTopic returns the listeners with a topic, oldest first.
func (tx *Tx) ListenersOfTopic(namespace, topic string) ([]Listener, error) {
	return queryAll(tx, scanListener, selectListeners+` WHERE namespace = $1 AND topic = $2 ORDER BY seq`, namespace, topic)
}

// AllListeners returns the listeners of a namespace, oldest first.
func (tx *Tx) AllListeners(namespace string, chain uint64) ([]Listener, error) {
	return queryAll(tx, scanListener, selectListeners+` WHERE namespace = $1 AND chain = $2 ORDER BY seq`, namespace, int64(chain))
}

// DeleteListener removes a listener; its events stay.
func (tx *Tx) DeleteListener(id UUID) error {
	return tx.must(`DELETE FROM listeners WHERE id = $1`, id)
}

// MoveListener notes how far a listener has come: everything below next is
// stored. ErrNoRows if the listener was deleted.
func (tx *Tx) MoveListener(id UUID, next uint64, hash wire.Hash, lastLog string) error {
	return tx.must(`UPDATE listeners SET next_block = $1, block_hash = $2, last_log = $3 WHERE id = $4`, int64(next), hash[:], lastLog, id)
}

// RewindListener takes a listener back to a block.
func (tx *Tx) RewindListener(id UUID, next uint64, hash []byte, lastLog string) error {
	return tx.must(`UPDATE listeners SET next_block = $1, block_hash = $2, last_log = $3 WHERE id = $4`, int64(next), append([]byte{}, hash...), lastLog, id)
}

// EventsOfListener returns stored events of a listener, newest first, below one
// sequence (0 for all), with their sequences.
func (tx *Tx) EventsOfListener(listener UUID, below int64, limit int) (events []BlockchainEvent, seqs []int64, err error) {
	if below == 0 {
		below = 1<<63 - 1
	}
	rows, err := tx.Query(`SELECT seq, id, info, protocol_id FROM blockchain_events WHERE listener = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3`, listener, below, limit)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e BlockchainEvent
		var seq int64
		if err := rows.Scan(&seq, &e.ID, (*[]byte)(&e.Info), &e.ProtocolID); err != nil {
			return nil, nil, err
		}
		events, seqs = append(events, e), append(seqs, seq)
	}
	return events, seqs, rows.Err()
}

// SetBlockchainEventInfo replaces the info of an event.
func (tx *Tx) SetBlockchainEventInfo(id UUID, info json.RawMessage) error {
	return tx.must(`UPDATE blockchain_events SET info = $1 WHERE id = $2`, string(info), id)
}
