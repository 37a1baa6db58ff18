package store

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// dialect is where the two databases differ. Everything else is written once,
// in the SQL that both understand.
type dialect struct {
	tokens         map[string]string // in migrations
	hasMeta        string            // counts tables named meta
	remote         bool              // a statement is a round trip over a network
	beginWrite     string
	beginRead      string
	optimizeAtOpen string // "" for nothing
	optimize       string
	optimizeApart  bool                                    // optimize runs beside the writer, in no transaction
	scrub          string                                  // see DB.Scrub
	marks          func(query string) string               // rewrites $1, $2 … where that helps
	explain        func(error) (remedy string, kind error) // of the database's own errors; nil if not known
	transient      func(error) bool                        // the transaction may succeed if it is run again
}

var sqliteDialect = dialect{
	tokens: map[string]string{
		// AUTOINCREMENT: a sequence number is never given out twice, also not
		// after the newest rows were deleted.
		"{{serial}}":    "INTEGER PRIMARY KEY AUTOINCREMENT",
		"{{bytes}}":     "BLOB",
		"{{clustered}}": " WITHOUT ROWID",
	},
	hasMeta:        `SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'`,
	beginWrite:     "BEGIN IMMEDIATE",
	beginRead:      "BEGIN",
	optimizeAtOpen: "PRAGMA optimize=0x10002",
	optimize:       "PRAGMA optimize",
	scrub:          "PRAGMA wal_checkpoint(TRUNCATE)",
	marks:          questionMarks,
	explain:        explainSQLite,
	transient:      func(error) bool { return false }, // the one writer has no rival
}

// questionMarks writes ? for $1, $2 … if they stand in the text in this order,
// once each. To SQLite $1 is a name, and looking up names takes quadratic time
// in a multi-row INSERT. Other texts stay as they are.
func questionMarks(query string) string {
	var b strings.Builder
	rest := query
	for n := 1; ; n++ {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		digits := len(after) - len(strings.TrimLeft(after, "0123456789"))
		if after[:digits] != strconv.Itoa(n) {
			return query
		}
		b.WriteByte('?')
		rest = after[digits:]
	}
}

// pools are database/sql's handles: one connection to write, some to read.
type pools struct {
	write, read *sql.DB
	watch       *pgx.ConnConfig // for a connection of its own; nil for a file
}

func (p pools) close() error { return errors.Join(p.write.Close(), p.read.Close()) }

// sqliteBusy is how long a statement waits for another connection's lock.
const sqliteBusy = 10 * time.Second

// busyNow tells whether a statement failed because another connection is at it.
func busyNow(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code()&0xff == lib.SQLITE_BUSY || e.Code()&0xff == lib.SQLITE_LOCKED)
}

func openSQLite(path string, readers int) (pools, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return pools{}, fmt.Errorf("database path %q: %w", path, err)
	}
	// As SQLite itself does wherever the system has it: fdatasync writes all
	// that a commit needs, without the file's time stamps.
	if _, err := sqlite.Fdatasync(true); err != nil && !errors.Is(err, sqlite.ErrFdatasyncUnavailable) {
		return pools{}, fmt.Errorf("choosing fdatasync: %w", err)
	}
	dsn := func(more ...string) string {
		q := url.Values{"_pragma": append([]string{
			fmt.Sprintf("busy_timeout(%d)", sqliteBusy.Milliseconds()),
			"journal_mode(WAL)",
			"synchronous(FULL)",
			"case_sensitive_like(1)", // as in PostgreSQL
			// What is deleted or replaced is overwritten with zeros, so that what is
			// erased is not left in free pages of the file.
			"secure_delete(1)",
			"temp_store(MEMORY)",
			"cache_size(-16384)", // KiB
			// The pages that new rows go to are written by commit after commit: the
			// more commits until they are copied into the file, the fewer copies.
			"wal_autocheckpoint(8000)", // pages of 4 KiB
		}, more...)}
		return (&url.URL{Scheme: "file", OmitHost: true, Path: abs, RawQuery: q.Encode()}).String()
	}
	var p pools
	if p.write, err = sql.Open("sqlite", dsn()); err != nil {
		return pools{}, fmt.Errorf("opening %s: %w", path, err)
	}
	if p.read, err = sql.Open("sqlite", dsn("query_only(1)")); err != nil {
		return pools{}, errors.Join(fmt.Errorf("opening %s: %w", path, err), p.write.Close())
	}
	p.write.SetMaxOpenConns(1)
	p.read.SetMaxOpenConns(readers)
	p.read.SetMaxIdleConns(readers)
	return p, nil
}

// ErrDisk marks errors that a person must help with: no space, a failing disk,
// a read-only or damaged file. The database goes on by itself once it can.
var ErrDisk = errors.New("the disk or the database needs attention")

// explain adds to a database error what to do about it, where that is known.
func (db *DB) explain(err error) error {
	if err == nil || errors.Is(err, ErrDisk) || errors.Is(err, ErrUnreachable) {
		return err
	}
	remedy, kind := db.dialect.explain(err)
	if kind == nil {
		return err
	}
	return fmt.Errorf("database %s: %s (%w): %w", db.name, remedy, kind, err)
}

func explainSQLite(err error) (remedy string, kind error) {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return "", nil
	}
	switch e.Code() & 0xff { // the low byte is the primary code
	case lib.SQLITE_FULL:
		remedy = "no space left: free space on its volume; writing goes on by itself then"
	case lib.SQLITE_IOERR:
		remedy = "the disk fails: check the volume and the system's log, and restore from a backup if data is lost"
	case lib.SQLITE_READONLY:
		remedy = "the file or its folder is read-only: make both writable for the node's user"
	case lib.SQLITE_CANTOPEN:
		remedy = "the file cannot be opened: check that its folder exists and is writable for the node's user"
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		remedy = "the file is damaged or not a database: restore it from a backup"
	default:
		return "", nil
	}
	return remedy, ErrDisk
}
