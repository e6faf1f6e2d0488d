package main

import (
	"context"
	"errors"
	"regexp"
	"testing"
)

func TestHash(t *testing.T) {
	h := newHasher()
	one, err := h.hash(t.Context(), demoPassword)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^\$argon2id\$v=19\$m=19456,t=2,p=1\$[\w+/]{22}\$[\w+/]{43}$`).MatchString(one) {
		t.Errorf("got %s", one)
	}
	if two, _ := h.hash(t.Context(), demoPassword); two == one {
		t.Error("two hashes have one salt")
	}
	for _, test := range []struct {
		hash, password string
		want           bool
	}{
		{one, demoPassword, true},
		{one, demoPassword + " ", false},
		{one, "", false},
		// Of the reference implementation: argon2 somesalt -id -t 2 -k 65536 -p 1
		{"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", true},
	} {
		if got, err := h.verify(t.Context(), test.hash, test.password); err != nil || got != test.want {
			t.Errorf("%s, %q: got %v, %v, want %v", test.hash, test.password, got, err, test.want)
		}
	}
}

func TestMalformedHash(t *testing.T) {
	const salt, sum = "c29tZXNhbHQ", "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for _, hash := range []string{
		"",
		"password",
		"$argon2i$v=19$m=65536,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=16$m=65536,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=x,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=4194304,t=2,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=0,p=1$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=2,p=0$" + salt + "$" + sum,
		"$argon2id$v=19$m=65536,t=2,p=1$" + salt + "$",
		"$argon2id$v=19$m=65536,t=2,p=1$" + salt + "$!",
	} {
		if ok, err := newHasher().verify(t.Context(), hash, "password"); ok || err == nil {
			t.Errorf("%q: got %v, %v, want an error", hash, ok, err)
		}
	}
}

func TestHashWaitsItsTurn(t *testing.T) {
	h := &hasher{slots: make(chan struct{})} // never free
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := h.hash(ctx, demoPassword); !errors.Is(err, gone) {
		t.Errorf("got %v, want %v", err, gone)
	}
}
