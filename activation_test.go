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
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// forgetful returns a service whose store keeps no activations.
func forgetful(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t, newHost(ann), nil)
	f.store.IssueFunc = func(_ context.Context, _ time.Time, a reset.Activation, _ reset.Limits, _ *reset.Mail) (reset.Activation, error) {
		return a, nil
	}
	return f
}

// Activations are unique, and at each position every character is equally
// likely, except that the last one is a letter or a digit.
func TestActivations(t *testing.T) {
	const n = 100_000
	f := forgetful(t)
	seen := make(map[string]bool, n)
	var counts [24][128]int
	for range n {
		activation, err := f.RequestReset(t.Context(), ann.Email, reset.RequestOptions{})
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
	f := forgetful(t)
	want := "AbCdEfGhIjKlMnOpQrStUvW0"
	source := bytes.NewBuffer(make([]byte, 10)) // of the request's id
	for _, drawn := range []string{"AbCdEfGhIjKlMnOpQrStUvW-", "aBcDeFgHiJkLmNoPqRsTuVw_", want} {
		b, err := base64.RawURLEncoding.DecodeString(drawn)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	f.SetRandom(source)
	if got, err := f.RequestReset(t.Context(), ann.Email, reset.RequestOptions{}); err != nil || got != want {
		t.Errorf("RequestReset = %q, %v; want %q", got, err, want)
	}
}

// Without random bytes nothing is issued, queued or changed.
func TestRandomFails(t *testing.T) {
	f := newFixture(t, newHost(ann), nil)
	activation := f.activation(ann)
	before := f.writes()
	for _, tt := range []struct {
		name  string
		bytes int64 // needed
		call  func() error
	}{
		{"RequestReset", 28, func() error {
			_, err := f.RequestReset(t.Context(), ann.Email, reset.RequestOptions{})
			return err
		}},
		{"Forgot", 12, func() error { return f.Forgot(t.Context(), ann.Email, "client", reset.ForgotOptions{}) }},
		{"ChangePassword", 10, func() error { return f.ChangePassword(t.Context(), activation, goodPassword) }},
	} {
		for n := range tt.bytes {
			f.SetRandom(io.MultiReader(io.LimitReader(rand.Reader, n), iotest.ErrReader(errors.New("no entropy"))))
			if err := tt.call(); err == nil || err.Error() != "reset: random source: no entropy" {
				t.Errorf("%s with %d of %d bytes: %v", tt.name, n, tt.bytes, err)
			}
		}
	}
	if got := f.writes(); got != before {
		t.Errorf("%d writes of the store", got-before)
	}
	f.wantPassword(ann, "")
}
