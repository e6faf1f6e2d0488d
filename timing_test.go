package reset_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// The tests of timing measure, so they need some minutes of a machine that has
// nothing else to do. They ask whether somebody who times the public face can
// tell addresses that have a user from those that have none: the area under the
// ROC curve, which the Mann-Whitney statistic estimates, is 0.5 where nobody
// can and 1 where anybody can. A run counts only if it finds no difference
// where there is none, and a difference that was put there.
const (
	tolerance       = 0.05
	negativeControl = 0.03
	positiveControl = 0.9
	timingRuns      = 3    // at most; one that counts has to find nothing
	timingSamples   = 4000 // of each class
	timingWarmUp    = 500
)

// The classes of addresses. There are two that don't differ.
const (
	known = iota
	knownToo
	unknown
	classes
)

func needTiming(t *testing.T) {
	t.Helper()
	if os.Getenv("RESET_TEST_TIMING") == "" {
		t.Skip("takes minutes: set RESET_TEST_TIMING=1")
	}
}

// everybody is accounts where each address that begins with "known" has a user.
type everybody struct{}

func (everybody) FindByEmail(_ context.Context, address string) (reset.User, error) {
	if !strings.HasPrefix(address, "known") {
		return reset.User{}, reset.ErrNoUser
	}
	return reset.User{ID: address, Email: address}, nil
}
func (everybody) HashPassword(context.Context, string) (string, error) { return "", nil }
func (everybody) SetPassword(context.Context, string, string) error    { return nil }

type mailerFunc func(context.Context, reset.Message) error

func (f mailerFunc) Send(ctx context.Context, m reset.Message) error { return f(ctx, m) }

func sendsAtOnce(context.Context, reset.Message) error { return nil }

// A prober asks over loopback, as a client outside would, on one connection.
type prober struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	n    int
}

// newProber serves the public face of a service that Runs. The fewer workers,
// the less noise they make: of two processors they would take both at times.
func newProber(t *testing.T, workers int, mailer mailerFunc) *prober {
	t.Helper()
	dir := t.TempDir()
	if d, err := os.MkdirTemp("/dev/shm", "reset"); err == nil { // the less noise, the more would be seen
		t.Cleanup(func() { os.RemoveAll(d) })
		dir = d
	}
	store, err := storesqlite.Open(filepath.Join(dir, "reset.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	svc := newFixture(t, nil, func(c *reset.Config) {
		c.Users, c.Store, c.Mailer, c.PerClient, c.Workers = everybody{}, store, mailer, reset.Unlimited, workers
	})
	svc.run()
	srv := httptest.NewServer(svc.Pages())
	t.Cleanup(srv.Close)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &prober{t: t, conn: conn, r: bufio.NewReader(conn)}
	for i := range timingWarmUp {
		p.forgot(p.fresh(i % classes))
	}
	return p
}

// fresh returns an address that was not used before. Those of all classes have
// the same length.
func (p *prober) fresh(class int) string {
	p.n++
	return fmt.Sprintf("%s%08d@example.com", [classes]string{"known-a", "known-b", "unknown"}[class], p.n)
}

// forgot returns how long the answer took.
func (p *prober) forgot(address string) time.Duration {
	body := `{"email":"` + address + `"}`
	request := fmt.Sprintf("POST /forgot HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	start := time.Now()
	if _, err := io.WriteString(p.conn, request); err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	took := time.Since(start)
	if resp.StatusCode != http.StatusOK {
		p.t.Fatalf("status %d", resp.StatusCode)
	}
	return took
}

// An answer is one sample.
type answer struct {
	class int
	took  time.Duration
}

// stream takes samples of all classes in random order, one each tick.
func stream(tick time.Duration, sample func(class int) time.Duration) []answer {
	var answers []answer
	next := time.Now()
	for _, class := range shuffled(timingSamples) {
		answers = append(answers, answer{class, sample(class)})
		next = next.Add(tick)
		if wait := time.Until(next); wait > 0 {
			<-time.After(wait)
		}
	}
	return answers
}

// shuffled returns n of each class in random order.
func shuffled(n int) []int {
	var order []int
	for class := range classes {
		order = append(order, slices.Repeat([]int{class}, n)...)
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// A reading has what one run measured, of each class, to answer one question.
// step is the difference that it must be able to see.
type reading struct {
	question string
	took     [classes][]time.Duration
	step     time.Duration
}

// read tells answers apart by what was asked for so many asks before. Since
// the order is random, any other ask between is alike for all.
func read(question string, answers []answer, before int) reading {
	r := reading{question: question, step: time.Millisecond}
	for i, a := range answers[before:] {
		class := answers[i].class
		r.took[class] = append(r.took[class], a.took)
	}
	return r
}

// controls returns how well alike classes can be told apart, and how well such
// of which one is late by a step.
func (r reading) controls() (negative, positive float64) {
	late := slices.Clone(r.took[knownToo])
	for i := range late {
		late[i] += r.step
	}
	return auc(r.took[known], r.took[knownToo]), auc(r.took[known], late)
}

// auc is the probability that a sample of b is larger than one of a.
func auc(a, b []time.Duration) float64 {
	type sample struct {
		d time.Duration
		b bool
	}
	var all []sample
	for _, d := range a {
		all = append(all, sample{d, false})
	}
	for _, d := range b {
		all = append(all, sample{d, true})
	}
	slices.SortFunc(all, func(x, y sample) int { return cmp.Compare(x.d, y.d) })
	ranks := 0.0
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].d == all[i].d {
			j++
		}
		for k := i; k < j; k++ {
			if all[k].b {
				ranks += float64(i+j+1) / 2 // ties share their rank
			}
		}
		i = j
	}
	n, m := float64(len(a)), float64(len(b))
	return (ranks - m*(m+1)/2) / (n * m)
}

func TestAUC(t *testing.T) {
	for _, tt := range []struct {
		a, b []time.Duration
		want float64
	}{
		{[]time.Duration{1, 2, 3}, []time.Duration{4, 5, 6}, 1},
		{[]time.Duration{4, 5, 6}, []time.Duration{1, 2, 3}, 0},
		{[]time.Duration{1, 1}, []time.Duration{1, 1}, 0.5},
		{[]time.Duration{1, 4}, []time.Duration{2, 3}, 0.5},
		{[]time.Duration{1, 2}, []time.Duration{2, 3}, 0.875},
	} {
		if got := auc(tt.a, tt.b); got != tt.want {
			t.Errorf("auc(%v, %v) = %v; want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

// gate passes if for each question one of three runs counts and finds nothing.
// If none counts, the machine was too busy to tell, which is said as a skip.
func gate(t *testing.T, measure func() []reading) {
	t.Helper()
	type state struct {
		counted int
		passed  bool
	}
	states := make(map[string]*state)
	for run := range timingRuns {
		open := false
		for _, r := range measure() {
			s := states[r.question]
			if s == nil {
				s = new(state)
				states[r.question] = s
			}
			if s.passed {
				continue
			}
			found := auc(r.took[known], r.took[unknown])
			negative, positive := r.controls()
			counts := math.Abs(negative-0.5) <= negativeControl && positive >= positiveControl
			t.Logf("run %d, %s: AUC %.3f; controls %.3f, %.3f; counts: %t", run+1, r.question, found, negative, positive, counts)
			if counts {
				s.counted++
				s.passed = math.Abs(found-0.5) < tolerance
			}
			open = open || !s.passed
		}
		if !open {
			break
		}
	}
	for question, s := range states {
		t.Run(question, func(t *testing.T) {
			switch {
			case s.counted == 0:
				t.Skipf("each of %d runs was void: this machine is too busy", timingRuns)
			case !s.passed:
				t.Errorf("in none of %d runs the classes were alike", s.counted)
			}
		})
	}
}

// TestTimingOfAnswers: an address that is known against one that is not, and
// what is asked some time after it, while that may be at work.
func TestTimingOfAnswers(t *testing.T) {
	needTiming(t)
	p := newProber(t, 1, sendsAtOnce)
	gate(t, func() []reading {
		answers := stream(5*time.Millisecond, func(class int) time.Duration { return p.forgot(p.fresh(class)) })
		return []reading{
			read("itself", answers, 0),
			read("5 ms later", answers, 1), read("20 ms later", answers, 4), read("100 ms later", answers, 20),
		}
	})
}

// TestTimingOfRepeats: the same address again and again, while the mail for it
// is queued, in flight and tried again.
func TestTimingOfRepeats(t *testing.T) {
	needTiming(t)
	p := newProber(t, 1, func(ctx context.Context, _ reset.Message) error {
		select { // a server that takes its time and then refuses
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
		return errors.New("451 try later")
	})
	gate(t, func() []reading {
		var addresses [classes]string
		asked := 0
		answers := stream(5*time.Millisecond, func(class int) time.Duration {
			if asked%2000 == 0 { // 10 s: the second attempt comes after 5 s, give or take 30 %
				for class := range addresses {
					addresses[class] = p.fresh(class)
				}
			}
			asked++
			return p.forgot(addresses[class])
		})
		return []reading{read("repeats", answers, 0)}
	})
}

// TestTimingOfArrival: what the prober asks for right behind another ask, and
// when the mail for it arrives. A random start of up to 2 s is there to hide
// more than a millisecond, so for the mail the difference to see is as long as
// that.
func TestTimingOfArrival(t *testing.T) {
	needTiming(t)
	type arrival struct {
		address string
		took    time.Duration
	}
	var asked sync.Map // when, by own address, until the mail is there
	arrivals := make(chan arrival, classes*timingSamples)
	p := newProber(t, 2, func(_ context.Context, m reset.Message) error {
		if at, ok := asked.LoadAndDelete(m.To); ok {
			arrivals <- arrival{m.To, time.Since(at.(time.Time))}
		}
		return nil
	})
	gate(t, func() []reading {
		behind := make(map[string]int) // the class of the ask before, by own address
		answers := stream(8*time.Millisecond, func(class int) time.Duration {
			own := p.fresh(known)
			behind[own] = class
			p.forgot(p.fresh(class))
			asked.Store(own, time.Now())
			return p.forgot(own)
		})
		mail := reading{question: "own mail", step: 2 * time.Second}
		for range behind {
			a := <-arrivals
			class := behind[a.address]
			mail.took[class] = append(mail.took[class], a.took)
		}
		return []reading{read("right behind", answers, 0), mail}
	})
}
