package nodetest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/exchange/local"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// A private batch that waits for a member that does not answer is cancelled: its
// messages end, whether the member has got them or not, and later ones go on.
func TestCancelBatch(t *testing.T) {
	for name, c := range map[string]struct {
		plant     func(net *Net)
		delivered func(net *Net, batch wire.UUID)
	}{
		"not delivered": {func(net *Net) { net.Exchange.Drop("payload") }, func(*Net, wire.UUID) {}},
		"delivered, its answer lost": {(*Net).loseReceipts, func(net *Net, batch wire.UUID) {
			b := net.Members[1]
			b.Until("the batch is here", func(tx *store.Tx) (bool, error) {
				row, err := tx.BatchByID(b.Namespace, batch)
				return row != nil, err
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { cancelBatch(t, c.plant, c.delivered) })
		})
	}
}

func cancelBatch(t *testing.T, plant func(net *Net), delivered func(net *Net, batch wire.UUID)) {
	// Who has the batch keeps it without a verdict: that is not waited for.
	net := New(t, Options{Members: 2, NoCheck: true})
	net.Ready()
	a, b := net.Members[0], net.Members[1]
	first := a.Private(`1`, net.Members[1:], "t")
	b.Confirmed(first.Header.ID)
	a.Confirmed(first.Header.ID)
	plant(net)
	stuck := a.Private(`2`, net.Members[1:], "t")
	var batch wire.UUID
	a.Until("the message is in a batch", func(tx *store.Tx) (bool, error) {
		m, err := tx.MessageByID(a.Namespace, stuck.Header.ID)
		if err != nil || m.Batch == nil {
			return false, err
		}
		batch = *m.Batch
		return true, nil
	})
	delivered(net, batch)
	done := *a.message(first.Header.ID).Batch
	for _, c := range []struct {
		member *Member
		batch  wire.UUID
		code   string
	}{
		{a, done, "FF10468"}, {b, done, "FF10466"}, {a, wire.UUID{1}, errs.CodeNotFound}, {a, batch, ""}, {a, batch, "FF10468"},
	} {
		if err := c.member.Messages.CancelBatch(t.Context(), c.batch); errs.Code(err) != c.code || (err == nil) != (c.code == "") {
			t.Errorf("cancelling batch %s: %v, want code %q", c.batch, err, c.code)
		}
	}
	m := a.message(stuck.Header.ID)
	if m.State != message.StateCancelled || m.RejectReason == "" || m.Confirmed == nil {
		t.Errorf("the message is %s (%q)", m.State, m.RejectReason)
	}
	if order := a.Order("t"); len(order) != 2 || order[1] != stuck.Header.ID {
		t.Errorf("events are about %v", order)
	}
	net.heal()
	later := a.Private(`3`, net.Members[1:], "t")
	a.Confirmed(later.Header.ID)
	b.Confirmed(later.Header.ID)
	if order := b.Order("t"); len(order) != 2 {
		t.Errorf("the receiver has events about %v", order)
	}
	st, err := a.Messages.BatchManager(t.Context())
	must(t, err)
	if len(st.Processors) != 2 { // the network's, for the identities, and the group's
		t.Fatalf("the lanes are %+v", st.Processors)
	}
	if p := st.Processors[1]; p.Dispatcher != "pinned_private" || p.Status.TotalBatches != 3 || p.Status.AverageBatchMessages != 1 || p.Status.AverageBatchBytes == 0 ||
		p.Status.Cancelled || p.Status.Blocked || p.Status.LastFlushTime == nil {
		t.Errorf("the lane of the group is %+v", p)
	}
	for _, m := range net.Members { // a restart finds the same
		m.Stop()
		m.Start()
	}
	for _, m := range net.Members {
		for _, d := range m.Differences() {
			t.Errorf("%s: check: %v", m.Name, d)
		}
	}
	if m := a.message(stuck.Header.ID); m.State != message.StateCancelled {
		t.Errorf("after a restart the message is %s", m.State)
	}
}

func (m *Member) message(id wire.UUID) (msg *store.Message) {
	m.net.t.Helper()
	must(m.net.t, m.DB.Read(m.net.t.Context(), func(tx *store.Tx) (err error) { msg, err = tx.MessageByID(m.Namespace, id); return err }))
	return msg
}

// loseReceipts loses the answers to batches.
func (net *Net) loseReceipts() {
	net.Exchange.Intercept(func(m local.Message) ([]byte, error) {
		if m.Kind == "payload" && m.Answer {
			return nil, errFault
		}
		return m.Body, nil
	})
}

func (net *Net) heal() {
	net.Exchange.Intercept(nil)
	net.Exchange.Pass("payload")
}

// Sending a batch is retried at once, as another operation, when the peer is
// back; and again although it has arrived, which changes nothing. A pin is
// retried until it stands.
func TestRetryOperation(t *testing.T) {
	for name, plant := range map[string]func(net *Net){
		"not delivered":              func(net *Net) { net.Exchange.Drop("payload") },
		"delivered, its answer lost": func(net *Net) { net.loseReceipts() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { retryOperation(t, plant) })
		})
	}
}

func retryOperation(t *testing.T, plant func(net *Net)) {
	net := Network(t, 2)
	a, b := net.Members[0], net.Members[1]
	plant(net)
	msg := a.Broadcast(`1`, "t")
	var send, pin *store.Operation
	a.Until("its operations are there", func(tx *store.Tx) (bool, error) {
		m, err := tx.MessageByID(a.Namespace, msg.Header.ID)
		if err != nil || m.TxID == nil {
			return false, err
		}
		ops, err := tx.OperationsOfTransaction(*m.TxID)
		for _, op := range ops {
			if op.Type == "dataexchange_send_batch" {
				send = op
			} else {
				pin = op
			}
		}
		return send != nil && pin != nil, err
	})
	a.Until("the back-off is long", func(tx *store.Tx) (bool, error) {
		parcel, err := tx.ParcelOfOperation(send.ID)
		return parcel != nil && parcel.Attempts >= 9, err
	})
	detail, err := a.Messages.DetailOf(t.Context(), send)
	must(t, err)
	if detail.Batch != store.BatchCollecting || !*detail.Waiting || *detail.Attempts < 9 || detail.NextTry == nil || detail.Error == "" || detail.Peer.Org != b.Org {
		t.Errorf("the detail of the sending is %+v", detail)
	}
	if detail, err = a.Messages.DetailOf(t.Context(), pin); err != nil || detail.Batch != store.BatchCollecting || *detail.Receipts != 0 || detail.Submission != "" {
		t.Errorf("the detail of the pin is %+v, %v", detail, err)
	}
	net.heal()
	start := time.Now()
	again, err := a.Messages.RetryOperation(t.Context(), send.ID)
	must(t, err)
	repin, err := a.Messages.RetryOperation(t.Context(), pin.ID)
	must(t, err)
	b.Confirmed(msg.Header.ID)
	a.Confirmed(msg.Header.ID)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the retry took %s", took)
	}
	for _, c := range []struct {
		old, fresh *store.Operation
	}{{send, again}, {pin, repin}} {
		old, fresh := a.operation(c.old.ID), a.operation(c.fresh.ID)
		if old.Status != store.OpFailed || old.Retry == nil || *old.Retry != fresh.ID || fresh.Status != store.OpSucceeded || fresh.Retry != nil || fresh.Type != old.Type {
			t.Errorf("the operation is %+v, its retry %+v", old, fresh)
		}
	}
	if detail, err = a.Messages.DetailOf(t.Context(), repin); err != nil || detail.Submission != "final" || *detail.Receipts != 1 || detail.Transaction == "" {
		t.Errorf("the detail of the pin is %+v, %v", detail, err)
	}
	// The old one leads to the latest; the receiver answers with the same receipt.
	third, err := a.Messages.RetryOperation(t.Context(), send.ID)
	must(t, err)
	a.Until("the batch is sent again", func(tx *store.Tx) (bool, error) {
		op, err := tx.OperationByID(a.Namespace, third.ID)
		return err == nil && op.Status == store.OpSucceeded, err
	})
	if op := a.operation(again.ID); op.Status != store.OpSucceeded || op.Retry == nil || *op.Retry != third.ID {
		t.Errorf("the second operation is %+v", op)
	}
	if _, err := a.Messages.RetryOperation(t.Context(), pin.ID); errs.Status(err) != 409 {
		t.Errorf("a pin that stands was retried: %v", err)
	}
	if _, err := a.Messages.RetryOperation(t.Context(), wire.UUID{1}); errs.Status(err) != 404 {
		t.Errorf("no operation was retried: %v", err)
	}
	if n := len(b.Order("t")); n != 1 {
		t.Errorf("the message arrived %d times", n)
	}
}

func (m *Member) operation(id wire.UUID) (op *store.Operation) {
	m.net.t.Helper()
	must(m.net.t, m.DB.Read(m.net.t.Context(), func(tx *store.Tx) (err error) { op, err = tx.OperationByID(m.Namespace, id); return err }))
	return op
}

// Looking again at what is open asks at once for what is missing, and changes
// nothing that is decided.
func TestRewind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := Network(t, 3)
		a, c := net.Members[0], net.Members[2]
		first := a.Broadcast(`1`, "t")
		c.Confirmed(first.Header.ID)
		net.Exchange.Cut(c.Name, a.Name)
		net.Exchange.Cut(c.Name, net.Members[1].Name)
		second := a.Broadcast(`2`, "t")
		net.Members[1].Confirmed(second.Header.ID)
		time.Sleep(2 * time.Minute) // virtual: c asks rarely by now
		net.Exchange.Heal(c.Name, net.Members[1].Name)
		before := c.Order("t")
		if len(before) != 1 {
			t.Fatalf("c has events about %v", before)
		}
		start := time.Now()
		c.Messages.Rewind()
		c.Confirmed(second.Header.ID)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("what was missing came after %s", took)
		}
		if order := c.Order("t"); len(order) != 2 || order[0] != first.Header.ID {
			t.Errorf("c has events about %v", order)
		}
		pin, err := c.Messages.PinHandle(t.Context(), 0, a.message(second.Header.ID).Batch)
		must(t, err)
		if same, err := c.Messages.PinHandle(t.Context(), pin.Sequence, nil); err != nil || same.Hash != pin.Hash {
			t.Errorf("by sequence the pin is %+v, %v", same, err)
		}
		if _, err := c.Messages.PinHandle(t.Context(), 1<<40, nil); errs.Status(err) != 404 {
			t.Errorf("a pin that is not there: %v", err)
		}
		net.Exchange.Heal(c.Name, a.Name)
	})
}
