package resettest

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// These tests are inside of the package because a sentence that must fail is
// taken without its *testing.T, and because they break a MemStore where it
// keeps its records.

// A mutant has one fault; caught are the sentences that must notification. S is what
// makes one.
type mutant[S any] struct {
	name   string
	fault  S
	caught []string
}

// A specimen is what a sentence is about, and how to let it look at a mutant.
type specimen[S, C any] struct {
	sentences []sentence[C]
	mutants   []mutant[S]
	check     func(t testing.TB, fault S) C
}

// prove shows that each mutant is noticed, and that no sentence is idle: each
// must notification one.
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
					attempts = 100 // a mutant may win a race
				}
				noticed := false
				for range attempts {
					r := &recorder{TB: t}
					r.run(func() { checks[name](s.check(r, m.fault)) })
					if noticed = r.Failed(); noticed {
						break
					}
				}
				if !noticed {
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

// A recorder keeps failures from the test that it stands in for.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

// run calls f in a goroutine, which Fatalf can end.
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

func (r *recorder) Errorf(string, ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}
