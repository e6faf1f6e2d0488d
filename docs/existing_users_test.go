package docs_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/gopassreset/reset"
)

// backfill fills the column address of every user and returns the addresses
// that have no canonical form.
func backfill(ctx context.Context, db *sql.DB) (refused []string, err error) {
	rows, err := db.QueryContext(ctx, "SELECT id, email FROM users WHERE address IS NULL")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	addresses := make(map[string]string)
	for rows.Next() {
		var id, email string
		if err := rows.Scan(&id, &email); err != nil {
			return nil, err
		}
		address, err := reset.CanonicalAddress(email)
		if err != nil {
			refused = append(refused, email)
			continue
		}
		addresses[id] = address
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for id, address := range addresses {
		if _, err := db.ExecContext(ctx, "UPDATE users SET address = ? WHERE id = ? AND address IS NULL", address, id); err != nil {
			return nil, err
		}
	}
	return refused, nil
}

// The SQL and the Go of existing-users.md do what it says.
func TestBackfill(t *testing.T) {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "app.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT NOT NULL);
		INSERT INTO users VALUES ('1', 'Ann@EXAMPLE.com'), ('2', 'ann@example.com'), ('3', 'Bob@Bücher.example'), ('4', 'not an address')`); err != nil {
		t.Fatal(err)
	}
	blocks := snippets(pages(t)["docs/existing-users.md"], "sql")
	if len(blocks) != 3 {
		t.Fatalf("the page has %d blocks of SQL, want 3", len(blocks))
	}
	addColumn, addIndex, collisions := blocks[0], blocks[1], blocks[2]

	if _, err := db.Exec(addColumn); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		refused, err := backfill(t.Context(), db)
		if want := []string{"not an address"}; err != nil || !slices.Equal(refused, want) {
			t.Errorf("backfill = %q, %v, want %q", refused, err, want)
		}
	}
	var bob string
	if err := db.QueryRow("SELECT address FROM users WHERE id = '3'").Scan(&bob); err != nil || bob != "bob@xn--bcher-kva.example" {
		t.Errorf("Bob has the address %q, %v, want bob@xn--bcher-kva.example", bob, err)
	}
	if _, err := db.Exec(addIndex); err == nil {
		t.Error("the index was made although two users collide")
	}
	var twice string
	var n int
	if err := db.QueryRow(collisions).Scan(&twice, &n); err != nil || fmt.Sprint(twice, n) != "ann@example.com2" {
		t.Errorf("collisions: %q × %d, %v, want ann@example.com × 2", twice, n, err)
	}
	if _, err := db.Exec("UPDATE users SET email = 'ann@example.org', address = 'ann@example.org' WHERE id = '2'"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(addIndex); err != nil {
		t.Errorf("the index after that: %v", err)
	}
}
