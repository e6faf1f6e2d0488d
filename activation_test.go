package reset_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

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

// forgetful returns a service whose store keeps no activations.
func forgetful(t *testing.T) *reset.Service {
	t.Helper()
	svc, _, _ := newService(t, newHost(ann), func(c *reset.Config) {
		c.Store = &resettest.FaultStore{
			IssueFunc: func(context.Context, time.Time, reset.Activation, int, *reset.Mail) error { return nil },
		}
	})
	return svc
}

// Activations are unique, and at each position every character is equally
// likely, except that the last one is a letter or a digit.
func TestActivations(t *testing.T) {
	const n = 100_000
	svc := forgetful(t)
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
	for i := range counts {
		choice := alphabet
		if i == len(counts)-1 {
			choice = alphabet[:62]
			if got := counts[i]['-'] + counts[i]['_']; got > 0 {
				t.Errorf("%d activations end in - or _", got)
			}
		}
		want := n / len(choice) // with a standard deviation of 40
		for _, c := range choice {
			if got := counts[i][c]; got < want-300 || got > want+300 {
				t.Errorf("%q is at position %d of %d activations, want %d", c, i, got, want)
			}
		}
	}
}

// An activation that would end in - or _ is drawn again as a whole.
func TestActivationIsDrawnAgain(t *testing.T) {
	svc := forgetful(t)
	want := "AbCdEfGhIjKlMnOpQrStUvW0"
	source := bytes.NewBuffer(make([]byte, 10)) // of the request's id
	for _, drawn := range []string{"AbCdEfGhIjKlMnOpQrStUvW-", "aBcDeFgHiJkLmNoPqRsTuVw_", want} {
		b, err := base64.RawURLEncoding.DecodeString(drawn)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	svc.SetRandom(source)
	if got, err := svc.RequestReset(t.Context(), ann.Email, reset.RequestOptions{}); err != nil || got != want {
		t.Errorf("RequestReset = %q, %v; want %q", got, err, want)
	}
}
