// Package reset lets users of a Go web app who forgot their password choose a
// new one through an emailed link. It works on the host's own accounts,
// database, mail server and router.
//
//	store, err := storesqlite.Open("app.db") // package reset/store_sqlite; or store_sql, store_bun, store_pgx on the host's pool
//	svc, err := reset.New(reset.Config{
//		Users:   users, // the host's accounts: three methods
//		Store:   store,
//		Mailer:  &reset.SMTPMailer{Addr: "smtp.example.com:587", From: "Example <no-reply@example.com>", Username: "app", Password: secret},
//		BaseURL: "https://app.example.com/account", // where Pages is mounted
//		APIKeys: []string{os.Getenv("RESET_API_KEY")}, // only for Handler; 32 characters or more
//	})
//	var wg sync.WaitGroup
//	wg.Go(func() { svc.Run(ctx) })         // sends the mail
//	mux.Handle("/account/", svc.Pages())   // for browsers
//	mux.Handle("/v1/auth/", svc.Handler()) // for trusted back ends
//	// at the end: srv.Shutdown(…); cancel ctx; wg.Wait(); store.Close()
//
// # Public and trusted
//
// [Service.Pages] and [Service.Forgot] are for the public. Their answers, and
// the time these take, never depend on who has an account: they queue the
// request, and [Service.Run] looks the user up and mails later. A link is mailed
// to the address that the host has stored, never to the one that was typed.
//
// [Service.Handler] and [Service.RequestReset] are for the host itself and for
// back ends that hold an API key. Their answers reveal who has an account, and
// contain activations, the secrets that mailed links carry. An activation is
// enough to take the account over.
//
// # What the package promises
//
// An activation works once, even if it is redeemed many times at the same
// moment; a changed password ends all others of its user. A user has at most
// [Config.MaxRequests] live requests, under parallel requests too. An accepted
// request is mailed at least once, through crashes and outages, unless it
// expires first. GET requests redeem nothing, so mail scanners do no harm. Only
// SHA-256 hashes of activations are stored; links are made when mail is sent.
// Where a user's mail is, operators learn from [Service.History].
//
// # What the host must do
//
// Serve over https. Mount Pages where [Config.BaseURL] says. End all sessions in
// [Users].SetPassword. Call [Service.Revoke] when a password or an address was
// changed by other means. Set [Config.MaxPasswordBytes] to what the host can
// hash: 72 for bcrypt. Exempt the mount of Pages from the host's own CSRF
// middleware: a stricter check is built in. Behind a proxy, set [Config.ClientIP]
// to [ClientIPBehind]. Pass the responses of Pages on unchanged. Keep the query
// of mailed links out of access logs, where it appears once.
//
// # Testing
//
// Package resettest has the suites TestUsers and TestHost, which report what a
// host got wrong and how to change it; a Store in memory and a Mailbox for the
// host's own tests, as in the integration example of this package; and suites
// for implementations of the other interfaces. Public requests are mailed a
// random time of up to 2 s later, on purpose: give Mailbox.Wait ten.
//
// # Compatibility
//
// The package follows semantic versioning. Interfaces here never get another
// method; extensions are optional interfaces. The answers of Handler are stable
// to the byte.
package reset

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset/internal/failpoint"
	"github.com/gopassreset/reset/internal/ui"
)

const (
	notificationTTL = 24 * time.Hour
	maxPublicDelay  = 2 * time.Second // how long a public request waits at random before it is due
)

// A Service resets passwords. It is safe for concurrent use.
type Service struct {
	cfg      Config
	base     *url.URL
	render   *ui.Renderer
	events   eventLog
	accounts accounts
	refusals *refusals
	figures  *figures
	clock    *clock
	mint     minter
	fairness fairness
	breaker  *breaker
	waiting  waitingRoom // of the requests to Pages and Handler
	hashing  slots       // for HashPassword
	direct   *direct

	proxyKnown    bool        // Config.ClientIP was set
	proxyWarned   atomic.Bool // proxyUnknown was logged
	mountWarned   atomic.Bool // baseURLMismatch was logged
	startLogged   atomic.Bool // started was logged
	hostRewritten atomic.Bool // a proxy seems to change the host of requests
	running       atomic.Bool // Run was called
	runWarned     atomic.Bool // runElsewhere was logged
}

// New checks cfg and returns a Service. Its error has a line for each mistake,
// which names the field. New starts nothing: mail is sent while Run runs.
func New(cfg Config) (*Service, error) {
	proxyKnown := cfg.ClientIP != nil
	base, render, err := checkConfig(&cfg)
	if err != nil {
		return nil, err
	}
	events := newEventLog(cfg.Logger)
	if l, ok := cfg.PerClient.(interface{ Burst() int }); ok && l.Burst() > cfg.Workers {
		events.log(context.Background(), workersFew, "workers", cfg.Workers, "burst", l.Burst())
	}
	keepHistory(cfg.Store, cfg.KeepHistory)
	cfg.Observe = cfg.Observe.contained(events)
	clock := newClock(cfg.Store, events)
	return &Service{
		cfg:        cfg,
		base:       base,
		render:     render,
		events:     events,
		accounts:   accounts{cfg.Users, events},
		clock:      clock,
		refusals:   newRefusals(cfg.Store, clock, events),
		figures:    &figures{store: cfg.Store, events: events},
		mint:       minter{rand.Reader},
		hashing:    make(slots, runtime.GOMAXPROCS(0)),
		breaker:    newBreaker(events),
		direct:     newDirect(),
		proxyKnown: proxyKnown,
	}, nil
}

// RequestOptions are the options of RequestReset.
type RequestOptions struct {
	// MaxRequests is how many live requests the user may have. Defaults to
	// Config.MaxRequests.
	MaxRequests int
	// PreventEmailSending leaves it to the caller to deliver the activation.
	// The request counts for the cap like any other, public ones included. The
	// notification of the changed password is sent all the same.
	PreventEmailSending bool
}

// RequestReset is for trusted callers only. Its result, its error and its
// timing reveal whether an address has an account, and the activation that it
// returns takes that account over. Never forward a browser's JSON to it (it
// could set MaxRequests), nor its result to a browser or a log. For a form use
// Forgot or Pages.
//
// It returns the activation of a new request, 24 characters that ChangePassword
// accepts, and queues a mail unless that is prevented. If no
// user has the address it returns "" and no error. Blanks and invisible
// characters around email are ignored.
//
// Errors wrap ErrBadRequest for a malformed address or MaxRequests out of range.
// They match ErrTooManyRequests, as a *LimitError, if the user has as many live
// requests as allowed; then nothing has changed. Any other error is a failure
// of the host's accounts, store or limiter.
func (s *Service) RequestReset(ctx context.Context, email string, o RequestOptions) (activation string, err error) {
	err = s.cfg.Observe.run(ctx, "trusted_request", func(ctx context.Context) (err error) {
		activation, err = s.requestReset(ctx, email, o)
		return err
	})
	return activation, err
}

func (s *Service) requestReset(ctx context.Context, email string, o RequestOptions) (activation string, err error) {
	address, err := CanonicalAddress(trimAddress(email))
	if err != nil {
		return "", &badRequestError{"email", err}
	}
	if o.MaxRequests == 0 {
		o.MaxRequests = s.cfg.MaxRequests
	}
	if o.MaxRequests < 1 || o.MaxRequests > s.cfg.MaxRequestsCeiling {
		return "", &badRequestError{"maxRequests", fmt.Errorf("%d is not between 1 and %d", o.MaxRequests, s.cfg.MaxRequestsCeiling)}
	}
	if err := s.events.allow(ctx, s.cfg.PerAddress, "address", address); err != nil {
		return "", err
	}
	user, err := s.accounts.find(ctx, address)
	if errors.Is(err, ErrNoUser) {
		s.events.count(ctx, trustedRequest, callerAttrs(ctx)...)
		return "", nil
	}
	if err != nil {
		return "", err
	}
	now := s.clock.now(ctx)
	id, err := s.mint.id(now)
	if err != nil {
		return "", err
	}
	activation, a, err := s.mint.activation(user, id, now.Add(s.cfg.TTL))
	if err != nil {
		return "", err
	}
	var m *Mail
	var q *queued
	if !o.PreventEmailSending {
		m = &Mail{ID: id, Kind: MailReset, UserID: user.ID, Email: address, Class: trustedClass, Due: now, Expires: a.Expires}
		send := s.direct.lease(now, s.mint, m)
		defer func() { send(q) }()
	}
	_, err = s.cfg.Store.Issue(ctx, now, a, Limits{MaxRequests: o.MaxRequests}, m)
	if errors.Is(err, ErrTooManyRequests) {
		s.events.count(ctx, overCap, append(callerAttrs(ctx), "user", user.ID)...)
	}
	if err != nil {
		return "", wrap("issue", err)
	}
	failpoint.Hit("issued")
	s.events.count(ctx, trustedRequest, append(callerAttrs(ctx), "user", user.ID)...)
	if m != nil {
		s.noteQueued(ctx)
		q = &queued{*m, user, activation}
	}
	return activation, nil
}

// ForgotOptions are the options of Forgot.
type ForgotOptions struct {
	// Locale is the language of the mail, as a BCP 47 tag, for users without
	// one of their own. Defaults to English.
	Locale string
}

// Forgot accepts a request from the public: if a user has the address, Run
// mails that user a link. Neither the result nor the timing of Forgot depends on
// that: it queues the request and leaves the rest to Run. email may be what
// people paste: with blanks or invisible characters around it, in angle
// brackets, as a mailto URL, in full-width characters.
//
// client is the key for Config.PerClient, as Config.ClientIP returns it. Errors
// wrap ErrBadRequest for a malformed address or an empty client, match
// ErrTooManyRequests, as a *LimitError, or are a failure of store or limiter.
func (s *Service) Forgot(ctx context.Context, email, client string, o ForgotOptions) error {
	return s.cfg.Observe.run(ctx, "public_request", func(ctx context.Context) error {
		return s.publicRequest(ctx, email, client, o)
	})
}

func (s *Service) publicRequest(ctx context.Context, email, client string, o ForgotOptions) error {
	address, err := CanonicalAddress(pastedAddress(email))
	if err != nil {
		return &badRequestError{"email", err}
	}
	if client == "" {
		return fmt.Errorf("%w: no client", ErrBadRequest)
	}
	if err := s.events.allow(ctx, s.cfg.PerClient, "client", client); err != nil {
		return err
	}
	now := s.clock.now(ctx)
	if err := s.figures.room(ctx, now, s.cfg.MaxQueued); err != nil {
		return wrap("queue", err)
	}
	id, err := s.mint.id(now)
	if err != nil {
		return err
	}
	// A random start decouples the work for a request, and the order in which
	// mails arrive, from the order of the requests.
	delay, err := s.mint.delay(maxPublicDelay)
	if err != nil {
		return err
	}
	err = s.cfg.Store.Enqueue(ctx, Mail{
		ID: id, Kind: MailReset, Email: address, Locale: o.Locale,
		Class: s.fairness.class(client, now), Due: now.Add(delay), Expires: now.Add(s.cfg.TTL),
	})
	if err != nil {
		return wrap("enqueue", err)
	}
	s.events.count(ctx, publicRequest, "client", clip(client))
	s.noteQueued(ctx)
	return nil
}

// ChangePassword redeems an activation: it saves the new password through
// Users.SetPassword, ends every other activation of the user and queues the
// notification.
//
// It returns ErrInvalidActivation for an activation that is unknown, redeemed,
// expired or revoked, or whose user is gone, and a *PasswordError for a refused
// password, after which the activation is still live. After any other error
// Store.Redeem says when the activation survives it.
func (s *Service) ChangePassword(ctx context.Context, activation, newPassword string) error {
	a, user, err := s.find(ctx, activation)
	if err != nil {
		return err
	}
	return s.redeem(ctx, a, user, newPassword)
}

// find returns a live activation and its user, if the user still has the
// address that the activation was issued for.
func (s *Service) find(ctx context.Context, activation string) (Activation, User, error) {
	h, ok := hashActivation(activation)
	if !ok {
		return Activation{}, User{}, ErrInvalidActivation
	}
	a, err := s.cfg.Store.Find(ctx, s.clock.now(ctx), h)
	if errors.Is(err, ErrInvalidActivation) {
		err = s.refusals.activation(ctx, h)
	}
	if err != nil {
		return Activation{}, User{}, wrap("find", err)
	}
	address, err := CanonicalAddress(a.Email)
	if err != nil {
		return Activation{}, User{}, s.refusals.because(ctx, "user_gone")
	}
	user, err := s.accounts.find(ctx, address)
	if errors.Is(err, ErrNoUser) || err == nil && user.ID != a.UserID {
		return Activation{}, User{}, s.refusals.because(ctx, "user_gone")
	}
	return a, user, err
}

// redeem is ChangePassword for what find has returned.
func (s *Service) redeem(ctx context.Context, a Activation, user User, newPassword string) error {
	return s.cfg.Observe.run(ctx, "redeem", func(ctx context.Context) error {
		return s.redeemNow(ctx, a, user, newPassword)
	})
}

func (s *Service) redeemNow(ctx context.Context, a Activation, user User, newPassword string) error {
	if err := checkPassword(user, newPassword, s.cfg.MinPassword, s.cfg.MaxPasswordBytes, s.cfg.Brand.Name, withoutTopLevel(s.base.Hostname())); err != nil {
		return err
	}
	if s.cfg.CheckPassword != nil {
		if err := outlast(ctx, func() error { return s.cfg.CheckPassword(ctx, user, newPassword) }); err != nil {
			return wrap("check password", err)
		}
	}
	hash, err := s.hashPassword(ctx, a, newPassword)
	if err != nil {
		return err
	}
	now := s.clock.now(ctx)
	id, err := s.mint.id(now)
	if err != nil {
		return err
	}
	notification := Mail{
		ID: id, Kind: MailNotification, UserID: user.ID, Email: user.Email, Name: user.Name, Locale: user.Locale,
		Class: trustedClass, Due: now, Expires: now.Add(notificationTTL),
	}
	err = s.cfg.Store.Redeem(ctx, now, a, notification, func(ctx context.Context) error {
		failpoint.Hit("claimed")
		err := s.cfg.Users.SetPassword(ctx, user.ID, hash)
		failpoint.Hit("set")
		if store, ok := s.cfg.Store.(interface{ TransactionUsed(context.Context) bool }); ok && err == nil && !store.TransactionUsed(ctx) {
			s.events.count(ctx, txNotUsed)
		}
		if errors.Is(err, ErrNoUser) && !errors.Is(err, ErrNotChanged) {
			return fmt.Errorf("%w: %w", ErrNotChanged, err)
		}
		return err
	})
	switch {
	case errors.Is(err, ErrNoUser):
		return ErrInvalidActivation
	case err != nil:
		return wrap("redeem", err)
	}
	s.refusals.end(a.Hash, "redeemed")
	s.events.log(ctx, passwordChanged, append(callerAttrs(ctx), "user", user.ID)...)
	s.noteQueued(ctx)
	s.direct.wakeRun()
	return nil
}

// hashPassword looks again, once there is a slot, whether the activation is still
// worth the work.
func (s *Service) hashPassword(ctx context.Context, a Activation, password string) (string, error) {
	live := func() error {
		_, err := s.cfg.Store.Find(ctx, s.clock.now(ctx), a.Hash)
		if err != nil {
			err = wrap("find", err)
		}
		return err
	}
	return s.hashing.hash(ctx, live, func() (string, error) { return s.cfg.Users.HashPassword(ctx, password) })
}

// Revoke ends every activation of a user and removes the queued mails that
// would bring new ones. The host calls it when a password or an address was
// changed by other means. Inside a transaction of its own on the store's
// database the host passes the context of storebun.WithTx; on SQLite Revoke
// would otherwise wait for that transaction until it fails.
func (s *Service) Revoke(ctx context.Context, userID string) error {
	return s.revoke(ctx, s.clock.last(), userID, time.Time{})
}

func (s *Service) revoke(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
	err := s.cfg.Observe.run(ctx, "revoke", func(ctx context.Context) error { return s.cfg.Store.Revoke(ctx, now, userID, quiet) })
	if err != nil {
		return wrap("revoke", err)
	}
	return nil
}

// revokeBy revokes for the user of an activation, who gets no public mail for a TTL.
func (s *Service) revokeBy(ctx context.Context, activation string) error {
	a, _, err := s.find(ctx, activation)
	if err != nil {
		return err
	}
	now := s.clock.now(ctx)
	if err := s.revoke(ctx, now, a.UserID, now.Add(s.cfg.TTL)); err != nil {
		return err
	}
	s.refusals.end(a.Hash, "revoked")
	s.events.log(ctx, revokedByUser, append(callerAttrs(ctx), "user", a.UserID)...)
	return nil
}

// noteStart informs the operator, once, of what was configured.
func (s *Service) noteStart() {
	if s.startLogged.CompareAndSwap(false, true) {
		s.events.log(context.Background(), started, s.cfg.attrs()...)
	}
}

// noteQueued informs the operator, once, of mail that no Run here sends, and of
// mail that no Run anywhere sends in time.
func (s *Service) noteQueued(ctx context.Context) {
	if !s.running.Load() && s.runWarned.CompareAndSwap(false, true) {
		s.events.log(ctx, runElsewhere)
	}
	s.figures.warnIfLate(ctx, s.clock.now(ctx))
}
