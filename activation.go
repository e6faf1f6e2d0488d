package reset

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"
)

const (
	activationBytes  = 18 // 144 bits, nearly all of them random
	activationLength = 24 // characters of base64url
)

// A minter makes all that is random: activations, ids and delays.
type minter struct{ random io.Reader }

// activation makes an activation of a request, and its record. Mail programs
// leave a "-" or "_" at the end of a link out of it, so the activation ends in a
// letter or a digit. All other strings of its length are equally likely.
func (m minter) activation(u User, request ID, expires time.Time) (string, Activation, error) {
	var activation string
	for activation == "" || strings.HasSuffix(activation, "-") || strings.HasSuffix(activation, "_") {
		var b [activationBytes]byte
		if err := m.read(b[:]); err != nil {
			return "", Activation{}, err
		}
		activation = base64.RawURLEncoding.EncodeToString(b[:])
	}
	return activation, Activation{
		Hash: sha256.Sum256([]byte(activation)), Request: request, UserID: u.ID, Email: u.Email, Expires: expires,
	}, nil
}

// id makes the ID of a mail or a request.
func (m minter) id(now time.Time) (id ID, err error) {
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	return id, m.read(id[6:])
}

// delay returns a duration in [0, limit), uniform to the millisecond.
func (m minter) delay(limit time.Duration) (time.Duration, error) {
	n, err := rand.Int(m.random, big.NewInt(limit.Milliseconds()))
	if err != nil {
		return 0, fmt.Errorf("reset: random source: %w", err)
	}
	return time.Duration(n.Int64()) * time.Millisecond, nil
}

func (m minter) read(b []byte) error {
	if _, err := io.ReadFull(m.random, b); err != nil {
		return fmt.Errorf("reset: random source: %w", err)
	}
	return nil
}

// hashActivation returns the hash of a string that has the form of an
// activation. It accepts no padding and no newlines, which the decoder ignores.
func hashActivation(activation string) (Hash, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(activation)
	if err != nil || len(b) != activationBytes || len(activation) != activationLength {
		return Hash{}, false
	}
	return sha256.Sum256([]byte(activation)), true
}
