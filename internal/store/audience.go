package store

import (
	"github.com/parley-node/parley/wire"
)

// Audience is the network or a group that this node belongs to.
type Audience struct {
	Seq     int64
	ID      wire.Hash
	Kind    string // network, group
	Name    string
	Lookup  string // name and sorted members: groups with equal ones are found again
	Created Time
	Begun   *int64 // number of the pin that created it; nil until then
}

// Kinds of audience.
const (
	KindNetwork = "network"
	KindGroup   = "group"
)

// Epoch is one membership of an audience with its secret, if this node has it.
type Epoch struct {
	Audience   wire.Hash
	Epoch      uint64
	Hash       wire.Hash
	Definition wire.EpochDefinition
	Secret     *wire.EpochSecret
	Activated  *int64 // number of the activating pin; 0 for the network's epoch 1
}

// Window is how far the pins of one key have gone in one epoch.
type Window struct {
	Epoch uint64
	Key   wire.Address
	High  uint64
	Used  uint64
}

// InsertAudience is a no-op for one that is known.
func (tx *Tx) InsertAudience(a *Audience) error {
	err := tx.Send(`INSERT INTO audiences (id, kind, name, lookup, created, begun) VALUES ($1,$2,$3,$4,$5,$6) ON CONFLICT (id) DO NOTHING`,
		a.ID, a.Kind, a.Name, a.Lookup, int64(a.Created), a.Begun)
	return err
}

const audienceColumns = `seq, id, kind, name, lookup, created, begun`

func scanAudience(rows *Rows, a *Audience) error {
	return rows.Scan(&a.Seq, &a.ID, &a.Kind, &a.Name, &a.Lookup, &a.Created, &a.Begun)
}

// Audiences lists all, in the order this node learned of them.
func (tx *Tx) Audiences() ([]Audience, error) {
	return collect(tx, scanAudience, `SELECT `+audienceColumns+` FROM audiences ORDER BY seq`)
}

// UntendedAudiences lists those in which something may be left to do for their
// membership, now that the records about members go up to a number.
func (tx *Tx) UntendedAudiences(through uint64) ([]Audience, error) {
	return collect(tx, scanAudience, `SELECT `+audienceColumns+` FROM audiences WHERE tended < $1 ORDER BY seq`, int64(through))
}

// SetTended notes that nothing is left to do for an audience's membership.
func (tx *Tx) SetTended(id wire.Hash, through uint64) error {
	return tx.Send(`UPDATE audiences SET tended = $1 WHERE id = $2`, int64(through), id)
}

// AudienceByID is nil if this node does not know it.
func (tx *Tx) AudienceByID(id wire.Hash) (*Audience, error) {
	return one(tx, scanAudience, `SELECT `+audienceColumns+` FROM audiences WHERE id = $1`, id)
}

// AudienceByLookup finds the group with this name and members; of several the
// one created first on the ledger, then the one learned first.
func (tx *Tx) AudienceByLookup(lookup string) (*Audience, error) {
	return one(tx, scanAudience, `SELECT `+audienceColumns+` FROM audiences WHERE lookup = $1
		ORDER BY CASE WHEN begun IS NULL THEN 1 ELSE 0 END, begun, seq LIMIT 1`, lookup)
}

// BeginAudience records the pin that brought a group into being.
func (tx *Tx) BeginAudience(id wire.Hash, pin uint64) error {
	err := tx.Send(`UPDATE audiences SET begun = $1, tended = 0 WHERE id = $2 AND begun IS NULL`, int64(pin), id)
	return err
}

// PutEpoch stores an epoch definition, and its secret if that is known now. The
// audience's membership is to be looked at again.
func (tx *Tx) PutEpoch(e *Epoch) error {
	def, err := wire.Marshal(e.Definition)
	if err != nil {
		return err
	}
	var secret []byte
	if e.Secret != nil {
		if secret, err = wire.Marshal(*e.Secret); err != nil {
			return err
		}
	}
	err = tx.Send(`INSERT INTO epochs (audience, epoch, hash, definition, secret, activated) VALUES ($1,$2,$3,$4,$5,$6)
		ON CONFLICT (audience, epoch, hash) DO UPDATE SET
			secret = COALESCE(epochs.secret, excluded.secret), activated = COALESCE(epochs.activated, excluded.activated)`,
		e.Audience, int64(e.Epoch), e.Hash, def, secret, e.Activated)
	if err != nil {
		return err
	}
	return tx.Send(`UPDATE audiences SET tended = 0 WHERE id = $1 AND tended <> 0`, e.Audience)
}

const epochColumns = `audience, epoch, hash, definition, secret, activated`

func scanEpoch(rows *Rows, e *Epoch) error {
	var def, secret []byte
	if err := rows.Scan(&e.Audience, &e.Epoch, &e.Hash, &def, &secret, &e.Activated); err != nil {
		return err
	}
	if err := wire.Unmarshal(def, &e.Definition); err != nil {
		return err
	}
	if secret != nil {
		e.Secret = new(wire.EpochSecret)
		return wire.Unmarshal(secret, e.Secret)
	}
	return nil
}

// Epochs lists an audience's epochs, also those that were only proposed.
func (tx *Tx) Epochs(audience wire.Hash) ([]Epoch, error) {
	return collect(tx, scanEpoch, `SELECT `+epochColumns+` FROM epochs WHERE audience = $1 ORDER BY epoch, activated IS NULL`, audience)
}

// EpochByHash finds an epoch by its definition's hash; nil if unknown.
func (tx *Tx) EpochByHash(hash wire.Hash) (*Epoch, error) {
	return one(tx, scanEpoch, `SELECT `+epochColumns+` FROM epochs WHERE hash = $1`, hash)
}

// EpochsWithoutSecret lists current or past epochs whose secret is missing.
func (tx *Tx) EpochsWithoutSecret() ([]Epoch, error) {
	return collect(tx, scanEpoch, `SELECT `+epochColumns+` FROM epochs WHERE secret IS NULL AND activated IS NOT NULL ORDER BY activated`)
}

// CurrentEpoch is the audience's newest activated epoch; for a group that does
// not exist on the ledger yet, epoch 1. Nil if the audience is unknown.
func (tx *Tx) CurrentEpoch(audience wire.Hash) (*Epoch, error) {
	return one(tx, scanEpoch, `SELECT `+epochColumns+` FROM epochs WHERE audience = $1 AND (activated IS NOT NULL OR epoch = 1)
		ORDER BY epoch DESC LIMIT 1`, audience)
}

// PutAttestation records which pin activated an epoch by an organisation's word.
func (tx *Tx) PutAttestation(definition wire.Hash, org wire.OrgID, pin uint64) error {
	return tx.Send(`INSERT INTO attestations (definition, org, pin) VALUES ($1,$2,$3) ON CONFLICT (definition, org) DO UPDATE SET pin = excluded.pin`, definition, org, int64(pin))
}

// Attestations are the organisations by whose word a pin activated an epoch.
func (tx *Tx) Attestations(definition wire.Hash, pin uint64) ([]wire.OrgID, error) {
	return collect(tx, func(rows *Rows, o *wire.OrgID) error { return rows.Scan(o) },
		`SELECT org FROM attestations WHERE definition = $1 AND pin = $2`, definition, int64(pin))
}

// PutWindow stores how far a key's pins have gone.
func (tx *Tx) PutWindow(audience wire.Hash, w Window) error {
	err := tx.Send(`INSERT INTO windows (audience, epoch, signer, high, used) VALUES ($1,$2,$3,$4,$5)
		ON CONFLICT (audience, epoch, signer) DO UPDATE SET high = excluded.high, used = excluded.used`,
		audience, int64(w.Epoch), w.Key, int64(w.High), int64(w.Used))
	return err
}

// Windows lists those of an audience.
func (tx *Tx) Windows(audience wire.Hash) ([]Window, error) {
	return collect(tx, func(rows *Rows, w *Window) error {
		var used int64
		if err := rows.Scan(&w.Epoch, &w.Key, &w.High, &used); err != nil {
			return err
		}
		w.Used = uint64(used)
		return nil
	}, `SELECT epoch, signer, high, used FROM windows WHERE audience = $1`, audience)
}

// NextNumber is the next pin number of one of our keys. It is never below what
// the ledger has shown, so that a restored database does not use a number twice.
func (tx *Tx) NextNumber(audience wire.Hash, epoch uint64, key wire.Address) (uint64, error) {
	var next, high int64
	err := tx.QueryRow(`SELECT COALESCE((SELECT next FROM counters WHERE audience = $1 AND epoch = $2 AND signer = $3), 1),
		COALESCE((SELECT high FROM windows WHERE audience = $1 AND epoch = $2 AND signer = $3), 0)`, audience, int64(epoch), key).Scan(&next, &high)
	return uint64(max(next, high+1)), err
}

// TakeNumber uses up a pin number of one of our keys, and all below it.
func (tx *Tx) TakeNumber(audience wire.Hash, epoch uint64, key wire.Address, n uint64) error {
	err := tx.Send(`INSERT INTO counters (audience, epoch, signer, next) VALUES ($1,$2,$3,$4)
		ON CONFLICT (audience, epoch, signer) DO UPDATE SET
		next = CASE WHEN excluded.next > counters.next THEN excluded.next ELSE counters.next END`, audience, int64(epoch), key, int64(n)+1)
	return err
}
