package reset

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset/internal/deadline"
)

// The host's code (Users, Store, Mailer, Limiter and the functions of Config)
// may hang and may panic. Neither must hold or end the host's process.

// hostGrace is how long the host's code may go on when its context has ended.
const hostGrace = time.Second

// inTime calls f and returns at the latest grace after ctx has ended, even if f
// ignores ctx. f then goes on without anybody waiting. A panic of f becomes one
// of inTime, without its value unless that is http.ErrAbortHandler.
func inTime[T any](ctx context.Context, grace time.Duration, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	r, returned := deadline.Call(ctx, grace, func() (r result) {
		defer func() {
			if p := recover(); p == http.ErrAbortHandler {
				panic(p)
			} else if p != nil {
				panic(panicOf(p))
			}
		}()
		r.value, r.err = f()
		return r
	}, nil)
	if !returned {
		return r.value, fmt.Errorf("no answer: %w", ctx.Err())
	}
	return r.value, r.err
}

// outlast is inTime for functions that have only an error.
func outlast(ctx context.Context, f func() error) error {
	_, err := inTime(ctx, hostGrace, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// A hostPanic is a panic of the host's code. It does not keep the value, which
// may hold anything, even a password.
type hostPanic struct {
	kind  string
	stack []byte
}

func (p *hostPanic) Error() string { return "panic with a " + p.kind }

// panicOf is called where the panic is recovered, for its stack.
func panicOf(p any) *hostPanic {
	if p, ok := p.(*hostPanic); ok { // of another goroutine
		return p
	}
	return &hostPanic{fmt.Sprintf("%T", p), debug.Stack()}
}

// noPanic logs a panic of f and returns it as an error.
func (l eventLog) noPanic(ctx context.Context, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = l.panicked(ctx, p)
		}
	}()
	return f()
}

// panicked logs a panic that was just recovered.
func (l eventLog) panicked(ctx context.Context, p any) *hostPanic {
	h := panicOf(p)
	l.log(ctx, panicked, "type", h.kind, "stack", string(h.stack))
	return h
}

const limiterTimeout = 200 * time.Millisecond

// allow counts an event for key with a limiter, which has a name. One that
// answers neither yes nor no in time has failed.
func (l eventLog) allow(ctx context.Context, limiter Limiter, name, key string) error {
	if limiter == Unlimited {
		return nil // without a goroutine to wait for
	}
	now := time.Now()
	err := l.noPanic(ctx, func() error {
		if m, ok := limiter.(*MemoryLimiter); ok { // waits for nothing but a core, which a flood leaves late
			return m.Allow(ctx, key, now)
		}
		timed, cancel := context.WithTimeout(ctx, limiterTimeout)
		defer cancel()
		_, err := inTime(timed, 0, func() (struct{}, error) { return struct{}{}, limiter.Allow(timed, key, now) })
		return err
	})
	var limit *LimitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &limit):
		l.count(ctx, limiterFailed, "limiter", name, "error", err)
		return wrap("limit per "+name, err)
	case limit.Full:
		l.count(ctx, limiterFull, "limiter", name)
	case name == "client":
		l.count(ctx, clientLimited, "client", clip(key), "limiter", name)
	default: // the key may be an address that belongs to nobody
		l.count(ctx, clientLimited, append(callerAttrs(ctx), "limiter", name)...)
	}
	return wrap("limit per "+name, limit)
}

const hashSlotTimeout = 5 * time.Second

// errNoSlot is returned when all slots were taken for hashSlotTimeout. Nothing
// has been changed.
var errNoSlot = wrap("hash password", fmt.Errorf("too many at once: %w", ErrBusy))

// slots hold a token for each call of HashPassword that runs.
type slots chan struct{}

// take waits for a slot.
func (s slots) take(ctx context.Context) error {
	timeout := time.NewTimer(hashSlotTimeout)
	defer timeout.Stop()
	select {
	case s <- struct{}{}:
		return nil
	case <-timeout.C:
		return errNoSlot
	case <-ctx.Done():
		return wrap("hash password", context.Cause(ctx))
	}
}

func (s slots) giveBack() { <-s }

// hash waits for a slot, in which it calls live and, unless that fails, f. The slot
// is taken until f has returned, even if nobody waits for it any more.
func (s slots) hash(ctx context.Context, live func() error, f func() (string, error)) (string, error) {
	if err := s.take(ctx); err != nil {
		return "", err
	}
	hashes := false
	defer func() {
		if !hashes {
			s.giveBack()
		}
	}()
	if err := live(); err != nil {
		return "", err
	}
	hashes = true
	hash, err := inTime(ctx, hostGrace, func() (string, error) {
		defer s.giveBack()
		return f()
	})
	if err != nil {
		err = wrap("hash password", err)
	}
	return hash, err
}

// maxWaiting is how many requests may be in the hands of the store, of the
// accounts and of the slots at a time. Where these hang, each costs a goroutine
// for handlerDeadline.
const maxWaiting = 1000

// A waitingRoom counts the requests that it has admitted.
type waitingRoom struct{ n atomic.Int64 }

// enter returns an error that wraps ErrBusy if the room is full.
func (w *waitingRoom) enter() (leave func(), err error) {
	if w.n.Add(1) > maxWaiting {
		w.n.Add(-1)
		return nil, wrap("serve", fmt.Errorf("%d requests wait: %w", maxWaiting, ErrBusy))
	}
	return sync.OnceFunc(func() { w.n.Add(-1) }), nil
}
