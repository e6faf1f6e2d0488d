package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/gopassreset/reset"
)

// planned is a Backend that asks SQLite for the plan of each statement before
// it runs it.
type planned struct {
	*sql.DB
	plans map[string][]string
}

func (p planned) plan(ctx context.Context, query string, args []any) error {
	return each(ctx, On(p.DB), func(r Row) error {
		var id, parent, unused int
		var step string
		err := r.Scan(&id, &parent, &unused, &step)
		p.plans[query] = append(p.plans[query], step)
		return err
	}, "EXPLAIN QUERY PLAN "+query, args...)
}

func (p planned) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := p.plan(ctx, query, args); err != nil {
		return nil, err
	}
	return p.DB.ExecContext(ctx, query, args...)
}

func (p planned) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := p.plan(ctx, query, args); err != nil {
		return nil, err
	}
	return p.DB.QueryContext(ctx, query, args...)
}

func (p planned) Read(ctx context.Context, f Op) error     { return f(ctx, On(p)) }
func (p planned) WriteRow(ctx context.Context, f Op) error { return f(ctx, On(p)) }

func (p planned) WriteOne(ctx context.Context, f Op) error { return f(ctx, On(p)) }
func (p planned) Write(ctx context.Context, f Op) error    { return f(ctx, On(p)) }
func (p planned) Begin(context.Context) (*Tx, error)       { panic("not planned") }

// On SQLite no statement reads a whole table or index, and those that look for
// mail that is due read neither what is queued for later nor more than the index
// of what has expired. Rows whose keys are known are found by these.
func TestPlans(t *testing.T) {
	ctx := t.Context()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	schema, err := SQLite.Schema()
	if err != nil {
		t.Fatal(err)
	}
	script, err := schema.Script(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range script {
		if err := exec(ctx, On(db), statement); err != nil {
			t.Fatal(err)
		}
	}

	p := planned{DB: db, plans: make(map[string][]string)}
	s := New(p, nil, SQLite, false)
	s.KeepHistory(day)
	now := time.Now()
	expires := now.Add(time.Hour)
	activation := func(secret string) reset.Activation {
		return reset.Activation{Hash: sha256.Sum256([]byte(secret)), Request: newID(now), UserID: "u", Email: "u@example.com", Expires: expires}
	}
	a, claim := activation("a"), newID(now)
	notification := reset.Mail{ID: newID(now), Kind: reset.MailNotification, UserID: "u", Email: a.Email, Due: now, Expires: expires}
	for _, step := range []func() error{
		func() error {
			for range 16 {
				if err := s.Enqueue(ctx, reset.Mail{ID: newID(now), Kind: reset.MailReset, Email: a.Email, Due: now, Expires: expires}); err != nil {
					return err
				}
			}
			return nil
		},
		func() error {
			mails, err := s.Lease(ctx, now, now.Add(time.Minute), 16)
			if err != nil || len(mails) != 16 {
				t.Fatalf("Lease = %v, %v", mails, err)
			}
			if _, err := s.Issue(ctx, now, a, reset.Limits{MaxRequests: 3, MaxPerHour: 3, MaxPerDay: 12}, &mails[0]); err != nil {
				return err
			}
			refused := &reset.Note{UserID: "u", Kind: reset.HistoryPublic, At: now, Refusal: "450", Requests: 1}
			return s.Settle(ctx, []reset.Settlement{{Mail: mails[0].ID, Lease: mails[0].Lease, Retry: now.Add(time.Minute), Note: refused}})
		},
		func() error { _, err := s.Find(ctx, now, a.Hash); return err },
		func() error { return s.claim(ctx, On(p), now, a, claim) },
		func() error { return s.settleClaim(ctx, On(p), a, claim, notChanged, notification) },
		func() error {
			_, err := s.Issue(ctx, now, activation("b"), reset.Limits{MaxRequests: 3}, nil)
			return err
		},
		func() error { return s.use(ctx, On(p), now, activation("b"), notification) },
		func() error { _, err := s.History(ctx, now, "u", 9); return err },
		func() error { return s.Revoke(ctx, now, "u", expires) },
		func() error { return s.EraseHistory(ctx, "nobody") },
		func() error { _, _, err := s.Purge(ctx, now.Add(2*day), 100); return err },
		func() error { _, err := s.Stats(ctx, now); return err },
		func() error { return s.Beat(ctx, now, true) },
		func() error { _, err := s.Queued(ctx, now, 10); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}

	for query, plan := range p.plans {
		for _, step := range plan {
			// the subqueries of Stats, History and classes, and lists of keys
			bounded := slices.Contains([]string{"SCAN m", "SCAN a", "SCAN h", "SCAN classes", "SCAN CONSTANT ROW"}, step) ||
				strings.HasSuffix(step, "-ROW VALUES CLAUSE")
			if strings.HasPrefix(step, "SCAN") && !bounded {
				t.Errorf("%s\n%s", query, step)
			}
		}
		if strings.Contains(query, "CROSS JOIN") && !slices.Contains(plan, "SEARCH mail USING COVERING INDEX reset_mails_due (realm=? AND class=? AND due<?)") {
			t.Errorf("%s\n%s", query, strings.Join(plan, "\n"))
		}
		if strings.Contains(query, " id IN (?") && strings.Contains(query, "reset_mails") && !slices.Contains(plan, "SEARCH reset_mails USING PRIMARY KEY (id=?)") {
			t.Errorf("%s\n%s", query, strings.Join(plan, "\n"))
		}
	}
}
