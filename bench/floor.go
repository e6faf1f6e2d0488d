package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// newInsert is the least that can accept a request: decode it and insert one
// row. On SQLite what comes while a commit is under way is committed together;
// elsewhere each row is committed by itself.
func newInsert(ctx context.Context, db *bun.DB, place string) (http.Handler, func() error, error) {
	insert := func(ctx context.Context, email string) error {
		_, err := db.DB.ExecContext(ctx, placeholders(db, `INSERT INTO floor (email, at) VALUES (?, ?)`), email, time.Now().UnixMilli())
		return err
	}
	if place == "sqlite" {
		group, err := newGroup(ctx, db)
		if err != nil {
			return nil, nil, err
		}
		insert = group.insert
	}
	return floorHandler(insert), db.Close, nil
}

// newCap is the least that can keep a cap without any promise under
// concurrency: look the user up, count, insert, commit.
func newCap(ctx context.Context, db *bun.DB) (http.Handler, func() error, error) {
	a, err := newAccounts(ctx, db)
	if err != nil {
		return nil, nil, err
	}
	count := placeholders(db, `SELECT COUNT(*) FROM floor WHERE email = ? AND at > ?`)
	insert := placeholders(db, `INSERT INTO floor (email, at) VALUES (?, ?)`)
	return floorHandler(func(ctx context.Context, email string) error {
		user, err := a.FindByEmail(ctx, email)
		if err != nil {
			return err
		}
		tx, err := db.DB.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		var n int
		now := time.Now().UnixMilli()
		if err := tx.QueryRowContext(ctx, count, user.Email, now-3_600_000).Scan(&n); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, insert, user.Email, now); err != nil {
			return err
		}
		return tx.Commit()
	}), db.Close, nil
}

// placeholders numbers the question marks of a query where the database wants
// that.
func placeholders(db *bun.DB, query string) string {
	if db.Dialect().Name().String() != "pg" {
		return query
	}
	var b strings.Builder
	n := 0
	for _, r := range query {
		if r == '?' {
			n++
			fmt.Fprintf(&b, "$%d", n)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func floorHandler(insert func(context.Context, string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Email string }
		err := json.NewDecoder(r.Body).Decode(&body)
		if err == nil {
			err = insert(r.Context(), body.Email)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

// A group commits together what comes while a commit is under way.
type group struct {
	rows chan groupRow
}

type groupRow struct {
	email string
	done  chan error
}

func newGroup(ctx context.Context, db *bun.DB) (*group, error) {
	conn, err := db.DB.Conn(ctx)
	if err != nil {
		return nil, err
	}
	insert, err := conn.PrepareContext(ctx, `INSERT INTO floor (email, at) VALUES (?, ?)`)
	if err != nil {
		return nil, err
	}
	g := &group{rows: make(chan groupRow)}
	go func() {
		for {
			select {
			case row := <-g.rows:
				g.commit(conn, insert, row)
			case <-ctx.Done():
				return
			}
		}
	}()
	return g, nil
}

func (g *group) insert(ctx context.Context, email string) error {
	row := groupRow{email, make(chan error, 1)}
	select {
	case g.rows <- row:
		return <-row.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *group) commit(conn *sql.Conn, insert *sql.Stmt, first groupRow) {
	ctx := context.Background()
	batch := []groupRow{first}
	_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
	for i := 0; err == nil && i < len(batch); i++ {
		_, err = insert.ExecContext(ctx, batch[i].email, time.Now().UnixMilli())
		if i == len(batch)-1 {
			runtime.Gosched() // let those whom the last commit woke come, too
			select {
			case row := <-g.rows:
				batch = append(batch, row)
			default:
			}
		}
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	for _, row := range batch {
		row.done <- err
	}
}
