package reset

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset/internal/failpoint"
	"github.com/gopassreset/reset/internal/ui"
)

const (
	renewEvery    = 20 * time.Second // the leases of mails that are being sent
	sendTimeout   = 30 * time.Second // of a Mailer that has no SendTimeout
	storeTimeout  = 10 * time.Second // what a call of the store or of Users has
	drainTimeout  = 10 * time.Second // what exchanges have once Run is to end
	pollEvery     = time.Second
	purgeEvery    = time.Minute
	purgeBatch    = 200
	purgeMargin   = 24 * time.Hour
	doubtPause    = 10 * time.Second // of leasing, where the clock makes mail too old
	settleTries   = 3
	maxUnsettled  = 10_000
	jitterPercent = 30
	maxBatch      = 256                   // mails leased at a time
	maxLookUps    = 16                    // at a time
	maxRetired    = 1000                  // public requests removed at a time
	readyTime     = 50 * time.Millisecond // how long mail should wait for an exchange at most
	maxOrderWait  = 100 * time.Millisecond
	maxWait       = time.Minute
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
// more, after about half of its life.
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
	defer s.events.logCounts()
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	d := &delivery{
		Service: s, stop: ctx, work: work, batch: s.cfg.Workers, changed: make(chan struct{}, 1),
		lookUps: make(chan struct{}, maxLookUps), issues: make(chan struct{}, s.cfg.Workers),
		sending: make(map[ID]ID), unsettled: make(map[ID]time.Time),
	}

	var watching sync.WaitGroup
	watch, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	watching.Go(func() { d.watch(watch) })
	defer watching.Wait()
	defer endWatch()
	d.running.Go(func() { d.purgeAll(ctx) })
	d.running.Go(func() { d.noteBaseURL(ctx) })
	d.running.Go(func() { d.beatAll(ctx) })
	reserve := d.reserve
	for d.stop.Err() == nil {
		s.direct.run.CompareAndSwap(nil, &reserve) // another Run may have ended
		d.round()
	}
	s.direct.run.CompareAndSwap(&reserve, nil)
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	d.giveBack(d.takeReady(math.MaxInt))
	overtime := time.AfterFunc(drainTimeout, cut)
	defer overtime.Stop()
	d.running.Wait()
	if n := d.cut.Load(); n > 0 {
		return fmt.Errorf("reset: run: %d exchanges with the mail server were cut off", n)
	}
	return nil
}

// A delivery is one call of Run. Its mail goes through three stages: it is
// leased in batches; users are looked up, which retires the public requests
// that have none; and the rest is sent, as many at a time as Config.Workers and
// the breaker allow. So the mail server never delays a look-up, nor how soon
// the next mail is leased, until Config.Workers exchanges wait for it. While it
// is faster than the store, activations are issued before an exchange is free.
type delivery struct {
	*Service
	stop    context.Context // ends when Run is to end
	work    context.Context // ends when what Run has begun is cut off
	running sync.WaitGroup
	changed chan struct{} // signals that a look-up or an exchange has ended
	lookUps chan struct{} // holds a token for each look-up that runs
	issues  chan struct{} // the same for each activation that is being issued

	leaseAt  time.Time    // when to lease next
	failures int          // of Lease, in a row
	cut      atomic.Int64 // exchanges that had no time to finish

	mu          sync.Mutex
	ended       bool             // nothing may be reserved any more
	batch       int              // how many mails to lease at a time
	ahead       int              // how many more, while the mail server is faster than the store
	more        bool             // the latest lease was as large as it could be
	preparing   bool             // the latest batch, which goes before the next one
	resolving   int              // jobs that are being prepared
	exchanges   int              // jobs that are being sent
	ready       []job            // jobs to be sent
	retired     []Settlement     // public requests without a user, to be removed
	retiring    bool             // somebody removes them
	sending     map[ID]ID        // the leases of mails that are being sent
	pausedUntil time.Time        // when mail is leased again
	unsettled   map[ID]time.Time // mails that were sent but are queued still, as the store failed, and when they expire
}

// A job is one mail, or all leased public requests for one address.
type job struct {
	mails      []Mail
	user       User   // of a reset mail
	activation string // the same, and when it expires
	expires    time.Time
	readyAt    time.Time
	until      time.Time
}

// isLate reports whether a job has waited long for an exchange.
func (j job) isLate() bool { return time.Since(j.readyAt) > readyTime }

// reserve returns an exchange for a mail that is about to be queued, or nil if it
// would have to wait. It is given back if the mail takes too long to be queued:
// Run and other mail would wait for the store as well.
func (d *delivery) reserve() exchange {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended || d.stop.Err() != nil || d.exchanges+len(d.ready)+d.resolving >= d.cfg.Workers {
		return nil
	}
	t, ok := d.breaker.beginUnlimited(time.Now())
	if !ok {
		return nil
	}
	d.exchanges++
	d.running.Add(1)
	giveBack := func() {
		defer d.running.Done()
		d.endTurn(t, noExchange, nil)
	}
	overtime := time.AfterFunc(storeTimeout, giveBack)
	return func(q *queued) {
		switch {
		case !overtime.Stop(): // the mail waits for the end of its lease
		case q == nil:
			giveBack()
		default:
			defer d.running.Done()
			d.running.Go(func() {
				d.sendJob(job{mails: []Mail{q.mail}, user: q.user, activation: q.activation, expires: q.mail.Expires, readyAt: time.Now()}, t)
			})
		}
	}
}

// round starts what can be started and waits for the next change.
func (d *delivery) round() {
	now := time.Now()
	d.giveBack(d.stale(now))
	wait := d.startExchanges(now)
	n, later := d.room(now)
	switch {
	case n == 0:
		wait = min(wait, later)
	case now.Before(d.leaseAt):
		wait = min(wait, d.leaseAt.Sub(now))
	default:
		d.leaseBatch(n)
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-d.direct.wake:
		d.leaseAt = time.Time{}
	case <-d.changed:
	case <-d.stop.Done():
	}
}

// startExchanges sends ready jobs in the order in which they were leased. It
// returns after how long to try again.
func (d *delivery) startExchanges(now time.Time) (wait time.Duration) {
	d.mu.Lock()
	n := min(len(d.ready), d.cfg.Workers-d.exchanges)
	d.mu.Unlock()
	if n <= 0 {
		return maxWait
	}
	turns, wait := d.breaker.begin(now, n)
	if len(turns) == 0 {
		d.giveBack(d.takeReady(math.MaxInt))
		return wait
	}
	jobs := d.takeReady(len(turns))
	d.mu.Lock()
	d.exchanges += len(jobs)
	if slices.ContainsFunc(jobs, job.isLate) {
		d.ahead = 0
	}
	d.mu.Unlock()
	for i, j := range jobs {
		d.running.Go(func() { d.sendJob(j, turns[i]) })
	}
	return maxWait
}

// sendJob sends one job. Its turn ends, and another begins, as soon as the mail
// server has answered.
func (d *delivery) sendJob(j job, t turn) {
	var once sync.Once
	end := func(o outcome, err error) {
		once.Do(func() { d.endTurn(t, o, err) })
	}
	defer end(noExchange, nil)
	defer func() {
		if p := recover(); p != nil {
			end(inconclusive, nil)
			d.retry(d.work, j.mails, d.events.panicked(d.work, p))
		}
	}()
	// What was issued some time ago may have been revoked, or its lease lost.
	if j.mails[0].Kind == MailReset && (j.activation == "" || j.isLate()) && !d.activate(&j) {
		return
	}
	d.exchange(d.work, j, end)
}

func (d *delivery) endTurn(t turn, o outcome, err error) {
	d.breaker.end(d.work, time.Now(), t, o, err)
	d.mu.Lock()
	d.exchanges--
	if len(d.ready) == 0 && d.more { // the exchange stands idle
		d.ahead = min(d.ahead+1, maxBatch)
	}
	d.mu.Unlock()
	d.signal()
}

// room returns how many mails may be leased, so that no exchange waits for the
// store and few are leased that the breaker would not let through, or after how
// long to ask again.
func (d *delivery) room(now time.Time) (n int, wait time.Duration) {
	d.mu.Lock()
	batch := max(d.cfg.Workers, min(d.batch+d.ahead, maxBatch))
	perTurn := d.batch / d.cfg.Workers // mails leased for a turn: public requests without a user need none
	held, most, preparing, paused := len(d.ready)+d.resolving, d.cfg.Workers+d.ahead, d.preparing, d.pausedUntil.Sub(now)
	d.mu.Unlock()
	if paused > 0 {
		return 0, paused
	}
	if preparing || held > most/2 {
		return 0, maxWait // until some of them are retired or sent
	}
	switch n, wait = d.breaker.allows(now); {
	case n == 0:
		return 0, wait
	case n <= held:
		return 0, maxWait
	case n < batch:
		n *= perTurn
	}
	return max(1, min(n, batch)-held), 0
}

// stale takes the ready jobs whose leases have run for too long to be sent.
func (d *delivery) stale(now time.Time) (old []job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = slices.DeleteFunc(d.ready, func(j job) bool {
		if now.Before(j.until) {
			return false
		}
		old = append(old, j)
		d.ahead = 0
		return true
	})
	return old
}

// takeReady takes at most n of the ready jobs.
func (d *delivery) takeReady(n int) []job {
	d.mu.Lock()
	defer d.mu.Unlock()
	jobs := slices.Clone(d.ready[:min(n, len(d.ready))])
	d.ready = slices.Delete(d.ready, 0, len(jobs))
	return jobs
}

// giveBack leaves jobs to a later lease or another process.
func (d *delivery) giveBack(jobs []job) {
	var done []Settlement
	for _, j := range jobs {
		back := unspent(j.mails)
		if j.activation != "" {
			back = d.noted(d.work, j.mails[0], back, nil, "")
		}
		done = append(done, back...)
	}
	if len(done) > 0 {
		d.running.Go(func() { d.settle(d.work, done) })
	}
}

func (d *delivery) signal() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// leaseBatch leases at most n mails and has their users looked up.
func (d *delivery) leaseBatch(n int) {
	mails, err := d.lease(d.work, n)
	now := time.Now()
	if err != nil {
		d.failures++
		d.events.log(d.work, leaseFailed, "error", err)
		d.leaseAt = now.Add(jitter(min(pollEvery<<min(d.failures, 4), storeTimeout)))
		return
	}
	d.failures = 0
	if len(mails) < n {
		d.leaseAt = now.Add(jitter(pollEvery))
	}
	jobs := group(mails)
	d.mu.Lock()
	d.more, d.preparing = len(mails) == n, true
	d.resolving += len(jobs)
	d.mu.Unlock()
	d.running.Go(func() { d.resolve(jobs, now.Add(leaseTime/2)) })
}

// resolve prepares jobs at the same time. They become ready in the order in
// which they were leased, but none waits long for another.
func (d *delivery) resolve(jobs []job, until time.Time) {
	type result struct {
		i     int
		ready bool
	}
	results := make(chan result, len(jobs))
	for i := range jobs {
		jobs[i].until = until
		d.running.Go(func() {
			r := result{i: i}
			defer func() { results <- r }() // also after runtime.Goexit
			r.ready = d.prepare(&jobs[i])
		})
	}
	order := time.NewTimer(maxOrderWait)
	defer order.Stop()
	var first []result
	for waiting := true; waiting && len(first) < len(jobs); {
		select {
		case r := <-results:
			first = append(first, r)
		case <-order.C:
			waiting = false
		}
	}
	slices.SortFunc(first, func(a, b result) int { return a.i - b.i })
	for _, r := range first {
		d.resolved(jobs[r.i], r.ready)
	}
	d.mu.Lock()
	d.preparing = false
	d.mu.Unlock()
	d.signal()
	for range len(jobs) - len(first) {
		r := <-results
		d.resolved(jobs[r.i], r.ready)
	}
}

// resolved makes a job ready, unless nobody will send it. It adapts how many
// mails are leased at a time: those that have no user are retired by the
// hundred, and those that wait for the mail server are left to other processes.
func (d *delivery) resolved(j job, ready bool) {
	j.readyAt = time.Now()
	d.mu.Lock()
	d.resolving--
	if ready {
		d.batch = max(d.cfg.Workers, d.batch-1)
	} else {
		d.batch = min(d.batch+1, max(d.cfg.Workers, maxBatch))
	}
	ended := d.stop.Err() != nil
	if ready && !ended {
		d.ready = append(d.ready, j)
	}
	d.mu.Unlock()
	if ready && ended {
		d.giveBack([]job{j})
	}
	d.signal()
}

// prepare reports whether a job has a mail to send.
func (d *delivery) prepare(j *job) (ready bool) {
	failpoint.Hit("leased")
	defer func() {
		if p := recover(); p != nil {
			ready = false
			d.retry(d.work, j.mails, d.events.panicked(d.work, p))
		}
	}()
	if j.mails = d.unsent(d.work, j.mails); len(j.mails) == 0 {
		return false
	}
	if d.stop.Err() != nil {
		d.settle(d.work, unspent(j.mails))
		return false
	}
	if j.mails[0].Kind == MailNotification {
		return true
	}
	if j.mails = d.inTime(j.mails); len(j.mails) == 0 {
		return false
	}
	if !d.findUser(j) {
		return false
	}
	d.mu.Lock()
	soon := d.ahead > 0
	d.mu.Unlock()
	if !soon || d.breaker.limits(time.Now()) {
		return true // the exchange, before which it is issued, may begin much later
	}
	return d.activate(j)
}

// findUser looks the user of a job up, and reports whether there is one.
func (d *delivery) findUser(j *job) bool {
	d.lookUps <- struct{}{}
	defer func() { <-d.lookUps }()
	var err error
	j.user, err = d.lookUp(d.work, j.mails[0])
	switch {
	case errors.Is(err, ErrNoUser):
		d.retire(j.mails)
	case err != nil:
		d.retry(d.work, j.mails, err)
	}
	return err == nil
}

// activate issues the activation of a job, for one link that answers all its
// public requests, and reports whether there is one to mail.
func (d *delivery) activate(j *job) bool {
	d.issues <- struct{}{}
	defer func() { <-d.issues }()
	ctx := d.work
	if d.stop.Err() != nil {
		d.giveBack([]job{*j})
		return false
	}
	m, others := &j.mails[0], j.mails[1:]
	var err error
	issuedBefore, until := j.activation != "", m.Due
	j.activation, j.expires, err = d.issue(ctx, m, j.user)
	switch {
	case errors.Is(err, ErrGone):
		d.settle(ctx, unspent(others))
		if issuedBefore {
			d.withdrawn(ctx, *m, until)
		}
		return false
	case errors.Is(err, ErrTooManyRequests) && m.UserID == "":
		d.drop(ctx, j.mails, j.user)
		return false
	case err != nil:
		d.retry(ctx, j.mails, err)
		return false
	}
	d.answered(ctx, *m, others)
	j.mails = j.mails[:1]
	if j.expires.Sub(d.clock.now(ctx)) < d.leastLeft() {
		// The mail has joined a request that ends soon, and then makes room.
		d.settle(ctx, []Settlement{{Mail: m.ID, Lease: m.Lease, Retry: j.expires, Class: m.Class, Unspent: true}})
		return false
	}
	return true
}

// inTime gives up the mails whose links would live too short.
func (d *delivery) inTime(mails []Mail) (live []Mail) {
	now := d.clock.now(d.work)
	var late []Mail
	for _, m := range mails {
		if m.Expires.Sub(now) < d.leastLeft() {
			late = append(late, m)
		} else {
			live = append(live, m)
		}
	}
	d.expire(d.work, late, nil)
	return live
}

// retire removes public requests that have no user. What is retired while the
// store removes others is removed together.
func (d *delivery) retire(mails []Mail) {
	gone := removed(mails)
	for i, m := range mails {
		gone[i].Note = d.note(m, Note{At: d.clock.now(d.work), Outcome: OutcomeUserGone})
	}
	d.mu.Lock()
	d.retired = append(d.retired, gone...)
	first := !d.retiring
	d.retiring = true
	d.mu.Unlock()
	for first {
		d.mu.Lock()
		n := min(len(d.retired), maxRetired)
		done := slices.Clone(d.retired[:n])
		d.retired = slices.Delete(d.retired, 0, n)
		d.retiring = len(done) > 0
		d.mu.Unlock()
		if len(done) == 0 {
			return
		}
		d.settle(d.work, done)
	}
}

// lease runs on the context of the work: a lease that is cut off half-way
// would hold a mail for nothing.
func (d *delivery) lease(work context.Context, n int) ([]Mail, error) {
	ctx, cancel := context.WithTimeout(work, storeTimeout)
	defer cancel()
	now := d.clock.now(ctx)
	var mails []Mail
	err := d.cfg.Observe.run(ctx, "lease", func(ctx context.Context) error {
		return d.events.noPanic(ctx, func() (err error) {
			mails, err = d.cfg.Store.Lease(ctx, now, now.Add(leaseTime), n)
			return err
		})
	})
	return mails, err
}

func jitter(t time.Duration) time.Duration {
	percent := 100 - jitterPercent + rand.N(2*jitterPercent+1)
	return t * time.Duration(percent) / 100
}

// group makes one job of the public requests for one address, and one of any
// other mail. The link is that of the request that lives the longest.
func group(mails []Mail) (jobs []job) {
	public := make(map[string]int)
	for _, m := range mails {
		if m.Kind == MailReset && m.UserID == "" {
			if i, ok := public[m.Email]; ok {
				mails := append(jobs[i].mails, m)
				if m.Expires.After(mails[0].Expires) {
					mails[0], mails[len(mails)-1] = m, mails[0]
				}
				jobs[i].mails = mails
				continue
			}
			public[m.Email] = len(jobs)
		}
		jobs = append(jobs, job{mails: []Mail{m}})
	}
	return jobs
}

// settleSent removes a mail that was sent. One that the store keeps all the
// same would be sent with every lease: it is remembered.
func (d *delivery) settleSent(ctx context.Context, m Mail) {
	done := removed([]Mail{m})
	if m.Kind == MailNotification { // of others it follows from the attempt
		done[0].Note = d.note(m, Note{At: d.clock.now(ctx), Outcome: OutcomeSent})
	}
	settled := d.settle(ctx, done)
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

// message returns the message of a job, without its text.
func (d *delivery) message(j job) Message {
	m, user := j.mails[0], j.user
	if m.Kind == MailNotification {
		return Message{
			ID: m.ID.String(), Kind: MailNotification, To: m.Email, Name: ui.Salutation(m.Name), Locale: m.Locale,
			Link: d.cfg.BaseURL + "/forgot", Expires: m.Expires,
		}
	}
	query := "?activation=" + url.QueryEscape(j.activation)
	return Message{
		ID: m.ID.String(), Kind: MailReset, To: user.Email, Name: ui.Salutation(user.Name), Locale: cmp.Or(user.Locale, m.Locale),
		Link: d.cfg.ResetURL + query, RevokeLink: d.cfg.RevokeURL + query, Expires: j.expires,
	}
}

// lookUp returns the user whom a mail is for.
func (d *delivery) lookUp(ctx context.Context, m Mail) (User, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	user, err := d.accounts.find(ctx, m.Email)
	if err == nil && m.UserID != "" && m.UserID != user.ID {
		return User{}, fmt.Errorf("%w: the address is another user's now", ErrNoUser)
	}
	return user, err
}

// issue mints the activation of one attempt, under the lease, which it renews,
// and returns when it expires.
func (d *delivery) issue(ctx context.Context, m *Mail, user User) (activation string, expires time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	activation, a, err := d.mint.activation(user, m.ID, m.Expires)
	if err != nil {
		return "", time.Time{}, err
	}
	now := d.clock.now(ctx)
	m.Due = now.Add(leaseTime)
	limits := Limits{MaxRequests: d.cfg.MaxRequests, Join: true, MaxPerHour: d.cfg.MaxMailsPerHour, MaxPerDay: d.cfg.MaxMailsPerDay}
	a, err = d.cfg.Store.Issue(ctx, now, a, limits, m)
	if err != nil {
		return "", time.Time{}, wrap("issue", err)
	}
	m.UserID = user.ID
	failpoint.Hit("minted")
	return activation, a.Expires, nil
}

// exchange hands the message of a job to the mail system, calls end with what
// that has shown, and settles the mail.
func (d *delivery) exchange(ctx context.Context, j job, end func(outcome, error)) {
	m, msg := j.mails[0], d.message(j)
	now := d.clock.now(ctx)
	if m.Due.Sub(now) < leaseTime-renewEvery-storeTimeout {
		return // another worker may soon hold the lease, and would send it a second time
	}
	if d.stop.Err() != nil {
		d.giveBack([]job{j})
		return
	}
	var err error
	msg.Subject, msg.Text, msg.HTML, err = d.render.Mail(ui.Mail{
		Kind: string(msg.Kind), To: msg.To, Name: msg.Name, Locale: msg.Locale,
		Link: msg.Link, RevokeLink: msg.RevokeLink, Secret: j.activation, ExpiresIn: msg.Expires.Sub(now),
	})
	if err != nil {
		d.retry(ctx, []Mail{m}, wrap("render mail", err))
		return
	}
	if err = d.send(ctx, m, msg); err != nil {
		err = quoteRefusal(err, msg)
	}
	failpoint.Hit("sent")
	if err != nil && ctx.Err() != nil {
		d.cut.Add(1)
	}
	switch {
	case err == nil:
		end(available, nil)
		d.settleSent(ctx, m)
		d.events.log(ctx, mailSent, attrsOf(m)...)
	case errors.Is(err, ErrUndeliverable):
		end(available, nil)
		d.giveUp(ctx, []Mail{m}, mailUndeliverable, OutcomeUndeliverable, err)
	case errors.Is(err, ErrUnconfirmed):
		end(inconclusive, nil)
		d.sendOnceMore(ctx, m, err)
	case errors.Is(err, ErrUnavailable) && ctx.Err() == nil:
		end(unavailable, err)
		d.settle(ctx, d.noted(ctx, m, unspent([]Mail{m}), err, ""))
	default:
		end(inconclusive, nil)
		d.retry(ctx, []Mail{m}, err)
	}
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
	return d.cfg.Observe.run(ctx, "send", func(ctx context.Context) error {
		return outlast(ctx, func() error { return d.cfg.Mailer.Send(ctx, msg) })
	})
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
		now := d.clock.now(ctx)
		var renewals sync.WaitGroup
		d.mu.Lock()
		for mail, lease := range d.sending {
			// A mail whose user the host has locked must not hold up the others.
			renewals.Go(func() {
				d.settle(ctx, []Settlement{{Mail: mail, Lease: lease, Retry: now.Add(leaseTime), Held: true}})
			})
		}
		d.mu.Unlock()
		renewals.Wait()
		d.breaker.report(ctx, time.Now())
	}
}

// sendOnceMore frees a mail that has probably been sent for one more attempt.
// It waits for half of the time in which mail can be sent, so that there is no
// third.
func (d *delivery) sendOnceMore(ctx context.Context, m Mail, cause error) {
	d.events.log(ctx, mailUnconfirmed, append(attrsOf(m), "error", cause)...)
	life := d.cfg.TTL - d.leastLeft()
	if m.Kind == MailNotification {
		life = notificationTTL
	}
	at := d.clock.now(ctx).Add(life / 2)
	if !at.Before(d.lastAttempt(m)) {
		d.settle(ctx, d.noted(ctx, m, removed([]Mail{m}), cause, OutcomeUnconfirmed))
		return
	}
	d.settle(ctx, d.noted(ctx, m, freed([]Mail{m}, at), cause, ""))
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
	now := d.clock.now(ctx)
	var again, late []Mail
	var settlements []Settlement
	for _, m := range mails {
		wait := jitter(backOff[min(max(m.Attempts, 1), len(backOff))-1])
		at := now.Add(wait)
		if at.After(d.lastAttempt(m)) {
			late = append(late, m)
			continue
		}
		again = append(again, m)
		settlements = append(settlements, d.noted(ctx, m, freed([]Mail{m}, at), cause, "")...)
	}
	for _, m := range again {
		d.events.log(ctx, mailFailed, append(attrsOf(m), "error", cause)...)
	}
	d.settle(ctx, settlements)
	d.expire(ctx, late, cause)
}

// expire gives up mails that are too old. If the clock that says so is in doubt,
// it gives them back, and nothing is leased for some time.
func (d *delivery) expire(ctx context.Context, mails []Mail, cause error) {
	if len(mails) == 0 || !d.clock.doubtful(ctx) {
		d.giveUp(ctx, mails, mailExpired, OutcomeExpired, cause)
		return
	}
	d.settle(ctx, unspent(mails))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pausedUntil = time.Now().Add(doubtPause)
}

// giveUp removes mails and says why.
func (d *delivery) giveUp(ctx context.Context, mails []Mail, e event, o MailOutcome, cause error) {
	var attrs []any
	if cause != nil {
		attrs = append(attrs, "error", cause)
	}
	var done []Settlement
	for _, m := range mails {
		d.events.log(ctx, e, append(attrsOf(m), attrs...)...)
		done = append(done, d.noted(ctx, m, removed([]Mail{m}), cause, o)...)
	}
	d.settle(ctx, done)
}

// drop removes public requests for which a user gets no link. Those of an hour
// are one entry in the history.
func (d *delivery) drop(ctx context.Context, mails []Mail, user User) {
	d.events.count(ctx, overBudget, "user", user.ID)
	done, now := removed(mails), d.clock.now(ctx)
	done[0].Note = d.note(Mail{Kind: MailReset, UserID: user.ID},
		Note{ID: hourOf(now), Requests: len(mails), At: now, Outcome: OutcomeOverBudget})
	d.settle(ctx, done)
}

// answered removes the mails that m answers as well.
func (d *delivery) answered(ctx context.Context, m Mail, others []Mail) {
	done := removed(others)
	if len(done) > 0 {
		done[0].Note = d.note(m, Note{ID: m.ID, Requests: len(done), At: d.clock.now(ctx)})
	}
	d.settle(ctx, done)
}

// note returns a note on a mail, or nil if that is bound to nobody or no history
// is kept.
func (d *delivery) note(m Mail, n Note) *Note {
	if m.UserID == "" || d.cfg.KeepHistory < 0 {
		return nil
	}
	n.UserID, n.Attempts, n.Kind = m.UserID, m.Attempts, HistoryTrusted
	switch {
	case m.Kind == MailNotification:
		n.Kind = HistoryNotification
	case n.Requests > 0: // as only public ones are counted
		n.Kind = HistoryPublic
	}
	return &n
}

// noted adds to the settlement of a mail what the mail system said of it and its
// outcome, if there is either.
func (d *delivery) noted(ctx context.Context, m Mail, done []Settlement, cause error, o MailOutcome) []Settlement {
	n := Note{At: d.clock.now(ctx), Outcome: o}
	var refused *refusal
	if errors.As(cause, &refused) {
		n.Refusal = refused.words
	}
	done[0].Note = d.note(m, n)
	return done
}

// withdrawn notes that a mail was not sent which is gone after an activation was
// issued for it. Once its lease has run out, somebody else may have sent it.
func (d *delivery) withdrawn(ctx context.Context, m Mail, until time.Time) {
	if now := d.clock.now(ctx); now.Before(until) {
		done := removed([]Mail{m})
		done[0].Note = d.note(m, Note{At: now, Outcome: OutcomeWithdrawn})
		d.settle(ctx, done)
	}
}

// hourOf returns an ID for what happened within an hour.
func hourOf(t time.Time) (id ID) {
	binary.BigEndian.PutUint64(id[:8], uint64(t.Truncate(time.Hour).UnixMilli())<<16)
	return id
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
		done = append(done, Settlement{Mail: m.ID, Lease: m.Lease, UserID: m.UserID, Retry: retry, Class: retryClass(m)})
	}
	return done
}

// unspent gives mails back as they were before they were leased.
func unspent(mails []Mail) (done []Settlement) {
	for _, m := range mails {
		done = append(done, Settlement{Mail: m.ID, Lease: m.Lease, Retry: cmp.Or(m.WasDue, m.ID.Time()), Class: m.Class, Unspent: true})
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	failpoint.Hit("settling")
	for try := 1; ; try++ {
		err := d.cfg.Observe.run(ctx, "settle", func(ctx context.Context) error {
			return d.events.noPanic(ctx, func() error { return d.cfg.Store.Settle(ctx, done) })
		})
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

// noteBaseURL warns if another Service of the realm has, or had, another
// BaseURL: mail that one of them queues may lead to the other.
func (d *delivery) noteBaseURL(ctx context.Context) {
	store, ok := d.cfg.Store.(RealmStore)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	var last string
	err := d.events.noPanic(ctx, func() (err error) {
		last, err = store.SetBaseURL(ctx, d.cfg.BaseURL)
		return err
	})
	if err == nil && last != "" && last != d.cfg.BaseURL {
		d.events.log(ctx, baseURLConflict, "base_url", d.cfg.BaseURL, "other", last)
	}
}

// beatAll records that this process delivers, for every process to see.
func (d *delivery) beatAll(ctx context.Context) {
	for {
		now := d.clock.now(ctx)
		d.figures.beat(ctx, now, d.breaker.isDown())
		d.figures.warnIfLate(ctx, now)
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(beatEvery)):
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

// purge leaves expired records for a day: a clock that is ahead would otherwise
// remove what others still need. It takes at most half of the store's time.
func (d *delivery) purge(ctx context.Context) error {
	now := d.clock.now(ctx)
	d.mu.Lock()
	maps.DeleteFunc(d.unsettled, func(_ ID, expires time.Time) bool { return !expires.After(now) })
	d.mu.Unlock()
	if !d.clock.agreed(ctx) {
		return nil
	}
	unsent := 0
	defer func() {
		if unsent > 0 {
			d.events.log(ctx, mailPurged, "mails", unsent)
		}
	}()
	for n := purgeBatch; n == purgeBatch; {
		began, mails := time.Now(), 0
		err := d.cfg.Observe.run(ctx, "purge", func(ctx context.Context) (err error) {
			n, mails, err = d.cfg.Store.Purge(ctx, now.Add(-purgeMargin), purgeBatch)
			return err
		})
		if err != nil {
			return wrap("purge", err)
		}
		unsent += mails
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Since(began)):
		}
	}
	return nil
}
