package reset_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// shown is an entry without its times, and with at most 8 attempts: how many more there are
// in an hour is random.
func shown(e reset.HistoryEntry) string {
	words := []string{string(e.Kind), fmt.Sprint(min(e.Attempts, 8))}
	if e.Requests > 1 {
		words = append(words, fmt.Sprintf("×%d", e.Requests))
	}
	for _, fact := range []struct {
		text string
		is   bool
	}{
		{"queued", e.Queued}, {"leased", !e.Leased.IsZero()}, {"joined", e.Joined != reset.ID{}}, {"refused: " + e.Refusal, !e.Refused.IsZero()},
	} {
		if fact.is {
			words = append(words, fact.text)
		}
	}
	return strings.TrimSpace(strings.Join(append(words, string(e.Outcome), string(e.End)), " "))
}

func (f *fixture) wantHistory(u reset.User, want ...string) {
	f.t.Helper()
	entries, err := f.History(f.t.Context(), u.ID)
	if err != nil {
		f.t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, strings.Join(strings.Fields(shown(e)), " "))
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("History of %s:\n got %q\nwant %q", u.ID, got, want)
	}
}

// An operator sees what became of a user's requests and mail.
func TestHistory(t *testing.T) {
	says := func(text string, kind error) func(context.Context, int, reset.Message) error {
		return func(context.Context, int, reset.Message) error { return fmt.Errorf("%w: %s", kind, text) }
	}
	greylisted := func(_ context.Context, n int, _ reset.Message) error {
		if n == 0 {
			return errors.New("451 4.7.1 greylisted")
		}
		return nil
	}
	for _, tt := range []struct {
		name   string
		mailer func(context.Context, int, reset.Message) error
		do     func(f *fixture)
		want   []string
	}{
		{"sent and redeemed", nil, func(f *fixture) {
			f.forgot(ann.Email)
			pass(delivered)
			f.ChangePassword(f.t.Context(), activationOf(f.t, f.wantSent(1)[0]), goodPassword)
			pass(delivered)
		}, []string{"notification 1 sent", "public 1 sent redeemed"}},
		{"trusted, without mail", nil, func(f *fixture) { f.activation(ann) }, []string{"trusted 0"}},
		{"trusted, before the mail", says("421 busy", reset.ErrUnavailable), func(f *fixture) { f.request(ann.Email); pass(0) }, []string{"trusted 0 queued refused: reset: mail system unavailable: 421 busy"}},
		{"superseded", nil, func(f *fixture) {
			f.request(ann.Email)
			pass(time.Second)
			later := f.activation(ann)
			pass(time.Millisecond) // IDs of one millisecond are in any order
			f.ChangePassword(f.t.Context(), later, goodPassword)
			pass(time.Second)
		}, []string{"notification 1 sent", "trusted 0 redeemed", "trusted 1 sent superseded"}},
		{"revoked", nil, func(f *fixture) { f.request(ann.Email); pass(time.Second); f.Revoke(f.t.Context(), ann.ID) }, []string{"trusted 1 sent revoked"}},
		{"refused", greylisted, func(f *fixture) { f.request(ann.Email); pass(time.Second) }, []string{"trusted 1 queued refused: 451 4.7.1 greylisted"}},
		{"refused, then sent", greylisted, func(f *fixture) { f.request(ann.Email); pass(time.Minute) }, []string{"trusted 2 refused: 451 4.7.1 greylisted sent"}},
		{"undeliverable", says("550 5.1.1 no such user", reset.ErrUndeliverable), func(f *fixture) { f.forgot(ann.Email); pass(delivered) },
			[]string{"public 1 refused: reset: undeliverable: 550 5.1.1 no such user undeliverable"}},
		{"expired", fails("451 later"), func(f *fixture) { f.forgot(ann.Email); pass(2 * time.Hour) },
			[]string{"public 8 refused: 451 later expired"}},
		{"answered together, and over the budget", nil, func(f *fixture) {
			for range 3 {
				f.forgot(ann.Email)
				pass(delivered)
			}
			f.forgot(ann.Email)
			pass(delivered)
			f.forgot(ann.Email)
			pass(delivered)
		}, []string{"public 1 sent", "public 1 sent", "public 1 sent", "public 0 ×2 over_budget"}},
		{"the user is gone", greylisted, func(f *fixture) {
			f.request(ann.Email)
			pass(time.Second)
			f.host.remove(ann.Email)
			pass(time.Minute)
		}, []string{"trusted 2 refused: 451 4.7.1 greylisted user_gone"}},
		{"nobody", nil, func(f *fixture) { f.forgot("nobody@example.com"); pass(delivered) }, nil},
		{"too old", nil, func(f *fixture) { f.forgot(ann.Email); pass(24*time.Hour + delivered) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			day := func(c *reset.Config) { unlimited(c); c.KeepHistory = 24 * time.Hour }
			inBubble(t, day, func(t *testing.T, f *fixture) {
				f.mailer.do = tt.mailer
				f.begin()
				tt.do(f)
				f.wantHistory(ann, tt.want...)
				for _, nobody := range []string{"", "nobody", "nobody@example.com", ann.Email} {
					f.wantHistory(reset.User{ID: nobody})
				}
			})
		})
	}
}

// Nothing that a mail system says of a message brings its secret into the
// history or the log, nor more than 500 bytes into the history.
func TestHistoryKeepsSecrets(t *testing.T) {
	for _, tt := range []struct {
		name string
		say  func(m reset.Message) string
		want string
	}{
		{"the link", func(m reset.Message) string { return "550 spam: " + m.Link }, "withheld"},
		{"a part of it", func(m reset.Message) string { _, a, _ := strings.Cut(m.Link, "="); return "550 …" + a[7:16] + "…" }, "withheld"},
		{"the message, broken into lines", func(m reset.Message) string { return "550 " + strings.ReplaceAll(m.Text, "=", "=\r\n") }, "withheld"},
		{"controls", func(reset.Message) string { return "550\x1b[2J a\r\nb\x00\u202e\xff" }, "550 [2J a b \uFFFD"},
		{"too much", func(reset.Message) string { return strings.Repeat("é", 600) }, strings.Repeat("é", 248) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, f *fixture) {
				f.mailer.do = func(_ context.Context, _ int, m reset.Message) error { return errors.New(tt.say(m)) }
				f.begin()
				f.request(ann.Email)
				pass(time.Second)
				entries, err := f.History(t.Context(), ann.ID)
				if err != nil || len(entries) != 1 {
					t.Fatalf("History: %v, %v", entries, err)
				}
				e := entries[0]
				if !strings.Contains(e.Refusal, tt.want) || len(e.Refusal) > 500 {
					t.Errorf("Refusal has %d bytes: %q, want %q", len(e.Refusal), e.Refusal, tt.want)
				}
				records := fmt.Sprint(f.log.all())
				for _, m := range f.mailer.attempts() {
					if a := activationOf(t, m); strings.Contains(records, a[7:16]) || !strings.Contains(records, "mail_failed") {
						t.Errorf("logged: %s", records)
					}
					if text := e.String(); strings.Contains(text, activationOf(t, m)) || strings.Contains(text, "\n") || !strings.Contains(text, e.Refusal) {
						t.Errorf("String() = %q", text)
					}
				}
			})
		})
	}
}

// The history can be off, needs a store that has one, and can be erased.
func TestHistoryOff(t *testing.T) {
	for name, edit := range map[string]func(*reset.Config){
		"off":             func(c *reset.Config) { c.KeepHistory = -1 },
		"no HistoryStore": func(c *reset.Config) { c.Store = struct{ reset.Store }{new(resettest.MemStore)} },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, newHost(ann), edit)
			f.request(ann.Email)
			if entries, err := f.History(t.Context(), ann.ID); entries != nil || !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("History: %v, %v", entries, err)
			}
			if err := f.EraseHistory(t.Context(), ann.ID); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("EraseHistory: %v", err)
			}
		})
	}
	f := newFixture(t, newHost(ann), nil)
	f.activation(ann)
	f.wantHistory(ann, "trusted 0")
	if err := f.EraseHistory(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	f.wantHistory(ann)
}

// A mail that was revoked after an activation was issued ahead of its exchange was
// not sent, even if Run ends meanwhile.
func TestHistoryOfIssuedAhead(t *testing.T) {
	for _, ends := range []bool{false, true} {
		t.Run(fmt.Sprintf("ends %t", ends), func(t *testing.T) { testHistoryOfIssuedAhead(t, ends) })
	}
}

func testHistoryOfIssuedAhead(t *testing.T, ends bool) {
	const users = 60
	inBubble(t, func(c *reset.Config) { unlimited(c); c.Workers = 2 }, func(t *testing.T, f *fixture) {
		var slow atomic.Bool
		sent := make(map[string]bool)
		var mu sync.Mutex
		f.mailer.do = func(_ context.Context, _ int, m reset.Message) error {
			mu.Lock()
			sent[m.To] = true
			mu.Unlock()
			if slow.Load() {
				<-time.After(3 * time.Second)
			}
			return nil
		}
		f.slowStore()
		user := func(i int) reset.User {
			return reset.User{ID: fmt.Sprint("u", i), Email: fmt.Sprintf("u%d@example.com", i)}
		}
		for i := range users {
			f.host.put(user(i))
			f.forgot(user(i).Email)
		}
		pass(3 * time.Second)
		stop := f.run()
		for len(f.mailer.attempts()) < users/3 {
			<-time.After(time.Millisecond)
		}
		slow.Store(true)
		pass(time.Second)
		for i := range users {
			if err := f.Revoke(t.Context(), user(i).ID); err != nil {
				t.Fatal(err)
			}
		}
		if ends {
			stop()
		}
		pass(10 * time.Minute)
		withdrawn := 0
		for i := range users {
			entries, err := f.History(t.Context(), user(i).ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if was := e.Outcome == reset.OutcomeSent; was != sent[user(i).Email] {
					t.Errorf("%v; sent: %t", e, !was)
				}
				if e.Outcome == reset.OutcomeWithdrawn {
					withdrawn++
				}
			}
		}
		if withdrawn == 0 && !ends {
			t.Error("nothing was issued ahead and withdrawn")
		}
	})
}
