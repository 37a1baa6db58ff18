package store

import "fmt"

// The collections of the API, with the fields that existing clients filter by.
// A field that no column holds is accepted and is always NULL.

// messageOrder lists what is not confirmed first, then by confirmation. The
// expression is that of the index messages_order.
const messageOrder = "COALESCE(confirmed, 9223372036854775807) DESC, created DESC, seq DESC"

var Messages = &Table[Message]{Collection{
	Name: "messages", One: "message", table: "messages", serial: "seq", key: "id", order: messageOrder,
	Fields: []Field{
		{"id", KindUUID, "id"}, {"cid", KindUUID, "cid"}, {"type", KindText, "type"}, {"author", KindText, "author"},
		{"key", KindText, "key"}, {"topics", KindList, "topics"}, {"tag", KindText, "tag"}, {"group", KindHash, "group_hash"},
		{"created", KindTime, "created"}, {"datahash", KindHash, "datahash"}, {"idempotencykey", KindText, "idempotency_key"},
		{"hash", KindHash, "hash"}, {"pins", KindList, "pins"}, {"state", KindText, "state"}, {"confirmed", KindTime, "confirmed"},
		{"rejectreason", KindText, "reject_reason"}, {"sequence", KindInt, "seq"}, {"txtype", KindText, "tx_type"},
		{"batch", KindUUID, "batch"}, {"txid", KindUUID, "tx_id"}, {"txparent.type", KindText, "parent_type"},
		{"txparent.id", KindUUID, "parent_id"},
	},
}, selectMessages, scanMessage}

var Batches = &Table[Batch]{Collection{
	Name: "batches", One: "batch", table: "batches", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"type", KindText, "type"}, {"author", KindText, "author"}, {"key", KindText, "key"},
		{"group", KindHash, "group_hash"}, {"hash", KindHash, "hash"}, {"payloadref", KindText, ""},
		{"created", KindTime, "created"}, {"confirmed", KindTime, "confirmed"}, {"tx.type", KindText, "tx_type"},
		{"tx.id", KindUUID, "tx_id"}, {"node", KindUUID, "node"},
	},
}, `SELECT id, type, namespace, node, group_hash, created, author, key, hash, manifest, tx_type, tx_id, confirmed FROM batches`, scanBatch}

func scanBatch(r *Rows, b *Batch) error {
	err := r.Scan(&b.ID, &b.Type, &b.Namespace, &b.Node, nullable(&b.Group), &b.Created, &b.Author, &b.Key, &b.Hash,
		(*[]byte)(&b.Manifest), &b.Tx.Type, &b.Tx.ID, &b.Confirmed)
	if err != nil {
		return fmt.Errorf("reading a batch row: %w", err)
	}
	return nil
}

var Transactions = &Table[Transaction]{Collection{
	Name: "transactions", One: "transaction", table: "transactions", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"type", KindText, "type"}, {"created", KindTime, "created"},
		{"idempotencykey", KindText, "idempotency_key"}, {"blockchainids", KindList, "blockchain_ids"},
	},
}, selectTransactions, scanTransaction}

var DataItems = &Table[Data]{Collection{
	Name: "data", One: "data", table: "data", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"validator", KindText, "validator"}, {"datatype.name", KindText, "datatype_name"},
		{"datatype.version", KindText, "datatype_version"}, {"hash", KindHash, "hash"}, {"blob.hash", KindHash, "blob_hash"},
		{"blob.public", KindText, "blob_public"}, {"blob.name", KindText, "blob_name"}, {"blob.path", KindText, "blob_path"},
		{"blob.size", KindInt, "blob_size"}, {"created", KindTime, "created"}, {"value", KindJSON, "value"},
		{"public", KindText, "public"},
	},
}, selectData, scanData}

var Datatypes = &Table[Datatype]{Collection{
	Name: "datatypes", One: "datatype", table: "datatypes", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"message", KindUUID, "message"}, {"validator", KindText, "validator"},
		{"name", KindText, "name"}, {"version", KindText, "version"}, {"created", KindTime, "created"},
	},
}, selectDatatypes, scanDatatype}

var Operations = &Table[Operation]{Collection{
	Name: "operations", One: "operation", table: "operations", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"tx", KindUUID, "tx"}, {"type", KindText, "type"}, {"status", KindText, "status"},
		{"error", KindText, "error"}, {"plugin", KindText, "plugin"}, {"input", KindJSON, "input"}, {"output", KindJSON, "output"},
		{"created", KindTime, "created"}, {"updated", KindTime, "updated"}, {"retry", KindUUID, "retry"},
	},
}, selectOperations, scanOperation}

var Subscriptions = &Table[Subscription]{Collection{
	Name: "subscriptions", One: "subscription", table: "subscriptions", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"name", KindText, "name"}, {"transport", KindText, "transport"}, {"events", KindText, ""},
		{"filters", KindJSON, "filter"}, {"options", KindText, "options"}, {"created", KindTime, "created"},
	},
}, selectSubscriptions, scanSubscription}

var Deliveries = &Table[Delivery]{Collection{
	Name: "deliveries", One: "delivery", table: "deliveries", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"subscription", KindUUID, "subscription"}, {"state", KindText, "state"}, {"frame", KindUUID, "frame"},
		{"sequence", KindInt, "first"}, {"attempts", KindInt, "attempts"}, {"status", KindInt, "status"}, {"error", KindText, "error"},
		{"created", KindTime, "created"}, {"updated", KindTime, "updated"},
	},
}, selectDeliveries, scanDelivery}

var Events = &Table[Event]{Collection{
	Name: "events", One: "event", table: "events", serial: "sequence", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"type", KindText, "type"}, {"reference", KindUUID, "reference"},
		{"correlator", KindUUID, "correlator"}, {"tx", KindUUID, "tx"}, {"topic", KindText, "topic"},
		{"sequence", KindInt, "sequence"}, {"created", KindTime, "created"},
	},
}, selectEvents, scanEvent}

var Pins = &Table[PinHandle]{Collection{
	Name: "pins", One: "pin", table: "pin_handles", serial: "sequence", key: "sequence",
	Fields: []Field{
		{"sequence", KindInt, "sequence"}, {"masked", KindBool, "masked"}, {"hash", KindHash, "hash"}, {"batch", KindUUID, "batch"},
		{"index", KindInt, "idx"}, {"dispatched", KindBool, "dispatched"}, {"created", KindTime, "created"},
	},
}, `SELECT sequence, namespace, masked, hash, batch, batch_hash, idx, dispatched, signer, created FROM pin_handles`, scanPin}

func scanPin(r *Rows, p *PinHandle) error {
	err := r.Scan(&p.Sequence, &p.Namespace, &p.Masked, &p.Hash, &p.Batch, &p.BatchHash, &p.Index, &p.Dispatched, &p.Signer, &p.Created)
	if err != nil {
		return fmt.Errorf("reading a pin row: %w", err)
	}
	return nil
}

// NextPins has the fields that existing clients filter by, and never any rows:
// no member counts its messages per context.
var NextPins = &Collection{
	Name: "next pins", One: "next pin",
	Fields: []Field{{"context", KindHash, ""}, {"identity", KindText, ""}, {"hash", KindHash, ""}, {"nonce", KindInt, ""}},
}

var Identities = &Table[Identity]{Collection{
	Name: "identities", One: "identity", table: "identities", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"did", KindText, "did"}, {"parent", KindUUID, "parent"}, {"messages.claim", KindUUID, "msg_claim"},
		{"messages.verification", KindUUID, "msg_verification"}, {"messages.update", KindUUID, "msg_update"},
		{"type", KindText, "type"}, {"name", KindText, "name"}, {"description", KindText, "description"},
		{"profile", KindJSON, "profile"}, {"created", KindTime, "created"}, {"updated", KindTime, "updated"},
	},
}, selectIdentities, scanIdentity}

var Verifiers = &Table[Verifier]{Collection{
	Name: "verifiers", One: "verifier", table: "verifiers", serial: "seq", key: "hash",
	Fields: []Field{
		{"hash", KindHash, "hash"}, {"identity", KindUUID, "identity"}, {"type", KindText, "type"}, {"value", KindText, "value"},
		{"created", KindTime, "created"},
	},
}, selectVerifiers, scanVerifier}

var Groups = &Table[Group]{Collection{
	Name: "groups", One: "group", table: "groups", serial: "seq", key: "hash",
	Fields: []Field{
		{"hash", KindHash, "hash"}, {"message", KindUUID, "message"}, {"description", KindText, ""}, {"ledger", KindUUID, ""},
		{"created", KindTime, "created"},
	},
}, selectGroups, scanGroup}

var BlockchainEvents = &Table[BlockchainEvent]{Collection{
	Name: "blockchain events", One: "blockchain event", table: "blockchain_events", serial: "seq", key: "id",
	Fields: []Field{
		{"id", KindUUID, "id"}, {"source", KindText, "source"}, {"name", KindText, "name"}, {"protocolid", KindText, "protocol_id"},
		{"listener", KindText, "listener"}, {"tx.type", KindText, "tx_type"}, {"tx.id", KindUUID, "tx_id"},
		{"tx.blockchainid", KindText, "tx_blockchain_id"}, {"timestamp", KindTime, "timestamp"},
	},
}, selectBlockchainEvents, scanBlockchainEvent}

// Incidents belong to no namespace: list them with an empty one.
var Incidents = &Table[Incident]{Collection{
	Name: "incidents", One: "incident", table: "incidents", serial: "seq", key: "seq",
	Fields: []Field{{"at", KindTime, "at"}, {"kind", KindText, "kind"}, {"text", KindText, "text"}, {"ref", KindText, "ref"}},
}, `SELECT at, kind, text, ref FROM incidents`, scanIncident}
