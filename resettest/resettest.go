// Package resettest tests implementations of the interfaces of package reset,
// and has stand-ins for tests of hosts.
//
// [TestStore], [TestStoreElsewhere], [TestLimiter] and [TestMailer] have a
// subtest for every sentence of a contract. [MemStore] is a store and [Mailbox]
// a mailer, both in memory: with them a host can test its wiring from the form
// to the changed password without a database or a mail server.
package resettest

import (
	"context"
	"sync"
	"testing"
)

// A sentence of a contract, and how to see that it is kept.
type sentence[T any] struct {
	name  string
	quote string
	check func(T)
}

// cite adds the sentence to the log of a test that failed.
func cite(t *testing.T, quote string) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the contract says: %s", quote)
		}
	})
}

// parallel runs f(0) to f(n-1) at the same time and waits for all of them.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// catch returns what f panics with, or nil.
func catch(f func()) (p any) {
	defer func() { p = recover() }()
	f()
	return nil
}

// canceled returns a context that is over.
func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}
