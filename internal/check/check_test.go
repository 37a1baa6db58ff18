package check_test

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/parley-node/parley/internal/check"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/nodetest"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/store/storetest"
	"github.com/parley-node/parley/wire"
)

// network plays a story that leaves rows of every sort, and stops the hospital.
func network(t *testing.T) *nodetest.Member {
	net := nodetest.Network(t, 3)
	hospital, insurer, regulator := net.Members[0], net.Members[1], net.Members[2]
	ctx := context.Background()
	_, def, err := hospital.Messages.DefineDatatype(ctx, message.DatatypeInput{Name: "claim", Version: "1", Value: []byte(`{"type":"object","required":["n"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	hospital.Confirmed(def.Header.ID)
	data, err := hospital.Messages.AddBlob(ctx, message.DataInput{}, bytes.NewReader(bytes.Repeat([]byte("scan"), 1000)), "scan.pdf", "application/pdf", true)
	if err != nil {
		t.Fatal(err)
	}
	members := &message.GroupInput{Members: []message.MemberInput{{Identity: insurer.Name}}}
	send := func(in message.Input) wire.UUID {
		t.Helper()
		in.Group = members
		m, err := hospital.Messages.Private(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		hospital.Confirmed(m.Header.ID)
		insurer.Confirmed(m.Header.ID)
		return m.Header.ID
	}
	send(message.Input{Header: message.Header{Topics: []string{"claims", "urgent"}}, Data: []message.DataInput{
		{Value: []byte(`{"n":1}`), Datatype: &store.DatatypeRef{Name: "claim", Version: "1"}}, {ID: &data.ID},
	}})
	send(message.Input{Header: message.Header{Topics: []string{"claims"}}, Data: []message.DataInput{{Value: []byte(`"second"`)}}})
	for range 2 {
		send(message.Input{Header: message.Header{TxType: message.TxUnpinned, Topics: []string{"chat"}}, Data: []message.DataInput{{Value: []byte(`"hello"`)}}})
	}
	gone := send(message.Input{Header: message.Header{Topics: []string{"claims"}}, Data: []message.DataInput{{Value: []byte(`"to be erased"`)}}})
	if _, err := hospital.Messages.EraseMessage(ctx, gone, message.EraseInput{Reason: "a test", Recipients: true}); err != nil {
		t.Fatal(err)
	}
	for _, m := range net.Members {
		for range 2 {
			regulator.Confirmed(m.Broadcast(`{"price":10}`, "prices").Header.ID)
		}
	}
	net.Quiet()
	hospital.Stop()
	return hospital
}

// Each kind of difference is planted in a copy of a real node's database, and
// exactly it is found.
func TestFindsWhatIsPlanted(t *testing.T) {
	hospital := network(t)
	const last = `(SELECT MAX(seq) FROM messages WHERE type = 'broadcast')`
	for _, c := range []struct {
		name  string
		plant string // statements, separated by ";"
		kinds []check.Kind
	}{
		{"nothing", ``, nil},
		{"a record is gone", `DELETE FROM records WHERE number = 2`, []check.Kind{check.Record}},
		{"a record was changed", `UPDATE records SET running = zeroblob(32) WHERE number = 1`, []check.Kind{check.Record}},
		{"a pin has lost its body", `INSERT INTO records SELECT number + 1, running, block + 1, log, block_hash, block_time, tx_hash, signer, 'pin', '' FROM records WHERE number = (SELECT MAX(number) FROM records)`, []check.Kind{check.Record}},
		{"a valid pin is called void", `UPDATE pins SET state = 'void', reason = 'x' WHERE number = (SELECT MAX(number) FROM pins WHERE org <> (SELECT org FROM batches WHERE own LIMIT 1) AND state = 'done');
			UPDATE batches SET state = 'held' WHERE root = (SELECT root FROM pins WHERE state = 'void');
			UPDATE pin_handles SET dispatched = FALSE WHERE sequence / 256 = (SELECT number FROM pins WHERE state = 'void')`, []check.Kind{check.Pin}},
		{"a decided entry is called open", `UPDATE pins SET state = 'open' WHERE number = (SELECT MAX(number) FROM pins WHERE state = 'done');
			UPDATE batches SET state = CASE WHEN own THEN 'pinning' ELSE 'held' END WHERE root = (SELECT root FROM pins WHERE state = 'open');
			UPDATE pin_handles SET dispatched = FALSE WHERE sequence / 256 = (SELECT number FROM pins WHERE state = 'open')`, []check.Kind{check.Pin}},
		{"a pin of another audience", `UPDATE pins SET n = n + 1 WHERE number = (SELECT MAX(number) FROM pins WHERE state = 'done')`, []check.Kind{check.Pin}},
		{"a handle is listed wrongly", `UPDATE pin_handles SET dispatched = FALSE WHERE sequence = (SELECT MAX(sequence) FROM pin_handles)`, []check.Kind{check.Handle}},
		{"a handle is not listed", `DELETE FROM pin_handles WHERE sequence = (SELECT MAX(sequence) FROM pin_handles)`, []check.Kind{check.Handle}},
		{"an epoch nobody activated", `UPDATE epochs SET activated = 7 WHERE activated = 0`, []check.Kind{check.Epoch}},
		{"a number is forgotten", `UPDATE windows SET high = high - 1`, []check.Kind{check.Window}},
		{"a window is gone", `DELETE FROM windows WHERE rowid = (SELECT MAX(rowid) FROM windows)`, []check.Kind{check.Window}},
		{"a group began elsewhere", `UPDATE audiences SET begun = begun + 1 WHERE kind = 'group'`, []check.Kind{check.Audience}},
		{"a confirmed message is rejected", `UPDATE messages SET state = 'rejected', reject_reason = 'x' WHERE seq = ` + last + `;
			UPDATE events SET type = 'message_rejected' WHERE type = 'message_confirmed' AND reference = (SELECT id FROM messages WHERE seq = ` + last + `)`, []check.Kind{check.Verdict}},
		{"a confirmed message has a reason", `UPDATE messages SET reject_reason = 'x' WHERE seq = ` + last, []check.Kind{check.Verdict}},
		{"a verdict is forgotten", `UPDATE messages SET state = 'pending' WHERE seq = ` + last + `; DELETE FROM events WHERE reference = (SELECT id FROM messages WHERE seq = ` + last + `)`, []check.Kind{check.Verdict}},
		{"an event is gone", `DELETE FROM events WHERE sequence = (SELECT MAX(sequence) FROM events WHERE type = 'message_confirmed')`, []check.Kind{check.Event}},
		{"an event is there twice", `INSERT INTO events (id, type, namespace, reference, correlator, tx, topic, created) SELECT 'x', type, namespace, reference, correlator, tx, topic, created FROM events
			WHERE sequence = (SELECT MAX(sequence) FROM events WHERE type = 'message_confirmed')`, []check.Kind{check.Event}},
		{"an event of nothing", `INSERT INTO events (id, type, namespace, reference, created) VALUES ('x', 'message_confirmed', 'default', '00000000-0000-4000-8000-000000000000', 1)`, []check.Kind{check.Event}},
		{"events in another order", `UPDATE events SET sequence = sequence + 1000000 WHERE sequence = (SELECT MIN(sequence) FROM events WHERE topic = 'prices' AND type = 'message_confirmed')`, []check.Kind{check.Order}},
		{"a message was altered", `UPDATE messages SET tag = 'forged' WHERE seq = ` + last, []check.Kind{check.Message}},
		{"a message's header was altered", `UPDATE messages SET header = zeroblob(9) WHERE seq = ` + last, []check.Kind{check.Message}},
		{"an erased value is back", `UPDATE data SET value = '1' WHERE erasure IS NOT NULL`, []check.Kind{check.Erasure}},
		{"nobody is on record for an erasure", `DELETE FROM erasures`, []check.Kind{check.Erasure}},
		{"an erased message says that it is whole", `UPDATE messages SET erasure = NULL`, []check.Kind{check.Erasure}},
		{"a value is gone, and its batch has it", `UPDATE data SET value = NULL, hash = '', seed = zeroblob(32), erasure = (SELECT id FROM erasures) WHERE seq = (SELECT data FROM message_data WHERE message = ` + last + `)`, []check.Kind{check.Erasure}},
		{"a request to erase was altered", `UPDATE erasure_requests SET request = zeroblob(9)`, []check.Kind{check.Erasure}},
		{"an answer to it was altered", `UPDATE erasure_answers SET state = 'erased', answer = zeroblob(9)`, []check.Kind{check.Erasure}},
		{"a message names other data", `UPDATE messages SET data = '[]' WHERE seq = ` + last, []check.Kind{check.Message}},
		{"a value was altered", `UPDATE data SET value = '{"price":11}' WHERE value = '{"price":10}'`, []check.Kind{check.Data}},
		{"a link to data is gone", `DELETE FROM message_data WHERE message = ` + last, []check.Kind{check.Data}},
		{"a blob has another size", `UPDATE blobs SET size = size + 1`, []check.Kind{check.Blob}},
		{"a payload was altered", `UPDATE batches SET envelope = zeroblob(40) WHERE seq = (SELECT MAX(seq) FROM batches WHERE state = 'done' AND org <> (SELECT org FROM batches WHERE own LIMIT 1) AND type = 'broadcast');
			UPDATE pins SET state = 'open' WHERE root = (SELECT root FROM batches WHERE length(envelope) = 40);
			UPDATE pin_handles SET dispatched = FALSE WHERE batch_hash = (SELECT hash FROM batches WHERE length(envelope) = 40);
			UPDATE batches SET state = 'held' WHERE length(envelope) = 40`, []check.Kind{check.Batch}},
		{"a decided batch is called held", `UPDATE batches SET state = 'held' WHERE seq = (SELECT MAX(seq) FROM batches WHERE NOT own)`, []check.Kind{check.Batch}},
		{"a receipt was altered", `UPDATE receipts SET receipt = zeroblob(9) WHERE rowid = (SELECT MAX(rowid) FROM receipts WHERE root IN (SELECT hash FROM epochs))`, []check.Kind{check.Receipt}},
		{"a receipt and a vote of ours", `INSERT INTO votes SELECT t.root, t.author, b.audience, 1 FROM receipts t JOIN batches b ON b.root = t.root AND b.org = t.author
			WHERE t.org = (SELECT org FROM batches WHERE own LIMIT 1) LIMIT 1`, []check.Kind{check.Receipt}},
		{"a datatype was altered", `UPDATE datatypes SET value = '{}'`, []check.Kind{check.Datatype}},
		{"a datatype is gone", `DELETE FROM datatypes`, []check.Kind{check.Datatype}},
		{"an identity was altered", `UPDATE identities SET org = zeroblob(32) WHERE type = 'node' AND seq = (SELECT MAX(seq) FROM identities WHERE type = 'node')`, []check.Kind{check.Identity}},
		{"an identity is gone", `DELETE FROM identities WHERE seq = (SELECT MAX(seq) FROM identities)`, []check.Kind{check.Identity}},
		{"an operation never ended", `UPDATE operations SET status = 'Pending' WHERE seq = (SELECT MAX(seq) FROM operations WHERE type = 'blockchain_pin_batch')`, []check.Kind{check.Operation}},
		{"a batch without its transaction", `DELETE FROM transactions WHERE seq = (SELECT MAX(seq) FROM transactions)`, []check.Kind{check.Operation}},
		{"a parcel for nobody", `INSERT INTO outbox (peer, kind, root, org, since) SELECT zeroblob(32), 'payload', root, org, 1 FROM batches LIMIT 1`, []check.Kind{check.Outbox}},
		{"a parcel of nothing", `INSERT INTO outbox (peer, kind, root, org, since) SELECT org, 'payload', zeroblob(32), org, 1 FROM batches WHERE NOT own LIMIT 1`, []check.Kind{check.Outbox}},
		{"a call that is on the ledger", `UPDATE submissions SET state = 'signed' WHERE id = (SELECT MAX(id) FROM submissions)`, []check.Kind{check.Submission}},
		{"a call that is not on the ledger", `UPDATE submissions SET tx_hash = randomblob(32) WHERE id = (SELECT MAX(id) FROM submissions)`, []check.Kind{check.Submission}},
		{"a number that was used", `UPDATE counters SET next = 1`, []check.Kind{check.Submission}},
		{"a chain is cut", `DELETE FROM meta WHERE name LIKE 'unpinned.%'`, []check.Kind{check.Unpinned}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := storetest.Open(t, storetest.Copy(t, hospital.Path))
			changed := c.plant == ""
			for statement := range strings.SplitSeq(c.plant, ";") {
				if strings.TrimSpace(statement) == "" {
					continue
				}
				err := db.Write(t.Context(), func(tx *store.Tx) error {
					n, err := tx.Exec(dialect(statement))
					changed = changed || n > 0
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if !changed {
				t.Fatal("the statements changed nothing")
			}
			var kinds []check.Kind
			var text []string
			sum, err := check.Run(t.Context(), hospital.Source(db), func(d check.Difference) {
				text = append(text, d.String())
				if !slices.Contains(kinds, d.Kind) {
					kinds = append(kinds, d.Kind)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(kinds, c.kinds) {
				t.Errorf("found %v, want %v:\n%s", kinds, c.kinds, strings.Join(text, "\n"))
			}
			if c.plant == "" && (sum.Messages < 12 || sum.Entries < 10 || sum.Blobs != 1 || sum.Open != 0) {
				t.Errorf("looked at too little: %+v", sum)
			}
		})
	}
}

var zeros = regexp.MustCompile(`zeroblob\((\d+)\)`)

// dialect is a statement in the words of the database that the tests run on.
func dialect(statement string) string {
	if !storetest.Postgres() {
		return statement
	}
	statement = zeros.ReplaceAllString(statement, `decode(repeat('00', $1), 'hex')`)
	return strings.NewReplacer("randomblob(32)", "sha256('x')", "rowid", "ctid").Replace(statement)
}
