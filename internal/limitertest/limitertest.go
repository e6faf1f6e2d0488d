// Package limitertest has the tests that limiters for several processes share.
package limitertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
	"github.com/gopassreset/reset/resettest"
)

// Run runs the suite of resettest and compares the limiter with a
// reset.MemoryLimiter. Limiters from open have not counted anything.
func Run(t *testing.T, open func(t *testing.T, n int, period time.Duration) reset.Limiter) {
	for _, r := range []struct {
		n      int
		period time.Duration
	}{
		{1, 10 * time.Second},
		{3, time.Minute},
		{7, 24 * time.Hour},
	} {
		t.Run(fmt.Sprintf("%d in %v", r.n, r.period), func(t *testing.T) {
			resettest.TestLimiter(t, func(t *testing.T) reset.Limiter { return open(t, r.n, r.period) }, r.n, r.period)
		})
	}
	t.Run("networks", func(t *testing.T) { equalsMemoryLimiter(t, open(t, 2, time.Minute)) })
	t.Run("burst", func(t *testing.T) {
		if got := open(t, 5, time.Minute).(interface{ Burst() int }).Burst(); got != 5 {
			t.Errorf("Burst = %d, want 5", got)
		}
	})
}

// equalsMemoryLimiter compares a limiter of 2 in a minute with a MemoryLimiter,
// on clients that share networks.
func equalsMemoryLimiter(t *testing.T, l reset.Limiter) {
	memory := reset.NewMemoryLimiter(2, time.Minute)
	now := time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	const calls = 3000
	allowed := 0
	for i := range calls {
		key := fmt.Sprintf("2001:db8:%x:%x::/64", rand.N(4)<<8+rand.N(4), rand.N(50))
		if i%10 == 0 {
			key = fmt.Sprintf("192.0.2.%d", rand.N(3))
		}
		got, want := l.Allow(t.Context(), key, now), memory.Allow(t.Context(), key, now)
		if wait := retryAfter(want); wait > 0 && wait <= time.Microsecond { // a float that was rounded
			want = memory.Allow(t.Context(), key, now.Add(wait))
		}
		if got == nil {
			allowed++
		}
		if (got == nil) != (want == nil) || (retryAfter(got)-retryAfter(want)).Abs() > time.Millisecond {
			t.Fatalf("call %d, of %s: got %v, want %v as from a MemoryLimiter", i, key, got, want)
		}
		now = now.Add(time.Duration(rand.N(40)) * 5 * time.Millisecond)
	}
	if allowed < calls/30 || allowed > calls-calls/30 {
		t.Errorf("%d of %d calls were allowed: too few or too many to compare", allowed, calls)
	}
}

// retryAfter returns -1 for an error that is no *reset.LimitError.
func retryAfter(err error) time.Duration {
	var limit *reset.LimitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &limit):
		return limit.RetryAfter
	}
	return -1
}

// Allow calls a limiter as the Service does.
func Allow(l reset.Limiter, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	return l.Allow(ctx, key, time.Now())
}

// RefusesInTime tests that a Service whose limiter fails refuses a public
// request in time and queues nothing.
func RefusesInTime(t *testing.T, l reset.Limiter) {
	t.Helper()
	store := &resettest.FaultStore{Store: new(resettest.MemStore)}
	svc, err := reset.New(reset.Config{
		Users: nobody{}, Store: store, Mailer: new(resettest.Mailbox), BaseURL: "https://app.example.com",
		PerClient: l, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = svc.Forgot(t.Context(), "ann@example.com", "192.0.2.1", reset.ForgotOptions{})
	if took := time.Since(began); took > 400*time.Millisecond {
		t.Errorf("Forgot took %v, want 200 ms and a little for a busy machine", took)
	}
	if err == nil || errors.Is(err, reset.ErrTooManyRequests) || store.Calls("Enqueue") != 0 {
		t.Errorf("Forgot: got error %v and %d queued, want a failure and none", err, store.Calls("Enqueue"))
	}
}

// nobody is the accounts of a host that has none.
type nobody struct{}

func (nobody) FindByEmail(context.Context, string) (reset.User, error) {
	return reset.User{}, reset.ErrNoUser
}

func (nobody) HashPassword(context.Context, string) (string, error) { return "", nil }

func (nobody) SetPassword(context.Context, string, string) error { return reset.ErrNoUser }

const (
	// ChildLimit and ChildPeriod are the rate of the limiter that the children
	// of Processes share.
	ChildLimit  = 20
	ChildPeriod = time.Minute

	childEnv   = "RESET_TEST_CHILD"
	childCalls = 30
)

// Child makes the process that Processes has started call a limiter from open,
// which gets what Processes got, and exit. In any other process it returns at
// once. TestMain calls it.
func Child(open func(ctx context.Context, spec string) (reset.Limiter, error)) {
	spec := os.Getenv(childEnv)
	if spec == "" {
		return
	}
	if err := beChild(context.Background(), open, spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// beChild waits until its parent closes its input, then prints how many calls
// were allowed.
func beChild(ctx context.Context, open func(context.Context, string) (reset.Limiter, error), spec string) error {
	l, err := open(ctx, spec)
	if err != nil {
		return err
	}
	if err := l.Allow(ctx, "a connection "+strconv.Itoa(os.Getpid()), time.Now()); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	allowed := 0
	for range childCalls {
		err := l.Allow(ctx, "192.0.2.1", time.Now())
		switch {
		case err == nil:
			allowed++
		case !errors.Is(err, reset.ErrTooManyRequests):
			return err
		}
	}
	fmt.Println(allowed)
	return nil
}

// Processes tests that a client that reaches several processes at once gets its
// limit once, and not once from each of them.
func Processes(t *testing.T, n int, spec string) {
	t.Helper()
	began := time.Now()
	children := make([]*child, n)
	for i := range children {
		children[i] = startChild(t, spec)
	}
	for _, c := range children {
		if got := c.line(); got != "ready" {
			t.Fatalf("a process said %q, want ready", got)
		}
	}
	for _, c := range children {
		c.input.Close()
	}
	total := 0
	for _, c := range children {
		allowed, err := strconv.Atoi(c.line())
		if err != nil {
			t.Fatal(err)
		}
		total += allowed
	}
	refilled := int(time.Since(began) / (ChildPeriod / ChildLimit))
	t.Logf("%d processes, %d calls: %d events of a limit of %d", n, n*childCalls, total, ChildLimit)
	figure.Report(t, fmt.Sprintf("events of %d processes at a limit of %d", n, ChildLimit), total, n*childCalls)
	if total < ChildLimit || total > ChildLimit+refilled {
		t.Errorf("%d processes allowed %d events, want %d and at most %d that were refilled", n, total, ChildLimit, refilled)
	}
}

type child struct {
	t      *testing.T
	input  io.Closer
	output *bufio.Reader
}

func startChild(t *testing.T, spec string) *child {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), childEnv+"="+spec)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("a process: %v", err)
		}
	})
	return &child{t, input, bufio.NewReader(output)}
}

// line returns the next line of the child.
func (c *child) line() string {
	c.t.Helper()
	line, err := c.output.ReadString('\n')
	if err != nil {
		c.t.Fatalf("a process ended early: %v", err)
	}
	return strings.TrimSpace(line)
}
