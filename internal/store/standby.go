package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Several processes of one node may share a PostgreSQL database. One of them is
// active: it alone runs the node's workers. The others take requests in.
//
//   - The lease row names the active process and its term. Who takes the lease
//     over raises the term.
//   - Write transactions of all processes take turns, by an advisory lock, so
//     that each sees what the one before it did and sequences ascend in the
//     order of commits, as with one writer. Having its turn, the active process
//     compares the term with its own. So one that was overtaken, however long it
//     slept, can change nothing: the lease is taken over in a turn, too.
//   - Each process has a row that it touches at every beat. The others remove
//     the row when its beats stop, and whatever it held is free then. A process
//     that finds its row gone starts over.
//   - Each commit notifies the other processes.
//
// All times here are by the server's clock.

// Shared says which of the processes on one database this one is.
type Shared struct {
	Name  string        // for people: which machine it is on
	Node  UUID          // all processes must be of the same node
	API   string        // where this process is reached, for status
	Lease time.Duration // after how much silence the others take its place; 0 means DefaultLease
}

// DefaultLease is long enough for a process that the machine kept waiting. One
// that has died is overtaken after a third of it.
const DefaultLease = 3 * time.Second

// beats is how many times in a lease a process says that it is there.
const beats = 6

// ErrOvertaken is returned when another process has taken this one's place, or
// could have: the process must start over. Nothing that it was writing is stored.
var ErrOvertaken = errors.New("another process of this node has taken over")

// share is this process's part in the database that it shares.
type share struct {
	Shared
	id      string       // new with each start
	on      atomic.Bool  // the tables are there: transactions take turns
	term    atomic.Int64 // of the lease that this process has; 0 while it stands by
	lost    atomic.Bool  // overtaken; for good
	watched chan struct{}
}

func newShare(s Shared) (*share, error) {
	if s.Lease == 0 {
		s.Lease = DefaultLease
	}
	if s.Lease < 100*time.Millisecond {
		return nil, fmt.Errorf("store: Shared.Lease is %s; give at least 100 ms", s.Lease)
	}
	return &share{Shared: s, id: rand.Text(), watched: make(chan struct{}, 1)}, nil
}

const (
	// turnLock is the advisory lock that write transactions take turns by.
	turnLock = `hashtextextended('parley turn of ' || current_schema(), 0)`
	sqlTurn  = `SELECT pg_advisory_xact_lock(` + turnLock + `)`
	sqlTerm  = `SELECT term FROM lease WHERE one = 1`

	// serverTime is the server's clock in nanoseconds since 1970.
	serverTime = `CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000000 AS BIGINT)`

	// channel is where commits are announced.
	channel = `'parley_' || md5(current_schema())`

	// silent holds for a process p whose beats have stopped. The server closes
	// the connection of one that has died, so that need not be waited for.
	silent = `(p.seen < ` + serverTime + ` - p.lease OR p.seen < ` + serverTime + ` - p.lease / 3
		AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.pid = p.backend))`
)

// beginning are the statements that follow BEGIN, in the same round trip.
func (s *share) beginning() []waiting {
	if !s.on.Load() {
		return nil
	}
	list := []waiting{{text: sqlTurn}}
	if term := s.term.Load(); term > 0 {
		list = append(list, waiting{text: sqlTerm, check: func(now int64) error {
			if now == term {
				return nil
			}
			s.overtaken()
			return fmt.Errorf("%w: this one had the lease in term %d, now it is term %d", ErrOvertaken, term, now)
		}})
	}
	return list
}

// ending are the statements before COMMIT.
func (s *share) ending() []waiting {
	if !s.on.Load() {
		return nil
	}
	return []waiting{{text: `SELECT pg_notify(` + channel + `, '` + s.id + `')`}}
}

// overtaken notes that this process has lost its place, and has Watch look.
func (s *share) overtaken() {
	s.lost.Store(true)
	select {
	case s.watched <- struct{}{}:
	default:
	}
}

// ready prepares a connection that writes: besides what readyToWrite
// sees to, no process that wants the database for itself may have it, and a
// transaction whose process sleeps ends, so that the others get their turn.
func (s *share) ready(ctx context.Context, c *pgx.Conn) error {
	schema, err := durable(ctx, c)
	if err != nil {
		return err
	}
	var locked bool
	if err := c.QueryRow(ctx, `SELECT pg_try_advisory_lock_shared(`+writerLock+`)`).Scan(&locked); err != nil {
		return err
	}
	if !locked {
		return inUse(ctx, c, schema)
	}
	_, err = c.Exec(ctx, fmt.Sprintf(`SET idle_in_transaction_session_timeout = %d`, s.Lease.Milliseconds()))
	return err
}

// enter migrates the schema, unless other processes use an older one, and
// enters this process into the table of them.
func (s *share) enter(ctx context.Context, db *DB, c *conn) (err error) {
	exec := func(query string) error { _, err := c.sql.ExecContext(ctx, query); return err }
	if err := exec(`SELECT pg_advisory_lock(` + turnLock + `)`); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, exec(`SELECT pg_advisory_unlock(`+turnLock+`)`)) }()
	list, err := migrations(migrationFiles)
	if err != nil {
		return err
	}
	version, err := db.schemaVersion(ctx, c)
	if err != nil {
		return err
	}
	if version > 0 && version < len(list) {
		names, err := s.others(ctx, c)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("database %s has schema version %d, this program makes it version %d, and the processes %s of an older program use it: stop them before the first one of the newer program starts", db.name, version, len(list), strings.Join(names, ", "))
		}
	}
	if err := db.migrate(ctx, c); err != nil {
		return err
	}
	if err := s.sameNode(ctx, c); err != nil {
		return err
	}
	if err := exec(`INSERT INTO lease (one, term, process, since) VALUES (1, 0, '', ` + serverTime + `) ON CONFLICT (one) DO NOTHING`); err != nil {
		return err
	}
	const row = `INSERT INTO processes (id, name, api, lease, backend, started, seen) VALUES ($1, $2, $3, $4, 0, ` + serverTime + `, ` + serverTime + `)`
	if _, err := c.sql.ExecContext(ctx, row, s.id, s.Name, s.API, int64(s.Lease)); err != nil {
		return err
	}
	s.on.Store(true)
	return nil
}

// others are the names of the processes that use the database now.
func (s *share) others(ctx context.Context, c *conn) (names []string, err error) {
	rows, err := c.sql.QueryContext(ctx, `SELECT name FROM processes p WHERE NOT `+silent+` ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// sameNode refuses a database that another node shares.
func (s *share) sameNode(ctx context.Context, c *conn) error {
	node := s.Node.String()
	if _, err := c.sql.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ('node', $1) ON CONFLICT (name) DO NOTHING`, node); err != nil {
		return err
	}
	var owner string
	if err := c.sql.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'node'`).Scan(&owner); err != nil {
		return err
	}
	if owner != node {
		return fmt.Errorf("the database belongs to the node %s, and this one is %s: give it a database or schema of its own", owner, node)
	}
	return nil
}

// Watcher is told what the other processes do. Its functions must not block.
type Watcher struct {
	Active  func(term int64) // this process has the lease now; called once
	Changed func()           // another process has committed something
}

// Watch keeps this process's place among those that share the database, takes
// the lease when it is free, and waits for the others' commits. It returns nil
// when ctx ends, having given up the place, or ErrOvertaken. While the server
// cannot be reached it tries again; the active process gives up after a lease
// without a beat, because peers must then find another one.
//
// Stop the workers before ctx: what they write needs the lease.
func (db *DB) Watch(ctx context.Context, w Watcher) error {
	s := db.share
	if s == nil {
		return errors.New("store: Watch needs Options.Shared")
	}
	last := time.Now() // of the last beat
	for {
		err := s.watch(ctx, db, w, &last)
		switch {
		case errors.Is(err, ErrOvertaken):
			s.lost.Store(true)
			return err
		case ctx.Err() != nil:
			return s.leave(db)
		case s.term.Load() > 0 && time.Since(last) > s.Lease:
			s.lost.Store(true)
			return fmt.Errorf("%w, or could have: the database was out of reach for %s: %w", ErrOvertaken, s.Lease, err)
		}
		db.log.Warn("the database cannot be watched; trying again", "path", db.name, "error", err)
		t := time.NewTimer(s.Lease / beats)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// watch does the work of Watch on one connection.
func (s *share) watch(ctx context.Context, db *DB, w Watcher, last *time.Time) error {
	dial, cancel := context.WithTimeout(ctx, s.Lease)
	c, err := pgx.ConnectConfig(dial, db.pools.watch)
	cancel()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }() // nothing on it is worth an error
	var name string
	if err := c.QueryRow(ctx, `SELECT `+channel).Scan(&name); err != nil {
		return err
	}
	// A beat need not survive the server; what is won with it is committed durably.
	if _, err := c.Exec(ctx, `SET synchronous_commit = off; SET idle_in_transaction_session_timeout = `+fmt.Sprint(s.Lease.Milliseconds())+`; LISTEN `+pgx.Identifier{name}.Sanitize()); err != nil {
		return err
	}
	if w.Changed != nil {
		w.Changed() // what happened before LISTEN
	}
	for {
		if err := s.beat(ctx, c, w); err != nil {
			return err
		}
		*last = time.Now()
		if err := s.listen(ctx, c, w); err != nil {
			return err
		}
	}
}

// listen waits for other processes' commits until the next beat is due.
func (s *share) listen(ctx context.Context, c *pgx.Conn, w Watcher) error {
	ctx, cancel := context.WithTimeout(ctx, s.Lease/beats)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-s.watched:
			cancel()
		case <-stop:
		}
	}()
	for {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			if ctx.Err() != nil && !c.IsClosed() {
				return nil
			}
			return err
		}
		if n.Payload != s.id && w.Changed != nil {
			w.Changed()
		}
	}
}

// beat touches this process's row, and takes what those who are silent held.
func (s *share) beat(ctx context.Context, c *pgx.Conn, w Watcher) error {
	ctx, cancel := context.WithTimeout(ctx, max(s.Lease, time.Second))
	defer cancel()
	tag, err := c.Exec(ctx, `UPDATE processes SET seen = `+serverTime+`, backend = pg_backend_pid() WHERE id = $1`, s.id)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: it was not heard of for %s", ErrOvertaken, s.Lease)
	}
	var term int64
	var holder string
	var held, dead bool
	err = c.QueryRow(ctx, `SELECT term, process, EXISTS (SELECT 1 FROM processes p WHERE p.id = lease.process),
		EXISTS (SELECT 1 FROM processes p WHERE p.id <> $1 AND `+silent+`) FROM lease WHERE one = 1`, s.id).Scan(&term, &holder, &held, &dead)
	if err != nil {
		return err
	}
	if mine := s.term.Load(); mine > 0 && (mine != term || holder != s.id) {
		return fmt.Errorf("%w: this one had the lease in term %d, now it is term %d", ErrOvertaken, mine, term)
	}
	if held && !dead {
		return nil
	}
	return s.take(ctx, c, w)
}

// take removes processes that are silent, and takes the lease if nobody has it.
func (s *share) take(ctx context.Context, c *pgx.Conn, w Watcher) error {
	var term int64
	err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sqlTurn); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SET LOCAL synchronous_commit = on`); err != nil {
			return err
		}
		// This one may have waited for its turn, and is there.
		if _, err := tx.Exec(ctx, `UPDATE processes SET seen = `+serverTime+` WHERE id = $1`, s.id); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM processes p WHERE p.id <> $1 AND `+silent, s.id); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `UPDATE lease SET term = term + 1, process = $1, since = `+serverTime+`
			WHERE process NOT IN (SELECT id FROM processes) AND $1 IN (SELECT id FROM processes) RETURNING term`, s.id).Scan(&term)
		if errors.Is(err, pgx.ErrNoRows) {
			term = 0
			return nil
		}
		return err
	})
	if err != nil || term == 0 {
		return err
	}
	s.term.Store(term)
	if w.Active != nil {
		w.Active(term)
	}
	return nil
}

// leave gives up this process's place, and so the lease, in order: another
// process takes it at once.
func (s *share) leave(db *DB) error {
	s.lost.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), s.Lease)
	defer cancel()
	c, err := pgx.ConnectConfig(ctx, db.pools.watch)
	if err != nil {
		return fmt.Errorf("the others take over only after %s, because this process could not leave in order: %w", s.Lease, err)
	}
	defer func() { _ = c.Close(ctx) }()
	_, err = c.Exec(ctx, `DELETE FROM processes WHERE id = $1`, s.id)
	if err == nil {
		_, err = c.Exec(ctx, `SELECT pg_notify(`+channel+`, '')`)
	}
	return err
}

// Process is one of the processes that share a database.
type Process struct {
	Name    string `json:"name"`
	API     string `json:"api"`
	Self    bool   `json:"self"` // it answers this request
	Active  bool   `json:"active"`
	Started Time   `json:"started"`
	Age     int64  `json:"age"` // nanoseconds since its last beat
}

// Lease is who is active, since when.
type Lease struct {
	Term      int64     `json:"term"`
	Since     Time      `json:"since"`
	Processes []Process `json:"processes"`
}

// Lease tells of the processes that share the database; nil if it is not shared.
func (db *DB) Lease(ctx context.Context) (l *Lease, err error) {
	if db.share == nil {
		return nil, nil
	}
	err = db.Read(ctx, func(tx *Tx) error {
		var holder string
		l = &Lease{}
		if err := tx.QueryRow(`SELECT term, process, since FROM lease WHERE one = 1`).Scan(&l.Term, &holder, &l.Since); err != nil {
			return err
		}
		l.Processes, err = queryAll(tx, func(r *Rows, p *Process) error {
			var id string
			if err := r.Scan(&id, &p.Name, &p.API, &p.Started, &p.Age); err != nil {
				return err
			}
			p.Self, p.Active = id == db.share.id, id == holder
			return nil
		}, `SELECT id, name, api, started, `+serverTime+` - seen FROM processes ORDER BY name, id`)
		return err
	})
	return l, err
}

// Term is the term in which this process has the lease; 0 while it stands by, or
// if the database is not shared.
func (db *DB) Term() int64 {
	if db.share == nil {
		return 0
	}
	return db.share.term.Load()
}

// Shared tells whether other processes may use the database, too.
func (db *DB) Shared() bool { return db.share != nil }

// Claim makes this process the one that delivers a subscription; false if
// another process does, and is there. Without other processes it is always true.
func (db *DB) Claim(ctx context.Context, subscription UUID) (mine bool, err error) {
	if db.share == nil {
		return true, nil
	}
	var taken bool // most who ask wait for the one who has it
	err = db.Read(ctx, func(tx *Tx) error {
		return tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM consumers c JOIN processes p ON p.id = c.process
			WHERE c.subscription = $1 AND c.process <> $2)`, subscription, db.share.id).Scan(&taken)
	})
	if err != nil || taken {
		return false, err
	}
	err = db.Write(ctx, func(tx *Tx) error {
		n, err := tx.Exec(`INSERT INTO consumers AS c (subscription, process) VALUES ($1, $2)
			ON CONFLICT (subscription) DO UPDATE SET process = excluded.process
			WHERE c.process = excluded.process OR c.process NOT IN (SELECT id FROM processes)`, subscription, db.share.id)
		mine = n > 0
		return err
	})
	return mine && err == nil, err
}

// Release ends a claim.
func (db *DB) Release(ctx context.Context, subscription UUID) error {
	if db.share == nil {
		return nil
	}
	return db.Write(ctx, func(tx *Tx) error {
		return tx.Send(`DELETE FROM consumers WHERE subscription = $1 AND process = $2`, subscription, db.share.id)
	})
}
