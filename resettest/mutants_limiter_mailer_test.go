package resettest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

type limiterFunc func(ctx context.Context, key string, now time.Time) error

func (f limiterFunc) Allow(ctx context.Context, key string, now time.Time) error {
	return f(ctx, key, now)
}

func TestLimiterMutants(t *testing.T) {
	const n, period = 5, time.Minute
	specimen[func() limiterFunc, *limiterCheck]{
		sentences: limiterSentences(),
		mutants:   limiterMutants(n, period),
		check: func(t testing.TB, fault func() limiterFunc) *limiterCheck {
			return &limiterCheck{TB: t, limiter: fault(), n: n, period: period}
		},
	}.prove(t)
}

func limiterMutants(n int, period time.Duration) []mutant[func() limiterFunc] {
	// changed returns another error for a refused call.
	changed := func(change func(wait time.Duration) error) func() limiterFunc {
		return func() limiterFunc {
			l := reset.NewMemoryLimiter(n, period)
			return func(ctx context.Context, key string, now time.Time) error {
				err := l.Allow(ctx, key, now)
				var limit *reset.LimitError
				if errors.As(err, &limit) {
					return change(limit.RetryAfter)
				}
				return err
			}
		}
	}
	other := func(n int, period time.Duration) func() limiterFunc {
		return func() limiterFunc { return reset.NewMemoryLimiter(n, period).Allow }
	}
	return []mutant[func() limiterFunc]{
		{"one event too many", other(n+1, period), []string{"counts", "goroutines"}},
		{"one event too few", other(n-1, period), []string{"counts"}},
		{"refuses with another error", changed(func(time.Duration) error { return errors.New("too many") }), []string{"counts", "goroutines"}},
		{"no wait", changed(func(time.Duration) error { return &reset.LimitError{} }), []string{"counts"}},
		{"too short a wait", changed(func(wait time.Duration) error { return &reset.LimitError{RetryAfter: wait / 2} }), []string{"RetryAfter", "time"}},
		{"too long a wait", changed(func(wait time.Duration) error { return &reset.LimitError{RetryAfter: 10 * wait} }), []string{"RetryAfter"}},
		{"too slow", other(n, 2*period*time.Duration(n)), []string{"RetryAfter", "refills"}},
		{"too fast", other(n, period/2), []string{"refills"}},
		{"refused calls count", func() limiterFunc {
			l, last := reset.NewMemoryLimiter(n, period), time.Time{}
			return func(ctx context.Context, key string, now time.Time) error {
				if now.Before(last.Add(period / 2)) {
					last = now
					return &reset.LimitError{RetryAfter: period / 2}
				}
				err := l.Allow(ctx, key, now)
				if err != nil {
					last = now
				}
				return err
			}
		}, []string{"refusals"}},
		{"a bucket for all", func() limiterFunc {
			l := reset.NewMemoryLimiter(n, period)
			return func(ctx context.Context, _ string, now time.Time) error { return l.Allow(ctx, "", now) }
		}, []string{"keys", "goroutines"}},
		{"keys fold case", func() limiterFunc {
			l := reset.NewMemoryLimiter(n, period)
			return func(ctx context.Context, key string, now time.Time) error {
				return l.Allow(ctx, strings.ToLower(key), now)
			}
		}, []string{"keys"}},
		{"count, then add", func() limiterFunc {
			var used sync.Map
			return func(_ context.Context, key string, _ time.Time) error {
				v, _ := used.LoadOrStore(key, new(atomic.Int64))
				if v.(*atomic.Int64).Load() >= int64(n) {
					return &reset.LimitError{RetryAfter: period}
				}
				yield()
				v.(*atomic.Int64).Add(1)
				return nil
			}
		}, []string{"goroutines"}},
		{"a clock of its own", func() limiterFunc {
			l := reset.NewMemoryLimiter(n, period)
			return func(ctx context.Context, key string, _ time.Time) error { return l.Allow(ctx, key, time.Now()) }
		}, []string{"time", "RetryAfter"}},
		{"a cancelled call is allowed", func() limiterFunc {
			l := reset.NewMemoryLimiter(n, period)
			return func(ctx context.Context, key string, now time.Time) error {
				if ctx.Err() != nil {
					return nil
				}
				return l.Allow(ctx, key, now)
			}
		}, []string{"cancelled"}},
	}
}

type mailerFunc func(ctx context.Context, m reset.Message) error

func (f mailerFunc) Send(ctx context.Context, m reset.Message) error { return f(ctx, m) }

func TestMailerMutants(t *testing.T) {
	specimen[func() mailerFunc, *mailerCheck]{
		sentences: mailerSentences(),
		mutants:   mailerMutants(),
		check:     func(t testing.TB, fault func() mailerFunc) *mailerCheck { return &mailerCheck{t, fault()} },
	}.prove(t)
}

func mailerMutants() []mutant[func() mailerFunc] {
	failure := errors.New("send failed")
	// failing fails if the condition holds.
	failing := func(condition func(ctx context.Context, m reset.Message) bool) func() mailerFunc {
		return func() mailerFunc {
			var b Mailbox
			return func(ctx context.Context, m reset.Message) error {
				if condition(ctx, m) {
					return failure
				}
				return b.Send(ctx, m)
			}
		}
	}
	return []mutant[func() mailerFunc]{
		{"no notifications", failing(func(_ context.Context, m reset.Message) bool { return m.Kind == reset.MailNotification }), []string{"accepts", "goroutines"}},
		{"long lines fail", failing(func(_ context.Context, m reset.Message) bool {
			for line := range strings.Lines(m.Text) {
				if len(line) > 998 {
					return true
				}
			}
			return false
		}), []string{"accepts any text"}},
		{"once only", func() mailerFunc {
			var b Mailbox
			seen := make(map[string]bool)
			return func(ctx context.Context, m reset.Message) error {
				if seen[m.ID] {
					return failure
				}
				seen[m.ID] = true
				return b.Send(ctx, m)
			}
		}, []string{"accepts another attempt"}},
		{"one at a time", func() mailerFunc {
			var b Mailbox
			var busy atomic.Bool
			return func(ctx context.Context, m reset.Message) error {
				if !busy.CompareAndSwap(false, true) {
					return failure
				}
				defer busy.Store(false)
				yield()
				return b.Send(ctx, m)
			}
		}, []string{"goroutines"}},
		{"any address", func() mailerFunc {
			return func(context.Context, reset.Message) error { return nil }
		}, []string{"hostile address"}},
		{"a bad address is a failure", failing(func(_ context.Context, m reset.Message) bool { return strings.Contains(m.To, "\n") }), []string{"hostile address"}},
		{"a bad subject is a failure", failing(func(_ context.Context, m reset.Message) bool { return strings.Contains(m.Subject, "\r") }), []string{"hostile fields"}},
		{"a cancelled call gives up", func() mailerFunc {
			var b Mailbox
			return func(ctx context.Context, m reset.Message) error {
				if err := b.Send(ctx, m); err != nil {
					return fmt.Errorf("%w: %w", reset.ErrUndeliverable, err)
				}
				return nil
			}
		}, []string{"cancelled"}},
		{"a cancelled call breaks the next", func() mailerFunc {
			var b Mailbox
			broken := false
			return func(ctx context.Context, m reset.Message) error {
				if broken {
					return failure
				}
				broken = ctx.Err() != nil
				return b.Send(ctx, m)
			}
		}, []string{"cancelled"}},
	}
}
