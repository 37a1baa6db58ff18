package store

import "strconv"

// The functions in this file fetch many rows by id at once: what a page of
// events speaks of. An id that the namespace does not have is left out.

// MessagesByID returns messages by id; see MessageByID where several share one.
func (tx *Tx) MessagesByID(namespace string, ids []UUID) (map[UUID]*Message, error) {
	return byID(tx, scanMessagePtr, func(m *Message) UUID { return m.Header.ID }, selectMessages, decidedFirst, namespace, ids)
}

// TransactionsByID returns transactions by id.
func (tx *Tx) TransactionsByID(namespace string, ids []UUID) (map[UUID]*Transaction, error) {
	return byID(tx, scanTransactionPtr, func(t *Transaction) UUID { return t.ID }, selectTransactions, ` ORDER BY seq`, namespace, ids)
}

// OperationsByID returns operations by id.
func (tx *Tx) OperationsByID(namespace string, ids []UUID) (map[UUID]*Operation, error) {
	return byID(tx, scanOperationPtr, func(o *Operation) UUID { return o.ID }, selectOperations, ` ORDER BY seq`, namespace, ids)
}

// BlockchainEventsByID returns events of contracts by id.
func (tx *Tx) BlockchainEventsByID(namespace string, ids []UUID) (map[UUID]*BlockchainEvent, error) {
	return byID(tx, scanBlockchainEventPtr, func(e *BlockchainEvent) UUID { return e.ID }, selectBlockchainEvents, ` ORDER BY seq`, namespace, ids)
}

// DatatypesByID returns datatypes by id.
func (tx *Tx) DatatypesByID(namespace string, ids []UUID) (map[UUID]*Datatype, error) {
	return byID(tx, scanDatatypePtr, func(d *Datatype) UUID { return d.ID }, selectDatatypes, ` ORDER BY seq`, namespace, ids)
}

// IdentitiesByID returns identities by id.
func (tx *Tx) IdentitiesByID(namespace string, ids []UUID) (map[UUID]*Identity, error) {
	return byID(tx, scanIdentityPtr, func(i *Identity) UUID { return i.ID }, selectIdentities, ` ORDER BY seq`, namespace, ids)
}

// InterfacesByID returns interfaces, without their children, by id.
func (tx *Tx) InterfacesByID(namespace string, ids []UUID) (map[UUID]*Interface, error) {
	return byID(tx, pointer(scanInterface), func(i *Interface) UUID { return i.ID }, selectInterfaces, ` ORDER BY seq`, namespace, ids)
}

// APIsByID returns contract APIs by id.
func (tx *Tx) APIsByID(namespace string, ids []UUID) (map[UUID]*ContractAPI, error) {
	return byID(tx, pointer(scanAPI), func(a *ContractAPI) UUID { return a.ID }, selectAPIs, ` ORDER BY seq`, namespace, ids)
}

// pointer makes a function that reads a row into a new T.
func pointer[T any](scan func(*Rows, *T) error) func(*Rows, **T) error {
	return func(r *Rows, to **T) error {
		*to = new(T)
		return scan(r, *to)
	}
}

func byID[T any](tx *Tx, scan func(*Rows, **T) error, id func(*T) UUID, from, sort, namespace string, ids []UUID) (map[UUID]*T, error) {
	found := make(map[UUID]*T, len(ids))
	err := inChunks(ids, func(_ []UUID, marks string, args []any) error {
		rows, err := queryAll(tx, scan, from+` WHERE id IN `+marks+` AND namespace = $`+strconv.Itoa(len(args)+1)+sort,
			append(args, namespace)...)
		for _, row := range rows {
			if _, have := found[id(row)]; !have {
				found[id(row)] = row
			}
		}
		return err
	})
	return found, err
}
