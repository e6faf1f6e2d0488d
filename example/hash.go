package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/crypto/argon2"
)

// The parameters of Argon2id that OWASP's password storage cheat sheet gives
// first for servers: 19 MiB, 2 passes, 1 lane.
var owasp = argonParams{memory: 19 << 10, passes: 2, lanes: 1}

const (
	saltBytes = 16
	hashBytes = 32
	maxMemory = 256 << 10 // KiB that a stored hash may ask for
)

type argonParams struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
}

// A hasher hashes passwords with Argon2id (RFC 9106). Each hash takes memory
// and a core for a while, so that only as many run at once as there are cores.
type hasher struct{ slots chan struct{} }

func newHasher() *hasher { return &hasher{make(chan struct{}, runtime.GOMAXPROCS(0))} }

// hash returns a hash with its parameters and a fresh salt, as a string in the
// PHC format: $argon2id$v=19$m=19456,t=2,p=1$salt$hash.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltBytes)
	rand.Read(salt) // never fails
	sum, err := h.derive(ctx, password, salt, owasp, hashBytes)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, owasp.memory, owasp.passes, owasp.lanes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(sum)), nil
}

// verify reports whether encoded, which hash has returned, is of password.
func (h *hasher) verify(ctx context.Context, encoded, password string) (bool, error) {
	p, salt, want, err := parseHash(encoded)
	if err != nil {
		return false, err
	}
	got, err := h.derive(ctx, password, salt, p, uint32(len(want)))
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1, err
}

func (h *hasher) derive(ctx context.Context, password string, salt []byte, p argonParams, n uint32) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("hash password: %w", context.Cause(ctx))
	}
	return argon2.IDKey([]byte(password), salt, p.passes, p.memory, p.lanes, n), nil
}

func parseHash(encoded string) (p argonParams, salt, hash []byte, err error) {
	fail := func(reason string) (argonParams, []byte, []byte, error) {
		return argonParams{}, nil, nil, errors.New("stored hash: " + reason)
	}
	fields := strings.Split(encoded, "$") // "", "argon2id", "v=19", parameters, salt, hash
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return fail("not of Argon2id")
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.lanes); err != nil {
		return fail("malformed parameters")
	}
	if p.memory > maxMemory || p.passes < 1 || p.passes > 10 || p.lanes < 1 {
		return fail("unreasonable parameters")
	}
	salt, saltErr := base64.RawStdEncoding.Strict().DecodeString(fields[4])
	hash, hashErr := base64.RawStdEncoding.Strict().DecodeString(fields[5])
	if saltErr != nil || hashErr != nil || len(hash) < 16 || len(hash) > 64 {
		return fail("malformed")
	}
	return p, salt, hash, nil
}
