package reset_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
)

func TestClass(t *testing.T) {
	const otherClient = "198.51.100.1"
	for _, tt := range []struct {
		name   string
		before []string // clients of the requests before
		client string
		want   int
	}{
		{"the first", nil, "192.0.2.1", 1},
		{"the third", []string{"192.0.2.1", "192.0.2.1"}, "192.0.2.1", 3},
		{"another's", []string{otherClient, otherClient}, "192.0.2.1", 1},
		{"a neighbour's, of few", slices.Repeat([]string{"192.0.2.1"}, 7), "192.0.2.2", 1},
		{"a neighbour's, of many", slices.Repeat([]string{"192.0.2.1"}, 80), "192.0.2.2", 11},
		{"a neighbour's in IPv6", slices.Repeat([]string{"2001:db8:0:1::/64"}, 40), "2001:db8:0:2::/64", 11},
		{"a provider's in IPv6", slices.Repeat([]string{"2001:db8:1:1::/64"}, 640), "2001:db8:2:2::/64", 11},
		{"not an address", []string{"session 1"}, "session 1", 2},
	} {
		var f reset.Fairness
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for _, client := range tt.before {
			f.Class(client, now)
		}
		if got := f.Class(tt.client, now); got != tt.want {
			t.Errorf("%s: class %d, want %d", tt.name, got, tt.want)
		}
	}
}

// Requests are forgotten one to two minutes later, also where the clock jumps.
func TestClassForgets(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		want  int
	}{{59 * time.Second, 2}, {time.Minute, 2}, {2 * time.Minute, 1}, {24 * time.Hour, 1}, {-time.Hour, 1}} {
		var f reset.Fairness
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		f.Class("192.0.2.1", now)
		if got := f.Class("192.0.2.1", now.Add(tt.after)); got != tt.want {
			t.Errorf("after %v: class %d, want %d", tt.after, got, tt.want)
		}
	}
}

// Clients without end take bounded memory, and do not lower anybody's class.
func TestClassBounded(t *testing.T) {
	var f reset.Fairness
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 200_000 {
		f.Class(fmt.Sprint("client ", i), now)
	}
	if n := f.Keys(); n > 1<<16 {
		t.Errorf("%d keys are remembered, want at most %d", n, 1<<16)
	}
	if got := f.Class("client 1", now); got != 2 {
		t.Errorf("a client that is remembered: class %d, want 2", got)
	}
}

// Behind a flood of others' requests, an honest client's mail comes next.
func TestFloodDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users := []reset.User{bob}
		for i := range 300 {
			users = append(users, reset.User{ID: fmt.Sprint("victim ", i), Email: fmt.Sprintf("victim%d@example.com", i)})
		}
		f := newFixture(t, newHost(users...), func(c *reset.Config) { unlimited(c); c.Workers = 1 })
		f.mailer.do = func(context.Context, int, reset.Message) error { <-time.After(time.Second); return nil }
		for _, u := range users[1:] {
			if err := f.Forgot(t.Context(), u.Email, "198.51.100.1", reset.ForgotOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		pass(2 * time.Second)
		f.forgot(bob.Email)
		pass(2 * time.Second) // it is due, after all others
		f.begin()
		pass(2 * time.Second)
		toBob := func(m reset.Message) bool { return m.To == bob.Email }
		if sent := f.mailer.attempts(); !slices.ContainsFunc(sent, toBob) {
			t.Errorf("%d mails were sent within 2 s, none to the honest client", len(sent))
		}
	})
}

// A first attempt goes before retries, and trusted mail before both.
func TestRetriesYield(t *testing.T) {
	inBubble(t, func(c *reset.Config) { unlimited(c); c.Workers = 1 }, func(t *testing.T, f *fixture) {
		down := errors.New("450 try later")
		f.mailer.do = func(_ context.Context, n int, _ reset.Message) error {
			if n < 1 {
				return down
			}
			return nil
		}
		f.forgot(ann.Email)
		stop := f.run()
		pass(4 * time.Second)
		f.wantSent(1)
		stop()
		pass(10 * time.Second) // the retry is due
		f.forgot(bob.Email)
		pass(2 * time.Second)
		f.request(ann.Email)
		f.begin()
		pass(time.Minute)
		var got []string
		for _, m := range f.mailer.attempts()[1:] {
			got = append(got, m.To)
		}
		if want := []string{ann.Email, bob.Email, ann.Email}; !slices.Equal(got, want) {
			t.Errorf("mail went to %s, want %s", strings.Join(got, ", "), strings.Join(want, ", "))
		}
	})
}
