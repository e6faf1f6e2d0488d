package reset

import (
	"context"
	"sync"
	"time"
)

const (
	maxRefused    = 60             // wrong keys, and wrong activations, of a client a minute
	maxEnded      = 4096           // activations whose end is remembered
	expiredMemory = 24 * time.Hour // how long after its end an expired activation is looked for
)

// refusals bounds the attempts with a wrong key or activation, and reports them
// to the operator. It is asked about wrong ones only: a right one never waits
// for others' attempts.
type refusals struct {
	store             Store
	clock             *clock
	events            eventLog
	keys, activations *MemoryLimiter

	mu    sync.Mutex
	ended map[Hash]string // why activations ended, where this process ended them
	order []Hash          // of ended, the oldest at next once there are maxEnded
	next  int
}

func newRefusals(store Store, clock *clock, events eventLog) *refusals {
	return &refusals{
		store:       store,
		clock:       clock,
		events:      events,
		keys:        NewMemoryLimiter(maxRefused, time.Minute),
		activations: NewMemoryLimiter(maxRefused, time.Minute),
		ended:       make(map[Hash]string),
	}
}

// key reports a wrong API key. It returns a *LimitError if the client has sent
// too many.
func (r *refusals) key(ctx context.Context) error {
	if err := r.limit(ctx, r.keys, "wrong keys"); err != nil {
		return err
	}
	r.events.count(ctx, keyRefused, callerAttrs(ctx)...)
	return nil
}

// activation reports an activation that is not live. It returns
// ErrInvalidActivation, or a *LimitError if the client has sent too many.
func (r *refusals) activation(ctx context.Context, h Hash) error {
	if err := r.limit(ctx, r.activations, "wrong activations"); err != nil {
		return err
	}
	return r.because(ctx, r.reason(ctx, h))
}

// because reports an activation that is refused for a reason, and returns
// ErrInvalidActivation.
func (r *refusals) because(ctx context.Context, reason string) error {
	r.events.count(ctx, activationRefused, append(callerAttrs(ctx), "reason", reason)...)
	return ErrInvalidActivation
}

func (r *refusals) limit(ctx context.Context, l *MemoryLimiter, name string) error {
	c, ok := callerOf(ctx)
	if !ok {
		return nil // the host's own code
	}
	err := l.Allow(ctx, c.client(), time.Now())
	if err != nil {
		r.events.count(ctx, clientLimited, append(callerAttrs(ctx), "limiter", name)...)
	}
	return err
}

// end remembers why an activation ended.
func (r *refusals) end(h Hash, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.order) < maxEnded {
		r.order = append(r.order, h)
	} else {
		delete(r.ended, r.order[r.next])
		r.order[r.next] = h
		r.next = (r.next + 1) % maxEnded
	}
	r.ended[h] = reason
}

// reason returns why an activation is not live: "redeemed" or "revoked" in this
// process, "expired" within a day, or "unknown". A store that is asked for an
// earlier time still knows what has expired and was not purged.
func (r *refusals) reason(ctx context.Context, h Hash) string {
	r.mu.Lock()
	reason := r.ended[h]
	r.mu.Unlock()
	if reason != "" {
		return reason
	}
	if _, err := r.store.Find(ctx, r.clock.now(ctx).Add(-expiredMemory), h); err == nil {
		return "expired"
	}
	return "unknown"
}
