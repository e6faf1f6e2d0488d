package servertest

import (
	"flag"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopassreset/reset/internal/figure"
	"github.com/gopassreset/reset/internal/smtptest"
)

var clockUsers = flag.Int("clock-users", 400, "how many `users` processes with wrong clocks work for")

// Four processes share the work, and their clocks are wrong by up to two hours,
// in either direction. Every request that was accepted is mailed, once, also
// those of a process that is killed.
func TestWrongClocks(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(map[bool]string{false: "all go on", true: "one is killed"}[kill], func(t *testing.T) {
			onEach(t, func(t *testing.T, s server) {
				t.Parallel()
				wrongClocks(t, s, kill)
			})
		})
	}
}

func wrongClocks(t *testing.T, s server, kill bool) {
	skews := []time.Duration{-2 * time.Hour, -40 * time.Second, 40 * time.Second, 2 * time.Hour}
	h := openHost(t, newPlace(t, s, false))
	c := newCrash(t, h, *clockUsers)
	slow := func(c *smtptest.Conn) bool { // so that a lease which seems to be over would be taken
		<-time.After(20 * time.Millisecond)
		return smtptest.Say("250 accepted")(c)
	}
	c.sink = smtptest.Listen(t, smtptest.Script{On: map[string]smtptest.Action{"message": slow}})
	each := *clockUsers / len(skews)
	var children []*process
	for i, skew := range skews {
		j := job{Role: "storm", Place: h.place, MailServer: c.sink.Addr, Users: c.users[i*each : (i+1)*each], Skew: skew}
		children = append(children, startChild(t, j))
	}
	var mu sync.Mutex
	var over sync.WaitGroup
	for i, child := range children {
		child.start()
		over.Go(func() {
			for n := 0; child.lines.Scan() && child.lines.Text() != "over"; n++ {
				mu.Lock()
				c.said = append(c.said, strings.Fields(child.lines.Text()))
				mu.Unlock()
				if kill && i == len(children)-1 && n == each/2 {
					if err := child.cmd.Process.Kill(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	over.Wait()
	if err := h.waitUntilSent(t.Context()); err != nil { // the leases of a process that is dead end in a minute
		t.Error(err)
	}
	for _, child := range children {
		_ = child.cmd.Process.Kill() // one is dead
		child.rest()
		child.wasKilled(t)
	}

	c.nothingHalf()
	c.sentAtLeastOnce()
	sent, twice := 0, 0
	for _, n := range c.arrived() {
		sent++
		if n > 1 {
			twice++
		}
	}
	most := 0
	if kill {
		most = 20 // that the process was sending when it died
	}
	if twice > most {
		t.Errorf("%d of %d mails were sent twice, want at most %d", twice, sent, most)
	}
	figure.Report(t, "mails sent twice by processes with wrong clocks", twice, sent)

	// The password of every fourth user was changed, which ends the links.
	live, gone := 0, 0
	for _, user := range c.users {
		if hash, _ := h.users.state(t, user); hash != "old" || !c.did("accepted", user) {
			continue
		}
		live++
		if count(t, h.db, "SELECT COUNT(*) FROM reset_activations WHERE user_id = '"+user+"'") == 0 {
			gone++
		}
	}
	if gone > 0 || live == 0 {
		t.Errorf("%d of %d live links were removed", gone, live)
	}
	figure.Report(t, "live links removed by processes with wrong clocks", gone, live)
}
