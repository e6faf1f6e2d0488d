// Package resettest has test suites for implementations of the interfaces of
// package reset, and stand-ins for the tests of hosts.
//
// Every host should run [TestUsers] on its reset.Users and [TestHost] on its
// handler: they find the mistakes that stay silent until they hurt, such as a
// SetPassword outside of the transaction, and say what to change.
//
// [TestStore], [TestStoreElsewhere], [TestLimiter] and [TestMailer] are for
// implementations of the other interfaces. Each subtest tests one promise of a
// doc comment, and quotes it when it is broken.
//
// [MemStore] is a store and [Mailbox] a mailer, both in memory: with them and
// [ChangePassword] a host tests its wiring, from the form to the changed
// password, without a database or a mail server. [FaultStore] makes a store
// fail.
package resettest

import (
	"context"
	"sync"
	"testing"
)

// A sentence is a promise of an interface and the check of it. quote stands in
// the interface's doc comment.
type sentence[T any] struct {
	name  string
	quote string
	check func(T)
}

// cite logs the quote if the test fails.
func cite(t *testing.T, quote string) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the contract says: %s", quote)
		}
	})
}

// inOrder runs sentences. If one of the first needed ones fails, it runs no
// other and returns the name.
func inOrder[T any](sentences []sentence[T], needed int, run func(sentence[T]) bool) (failed string) {
	for i, s := range sentences {
		if !run(s) && i < needed {
			return s.name
		}
	}
	return ""
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

// canceled returns a context that has ended.
func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}
