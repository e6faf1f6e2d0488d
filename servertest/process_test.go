package servertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/bunpool"
	"github.com/gopassreset/reset/internal/smtptest"
	storebun "github.com/gopassreset/reset/store_bun"
)

const (
	processes  = 4
	perProcess = 25
)

// testLog makes a test fail for what operators are warned of, except that
// nothing limits clients, as the tests want it.
type testLog struct{ testing.TB }

func (testLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (l testLog) Handle(_ context.Context, r slog.Record) error {
	if isProvoked(r) {
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	l.Error(text)
	return nil
}

// isProvoked reports whether a record is what tests provoke, by redeeming an
// activation twice or requesting too much.
func isProvoked(r slog.Record) (provoked bool) {
	r.Attrs(func(a slog.Attr) bool {
		provoked = provoked || a.Key == "event" && slices.Contains([]string{"activation_refused", "over_cap"}, a.Value.String())
		return true
	})
	return provoked
}

// unprovoked leaves out what tests provoke.
type unprovoked struct{ slog.Handler }

func (h unprovoked) Handle(ctx context.Context, r slog.Record) error {
	if isProvoked(r) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (l testLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l testLog) WithGroup(string) slog.Handler      { return l }

// inProcesses starts children, which begin at the same time, and returns what
// they reported.
func inProcesses(t *testing.T, j job) (lines [][]string) {
	t.Helper()
	var children []*process
	for i := range processes {
		j.Child = i
		children = append(children, startChild(t, j))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range children {
		c.start()
		wg.Go(func() {
			rest := c.rest()
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, rest...)
		})
	}
	wg.Wait()
	for _, c := range children {
		c.wentWell(t)
	}
	return lines
}

// atOnce runs f many times at once and returns the first error.
func atOnce(f func(i int) error) error {
	errs := make([]error, perProcess)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// variant returns one of the ways to type an address.
func variant(email string, i int) string {
	if i%2 == 0 {
		return email
	}
	return strings.ToUpper(email)
}

func requestAtOnce(ctx context.Context, c *child) error {
	return atOnce(func(i int) error {
		activation, err := c.RequestReset(ctx, variant(emailOf(c.Users[0]), i), reset.RequestOptions{})
		if errors.Is(err, reset.ErrTooManyRequests) {
			return nil
		}
		if err == nil {
			report("accepted", activation)
		}
		return err
	})
}

// Four processes take 25 requests each for one user.
func TestProcessesRequest(t *testing.T) {
	onAll(t, func(t *testing.T, s server) {
		h := openHost(t, newPlace(t, s, false))
		sink := smtptest.Listen(t, smtptest.Script{})
		h.users.add(t, "alice")
		lines := inProcesses(t, job{Role: "request", Place: h.place, MailServer: sink.Addr, Users: []string{"alice"}})
		if len(lines) != 3 {
			t.Errorf("%d requests were accepted, want 3", len(lines))
		}
		for _, query := range []string{"SELECT COUNT(DISTINCT request) FROM reset_activations", "SELECT COUNT(*) FROM reset_mails"} {
			if got := count(t, h.db, query); got != 3 {
				t.Errorf("%s: got %d, want 3", query, got)
			}
		}
		service, err := h.service(sink.Addr, testLog{t})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.drain(t.Context(), service); err != nil {
			t.Fatal(err)
		}
		if got := len(inbox(t, sink)); got != 3 {
			t.Errorf("%d mails were sent, want 3", got)
		}
	})
}

func forgotAtOnce(ctx context.Context, c *child) error {
	err := atOnce(func(i int) error {
		return c.Forgot(ctx, variant(emailOf(c.Users[0]), i), "client", reset.ForgotOptions{})
	})
	return errors.Join(err, c.drain(ctx, c.Service))
}

// Four processes take 25 public requests each for one user, and send the mail.
func TestProcessesForgot(t *testing.T) {
	onAll(t, func(t *testing.T, s server) {
		h := openHost(t, newPlace(t, s, false))
		sink := smtptest.Listen(t, smtptest.Script{})
		h.users.add(t, "alice")
		j := job{Role: "forgot", Place: h.place, MailServer: sink.Addr, Users: []string{"alice"}}
		var children []*process
		for i := range processes {
			j.Child = i
			children = append(children, startChild(t, j))
		}
		for _, c := range children {
			c.start()
		}
		for _, c := range children { // that a public request is over the cap is an event
			c.rest()
			if err := c.cmd.Wait(); err != nil {
				t.Errorf("child: %v: %s", err, &c.stderr)
			}
			for line := range strings.Lines(c.stderr.String()) {
				if !strings.Contains(line, "event=over_budget") {
					t.Error(line)
				}
			}
		}
		live := count(t, h.db, "SELECT COUNT(DISTINCT request) FROM reset_activations")
		if sent := len(inbox(t, sink)); sent < 1 || sent > 3 || live != sent {
			t.Errorf("%d mails were sent, want 1 to 3; %d requests are live", sent, live)
		}
	})
}

func redeemAtOnce(ctx context.Context, c *child) error {
	return atOnce(func(i int) error {
		password := fmt.Sprintf("correct-horse-%d-%d", c.Child, i)
		err := c.ChangePassword(ctx, c.Activations[i%len(c.Activations)], password)
		if errors.Is(err, reset.ErrInvalidActivation) {
			return nil
		}
		if err == nil {
			report("changed", password)
		}
		return err
	})
}

// Four processes use one activation, or two of one user, 25 times each.
func TestProcessesRedeem(t *testing.T) {
	for activations := range 2 {
		t.Run(fmt.Sprint(1+activations, " activations"), func(t *testing.T) {
			onAll(t, func(t *testing.T, s server) { redeemInProcesses(t, s, 1+activations) })
		})
	}
}

func redeemInProcesses(t *testing.T, s server, activations int) {
	h := openHost(t, newPlace(t, s, false))
	sink := smtptest.Listen(t, smtptest.Script{})
	h.users.add(t, "alice")
	service, err := h.service(sink.Addr, testLog{t})
	if err != nil {
		t.Fatal(err)
	}
	j := job{Role: "redeem", Place: h.place, MailServer: sink.Addr}
	for range activations {
		activation, err := service.RequestReset(t.Context(), emailOf("alice"), reset.RequestOptions{})
		if err != nil {
			t.Fatal(err)
		}
		j.Activations = append(j.Activations, activation)
	}
	lines := inProcesses(t, j)
	if len(lines) != 1 {
		t.Fatalf("%d changes succeeded, want one: %v", len(lines), lines)
	}
	if hash, sessions := h.users.state(t, "alice"); hash != hashOf(lines[0][1]) || sessions != 0 {
		t.Errorf("%q is stored and there are %d sessions, and what succeeded was %q", hash, sessions, lines[0][1])
	}
	if got := count(t, h.db, "SELECT COUNT(*) FROM reset_activations"); got != 0 {
		t.Errorf("%d activations are left", got)
	}
	if got := count(t, h.db, "SELECT COUNT(*) FROM reset_mails"); got != 1 {
		t.Errorf("%d mails are queued, want the notification", got)
	}
}

// Four processes send the mail of many users.
func TestProcessesSend(t *testing.T) {
	const users = 100
	onAll(t, func(t *testing.T, s server) {
		h := openHost(t, newPlace(t, s, false))
		sink := smtptest.Listen(t, smtptest.Script{})
		service, err := h.service(sink.Addr, testLog{t})
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[string]int)
		for i := range users {
			user := "user-" + strconv.Itoa(i)
			h.users.add(t, user)
			if err := service.Forgot(t.Context(), emailOf(user), "client", reset.ForgotOptions{}); err != nil {
				t.Fatal(err)
			}
			want[emailOf(user)] = 1
		}
		inProcesses(t, job{Role: "send", Place: h.place, MailServer: sink.Addr})
		got := make(map[string]int)
		for _, l := range inbox(t, sink) {
			got[l.to]++
		}
		if !maps.Equal(got, want) {
			t.Errorf("mails arrived: %v, want one for each of %d users", got, users)
		}
	})
}

// quarrel does everything to the same users at once: a process that redeems,
// one that revokes, one that deletes the user, one that purges.
func quarrel(ctx context.Context, c *child) error {
	var failed []error
	for i, user := range c.Users {
		var err error
		switch c.Child % 4 {
		case 0:
			if err = c.ChangePassword(ctx, c.Activations[i], "quiet harbors, seven rowing lanterns"); err == nil {
				report("changed", user)
			}
			if errors.Is(err, reset.ErrInvalidActivation) {
				err = nil
			}
		case 1:
			if i%2 == 0 {
				err = c.Revoke(ctx, user)
			}
		case 2:
			if i%3 == 0 {
				err = c.remove(ctx, user)
			}
		case 3:
			_, _, err = c.store.Purge(ctx, c.Soon.Add(time.Duration(i)*time.Millisecond), 1000)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// remove deletes a user as a host does: it takes locks in the store's order, and
// runs a transaction again that a server has undone to end a deadlock.
func (c *child) remove(ctx context.Context, user string) error {
	d, err := bunpool.DialectOf(c.db)
	if err != nil {
		return err
	}
	return d.Retry(ctx, func() error { return c.tryRemove(ctx, user) })
}

func (c *child) tryRemove(ctx context.Context, user string) error {
	return c.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := c.Revoke(storebun.WithTx(ctx, tx), user); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM sessions WHERE user_id = ?", user)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM users WHERE id = ?", user)
		return err
	})
}

// A user who is redeemed, revoked, deleted and purged at once comes to no
// harm.
func TestProcessesQuarrel(t *testing.T) {
	const users = 60
	onAll(t, func(t *testing.T, s server) {
		h := openHost(t, newPlace(t, s, false))
		sink := smtptest.Listen(t, smtptest.Script{})
		service, err := h.service(sink.Addr, testLog{t})
		if err != nil {
			t.Fatal(err)
		}
		j := job{Role: "quarrel", Place: h.place, MailServer: sink.Addr, Soon: time.Now().Add(10 * time.Minute)}
		for i := range users {
			user := "user-" + strconv.Itoa(i)
			h.users.add(t, user)
			activation, err := service.RequestReset(t.Context(), emailOf(user), reset.RequestOptions{})
			if err != nil {
				t.Fatal(err)
			}
			j.Users, j.Activations = append(j.Users, user), append(j.Activations, activation)
			if i%3 != 1 {
				expireAt(t, h, user, j.Soon.Add(time.Duration(i)*time.Millisecond))
			}
			expired := activationAt(i)
			if _, err := h.store.Issue(t.Context(), expired.Expires.Add(-1), expired, reset.Limits{MaxRequests: 1}, nil); err != nil {
				t.Fatal(err)
			}
		}
		lines := inProcesses(t, j)
		for i, user := range j.Users {
			changed := slices.ContainsFunc(lines, func(line []string) bool { return line[1] == user })
			if i%3 == 0 {
				continue // deleted
			}
			if hash, sessions := h.users.state(t, user); changed != (hash != "old") || changed != (sessions == 0) {
				t.Errorf("%s: changed %v, the password is %q and there are %d sessions", user, changed, hash, sessions)
			}
			left := count(t, h.db, fmt.Sprintf("SELECT COUNT(*) FROM reset_activations WHERE email = %s", literal(s, emailOf(user))))
			gone := changed || i%2 == 0
			kept := !gone && i%3 == 1 // others may have been purged
			if gone && left != 0 || kept && left != 1 {
				t.Errorf("%s: changed %v, %d activations are left", user, changed, left)
			}
		}
	})
}

// expireAt sets when all rows of a user expire.
func expireAt(t *testing.T, h *host, user string, at time.Time) {
	t.Helper()
	for _, table := range []string{"reset_mails", "reset_activations", "reset_locks"} {
		mustExec(t, h.db, "UPDATE "+table+" SET expires = ? WHERE user_id = ?", at.UnixMilli(), []byte(user))
	}
}

// activationAt returns one that has expired at the start.
func activationAt(i int) reset.Activation {
	a := activation(i, "gone-"+strconv.Itoa(i))
	a.Expires = start
	return a
}

// literal returns a string of bytes in SQL.
func literal(s server, text string) string {
	if s.kind == kindPostgres {
		return fmt.Sprintf(`'\x%x'`, text)
	}
	return fmt.Sprintf("x'%x'", text)
}
