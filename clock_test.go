package reset_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
	"github.com/gopassreset/reset/internal/wall"
	"github.com/gopassreset/reset/resettest"
)

// A clocked store has a clock.
type clocked struct {
	*resettest.FaultStore
	read func() (time.Time, error)
}

func (c *clocked) Now(context.Context) (time.Time, error) { return c.read() }

// withClock gives the store of a fixture a clock.
func withClock(read func() (time.Time, error)) func(*reset.Config) {
	return func(c *reset.Config) { c.Store = &clocked{c.Store.(*resettest.FaultStore), read} }
}

// skew sets the clock of the machine wrong until the end of the test.
func skew(t *testing.T, d time.Duration) {
	wall.Skew(d)
	t.Cleanup(func() { wall.Skew(0) })
}

// Whatever the clock of a machine says, its Service agrees with the store's:
// what it requests, sends and redeems has the store's times.
func TestStoreClock(t *testing.T) {
	for _, off := range []time.Duration{-2 * time.Hour, -40 * time.Second, 40 * time.Second, 2 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			inBubble(t, withClock(func() (time.Time, error) { return time.Now(), nil }), func(t *testing.T, f *fixture) {
				skew(t, off)
				f.begin()
				f.request(ann.Email)
				f.forgot(bob.Email)
				pass(delivered)
				for _, m := range f.wantSent(2) {
					if left := time.Until(m.Expires); left > time.Hour || left < time.Hour-2*delivered {
						t.Errorf("the link lives for %v, want %v", left, time.Hour)
					}
				}
				pass(50 * time.Minute)
				for _, m := range f.mailer.sent[:2] {
					if err := f.ChangePassword(t.Context(), activationOf(t, m), goodPassword); err != nil {
						t.Errorf("ChangePassword after 50 min: %v", err)
					}
				}
				pass(delivered)
				f.wantSent(4)
				f.wantQueued(0)
				f.wantEvent("clock_skew", 1)
				if got := f.log.named("clock_skew")[0]["store_ahead"]; got != float64(-off) {
					t.Errorf("store_ahead = %v, want %v", got, -off)
				}
				if got := f.store.Calls("Purge"); got != 0 {
					t.Errorf("Purge was called %d times while the clocks disagree", got)
				}
			})
		})
	}
}

// A jump of the machine's clock changes nothing: the Service counts on from what
// the store's clock has said.
func TestMachineClockJumps(t *testing.T) {
	inBubble(t, withClock(func() (time.Time, error) { return time.Now(), nil }), func(t *testing.T, f *fixture) {
		f.begin()
		pass(time.Second)
		for _, off := range []time.Duration{2 * time.Hour, -2 * time.Hour, 0} {
			skew(t, off)
			activation := f.request(ann.Email)
			pass(delivered)
			if m := f.mailer.sent[len(f.mailer.sent)-1]; time.Until(m.Expires).Round(time.Minute) != time.Hour {
				t.Errorf("the link lives for %v, want %v", time.Until(m.Expires), time.Hour)
			}
			pass(59*time.Minute - delivered)
			if err := f.ChangePassword(t.Context(), activation, goodPassword); err != nil {
				t.Errorf("ChangePassword: %v", err)
			}
			pass(delivered)
		}
		f.wantSent(6)
		f.wantEvent("clock_skew", 2)
	})
}

// A clock that jumps, and back, while mail waits for the mail system removes
// nothing, whether it is the store's, as in a failover, or the only one.
func TestClockJumpRemovesNothing(t *testing.T) {
	var off atomic.Int64
	storeClock := withClock(func() (time.Time, error) { return time.Now().Add(time.Duration(off.Load())), nil })
	for _, tt := range []struct {
		name   string
		edit   func(*reset.Config)
		set    func(*testing.T, time.Duration)
		purges int // before the clock is looked at
		skews  int
	}{
		{"the store's", storeClock, func(_ *testing.T, d time.Duration) { off.Store(int64(d)) }, 1, 1},
		{"the only one", nil, skew, 0, 2},
	} {
		for _, ahead := range []time.Duration{2 * time.Hour, 57 * time.Minute, -2 * time.Hour} {
			t.Run(fmt.Sprint(tt.name, " ", ahead), func(t *testing.T) {
				inBubble(t, tt.edit, func(t *testing.T, f *fixture) {
					var up atomic.Bool
					f.mailer.do = func(context.Context, int, reset.Message) error {
						if !up.Load() {
							return errors.New("not now")
						}
						return nil
					}
					f.begin()
					f.request(ann.Email)
					f.request(bob.Email)
					pass(10 * time.Second)
					purges := f.store.Calls("Purge")
					tt.set(t, ahead)
					pass(70 * time.Second)
					tt.set(t, 0)
					up.Store(true)
					pass(5 * time.Minute)
					f.wantQueued(0)
					f.wantEvent("mail_sent", 2)
					f.wantEvent("mail_expired", 0)
					f.wantEvent("clock_skew", tt.skews)
					if got := f.store.Calls("Purge") - purges; got > tt.purges {
						t.Errorf("Purge was called %d times while the clock was in doubt", got)
					}
				})
			})
		}
	}
}

// A clock that fails, hangs or panics is made up for by the machine's, and asked
// again a short time later.
func TestClockFails(t *testing.T) {
	for name, fail := range map[string]func() (time.Time, error){
		"error": func() (time.Time, error) { return time.Time{}, errors.New("no answer") },
		"hangs": func() (time.Time, error) { time.Sleep(time.Hour); return time.Time{}, nil },
		"panic": func() (time.Time, error) { panic("clock") },
		"none":  func() (time.Time, error) { return time.Time{}, errors.ErrUnsupported },
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64
			var mended atomic.Bool
			read := func() (time.Time, error) {
				if calls.Add(1); !mended.Load() {
					return fail()
				}
				return time.Now().Add(2 * time.Hour), nil
			}
			inBubble(t, withClock(read), func(t *testing.T, f *fixture) {
				f.begin()
				f.request(ann.Email)
				pass(delivered)
				if m := f.wantSent(1)[0]; time.Until(m.Expires).Round(time.Minute) != time.Hour {
					t.Errorf("the link lives for %v, want %v", time.Until(m.Expires), time.Hour)
				}
				mended.Store(true)
				pass(10 * time.Second)
				f.request(bob.Email)
				pass(delivered)
				want, wantCalls := 3*time.Hour, int64(2)
				if name == "none" {
					want, wantCalls = time.Hour, 1
				}
				if m := f.wantSent(2)[1]; time.Until(m.Expires).Round(time.Minute) != want {
					t.Errorf("then the link lives for %v, want %v", time.Until(m.Expires), want)
				}
				if calls := calls.Load(); calls < wantCalls || calls > 6 {
					t.Errorf("the clock was read %d times, want about %d", calls, wantCalls)
				}
				pass(time.Hour)
			})
		})
	}
}

// The clock is read once a minute, however much there is to do.
func TestClockIsCheap(t *testing.T) {
	calls := 0
	inBubble(t, withClock(func() (time.Time, error) { calls++; return time.Now(), nil }), func(t *testing.T, f *fixture) {
		f.begin()
		for range 10 * 60 {
			_ = f.Health(t.Context())
			pass(time.Second)
		}
		if calls < 9 || calls > 11 {
			t.Errorf("the clock was read %d times in 10 min, want 10", calls)
		}
	})
}

// Expired records are left for a day. Mail among them that was never sent is
// counted in one record.
func TestPurgeReportsUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, newHost(ann), unlimited)
		for range 150 {
			f.forgot(ann.Email)
		}
		pass(62 * time.Minute) // without any process
		f.begin()
		pass(23*time.Hour + 50*time.Minute)
		f.wantEvent("mail_purged", 0)
		pass(15 * time.Minute)
		f.wantSent(0)
		f.wantEvent("mail_purged", 1)
		got := f.log.named("mail_purged")[0]["mails"]
		if got != 150. {
			t.Errorf("mail_purged counts %v mails, want 150", got)
		}
		figure.Report(t, "mails that expire and that no record counts", 150-int(got.(float64)), 150)
	})
}
