package deadline_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/gopassreset/reset/internal/bubble"
	"github.com/gopassreset/reset/internal/deadline"
)

func TestCall(t *testing.T) {
	const timeout, grace = time.Minute, time.Second
	for _, tt := range []struct {
		name  string
		takes time.Duration
		grace time.Duration
		ok    bool
		waits time.Duration
	}{
		{"at once", 0, grace, true, 0},
		{"in time", 59 * time.Second, grace, true, 59 * time.Second},
		{"in the grace period", timeout + grace/2, grace, true, timeout + grace/2},
		{"late", timeout + 2*grace, grace, false, timeout + grace},
		{"late without grace", timeout + grace/2, 0, false, timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				began, late := time.Now(), false
				got, ok := deadline.Call(ctx, tt.grace, func() string {
					time.Sleep(tt.takes)
					return "result"
				}, func() { late = true })
				if waited := time.Since(began); ok != tt.ok || waited != tt.waits || ok != (got == "result") {
					t.Errorf("Call = %q, %t after %v; want ok %t after %v", got, ok, waited, tt.ok, tt.waits)
				}
				time.Sleep(tt.takes)
				synctest.Wait()
				if late == tt.ok {
					t.Errorf("late ran: %t, want %t", late, !tt.ok)
				}
			})
		})
	}
}

func TestCallEndsAsTheFunction(t *testing.T) {
	for name, f := range map[string]func(){
		"panic": func() { panic("value") },
		"exit":  runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			returned, ended := false, make(chan any)
			go func() {
				defer func() { ended <- recover() }()
				deadline.Call(t.Context(), 0, func() int { f(); return 1 }, nil)
				returned = true
			}()
			want := map[string]any{"panic": "value"}[name]
			if got := <-ended; got != want || returned {
				t.Errorf("Call panicked with %v, want %v; it returned: %t", got, want, returned)
			}
		})
	}
}

// A panic that nobody waits for does not end the process.
func TestCallDropsALatePanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, ok := deadline.Call(ctx, 0, func() int { time.Sleep(time.Second); panic("late") }, nil)
		if ok {
			t.Error("Call waited for a function that outlasts its context")
		}
		time.Sleep(2 * time.Second)
	})
}
