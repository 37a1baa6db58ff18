package store

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestMigrationFilesAreNumbered(t *testing.T) {
	for names, ok := range map[string]bool{
		"0001_start.sql 0002_more.sql": true,
		"0001_start.sql 0003_more.sql": false,
		"start.sql":                    false,
		"0000_start.sql":               false,
	} {
		files := fstest.MapFS{}
		for _, name := range strings.Fields(names) {
			files["migrations/"+name] = &fstest.MapFile{Data: []byte("SELECT 1")}
		}
		if _, err := migrations(files); (err == nil) != ok {
			t.Errorf("%s: %v", names, err)
		}
	}
}

// Each migration is applied once and in one piece: a failing one leaves the
// version before it, and a mended one continues from there.
func TestMigrationsApplyInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.db")
	pools, err := openSQLite(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pools.close()
	db := &DB{path: path, name: path, dialect: sqliteDialect, log: slog.New(slog.DiscardHandler)}
	c, err := db.openConn(t.Context(), pools.write)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	list := []migration{
		{1, "0001", `CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL); CREATE TABLE a (seq {{serial}}, b {{bytes}})`},
		{2, "0002", `INSERT INTO a (b) VALUES ('x'); INSERT INTO nosuch (b) VALUES ('y')`},
	}
	version := func() int {
		t.Helper()
		v, err := db.schemaVersion(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := version(); v != 0 {
		t.Errorf("an empty database has version %d", v)
	}
	if err := db.apply(t.Context(), c, list); err == nil || !strings.Contains(err.Error(), "0002") {
		t.Fatalf("a failing migration: %v", err)
	}
	if v := version(); v != 1 {
		t.Errorf("after a failing second migration the version is %d", v)
	}
	list[1].text = `INSERT INTO a (b) VALUES ('x')`
	for range 2 {
		if err := db.apply(t.Context(), c, list); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if err := c.sql.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM a`).Scan(&n); err != nil || n != 1 || version() != 2 {
		t.Errorf("%d rows at version %d, %v", n, version(), err)
	}
	if err := db.apply(t.Context(), c, list[:1]); err == nil || !strings.Contains(err.Error(), "knows versions up to 1") {
		t.Errorf("an older program: %v", err)
	}
}

func TestQuestionMarks(t *testing.T) {
	for in, want := range map[string]string{
		"SELECT 1":                "SELECT 1",
		"VALUES ($1,$2),($3,$4)":  "VALUES (?,?),(?,?)",
		"a = $2 AND b = $1":       "a = $2 AND b = $1",
		"a = $1 OR b = $1":        "a = $1 OR b = $1",
		"a IN ($1) AND b = $2":    "a IN (?) AND b = ?",
		"a = '$'":                 "a = '$'",
		"$1$2$3$4$5$6$7$8$9$10,x": "??????????,x",
	} {
		if got := questionMarks(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}
