package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// Probe is a row of a table that only tests have, with a column of each kind.
type Probe struct{ Seq int64 }

// ProbeTable creates it.
const ProbeTable = `CREATE TABLE probes (
	seq INTEGER PRIMARY KEY, namespace TEXT NOT NULL, s TEXT, u TEXT, h TEXT, t BIGINT, i BIGINT, n TEXT, b BOOLEAN, j TEXT, a TEXT)`

var Probes = &Table[Probe]{Collection{
	Name: "probes", One: "probe", table: "probes", serial: "seq", key: "seq",
	Fields: []Field{
		{"s", KindText, "s"}, {"u", KindUUID, "u"}, {"h", KindHash, "h"}, {"t", KindTime, "t"}, {"i", KindInt, "i"},
		{"n", KindBigInt, "n"}, {"b", KindBool, "b"}, {"j", KindJSON, "j"}, {"a", KindList, "a"}, {"none", KindText, ""},
	},
}, `SELECT seq FROM probes`, func(r *Rows, p *Probe) error { return r.Scan(&p.Seq) }}

// ListText is the statement that List runs, for looking at its plan.
func ListText[T any](t *Table[T], namespace string, q Query) (string, []any) {
	var s sqlText
	s.WriteString(t.query)
	q.where(&s, namespace)
	q.page(&s, &t.Collection)
	return s.String(), s.args
}

// BeatOnce is one beat of Watch.
func (db *DB) BeatOnce(ctx context.Context, w Watcher) error {
	c, err := pgx.ConnectConfig(ctx, db.pools.watch)
	if err != nil {
		return err
	}
	return errors.Join(db.share.beat(ctx, c, w), c.Close(ctx))
}
