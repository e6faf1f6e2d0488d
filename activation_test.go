package reset_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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
	const n = 1_000_000
	f := newFixture(t, newHost(), nil)
	seen := make(map[string]struct{}, n)
	var counts [24][128]int
	for range n {
		activation, err := f.Mint(ann)
		if err != nil || len(activation) != 24 {
			t.Fatalf("activation %q, %v", activation, err)
		}
		seen[activation] = struct{}{}
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
		}
		want := float64(n) / float64(len(choice))
		total, chiSquare := 0, 0.0
		for _, c := range choice {
			total += counts[i][c]
			d := float64(counts[i][c]) - want
			chiSquare += d * d / want
		}
		// With 63 degrees of freedom, 160 is exceeded once in a billion times.
		if total != n || chiSquare > 160 {
			t.Errorf("position %d: chi-square %.0f; %d of %d characters are of the alphabet", i, chiSquare, total, n)
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

	f.SetRandom(iotest.ErrReader(errors.New("no entropy")))
	trusted, pages := f.Handler(), f.Pages()
	for _, tt := range []struct {
		handler    http.Handler
		status     int
		path, body string
	}{
		{trusted, 500, resetPath, `{"email":"ann@example.com"}`},
		{trusted, 500, newPath, newPassword(activation, goodPassword)},
		{pages, 503, "/forgot", `{"email":"ann@example.com"}`},
		{pages, 503, "/reset", fmt.Sprintf(`{"activation":%q,"newPassword":%q}`, activation, goodPassword)},
	} {
		w := httptest.NewRecorder()
		tt.handler.ServeHTTP(w, postJSON(tt.path, tt.body))
		if w.Code != tt.status || w.Body.String() != unknownErrorBody {
			t.Errorf("%s: got %d %s, want %d %s", tt.path, w.Code, w.Body, tt.status, unknownErrorBody)
		}
	}
	if got := f.writes(); got != before {
		t.Errorf("%d writes of the store behind HTTP", got-before)
	}
	f.wantPassword(ann, "")
}
