package reset_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

func TestContractRandomFails(t *testing.T) {
	broken := func(n int64) io.Reader {
		return io.MultiReader(io.LimitReader(rand.Reader, n), iotest.ErrReader(errors.New("no entropy")))
	}
	f := newTrusted(t, newHost(ann), nil)
	activation := f.activation(ann)
	before := writes(f.store)
	for _, n := range []int64{0, 1, 9, 10, 27} { // of the 28 bytes that are needed
		f.svc.SetRandom(broken(n))
		wantAnswer(t, f.post(resetPath, `{"email":"ann@example.com"}`), 500, unknownErrorBody)
	}
	for _, n := range []int64{0, 9} {
		f.svc.SetRandom(broken(n))
		wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 500, unknownErrorBody)
		f.svc.SetRandom(broken(n))
		if err := f.svc.Forgot(t.Context(), ann.Email, "client", reset.ForgotOptions{}); err == nil {
			t.Error("Forgot succeeded")
		}
	}
	if got := writes(f.store); got != before {
		t.Errorf("%d writes of the store", got-before)
	}
	if _, _, sets := f.host.calls(); sets != 0 {
		t.Errorf("the password was set")
	}
	f.svc.SetRandom(rand.Reader)
	wantAnswer(t, f.post(newPath, newPassword(activation, goodPassword)), 200, okBody)
}

func TestActivations(t *testing.T) {
	const n = 100_000
	svc, _, _ := newService(t, newHost(ann), func(c *reset.Config) {
		c.Store = &resettest.FaultStore{ // keeps nothing
			IssueFunc: func(context.Context, time.Time, reset.Activation, int, *reset.Mail) error { return nil },
		}
	})
	seen := make(map[string]bool, n)
	var counts [24][128]int
	for range n {
		activation, err := svc.RequestReset(t.Context(), ann.Email, reset.RequestOptions{})
		if err != nil || len(activation) != 24 {
			t.Fatalf("RequestReset = %q, %v", activation, err)
		}
		seen[activation] = true
		for i := range activation {
			counts[i][activation[i]&127]++
		}
	}
	if len(seen) != n {
		t.Errorf("%d of %d activations are unique", len(seen), n)
	}
	// 1562 each, with a standard deviation of 39.
	for i := range counts {
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
			if got := counts[i][c]; got < 1562-300 || got > 1562+300 {
				t.Errorf("%q is at position %d of %d activations in %d", c, i, got, n)
			}
		}
	}
}
