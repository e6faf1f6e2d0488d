package reset_test

import (
	"bufio"
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// The timing tests find out whether a client that measures time can distinguish
// addresses with an account from those without: the area under the ROC curve,
// which the Mann-Whitney statistic estimates, is 0.5 if no client can and 1 if
// every client can. A run counts only if its controls hold: it finds no
// difference where there is none, and finds a difference that was put there.
//
// A run consists of batches, and classes are compared within a batch. A batch
// in which the machine was too noisy to see the difference that was put there
// is measured again. That is judged by addresses with an account alone, so it
// cannot favour an answer.
const (
	tolerance       = 0.05
	negativeControl = 0.03
	positiveControl = 0.9
	timingRuns      = 3    // one of them must find nothing
	timingSamples   = 4000 // of each class in a run
	timingMost      = 4    // times the batches of a run are measured, at most
	timingWarmUp    = 500
	timingTick      = 5 * time.Millisecond // from one request to the next
)

// The classes of addresses. The first two do not differ.
const (
	known = iota
	knownToo
	unknown
	classes
)

// questions counts the questions of the timing tests. One that stays undecided
// has failed.
var questions struct{ decided, undecided int }

func TestMain(m *testing.M) {
	code := m.Run()
	if n := questions; n.decided+n.undecided > 0 {
		fmt.Printf("timing: %d questions decided, %d not\n", n.decided, n.undecided)
	}
	os.Exit(code)
}

func needTiming(t *testing.T) {
	t.Helper()
	if os.Getenv("RESET_TEST_TIMING") == "" {
		t.Skip("takes minutes: set RESET_TEST_TIMING=1")
	}
}

// everybody is accounts in which each address that begins with "known" has a
// user.
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

// addresses makes addresses of one length, none of them twice.
type addresses int

func (n *addresses) fresh(class int) string {
	*n++
	return fmt.Sprintf("%s%08d@example.com", [classes]string{"known-a", "known-b", "unknown"}[class], *n)
}

// A prober sends requests over loopback, as a client outside would, on one
// connection.
type prober struct {
	addresses
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// newProber serves the pages of a service that runs. The fewer workers, the
// less noise they make: they take processors from the server.
func newProber(t *testing.T, workers int, mailer mailerFunc) *prober {
	t.Helper()
	dir := t.TempDir()
	if d, err := os.MkdirTemp("/dev/shm", "reset"); err == nil { // a disk makes noise
		t.Cleanup(func() { os.RemoveAll(d) })
		dir = d
	}
	store, err := storesqlite.Open(filepath.Join(dir, "reset.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	f := newFixture(t, nil, func(c *reset.Config) {
		c.Users, c.Store, c.Mailer, c.PerClient, c.Workers = everybody{}, store, mailer, reset.Unlimited, workers
	})
	f.run()
	srv := httptest.NewServer(f.Pages())
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

// forgot makes a public request and returns how long the answer took.
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

// A sample is the time that one request of a class took.
type sample struct {
	class int
	took  time.Duration
}

// stream takes n samples of each class in random order, one each tick.
func stream(n int, take func(class int) time.Duration) (samples []sample) {
	next := time.Now()
	for _, class := range shuffled(n) {
		samples = append(samples, sample{class, take(class)})
		next = next.Add(timingTick)
		if wait := time.Until(next); wait > 0 {
			<-time.After(wait)
		}
	}
	return samples
}

// shuffled returns n of each class in random order.
func shuffled(n int) (order []int) {
	for class := range classes {
		order = append(order, slices.Repeat([]int{class}, n)...)
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// A batch is what was measured, of each class, to answer one question, and
// samples of a class that is late by as much as must be seen.
type batch struct {
	question string
	took     [classes][]time.Duration
	late     []time.Duration
}

func (b *batch) add(class int, took time.Duration) { b.took[class] = append(b.took[class], took) }

// delayed returns samples that took longer by d.
func delayed(took []time.Duration, d time.Duration) []time.Duration {
	late := slices.Clone(took)
	for i := range late {
		late[i] += d
	}
	return late
}

// read files samples under the class of the request so many requests before.
// Since the order is random, whatever came between is alike for all.
func read(question string, samples []sample, before int) batch {
	b := batch{question: question}
	for i, s := range samples[before:] {
		b.add(samples[i].class, s.took)
	}
	b.late = delayed(b.took[knownToo], time.Millisecond)
	return b
}

// A verdict is how well two classes can be distinguished: one with an account from
// one without, two that are alike, and two of which one is late.
type verdict struct{ found, negative, positive float64 }

func (b batch) verdict() verdict {
	return verdict{auc(b.took[known], b.took[unknown]), auc(b.took[known], b.took[knownToo]), auc(b.took[known], b.late)}
}

func mean(verdicts []verdict) (m verdict) {
	n := float64(len(verdicts))
	for _, v := range verdicts {
		m.found += v.found / n
		m.negative += v.negative / n
		m.positive += v.positive / n
	}
	return m
}

// auc is the probability that a sample of b is larger than one of a.
func auc(a, b []time.Duration) float64 {
	var all []sample
	for _, d := range a {
		all = append(all, sample{0, d})
	}
	for _, d := range b {
		all = append(all, sample{1, d})
	}
	slices.SortFunc(all, func(x, y sample) int { return cmp.Compare(x.took, y.took) })
	ranks := 0.0
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].took == all[i].took {
			j++
		}
		for k := i; k < j; k++ {
			if all[k].class == 1 {
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
			t.Errorf("auc(%v, %v) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}

// gate measures until each question is decided: one of three runs counts and
// finds nothing, or all three find a difference. A run has perRun batches.
func gate(t *testing.T, perRun int, measure func() []batch) {
	t.Helper()
	type state struct {
		batches []verdict // of the current run
		noisy   int       // batches that were measured again
		runs    int       // that counted
		decided bool
	}
	states := make(map[string]*state)
	open := true
	for range timingMost * perRun {
		if !open {
			break
		}
		open = false
		for _, b := range measure() {
			s := states[b.question]
			if s == nil {
				s = new(state)
				states[b.question] = s
			}
			if s.decided {
				continue
			}
			if v := b.verdict(); v.positive < positiveControl {
				s.noisy++
			} else {
				s.batches = append(s.batches, v)
			}
			if len(s.batches) == perRun {
				v := mean(s.batches)
				s.batches = nil
				counts := math.Abs(v.negative-0.5) <= negativeControl
				t.Logf("%s: AUC %.3f; controls %.3f, %.3f; counts: %t; %d batches were too noisy", b.question, v.found, v.negative, v.positive, counts, s.noisy)
				if counts {
					s.runs++
					passed := math.Abs(v.found-0.5) <= tolerance
					if s.decided = passed || s.runs == timingRuns; s.decided && !passed {
						t.Errorf("%s: the classes differ in each of %d runs", b.question, s.runs)
					}
				}
			}
			open = open || !s.decided
		}
	}
	for question, s := range states {
		if s.decided {
			questions.decided++
			continue
		}
		questions.undecided++
		t.Errorf("%s: undecided: %d batches were too noisy", question, s.noisy)
	}
}

// An address that has an account against one that has none, and the requests
// that follow it, while it may be delivered.
func TestTimingOfAnswers(t *testing.T) {
	needTiming(t)
	p := newProber(t, 1, func(context.Context, reset.Message) error { return nil })
	const n = 250
	gate(t, timingSamples/n, func() []batch {
		samples := stream(n, func(class int) time.Duration { return p.forgot(p.fresh(class)) })
		return []batch{
			read("itself", samples, 0),
			read("5 ms later", samples, 1), read("20 ms later", samples, 4), read("100 ms later", samples, 20),
		}
	})
}

// API keys that are wrong in their last character against one that is wrong in
// its first. The right one is long, so that the time shows where a
// comparison ends that ends early.
func TestTimingOfKeys(t *testing.T) {
	needTiming(t)
	var random [48 << 10]byte
	crand.Read(random[:])
	right := base64.RawStdEncoding.EncodeToString(random[:])
	almost := right[:len(right)-1] + "!"
	keys := [classes]string{known: almost, knownToo: strings.Clone(almost), unknown: "!" + right[1:]}
	f := newFixture(t, newHost(), func(c *reset.Config) {
		c.APIKeys, c.Logger = []string{right}, slog.New(slog.DiscardHandler)
	})
	handler := f.Handler()
	client := 0
	const n = 250
	gate(t, timingSamples/n, func() []batch {
		b := batch{question: "keys"}
		for _, class := range shuffled(n) {
			r := forNobody()
			client++ // each may be wrong 60 times a minute
			r.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:443", client>>16&255, client>>8&255, client&255)
			r.Header.Set("Authorization", keys[class])
			w := httptest.NewRecorder()
			start := time.Now()
			handler.ServeHTTP(w, r)
			b.add(class, time.Since(start))
			if w.Code != http.StatusUnauthorized {
				t.Fatalf("status %d", w.Code)
			}
		}
		b.late = delayed(b.took[knownToo], 100*time.Microsecond)
		return []batch{b}
	})
}

// One address again and again, while mail for it is queued, sent and retried.
func TestTimingOfRepeats(t *testing.T) {
	needTiming(t)
	p := newProber(t, 1, func(ctx context.Context, _ reset.Message) error {
		select { // a server that is slow and then refuses
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
		return errors.New("451 try later")
	})
	var repeated [classes]string
	requests := 0
	const n = 250
	gate(t, timingSamples/n, func() []batch {
		samples := stream(n, func(class int) time.Duration {
			if requests%2000 == 0 { // 10 s: the second attempt comes after 5 s, ± 30 %
				for class := range repeated {
					repeated[class] = p.fresh(class)
				}
			}
			requests++
			return p.forgot(repeated[class])
		})
		return []batch{read("repeats", samples, 0)}
	})
}

// The prober's own request right behind another one, and the arrival of the
// prober's mail. A random delay of up to 2 s hides the work for the other one,
// so it is a difference of 2 s that the control must see.
func TestTimingOfArrival(t *testing.T) {
	needTiming(t)
	type arrival struct {
		address string
		took    time.Duration
	}
	var began sync.Map // when, by own address, until the mail arrives
	arrivals := make(chan arrival, classes*timingSamples)
	p := newProber(t, 2, func(_ context.Context, m reset.Message) error {
		if at, ok := began.LoadAndDelete(m.To); ok {
			arrivals <- arrival{m.To, time.Since(at.(time.Time))}
		}
		return nil
	})
	const n = 800
	gate(t, timingSamples/n, func() []batch {
		behind := make(map[string]int) // the class of the request before, by own address
		samples := stream(n, func(class int) time.Duration {
			own := p.fresh(known)
			behind[own] = class
			p.forgot(p.fresh(class))
			began.Store(own, time.Now())
			return p.forgot(own)
		})
		mail := batch{question: "own mail"}
		for range behind {
			a := <-arrivals
			mail.add(behind[a.address], a.took)
		}
		mail.late = delayed(mail.took[knownToo], 2*time.Second)
		return []batch{read("right behind", samples, 0), mail}
	})
}

// A list of 19 addresses that have an account, or have none, and then the
// prober's own: a burst of one client. Its mail arrives alike, even if the mail
// server takes seconds for each. The control has one worker.
func TestTimingOfLists(t *testing.T) {
	needTiming(t)
	const n = 1000 // on a fake clock there is no noise
	for _, perMail := range []time.Duration{100 * time.Millisecond, time.Second, 3 * time.Second} {
		gate(t, 1, func() []batch {
			b := list(t, n, perMail, 0)
			b.question = fmt.Sprintf("list at %v a mail", perMail)
			b.late = list(t, n/10, max(perMail, time.Second), 1).took[known]
			return []batch{b}
		})
	}
}

// list measures when the prober's mail arrives behind n lists of each class.
func list(t *testing.T, n int, perMail time.Duration, workers int) (b batch) {
	const burst = 20 // of the default Config.PerClient
	synctest.Test(t, func(t *testing.T) {
		var arrived sync.Map // when, by address
		mailer := mailerFunc(func(_ context.Context, m reset.Message) error {
			<-time.After(perMail)
			arrived.Store(m.To, time.Now())
			return nil
		})
		f := newFixture(t, nil, func(c *reset.Config) {
			c.Users, c.Mailer, c.Workers, c.Logger = everybody{}, mailer, workers, slog.New(slog.DiscardHandler)
		})
		f.begin()
		var a addresses
		for _, class := range shuffled(n) {
			for range burst - 1 {
				f.forgot(a.fresh(class))
			}
			own, start := a.fresh(known), time.Now()
			f.forgot(own)
			pass(time.Minute + burst*perMail) // all is delivered, and the client may request again
			at, ok := arrived.Load(own)
			if !ok {
				t.Fatal("the mail is late")
			}
			b.add(class, at.(time.Time).Sub(start))
			arrived.Clear()
		}
	})
	return b
}
