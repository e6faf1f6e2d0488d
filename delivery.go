package reset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset/internal/failpoint"
	"github.com/gopassreset/reset/internal/ui"
)

const (
	leaseTime     = time.Minute
	renewEvery    = 20 * time.Second // the leases of mails that are being sent
	sendTimeout   = 30 * time.Second // of a Mailer that has no SendTimeout
	storeTime     = 10 * time.Second // what a call of the store or of Users has
	hostPatience  = time.Second      // how long either may go on when its time is over
	drainTime     = 10 * time.Second // what exchanges have once Run is to end
	pollEvery     = time.Second
	purgeEvery    = time.Minute
	purgeBatch    = 1000
	settleTries   = 3
	maxUnsettled  = 10_000
	jitterPercent = 30
)

// backOff is how long a mail waits after each failed attempt, the last for all
// further ones.
var backOff = [...]time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}

// Run sends the mail that is queued, and removes what has expired, until ctx
// ends. Any number of processes may run it on one store, also several times;
// processes that serve requests need not, as long as one somewhere does.
//
// Each mail is sent once, unless an attempt's outcome is lost, for example in a
// crash; then it is retried, since a duplicate is better than none. A mail that
// could not be sent is retried after 5 s, 30 s, 2 min, 5 min and then every
// 10 min, each ± 30 %, until it expires; a link until it has less than 5 min left,
// or than half of a TTL under 10 min. A mail with [ErrUnconfirmed] is sent once
// more, after half of its life.
//
// While the Mailer returns [ErrUnavailable] mail waits, with its place in the
// queue and its attempts unchanged. Run tries one mail after 1 s, and after
// twice the time again, up to 1 min. A mail system that takes some messages and
// refuses others at the same time gets as many at a time as it takes.
//
// When ctx ends Run takes no more mail, gives the exchanges with the mail
// server 10 s to finish and frees what it still holds for other processes. It
// returns nil, or an error if it had to cut an exchange off.
func (s *Service) Run(ctx context.Context) error {
	s.noteStart()
	s.running.Store(true)
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	d := &delivery{
		Service: s, stop: ctx, slots: make(chan struct{}, s.cfg.Workers),
		sending: make(map[ID]ID), unsettled: make(map[ID]time.Time),
	}

	var wg, watching sync.WaitGroup
	watch, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	watching.Go(func() { d.watch(watch) })
	defer watching.Wait()
	defer endWatch()
	wg.Go(func() { d.purgeAll(ctx) })
	for d.stop.Err() == nil {
		d.round(work, &wg)
	}
	overtime := time.AfterFunc(drainTime, cut)
	defer overtime.Stop()
	wg.Wait()
	if n := d.cut.Load(); n > 0 {
		return fmt.Errorf("reset: run: %d exchanges with the mail server were cut off", n)
	}
	return nil
}

// A delivery is one call of Run.
type delivery struct {
	*Service
	stop     context.Context // ends when Run is to end
	slots    chan struct{}   // holds a token for each worker that is not free
	failures int             // of Lease, in a row
	cut      atomic.Int64    // exchanges that had no time to finish

	mu        sync.Mutex
	sending   map[ID]ID        // the leases of mails that are being sent
	unsettled map[ID]time.Time // mails that were sent but are queued still, as the store failed, and when they expire
}

// round leases no more mails than workers are free and the mail system can bear,
// and hands them out. It returns at once if there may be more, and otherwise
// after a while.
func (d *delivery) round(work context.Context, wg *sync.WaitGroup) {
	free := d.takeSlots()
	if free == 0 {
		return
	}
	turns, wait := d.breaker.begin(time.Now(), free)
	for range free - len(turns) {
		<-d.slots
	}
	if len(turns) == 0 {
		d.pause(wait, d.breaker.freed)
		return
	}
	mails, err := d.lease(work, len(turns))
	jobs := group(mails)
	for i, t := range turns {
		if i >= len(jobs) {
			d.breaker.end(work, time.Now(), t, noExchange, nil)
			<-d.slots
			continue
		}
		wg.Go(func() {
			defer func() { <-d.slots }()
			o, err := d.work(work, jobs[i])
			d.breaker.end(work, time.Now(), t, o, err)
		})
	}
	if err != nil {
		d.failures++
		d.events.log(work, leaseFailed, "error", err)
		d.pause(jitter(min(pollEvery<<min(d.failures, 4), storeTime)), d.wake)
		return
	}
	d.failures = 0
	if len(mails) == 0 {
		d.pause(jitter(pollEvery), d.wake)
	}
}

// takeSlots waits for a free worker and returns how many are free. It returns
// 0 when Run is to end.
func (d *delivery) takeSlots() (n int) {
	select {
	case d.slots <- struct{}{}:
		n = 1
	case <-d.stop.Done():
		return 0
	}
	for {
		select {
		case d.slots <- struct{}{}:
			n++
		default:
			return n
		}
	}
}

// lease runs on the context of the work: a lease that is cut off half-way
// would hold a mail for nothing.
func (d *delivery) lease(work context.Context, n int) ([]Mail, error) {
	ctx, cancel := context.WithTimeout(work, storeTime)
	defer cancel()
	now := time.Now()
	var mails []Mail
	err := d.events.noPanic(ctx, func() (err error) {
		mails, err = d.cfg.Store.Lease(ctx, now, now.Add(leaseTime), n)
		return err
	})
	return mails, err
}

// pause waits for a while, or less if wake or the end of Run comes first.
func (d *delivery) pause(wait time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-d.stop.Done():
	}
}

func jitter(t time.Duration) time.Duration {
	percent := 100 - jitterPercent + rand.N(2*jitterPercent+1)
	return t * time.Duration(percent) / 100
}

// group makes one job of the asks for one address, and one of any other mail.
func group(mails []Mail) (jobs [][]Mail) {
	public := make(map[string]int)
	for _, m := range mails {
		if m.Kind == MailReset && m.UserID == "" {
			if i, ok := public[m.Email]; ok {
				jobs[i] = append(jobs[i], m)
				continue
			}
			public[m.Email] = len(jobs)
		}
		jobs = append(jobs, []Mail{m})
	}
	return jobs
}

// work does one job. Whatever happens, its mails are settled or run out of
// their leases. It returns what it has seen of the mail system, with the error
// of one that is unavailable.
func (d *delivery) work(ctx context.Context, job []Mail) (o outcome, err error) {
	failpoint.Hit("leased")
	defer func() {
		if p := recover(); p != nil {
			o = inconclusive
			d.retry(ctx, job, d.events.panicked(ctx, p))
		}
	}()
	if job = d.unsent(ctx, job); len(job) == 0 {
		return noExchange, nil
	}
	if d.stop.Err() != nil {
		d.settle(ctx, unspent(job))
		return noExchange, nil
	}
	if job[0].Kind == MailNotification {
		return d.deliverNotification(ctx, job[0])
	}
	return d.deliverReset(ctx, job)
}

// settleSent removes a mail that was sent. One that the store keeps all the
// same would be sent with every lease: it is remembered.
func (d *delivery) settleSent(ctx context.Context, m Mail) {
	settled := d.settle(ctx, removed([]Mail{m}))
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case settled:
		delete(d.unsettled, m.ID)
	case len(d.unsettled) < maxUnsettled:
		d.unsettled[m.ID] = m.Expires
	}
}

// unsent settles what was sent under an earlier lease and returns the others.
func (d *delivery) unsent(ctx context.Context, job []Mail) (rest []Mail) {
	for _, m := range job {
		d.mu.Lock()
		_, sent := d.unsettled[m.ID]
		d.mu.Unlock()
		if sent {
			d.settleSent(ctx, m)
		} else {
			rest = append(rest, m)
		}
	}
	return rest
}

// leastLeft is how long a link must live to be mailed.
func (s *Service) leastLeft() time.Duration { return min(5*time.Minute, s.cfg.TTL/2) }

// deliverReset mails one link for a job: to the user who has the address, if
// there is one.
func (d *delivery) deliverReset(ctx context.Context, job []Mail) (outcome, error) {
	var late, live []Mail
	for _, m := range job {
		if time.Until(m.Expires) < d.leastLeft() {
			late = append(late, m)
		} else {
			live = append(live, m)
		}
	}
	d.giveUp(ctx, late, mailExpired, nil)
	if len(live) == 0 {
		return noExchange, nil
	}
	return d.deliverLive(ctx, live)
}

func (d *delivery) deliverLive(ctx context.Context, job []Mail) (outcome, error) {
	m, others := job[0], job[1:]
	user, err := d.lookUp(ctx, m)
	switch {
	case errors.Is(err, ErrNoUser):
		d.settle(ctx, removed(job))
		return noExchange, nil
	case err != nil:
		d.retry(ctx, job, err)
		return noExchange, nil
	}
	activation, err := d.issue(ctx, &m, user)
	switch {
	case errors.Is(err, ErrGone):
		d.settle(ctx, unspent(others))
		return noExchange, nil
	case errors.Is(err, ErrTooManyRequests):
		d.giveUp(ctx, job, overCap, nil, "user", user.ID)
		return noExchange, nil
	case err != nil:
		d.retry(ctx, job, err)
		return noExchange, nil
	}
	d.settle(ctx, removed(others))
	query := "?activation=" + url.QueryEscape(activation)
	return d.exchange(ctx, m, Message{
		ID: m.ID.String(), Kind: MailReset, To: user.Email, Name: ui.Salutation(user.Name), Locale: cmp.Or(user.Locale, m.Locale),
		Link: d.cfg.ResetURL + query, RevokeLink: d.cfg.BaseURL + "/revoke" + query, Expires: m.Expires,
	})
}

// lookUp returns the user whom a mail is for.
func (d *delivery) lookUp(ctx context.Context, m Mail) (User, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	user, err := inTime(ctx, hostPatience, func() (User, error) { return d.accounts.find(ctx, m.Email) })
	if err == nil && m.UserID != "" && m.UserID != user.ID {
		return User{}, fmt.Errorf("%w: the address is another user's now", ErrNoUser)
	}
	return user, err
}

// issue mints the activation of one attempt, under the lease, which it renews.
func (d *delivery) issue(ctx context.Context, m *Mail, user User) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	activation, a, err := d.mint.activation(user, m.ID, m.Expires)
	if err != nil {
		return "", err
	}
	now := time.Now()
	m.Due = now.Add(leaseTime)
	if err := d.cfg.Store.Issue(ctx, now, a, d.cfg.MaxRequests, m); err != nil {
		return "", wrap("issue", err)
	}
	m.UserID = user.ID
	failpoint.Hit("minted")
	return activation, nil
}

func (d *delivery) deliverNotification(ctx context.Context, m Mail) (outcome, error) {
	return d.exchange(ctx, m, Message{
		ID: m.ID.String(), Kind: MailNotification, To: m.Email, Name: ui.Salutation(m.Name), Locale: m.Locale,
		Link: d.cfg.BaseURL + "/forgot", Expires: m.Expires,
	})
}

// exchange hands a message to the mail system and settles its mail.
func (d *delivery) exchange(ctx context.Context, m Mail, msg Message) (outcome, error) {
	now := time.Now()
	if m.Due.Sub(now) < leaseTime-renewEvery-storeTime {
		return noExchange, nil // another worker may soon hold the lease, and would send it a second time
	}
	if d.stop.Err() != nil {
		d.settle(ctx, unspent([]Mail{m}))
		return noExchange, nil
	}
	var err error
	msg.Subject, msg.Text, msg.HTML, err = d.render.Mail(ui.Mail{
		Kind: string(msg.Kind), To: msg.To, Name: msg.Name, Locale: msg.Locale,
		Link: msg.Link, RevokeLink: msg.RevokeLink, ExpiresIn: m.Expires.Sub(now),
	})
	if err != nil {
		d.retry(ctx, []Mail{m}, wrap("render mail", err))
		return noExchange, nil
	}
	err = d.send(ctx, m, msg)
	failpoint.Hit("sent")
	if err != nil && ctx.Err() != nil {
		d.cut.Add(1)
	}
	switch {
	case err == nil:
		d.settleSent(ctx, m)
		d.events.log(ctx, mailSent, attrsOf(m)...)
		return available, nil
	case errors.Is(err, ErrUndeliverable):
		d.giveUp(ctx, []Mail{m}, mailUndeliverable, err)
		return available, nil
	case errors.Is(err, ErrUnconfirmed):
		d.sendOnceMore(ctx, m, err)
	case errors.Is(err, ErrUnavailable) && ctx.Err() == nil:
		d.settle(ctx, unspent([]Mail{m}))
		return unavailable, err
	default:
		d.retry(ctx, []Mail{m}, err)
	}
	return inconclusive, nil
}

// send keeps the lease while the exchange goes on.
func (d *delivery) send(ctx context.Context, m Mail, msg Message) error {
	d.mu.Lock()
	d.sending[m.ID] = m.Lease
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.sending, m.ID)
	}()
	timeout := sendTimeout
	if mailer, ok := d.cfg.Mailer.(interface{ SendTimeout() time.Duration }); ok {
		timeout = mailer.SendTimeout()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := inTime(ctx, hostPatience, func() (struct{}, error) { return struct{}{}, d.cfg.Mailer.Send(ctx, msg) })
	return err
}

// watch renews the leases of mails that are being sent, and reports on a mail
// system that is unavailable.
func (d *delivery) watch(ctx context.Context) {
	t := time.NewTicker(renewEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := time.Now()
		var renewals []Settlement
		d.mu.Lock()
		for mail, lease := range d.sending {
			renewals = append(renewals, Settlement{Mail: mail, Lease: lease, Retry: now.Add(leaseTime), Held: true})
		}
		d.mu.Unlock()
		d.settle(ctx, renewals)
		d.breaker.report(ctx, now)
	}
}

// sendOnceMore frees a mail that has probably been sent for one more attempt.
// It waits for half of the mail's life, so that there is no third.
func (d *delivery) sendOnceMore(ctx context.Context, m Mail, cause error) {
	d.events.log(ctx, mailUnconfirmed, append(attrsOf(m), "error", cause)...)
	life := d.cfg.TTL
	if m.Kind == MailNotification {
		life = notificationTTL
	}
	at := time.Now().Add(life / 2)
	if at.After(d.lastAttempt(m)) {
		d.settle(ctx, removed([]Mail{m}))
		return
	}
	d.settle(ctx, freed([]Mail{m}, at))
}

// lastAttempt returns when it is too late to send a mail.
func (s *Service) lastAttempt(m Mail) time.Time {
	if m.Kind == MailReset {
		return m.Expires.Add(-s.leastLeft())
	}
	return m.Expires
}

// retry frees mails for a later attempt, each at its own time, or gives up
// those that would then be too late.
func (d *delivery) retry(ctx context.Context, mails []Mail, cause error) {
	var again, late []Mail
	var settlements []Settlement
	for _, m := range mails {
		wait := jitter(backOff[min(max(m.Attempts, 1), len(backOff))-1])
		at := time.Now().Add(wait)
		if at.After(d.lastAttempt(m)) {
			late = append(late, m)
			continue
		}
		again = append(again, m)
		settlements = append(settlements, Settlement{Mail: m.ID, Lease: m.Lease, Retry: at})
	}
	for _, m := range again {
		d.events.log(ctx, mailFailed, append(attrsOf(m), "error", cause)...)
	}
	d.settle(ctx, settlements)
	d.giveUp(ctx, late, mailExpired, cause)
}

// giveUp removes mails and says why.
func (d *delivery) giveUp(ctx context.Context, mails []Mail, e event, cause error, attrs ...any) {
	if cause != nil {
		attrs = append(attrs, "error", cause)
	}
	for _, m := range mails {
		d.events.log(ctx, e, append(attrsOf(m), attrs...)...)
	}
	d.settle(ctx, removed(mails))
}

// attrsOf leaves the address out: it may be one that has no account.
func attrsOf(m Mail) []any {
	attrs := []any{"mail", m.ID.String(), "kind", string(m.Kind), "attempt", m.Attempts}
	if m.UserID != "" {
		attrs = append(attrs, "user", m.UserID)
	}
	return attrs
}

func removed(mails []Mail) []Settlement { return freed(mails, time.Time{}) }

func freed(mails []Mail, retry time.Time) (done []Settlement) {
	for _, m := range mails {
		done = append(done, Settlement{Mail: m.ID, Lease: m.Lease, Retry: retry})
	}
	return done
}

// unspent gives mails back as they were before they were leased.
func unspent(mails []Mail) (done []Settlement) {
	for _, m := range mails {
		done = append(done, Settlement{Mail: m.ID, Lease: m.Lease, Retry: cmp.Or(m.WasDue, time.Now()), Unspent: true})
	}
	return done
}

// settle also works when Run has run out of time: what has been sent must not
// be sent again. If the store does not answer, the leases run out, and settle
// returns false.
func (d *delivery) settle(ctx context.Context, done []Settlement) bool {
	if len(done) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	failpoint.Hit("settling")
	for try := 1; ; try++ {
		err := d.events.noPanic(ctx, func() error { return d.cfg.Store.Settle(ctx, done) })
		if err == nil {
			return true
		}
		if try == settleTries || ctx.Err() != nil {
			d.events.log(ctx, settleFailed, "error", err)
			return false
		}
		select {
		case <-time.After(jitter(time.Second)):
		case <-ctx.Done():
		}
	}
}

// purgeAll removes what has expired, now and then.
func (d *delivery) purgeAll(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := d.events.noPanic(ctx, func() error { return d.purge(ctx) }); err != nil && ctx.Err() == nil {
			d.events.log(ctx, purgeFailed, "error", err)
		}
		t.Reset(jitter(purgeEvery))
	}
}

func (d *delivery) purge(ctx context.Context) error {
	now := time.Now()
	d.mu.Lock()
	maps.DeleteFunc(d.unsettled, func(_ ID, expires time.Time) bool { return !expires.After(now) })
	d.mu.Unlock()
	for n := purgeBatch; n == purgeBatch; {
		var err error
		if n, err = d.cfg.Store.Purge(ctx, now, purgeBatch); err != nil {
			return wrap("purge", err)
		}
	}
	return nil
}
