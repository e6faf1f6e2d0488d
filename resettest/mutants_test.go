package resettest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	_ "github.com/gopassreset/reset/internal/bubble"
)

// These tests are inside the package because a check that must fail runs
// without its *testing.T, and because they change the records of a MemStore.

// A mutant has one fault, which each check named in caught must detect. S makes
// the implementation that has it.
type mutant[S any] struct {
	name   string
	fault  S
	caught []string
}

// A specimen is a suite with its mutants. check prepares a check of one mutant.
// A check that waits runs in a bubble of synctest.
type specimen[S, C any] struct {
	sentences []sentence[C]
	mutants   []mutant[S]
	check     func(t testing.TB, fault S) C
	waits     bool
}

// prove shows that every mutant is detected, and that no check is idle: each
// must detect one.
func (s specimen[S, C]) prove(t *testing.T) {
	checks := make(map[string]func(C))
	for _, sentence := range s.sentences {
		checks[sentence.name] = sentence.check
	}
	caught := make(map[string]bool)
	for _, m := range s.mutants {
		t.Run(m.name, func(t *testing.T) {
			for _, name := range m.caught {
				caught[name] = true
				if checks[name] == nil {
					t.Fatalf("no sentence is named %s", name)
				}
				attempts := 1
				if strings.HasPrefix(name, "Race/") {
					attempts = 100 // a mutant may be lucky
				}
				detected := false
				for range attempts {
					run := func(t *testing.T) {
						r := &recorder{TB: t}
						r.run(func() { checks[name](s.check(r, m.fault)) })
						detected = r.Failed()
					}
					if s.waits {
						synctest.Test(t, run)
					} else {
						run(t)
					}
					if detected {
						break
					}
				}
				if !detected {
					t.Errorf("%s does not notice", name)
				}
			}
		})
	}
	for _, sentence := range s.sentences {
		if !caught[sentence.name] {
			t.Errorf("no mutant is caught by %s", sentence.name)
		}
	}
}

// A recorder records failures instead of reporting them to its test.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	said     []string // failures
	cleanups []func()
}

// run calls f in a goroutine of its own, which Fatalf can end.
func (r *recorder) run(f func()) {
	var wg sync.WaitGroup
	wg.Go(f)
	wg.Wait()
	for _, cleanup := range slices.Backward(r.cleanups) {
		cleanup()
	}
}

func (r *recorder) Helper() {}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.said) > 0
}
