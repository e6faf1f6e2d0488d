package servertest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
	"github.com/gopassreset/reset/internal/smtptest"
)

var rounds = flag.Int("rounds", 5, "how many `processes` are killed at each point, on each database")

// Where a process is killed that does what visit does, and how often it comes
// there.
var (
	mailPoints = map[string]int{
		"issued": 2, "leased": 5, "minted": 3, "dialled": 5, "accepted": 5, "sent": 5, "settling": 5,
	}
	changePoints = map[string]int{"claimed": 2, "set": 2, "committing": 2}
)

// visit makes two requests and a public request, sends the mail, changes the
// passwords of the users with a request, and reports each step.
func visit(ctx context.Context, c *child) error {
	alice, bob, carol := c.Users[0], c.Users[1], c.Users[2]
	activations := make(map[string]string)
	for _, user := range []string{alice, carol} {
		activation, err := c.RequestReset(ctx, emailOf(user), reset.RequestOptions{})
		if err != nil {
			return err
		}
		activations[user] = activation
		report("accepted", user, activation)
	}
	if err := c.Forgot(ctx, emailOf(bob), "client", reset.ForgotOptions{}); err != nil {
		return err
	}
	report("accepted", bob)
	if err := c.drain(ctx, c.Service); err != nil {
		return err
	}
	for _, user := range []string{alice, carol} {
		report("changing", user)
		if err := c.ChangePassword(ctx, activations[user], "quiet harbors, seven rowing lanterns"); err != nil {
			return err
		}
		report("changed", user)
	}
	return c.drain(ctx, c.Service)
}

func TestCrashes(t *testing.T) {
	onAllAPIs(t, func(t *testing.T, s server) {
		points := maps.Clone(mailPoints)
		maps.Copy(points, changePoints)
		crashes(t, newPlace(t, s, false), points)
	})
}

func TestCrashesUsersElsewhere(t *testing.T) {
	onAllAPIs(t, func(t *testing.T, s server) { crashes(t, newPlace(t, s, true), changePoints) })
}

func crashes(t *testing.T, p place, points map[string]int) {
	h := openHost(t, p)
	for _, point := range slices.Sorted(maps.Keys(points)) {
		for round := range *rounds {
			t.Run(point+" "+strconv.Itoa(round), func(t *testing.T) {
				c := newCrash(t, h, 3)
				child := c.start(job{Role: "visit", Point: point, Hit: 1 + round%points[point]})
				child.start()
				c.said = child.rest()
				child.wasKilled(t)
				c.restart()
			})
		}
	}
}

// storm makes trusted and public requests, and sends the mail, all at once and until it
// is killed. It changes every fourth user's password.
func storm(ctx context.Context, c *child) error {
	go c.Run(ctx)
	var wg sync.WaitGroup
	for i, user := range c.Users {
		wg.Go(func() {
			if i%2 == 1 {
				if err := c.Forgot(ctx, emailOf(user), "client", reset.ForgotOptions{}); err == nil {
					report("accepted", user)
				}
				return
			}
			activation, err := c.RequestReset(ctx, emailOf(user), reset.RequestOptions{})
			if err != nil {
				return
			}
			report("accepted", user, activation)
			if i%4 != 0 {
				return
			}
			report("changing", user)
			if err := c.ChangePassword(ctx, activation, "quiet harbors, seven rowing lanterns"); err == nil {
				report("changed", user)
			}
		})
	}
	wg.Wait()
	report("over")
	<-ctx.Done()
	return ctx.Err()
}

func TestKilledUnderLoad(t *testing.T) {
	const users = 40
	onAllVersions(t, func(t *testing.T, s server) {
		h := openHost(t, newPlace(t, s, false))
		for round := range *rounds {
			t.Run(strconv.Itoa(round), func(t *testing.T) {
				c := newCrash(t, h, users)
				child := c.start(job{Role: "storm"})
				child.start()
				for range 1 + round*users/2 / *rounds {
					if !child.lines.Scan() {
						t.Fatalf("the child has ended: %s", &child.stderr)
					}
					c.said = append(c.said, strings.Fields(child.lines.Text()))
				}
				if err := child.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				c.said = append(c.said, child.rest()...)
				child.wasKilled(t)
				c.restart()
			})
		}
	})
}

// A crash is a process that is killed, and what it has left.
type crash struct {
	*testing.T
	h     *host
	sink  *smtptest.Server
	users []string
	said  [][]string // by the process
}

func newCrash(t *testing.T, h *host, users int) *crash {
	c := &crash{T: t, h: h, sink: smtptest.Listen(t, smtptest.Script{})}
	for i := range users {
		c.users = append(c.users, fmt.Sprint(freshName(), "-", i))
	}
	h.users.add(t, c.users...)
	return c
}

func (c *crash) start(j job) *process {
	j.Place, j.MailServer, j.Users = c.h.place, c.sink.Addr, c.users
	return startChild(c.T, j)
}

// did reports whether the process has said something of a user.
func (c *crash) did(what, user string) bool {
	return slices.ContainsFunc(c.said, func(line []string) bool {
		return len(line) > 1 && line[0] == what && line[1] == user
	})
}

// restart goes on after the process is dead, and checks what was promised.
func (c *crash) restart() {
	service, err := c.h.service(c.sink.Addr, testLog{c.T})
	if err != nil {
		c.Fatal(err)
	}
	c.h.settled(c.T)
	c.nothingHalf()
	before, queued := c.arrived(), c.queued()
	c.passMinute()
	if err := c.h.drain(c.Context(), service); err != nil {
		c.Fatal(err)
	}
	c.sentOnce(before, queued)
	c.sentAtLeastOnce()
	for _, user := range c.users {
		c.worksOnce(service, user)
	}
	c.passMinute()
	c.goesOn(service, c.users[0])
	for _, table := range []string{"reset_activations", "reset_mails", "reset_locks", "reset_history"} {
		mustExec(c, c.h.db, "DELETE FROM "+table)
	}
}

// nothingHalf checks that what belongs together is there, or is not.
func (c *crash) nothingHalf() {
	c.Helper()
	for _, user := range c.users {
		hash, sessions := c.h.users.state(c, user)
		changed := hash != "old"
		if changed != (sessions == 0) {
			c.Errorf("%s has the password %q and %d sessions", user, hash, sessions)
		}
		if c.did("changed", user) && !changed {
			c.Errorf("%s got success for a new password, and has %q", user, hash)
		}
		live := c.number("SELECT COUNT(*) FROM reset_activations WHERE claim IS NULL AND user_id = ?", []byte(user))
		if changed && live > 0 {
			c.Errorf("%s has a new password and %d live activations", user, live)
		}
		all := c.number("SELECT COUNT(*) FROM reset_activations WHERE user_id = ?", []byte(user))
		if c.h.Elsewhere == "" && all != live {
			c.Errorf("%s has %d activations, %d of which are live", user, all, live)
		}
		if c.did("accepted", user) && c.did("changing", user) && c.h.Elsewhere == "" && !changed && live == 0 {
			c.Errorf("%s has the old password and no activation", user)
		}
	}
	orphans := c.number("SELECT COUNT(*) FROM reset_mails WHERE kind = ? AND user_id IS NOT NULL AND id NOT IN (SELECT request FROM reset_activations)", []byte(reset.MailReset))
	if orphans != 0 {
		c.Errorf("%d mails are bound to a user and have no activation", orphans)
	}
}

func (c *crash) number(query string, args ...any) int {
	c.Helper()
	n, err := number(c.Context(), c.h.db, query, args...)
	if err != nil {
		c.Fatal(err)
	}
	return n
}

// arrived returns how often the mail server has accepted each message.
func (c *crash) arrived() map[string]int {
	times := make(map[string]int)
	for _, l := range inbox(c.T, c.sink) {
		id, _, _ := strings.Cut(strings.Trim(l.id, "<>"), "@")
		times[id]++
	}
	return times
}

func (c *crash) queued() (ids []string) {
	c.Helper()
	rows, err := c.h.db.QueryContext(c.Context(), "SELECT id FROM reset_mails")
	if err != nil {
		c.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key []byte
		if err := rows.Scan(&key); err != nil {
			c.Fatal(err)
		}
		ids = append(ids, reset.ID(key).String())
	}
	if err := rows.Err(); err != nil {
		c.Fatal(err)
	}
	return ids
}

// passMinute is what a minute does to leases and claims.
func (c *crash) passMinute() {
	mustExec(c, c.h.db, "UPDATE reset_mails SET due = due - 61000")
	mustExec(c, c.h.db, "UPDATE reset_locks SET claim_until = claim_until - 61000 WHERE claim_until > 0")
}

// sentOnce checks that what was queued after the crash was sent once since, and
// what was settled before it was not.
func (c *crash) sentOnce(before map[string]int, queued []string) {
	c.Helper()
	want := maps.Clone(before)
	for _, id := range queued {
		want[id]++
	}
	if got := c.arrived(); !maps.Equal(got, want) {
		c.Errorf("after the restart the messages arrived so often: %v, want %v, of which %v were before", got, want, before)
	}
}

// sentAtLeastOnce also reports how many requests were accepted and never mailed.
func (c *crash) sentAtLeastOnce() {
	c.Helper()
	accepted, lost := 0, 0
	all := inbox(c.T, c.sink)
	for _, user := range c.users {
		sent := func(notification bool) bool {
			return slices.ContainsFunc(all, func(l received) bool {
				return l.to == emailOf(user) && notification == (l.activation == "")
			})
		}
		hash, _ := c.h.users.state(c, user)
		if c.did("accepted", user) {
			accepted++
		}
		if c.did("accepted", user) && hash == "old" && !sent(false) {
			lost++
			c.Errorf("the request of %s was accepted and not mailed", user)
		}
		if notify := c.did("changed", user) || c.h.Elsewhere == "" && hash != "old"; notify != sent(true) {
			c.Errorf("%s has the password %q: a notification was sent: %v, want %v", user, hash, sent(true), notify)
		}
	}
	figure.Report(c, "accepted requests that are never mailed", lost, accepted)
}

// worksOnce uses every activation of a user, those that were mailed before the
// crash and those of other attempts after it.
func (c *crash) worksOnce(service *reset.Service, user string) {
	c.Helper()
	var activations []string
	for _, l := range inbox(c.T, c.sink) {
		if l.to == emailOf(user) && l.activation != "" {
			activations = append(activations, l.activation)
		}
	}
	for _, line := range c.said {
		if len(line) == 3 && line[1] == user {
			activations = append(activations, line[2])
		}
	}
	hash, _ := c.h.users.state(c, user)
	want := 1
	if hash != "old" || c.h.Elsewhere != "" && c.did("changing", user) || len(activations) == 0 {
		want = 0
	}
	for _, activation := range slices.Concat(activations, activations) {
		switch err := service.ChangePassword(c.Context(), activation, "after the crash"); {
		case err == nil:
			want--
		case !errors.Is(err, reset.ErrInvalidActivation):
			c.Errorf("ChangePassword: %v", err)
		}
	}
	if want != 0 {
		c.Errorf("%s had the password %q and %d activations: too few or too many worked, by %d", user, hash, len(activations), want)
	}
}

// goesOn checks that a user can start again, whatever has happened.
func (c *crash) goesOn(service *reset.Service, user string) {
	c.Helper()
	activation, err := service.RequestReset(c.Context(), emailOf(user), reset.RequestOptions{})
	if err != nil {
		c.Errorf("RequestReset in the end: %v", err)
		return
	}
	if err := service.ChangePassword(c.Context(), activation, "in the end it works"); err != nil {
		c.Errorf("ChangePassword in the end: %v", err)
	}
	if hash, _ := c.h.users.state(c, user); hash != hashOf("in the end it works") {
		c.Errorf("in the end %s has the password %q", user, hash)
	}
}
