// Package deadline calls functions that may ignore their context.
package deadline

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// Call runs f in a goroutine of its own and returns its result. It stops
// waiting when grace has passed since ctx ended: ok is then false, the result
// of f is dropped, and late, unless it is nil, runs as soon as f has ended.
// Call ends as f does if f panics or calls runtime.Goexit.
func Call[T any](ctx context.Context, grace time.Duration, f func() T, late func()) (value T, ok bool) {
	done := make(chan ending[T], 1)
	var over atomic.Bool // f has ended, or Call has stopped waiting for it
	go func() {
		var e ending[T]
		defer func() {
			if !e.returned {
				e.panicked = recover() // nil after runtime.Goexit
			}
			if first := !over.Swap(true); first {
				done <- e
			} else if late != nil {
				late()
			}
		}()
		e.value = f()
		e.returned = true
	}()
	select {
	case e := <-done:
		return e.get(), true
	case <-ctx.Done():
	}
	if grace > 0 {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case e := <-done:
			return e.get(), true
		case <-t.C:
		}
	}
	if first := !over.Swap(true); first {
		return value, false
	}
	e := <-done // f ended at the same moment
	return e.get(), true
}

// An ending is how a function has ended.
type ending[T any] struct {
	value    T
	returned bool
	panicked any
}

// get ends in the same way.
func (e ending[T]) get() T {
	switch {
	case e.panicked != nil:
		panic(e.panicked)
	case !e.returned:
		runtime.Goexit()
	}
	return e.value
}
