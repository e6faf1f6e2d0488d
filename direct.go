package reset

import (
	"sync/atomic"
	"time"
)

// leaseTime is how long mail is leased.
const leaseTime = time.Minute

// direct is the way from the requests of a Service to its Run, beside the store.
// A Run that can send trusted mail at once gets it: the mail is queued under a
// lease and sent with the activation that it is queued with, which saves a
// look-up and two transactions.
type direct struct {
	run  atomic.Pointer[func() exchange] // reserves an exchange, or returns nil
	wake chan struct{}                   // signals Run that mail is due
}

func newDirect() *direct { return &direct{wake: make(chan struct{}, 1)} }

// wakeRun makes Run look for mail that is due now.
func (d *direct) wakeRun() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// An exchange is one with the mail system, reserved for a mail that is about to
// be queued. It must be called once: with nil if the mail was not queued.
type exchange func(*queued)

// queued is a mail with its user and the activation it was queued with.
type queued struct {
	mail       Mail
	user       User
	activation string
}

// lease leases m if it can be sent at once. Otherwise the exchange that it
// returns wakes Run if m was queued.
func (d *direct) lease(now time.Time, mint minter, m *Mail) exchange {
	later := func(q *queued) {
		if q != nil {
			d.wakeRun()
		}
	}
	run := d.run.Load()
	if run == nil {
		return later
	}
	lease, err := mint.id(now)
	if err != nil {
		return later
	}
	send := (*run)()
	if send == nil {
		return later
	}
	m.Lease, m.Due, m.Attempts = lease, now.Add(leaseTime), 1
	return send
}
