package ledgertest

import (
	"errors"

	"github.com/parley-node/parley/internal/keys"
	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

func signHasNoEffect(n *network) {
	m := n.Members[0]
	before := n.state(m, &m.Key)
	a := n.sign(m, m.Key, before.Nonce, pin(1, 1))
	b := n.sign(m, m.Key, before.Nonce, pin(2, 1))
	if a.Hash == b.Hash || a.Hash.IsZero() || len(a.Raw) == 0 {
		n.Errorf("two transactions have hashes %s and %s", a.Hash, b.Hash)
	}
	n.move()
	if after := n.state(m, &m.Key); after.Nonce != before.Nonce || after.Records != before.Records {
		n.Errorf("signing changed the account's nonce from %d to %d or the records from %d to %d",
			before.Nonce, after.Nonce, before.Records, after.Records)
	}
	n.send(m, b)
	n.move()
	rs := n.feed.atLeast(int(before.Records) + 1)
	if r := rs[len(rs)-1]; r.TxHash != b.Hash {
		n.Errorf("the record tells transaction %s, sent %s", r.TxHash, b.Hash)
	}
}

func sendIsIdempotent(n *network) {
	m := n.Members[0]
	before := n.state(m, &m.Key)
	tx := n.sign(m, m.Key, before.Nonce, pin(1, 2))
	n.send(m, tx)
	n.send(m, tx) // waiting or mined, as the chain has it
	n.move()
	n.feed.atLeast(int(before.Records) + 1)
	n.send(m, tx)            // mined for sure
	n.send(n.Members[1], tx) // by another connection
	n.do(m, pin(2, 1), 1)    // would stand behind a second copy
	rs := n.feed.all()
	if got := len(rs) - int(before.Records); got != 2 {
		n.Errorf("one transaction sent four times and another once gave %d records", got)
	}
}

func nonceUsed(n *network) {
	m := n.Members[0]
	before := n.state(m, &m.Key)
	tx := n.sign(m, m.Key, before.Nonce, pin(1, 1))
	late := n.sign(m, m.Key, before.Nonce, pin(2, 1))
	n.send(m, tx)
	n.move()
	n.feed.atLeast(int(before.Records) + 1)
	if err := m.Ledger.Send(n.ctx, late); !errors.Is(err, ledger.ErrNonceUsed) {
		n.Errorf("Send with a nonce that another transaction took: %v, want ErrNonceUsed", err)
	}
	if err := m.Ledger.Send(n.ctx, tx); err != nil {
		n.Errorf("Send of the one that took it: %v", err)
	}
}

// nonceGapWaits: transactions may arrive out of order; they are mined in nonce
// order.
func nonceGapWaits(n *network) {
	m := n.Members[0]
	before := n.state(m, &m.Key)
	first := n.sign(m, m.Key, before.Nonce, pin(1, 1))
	second := n.sign(m, m.Key, before.Nonce+1, pin(2, 1))
	n.send(m, second)
	n.send(m, first)
	n.move()
	rs := n.feed.atLeast(int(before.Records) + 2)[before.Records:]
	if rs[0].TxHash != first.Hash || rs[1].TxHash != second.Hash {
		n.Errorf("mined %s then %s, want nonce order %s then %s", rs[0].TxHash, rs[1].TxHash, first.Hash, second.Hash)
	}
}

func onlyOwnKeysSign(n *network) {
	_, err := n.Members[0].Ledger.Sign(n.ctx, n.Members[1].Key, 0, 0, pin(1, 1))
	var unknown keys.ErrUnknownKey
	if !errors.As(err, &unknown) || unknown.Key != n.Members[1].Key {
		n.Errorf("Sign with another member's key: %v, want ErrUnknownKey of %s", err, n.Members[1].Key)
	}
}

// changedTransaction: no byte of a signed transaction can be changed so that it
// still pins in the signer's name.
func changedTransaction(n *network) {
	m := n.Members[0]
	before := n.state(m, &m.Key)
	tx := n.sign(m, m.Key, before.Nonce, pin(1, 1))
	for _, i := range []int{len(tx.Raw) / 4, len(tx.Raw) / 2, len(tx.Raw) - 10} {
		raw := append([]byte(nil), tx.Raw...)
		raw[i] ^= 1
		if err := m.Ledger.Send(n.ctx, ledger.Signed{Hash: tx.Hash, Nonce: tx.Nonce, Raw: raw}); err == nil {
			// A change may leave a well-formed transaction of some other account.
			n.move()
		}
	}
	if after := n.state(m, &m.Key); after.Records != before.Records || after.Nonce != before.Nonce {
		n.Errorf("changed transactions left %d records and nonce %d, before there were %d and %d",
			after.Records, after.Nonce, before.Records, before.Nonce)
	}
	n.do(m, pin(2, 1), 1)
}

func customContract(n *network) {
	if n.Custom == nil {
		return // nothing but the network contract is on this chain
	}
	m := n.Members[0]
	before := n.state(m, &m.Key)
	n.send(m, n.sign(m, m.Key, before.Nonce, *n.Custom))
	n.move()
	n.feed.final(before.Head.Number + 1)
	if after := n.state(m, &m.Key); after.Nonce != before.Nonce+1 {
		n.Errorf("after a call of a custom contract the nonce is %d, it was %d", after.Nonce, before.Nonce)
	}
	n.do(m, pin(1, 1), 1)
}

func stateCounts(n *network) {
	m := n.Members[0]
	before := n.state(m, &m.Key)
	if before.ChainID != n.ChainID || before.Contract != n.Contract {
		n.Errorf("State tells chain %d and contract %s, want %d and %s", before.ChainID, before.Contract, n.ChainID, n.Contract)
	}
	if want := uint64(1 + len(n.Members)); before.Records != want {
		n.Errorf("State counts %d records after founding, want %d", before.Records, want)
	}
	if before.Final.Number > before.Head.Number || before.Head.Hash.IsZero() || before.Final.Hash.IsZero() {
		n.Errorf("State tells final %+v and head %+v", before.Final, before.Head)
	}
	for i := range 3 {
		n.send(m, n.sign(m, m.Key, before.Nonce+uint64(i), pin(i, 1)))
		if got := n.state(m, &m.Key).Nonce; got != before.Nonce+uint64(i)+1 {
			n.Errorf("after %d transactions the nonce is %d, it was %d", i+1, got, before.Nonce)
		}
	}
	n.move()
	n.feed.atLeast(int(before.Records) + 3)
	after := n.state(m, nil)
	if after.Records != before.Records+3 || after.Head.Number <= before.Head.Number || after.Nonce != 0 {
		n.Errorf("three pins later State is %+v, before it was %+v", after, before)
	}
	var nobody wire.Address
	nobody[0] = 1
	if s := n.state(m, &nobody); s.Nonce != 0 {
		n.Errorf("an account that never sent has nonce %d", s.Nonce)
	}
}
