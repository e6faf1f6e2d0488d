package sqlstore

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// text binds a string as bytes, for columns of bytes: so it equals only itself,
// whatever the collation, and bun, which writes arguments into the statement,
// writes it in hexadecimal. Empty strings are NULL.
func text(s string) any {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// The most that MySQL's columns hold. Without strict mode it would truncate.
const (
	maxUserID = 255
	maxText   = 65_535
)

func checkUserID(id string) error {
	if id == "" || len(id) > maxUserID {
		return fmt.Errorf("user id has %d bytes, not 1 to %d", len(id), maxUserID)
	}
	return nil
}

func checkText(texts ...string) error {
	for _, s := range texts {
		if len(s) > maxText {
			return fmt.Errorf("text has %d bytes, more than %d", len(s), maxText)
		}
	}
	return nil
}

func orNULL(id reset.ID) any {
	if id == (reset.ID{}) {
		return nil
	}
	return id[:]
}

func newID(now time.Time) (id reset.ID) {
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	rand.Read(id[6:]) // never fails
	return id
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// padded repeats the last key until there are a power of two, so that there are
// few different statements to prepare.
func padded[T any](keys []T) []T {
	n := 1
	for n < len(keys) {
		n *= 2
	}
	return slices.Concat(keys, slices.Repeat(keys[len(keys)-1:], n-len(keys)))
}

// list returns a parenthesized list of n placeholders.
func list(n int) string { return "(?" + strings.Repeat(", ?", n-1) + ")" }
