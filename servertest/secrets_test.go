package servertest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
)

// A transcript collects everything that is written anywhere.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// BeforeQuery and AfterQuery are for a transcript of queries.
func (w *transcript) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (w *transcript) AfterQuery(_ context.Context, e *bun.QueryEvent) {
	w.Write([]byte(e.Query + "\n"))
	if e.Err != nil {
		w.Write([]byte(e.Err.Error() + "\n"))
	}
}

// hashless is accounts whose hash gives nothing away, so that only the library
// could.
type hashless struct{ accounts }

func (hashless) HashPassword(context.Context, string) (string, error) { return "a hash", nil }

// No query, table or record holds what takes an account over.
func TestNoSecrets(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		p := newPlace(t, s, false)
		openHost(t, p).users.add(t, "ann", "bob")
		db, err := openDB(p.Kind, p.DSN)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		var queries, events transcript
		hooked := db.WithQueryHook(&queries)
		mailbox := new(resettest.Mailbox)
		service, err := reset.New(reset.Config{
			Users:   hashless{accounts{hooked}},
			Store:   prompt(newStore(t, hooked, storebun.Options{})),
			Mailer:  mailbox,
			BaseURL: "https://app.example.com/account",
			Logger:  slog.New(slog.NewJSONHandler(&events, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- service.Run(ctx) }()

		const password, refused = "canary 7 grey herons", "canary"
		secrets := map[string]string{"the password": password}
		mailed := func(user string) string {
			m, err := mailbox.Wait(t.Context(), emailOf(user))
			if err != nil {
				t.Fatal(err)
			}
			_, activation, _ := strings.Cut(m.Link, "activation=")
			secrets["mailed to "+user] = activation
			return activation
		}
		if secrets["answered for ann"], err = service.RequestReset(t.Context(), emailOf("ann"), reset.RequestOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := service.Forgot(t.Context(), emailOf("bob"), "192.0.2.1", reset.ForgotOptions{}); err != nil {
			t.Fatal(err)
		}
		ann := mailed("ann")
		mailed("bob") // stays live
		if err := service.ChangePassword(t.Context(), ann, refused); err == nil {
			t.Error("a short password was accepted")
		}
		for i, password := range []string{password, password} {
			if err := service.ChangePassword(t.Context(), ann, password); err == nil != (i == 0) {
				t.Errorf("ChangePassword, time %d: %v", i+1, err)
			}
		}
		if _, err := mailbox.Wait(t.Context(), emailOf("ann")); err != nil { // the notification
			t.Fatal(err)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}

		for place, text := range map[string]string{"queries": queries.String(), "events": events.String(), "tables": rows(t, db)} {
			lower := strings.ToLower(text)
			for name, secret := range secrets {
				raw, err := base64.RawURLEncoding.DecodeString(secret)
				if err != nil { // the password
					raw = []byte(secret)
				}
				if strings.Contains(text, secret) || strings.Contains(text, string(raw)) ||
					strings.Contains(lower, hex.EncodeToString([]byte(secret))) || strings.Contains(lower, hex.EncodeToString(raw)) {
					t.Errorf("the %s hold a secret: %s", place, name)
				}
			}
			if known := map[string]string{"queries": "reset_activations", "events": "password_changed", "tables": emailOf("bob")}[place]; !strings.Contains(text, known) {
				t.Errorf("the %s lack %s", place, known)
			}
		}
	})
}

// rows returns what the store's tables hold.
func rows(t *testing.T, db *bun.DB) string {
	t.Helper()
	var b strings.Builder
	for _, table := range []string{"reset_activations", "reset_mails", "reset_locks", "reset_history"} {
		found, err := db.QueryContext(t.Context(), "SELECT * FROM "+table)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := found.Columns()
		if err != nil {
			t.Fatal(err)
		}
		cells, into := make([][]byte, len(columns)), make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		for found.Next() {
			if err := found.Scan(into...); err != nil {
				t.Fatal(err)
			}
			b.Write(bytes.Join(cells, []byte("\n")))
			b.WriteByte('\n')
		}
		if err := found.Err(); err != nil {
			t.Fatal(err)
		}
		found.Close()
	}
	return b.String()
}
