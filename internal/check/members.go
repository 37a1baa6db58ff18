package check

import (
	"slices"

	"github.com/parley-node/parley/internal/ledger"
	"github.com/parley-node/parley/wire"
)

// members is the network as its records tell, up to the one being read. A
// record counts from the next one on.
type members struct {
	active map[wire.OrgID]bool
	keys   []key
	params ledger.Params
	epoch1 wire.Hash // hash of the network's first epoch
}

// key is a signing key with the numbers of the records that it is valid for.
type key struct {
	address wire.Address
	org     wire.OrgID
	from    uint64 // the record that added it
	to      uint64 // the record that revoked it, 0 while it is valid
}

// apply takes in record number n and tells whether a member left with it.
func (m *members) apply(n uint64, body ledger.Body) (departed bool) {
	switch b := body.(type) {
	case ledger.Founded:
		m.params, m.epoch1 = b.Params, b.Epoch1
	case ledger.ParamsChanged:
		m.params = b.Params
	case ledger.MemberAdmitted:
		m.active[b.Org] = true
		m.add(n, b.Org, b.Key)
	case ledger.MemberResumed:
		m.active[b.Org] = true
	case ledger.KeyAdded:
		m.add(n, b.Org, b.Key)
	case ledger.KeyRevoked:
		m.revoke(n, func(k key) bool { return k.address == b.Key })
	case ledger.MemberSuspended:
		departed = m.active[b.Org]
		m.active[b.Org] = false
	case ledger.MemberRemoved:
		departed = m.active[b.Org]
		m.active[b.Org] = false
		m.revoke(n, func(k key) bool { return k.org == b.Org })
	}
	return departed
}

func (m *members) add(n uint64, org wire.OrgID, address wire.Address) {
	if !slices.ContainsFunc(m.keys, func(k key) bool { return k.address == address }) {
		m.keys = append(m.keys, key{address: address, org: org, from: n})
	}
}

func (m *members) revoke(n uint64, which func(key) bool) {
	for i := range m.keys {
		if k := &m.keys[i]; which(*k) && k.to == 0 {
			k.to = n
		}
	}
}

// owner is the organisation whose valid key it was at a record; zero if none.
func (m *members) owner(address wire.Address, at uint64) wire.OrgID {
	for _, k := range m.keys {
		if k.address == address && k.from < at && (k.to == 0 || at <= k.to) {
			return k.org
		}
	}
	return wire.OrgID{}
}

// ever tells whether an organisation had a key at any time.
func (m *members) ever(org wire.OrgID, address wire.Address) bool {
	return slices.ContainsFunc(m.keys, func(k key) bool { return k.org == org && k.address == address })
}
