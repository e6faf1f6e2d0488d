package reset_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
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
	"github.com/gopassreset/reset/resettest"
	storesqlite "github.com/gopassreset/reset/store_sqlite"
)

// The tests of timing measure, so they need some minutes of a machine that is
// not all too busy. They ask whether somebody who times the public face can
// tell two classes of addresses apart: the area under the ROC curve, which the
// Mann-Whitney statistic estimates, is 0.5 where nobody can and 1 where anybody
// can. A run counts only if it finds no difference where there is none and a
// millisecond where there is one.
const (
	tolerance        = 0.05
	negativeControl  = 0.03
	positiveControl  = 0.9
	timingRuns       = 3
	timingSamples    = 4000 // of each class
	timingWarmUp     = 500
	timingSmallClass = 600 // where each sample takes long
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

// A prober asks over loopback, as a client outside would.
type prober struct {
	t      *testing.T
	url    string
	client *http.Client
	n      int
	mu     sync.Mutex
}

func newProber(t *testing.T, mailer reset.Mailer) *prober {
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
	svc, _, _ := newService(t, nil, func(c *reset.Config) {
		c.Users, c.Store, c.Mailer, c.PerClient = everybody{}, store, mailer, reset.Unlimited
	})
	run(t, svc)
	srv := httptest.NewServer(svc.Pages())
	t.Cleanup(srv.Close)
	return &prober{t: t, url: srv.URL + "/forgot", client: srv.Client()}
}

// fresh returns an address that was not used before.
func (p *prober) fresh(class string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	return fmt.Sprintf("%s%08d@example.com", class, p.n)
}

func (p *prober) ask(address string) {
	resp, err := p.client.Post(p.url, "application/json", strings.NewReader(`{"email":"`+address+`"}`))
	if err != nil {
		p.t.Error(err)
		return
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		p.t.Errorf("status %d", resp.StatusCode)
	}
}

func (p *prober) timed(address string) time.Duration {
	start := time.Now()
	p.ask(address)
	return time.Since(start)
}

// measure takes n samples of each class, in random order.
func measure(n int, classes ...func() time.Duration) [][]time.Duration {
	samples := make([][]time.Duration, len(classes))
	var order []int
	for i := range classes {
		order = append(order, slices.Repeat([]int{i}, n)...)
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, i := range order {
		samples[i] = append(samples[i], classes[i]())
	}
	return samples
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

// gate passes if one of three runs finds nothing. Where all were void, the
// machine was too busy to tell, which is said as a skip.
func gate(t *testing.T, f func() (found float64, void string)) {
	t.Helper()
	voids := 0
	for i := range timingRuns {
		found, void := f()
		if void != "" {
			voids++
		}
		t.Logf("run %d: AUC %.3f %s", i+1, found, void)
		if void == "" && found > 0.5-tolerance && found < 0.5+tolerance {
			return
		}
	}
	if voids == timingRuns {
		t.Skip("every run was void: this machine is too busy to measure a millisecond")
	}
	t.Errorf("in none of %d runs the classes were alike", timingRuns)
}

// TestTimingOfAnswers: an address that is known against one that is not.
func TestTimingOfAnswers(t *testing.T) {
	needTiming(t)
	p := newProber(t, new(postman))
	for range timingWarmUp {
		p.ask(p.fresh("known"))
		p.ask(p.fresh("unknown"))
	}
	known := func() time.Duration { return p.timed(p.fresh("known")) }
	gate(t, func() (float64, string) {
		s := measure(timingSamples, known, known,
			func() time.Duration { return p.timed(p.fresh("unknown")) },
			func() time.Duration {
				start := time.Now()
				p.ask(p.fresh("known"))
				for end := time.Now().Add(time.Millisecond); time.Now().Before(end); {
				}
				return time.Since(start)
			})
		void := ""
		if c := auc(s[0], s[1]); c < 0.5-negativeControl || c > 0.5+negativeControl {
			void = fmt.Sprintf("(void: negative control %.3f)", c)
		}
		if c := auc(s[0], s[3]); c < positiveControl {
			void = fmt.Sprintf("(void: positive control %.3f)", c)
		}
		return auc(s[0], s[2]), void
	})
}

// TestTimingAfterAsk: a probe some time after an ask, while that is at work.
func TestTimingAfterAsk(t *testing.T) {
	needTiming(t)
	for _, after := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			p := newProber(t, new(postman))
			probe := func(class string) func() time.Duration {
				return func() time.Duration {
					p.ask(p.fresh(class))
					<-time.After(after)
					return p.timed(p.fresh("unknown"))
				}
			}
			n := timingSmallClass
			if after >= 100*time.Millisecond {
				n /= 2
			}
			gate(t, func() (float64, string) {
				s := measure(n, probe("known"), probe("unknown"))
				return auc(s[0], s[1]), ""
			})
		})
	}
}

// TestTimingOfRepeats: the same address again, while the mail for it is in
// flight and tried again.
func TestTimingOfRepeats(t *testing.T) {
	needTiming(t)
	p := newProber(t, &postman{do: func(ctx context.Context, _ int, _ reset.Message) error {
		select { // a server that takes its time and then refuses
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
		return fmt.Errorf("451 try later")
	}})
	known, unknown := p.fresh("known"), p.fresh("unknown")
	for range timingWarmUp {
		p.ask(known)
		p.ask(unknown)
	}
	gate(t, func() (float64, string) {
		s := measure(timingSamples/2,
			func() time.Duration { return p.timed(known) }, func() time.Duration { return p.timed(unknown) })
		return auc(s[0], s[1]), ""
	})
}

// TestTimingOfArrival: the prober's own mail, asked for right behind an ask.
func TestTimingOfArrival(t *testing.T) {
	needTiming(t)
	mailbox := new(resettest.Mailbox)
	p := newProber(t, mailbox)
	arrival := func(class string) time.Duration {
		own := p.fresh("known-prober")
		p.ask(p.fresh(class))
		start := time.Now()
		p.ask(own)
		if _, err := mailbox.Wait(t.Context(), own); err != nil {
			t.Error(err)
		}
		return time.Since(start)
	}
	gate(t, func() (float64, string) {
		samples := make(map[string][]time.Duration)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				for j := range timingSmallClass / 20 {
					class := []string{"known", "unknown"}[(i+j)%2]
					d := arrival(class)
					mu.Lock()
					samples[class] = append(samples[class], d)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return auc(samples["known"], samples["unknown"]), ""
	})
}
