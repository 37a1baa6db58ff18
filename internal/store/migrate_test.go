package store

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestMigrationFilesAreNumbered(t *testing.T) {
	for names, ok := range map[string]bool{
		"0001_start.sql": true,
		"0001_start.sql 0002_more.sql 0002_more.down.sql": true,
		"0001_start.sql 0002_more.sql":                    false,
		"0001_start.sql 0003_more.sql 0003_more.down.sql": false,
		"start.sql":      false,
		"0000_start.sql": false,
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

// CheckMigrations checks on an empty database that each migration is applied
// once and in one piece: a failing one leaves the version before it, and a mended
// one continues from there. The way back ends at the version asked for.
func CheckMigrations(t *testing.T, path string) {
	db, err := open(Options{Path: path}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer db.release()
	c, err := db.openConn(t.Context(), db.pools.write)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	list := []migration{
		{1, "0001", `CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL); CREATE TABLE a (seq {{serial}}, b {{bytes}})`, ""},
		{2, "0002", `INSERT INTO a (b) VALUES ('x'); INSERT INTO nosuch (b) VALUES ('y')`, `DELETE FROM a`},
		{3, "0003", `CREATE TABLE c (n BIGINT); INSERT INTO a (b) VALUES ('z')`, `DROP TABLE c; DELETE FROM a WHERE b = 'z'`},
	}
	check := func(version, rows int) {
		t.Helper()
		v, err := db.schemaVersion(t.Context(), c)
		if err != nil || v != version {
			t.Fatalf("version %d, %v; want %d", v, err, version)
		}
		if version == 0 {
			return
		}
		var n int
		if err := c.sql.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM a`).Scan(&n); err != nil || n != rows {
			t.Errorf("%d rows at version %d, %v; want %d", n, version, err, rows)
		}
	}
	check(0, 0)
	if err := db.apply(t.Context(), c, list, 3); err == nil || !strings.Contains(err.Error(), "0002") {
		t.Fatalf("a failing migration: %v", err)
	}
	check(1, 0)
	list[1].text = `INSERT INTO a (b) VALUES ('x')`
	for _, step := range []struct{ version, rows int }{{3, 2}, {3, 2}, {2, 1}, {3, 2}, {1, 0}, {2, 1}} {
		if err := db.apply(t.Context(), c, list, step.version); err != nil {
			t.Fatal(err)
		}
		check(step.version, step.rows)
	}
	if err := db.apply(t.Context(), c, list[:1], 1); err == nil || !strings.Contains(err.Error(), "knows versions up to 1") {
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
