// Package reset is the "I forgot my password" of a Go web app: it mails a link
// to a user who asks for one and saves a new password for the holder of the
// link. It works on the host's own accounts, database, mail server and router.
//
//	store, err := storesqlite.Open("app.db") // or storebun.New on the host's *bun.DB
//	svc, err := reset.New(reset.Config{
//		Users:   users, // the host's accounts: three methods
//		Store:   store,
//		Mailer:  &reset.SMTPMailer{Addr: "smtp.example.com:587", From: "Example <no-reply@example.com>", Username: "app", Password: secret},
//		BaseURL: "https://app.example.com/account", // where Pages is mounted
//		APIKeys: []string{os.Getenv("RESET_API_KEY")}, // only for Handler; 32 characters or more
//	})
//	var wg sync.WaitGroup
//	wg.Go(func() { svc.Run(ctx) })                                     // sends the mail
//	mux.Handle("/account/", http.StripPrefix("/account", svc.Pages())) // for browsers
//	mux.Handle("/v1/auth/", svc.Handler())                             // for trusted back ends
//	// at the end: srv.Shutdown(…); cancel ctx; wg.Wait(); store.Close()
//
// # Two faces
//
// [Service.Pages] and [Service.Forgot] are for the public. What they answer,
// and how fast, never depends on who has an account: they write down what was
// asked, and [Service.Run] looks the user up and mails later. A link is mailed
// to the address that the host has stored, never to the one that was typed.
//
// [Service.Handler] and [Service.RequestReset] are for back ends that hold an
// API key, or that are the host itself. They do tell who has an account, and
// they give out activations, the secrets that mailed links carry. Whoever holds
// an activation can take the account over.
//
// # What the package promises
//
// An activation works once, also if it is used many times at the same moment; a
// changed password ends every other one of its user. A user has at most
// [Config.MaxRequests] live requests, also under parallel public requests. An accepted
// request is mailed at least once, through crashes and outages, unless it
// expires first. Opening a link uses nothing up, so mail scanners do no harm.
// Only SHA-256 hashes of activations are stored; links are made when mail is
// sent.
//
// # What the host must do
//
// Serve over https. End all sessions in [Users].SetPassword. Call
// [Service.Revoke] when a password or an address was changed by other means.
// Exempt the mount of Pages from the host's own CSRF middleware: a stricter
// check is built in. Behind a proxy, set [Config.ClientIP] to [ClientIPBehind].
// Keep the query of mailed links out of access logs, where it stands once.
//
// # Testing
//
// Package resettest has a Store in memory and a Mailbox for the host's own
// tests, as in the integration example of this package, and the suites that
// implementations of [Store], [Limiter] and [Mailer] must pass. Mail that the
// public requests for comes some seconds later, on purpose: let Mailbox.Wait have
// ten.
//
// # Compatibility
//
// The package follows semantic versioning. Interfaces here never get another
// method; what is new comes as an optional interface. The answers of Handler
// are stable to the byte.
package reset

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gopassreset/reset/internal/failpoint"
)

// The errors that callers and implementers tell apart. Errors may wrap them.
var (
	// ErrBadRequest is returned for input that can never succeed: a malformed
	// address, MaxRequests out of range, no client.
	ErrBadRequest = errors.New("reset: bad request")
	// ErrTooManyRequests is matched by every *LimitError.
	ErrTooManyRequests = errors.New("reset: too many requests")
	// ErrInvalidActivation is returned by Store.Find, Store.Redeem and
	// ChangePassword for an activation that is unknown, used, expired, revoked
	// or whose user is gone. Which of these it is cannot be told.
	ErrInvalidActivation = errors.New("reset: invalid activation")
	// ErrNoUser is returned by Users where no account may be reset.
	ErrNoUser = errors.New("reset: no such user")
	// ErrManyUsers is an ErrNoUser that Users.FindByEmail returns where several
	// accounts have the address. None of them is reset, and an event tells.
	ErrManyUsers = fmt.Errorf("%w: several have the address", ErrNoUser)
	// ErrNotChanged is wrapped by Users.SetPassword to say that the password is
	// certainly as it was. It matters where the users are not in the store's
	// database: any other error leaves the user's activations used up.
	ErrNotChanged = errors.New("reset: password not changed")
	// ErrUndeliverable is wrapped by Mailer.Send to give a mail up.
	ErrUndeliverable = errors.New("reset: undeliverable")
	// ErrGone is returned by Store.Issue when the mail's lease is lost, or the
	// mail is another user's.
	ErrGone = errors.New("reset: lease lost")
)

// A LimitError tells how long to wait. It matches ErrTooManyRequests.
type LimitError struct {
	RetryAfter time.Duration
	// Full says that the limiter has no room for another key: the limit is
	// not the caller's.
	Full bool
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%v: retry after %v", ErrTooManyRequests, e.RetryAfter)
}

// Is reports whether target is ErrTooManyRequests.
func (e *LimitError) Is(target error) bool { return target == ErrTooManyRequests }

// Users is the host's accounts. It is safe for use from many goroutines.
type Users interface {
	// FindByEmail returns the one user with an address, given in its canonical
	// form: hosts keep the [CanonicalAddress] of each in a unique column and
	// compare with that. lower(email) finds plain ASCII addresses only: SQLite
	// lowers no other letters, and no database knows IDNA. It returns ErrNoUser
	// where there is none and where the account must not be reset by mail:
	// disabled, single sign-on, administrators; and ErrManyUsers where there are
	// several.
	FindByEmail(ctx context.Context, address string) (User, error)
	// HashPassword returns what SetPassword is to save. It is slow on purpose
	// and runs outside of any transaction; at most GOMAXPROCS calls run at once.
	HashPassword(ctx context.Context, password string) (string, error)
	// SetPassword saves the hash and ends every session of the user. A store in
	// the users' database hands it a transaction through ctx (storebun.IDB);
	// then it returns every error of the transaction and runs no statement
	// again: after a deadlock the database has undone all of it.
	// It returns ErrNoUser if the user is gone, and an error that wraps
	// ErrNotChanged if nothing was changed for certain. It has 2 s on SQLite, 45
	// s where the users are not in the store's database, and otherwise as long
	// as the request.
	SetPassword(ctx context.Context, userID, hash string) error
}

// A User is an account as the host has stored it.
type User struct {
	ID    string // at most 255 bytes
	Email string // mail goes here, never to the address that was typed
	Name  string // for the mail's salutation, may be ""
	// Locale is the language of the user's mail in BCP 47, such as "de" or
	// "pt-BR". A reset mail of a user who has none is in the language of the
	// page where it was asked for, which follows that browser, and any other
	// mail in English.
	Locale string
}

// Config shapes a Service. The first four fields are required.
type Config struct {
	Users  Users
	Store  Store
	Mailer Mailer
	// BaseURL is where Pages is mounted, such as
	// "https://app.example.com/account". Links, form actions and redirects are
	// built from it, never from a Host header. It is an https URL, or http on a
	// loopback address, without query, fragment or userinfo.
	BaseURL string

	// APIKeys are the keys that Handler accepts, each of at least 32
	// characters. Several can be active for rotation. Without any, Handler
	// panics.
	APIKeys []string

	// ResetURL is where mailed links lead, for single-page apps: on the origin
	// of BaseURL, it gets the query parameter "activation". Defaults to
	// BaseURL + "/reset".
	ResetURL string
	// SignInURL is where the pages lead back to the host, above all once the
	// password has been changed: an absolute http(s) URL. Defaults to no link.
	SignInURL string
	// SupportURL is linked from pages and mail, http(s) or mailto. Defaults to
	// no link.
	SupportURL string
	// Brand is how pages and mail look. Defaults to the host of BaseURL.
	Brand Brand
	// Templates overrides files of the folders templates and locales of this
	// module one by one, by their names; templates/README.md tells how. Defaults
	// to the built-in ones.
	Templates fs.FS

	// TTL is how long a request lives, 5 minutes to 24 hours. Defaults to 60
	// minutes.
	TTL time.Duration
	// MaxRequests is how many live requests a user may have, unless a trusted
	// caller says otherwise. Defaults to 3.
	MaxRequests int
	// MaxRequestsCeiling is the most that a trusted caller may ask for, at most
	// 10,000. Defaults to 100.
	MaxRequestsCeiling int
	// PerClient limits what one client may ask for in public. Defaults to 20 at
	// once and 20 more over each minute, in the memory of this process.
	PerClient Limiter
	// PerAddress limits the requests of trusted callers for one address, known
	// or not. Defaults to Unlimited: MaxRequests bounds the mail.
	PerAddress Limiter
	// ClientIP returns the key for PerClient of a request to Pages. Defaults to
	// ClientIPBehind(), which believes no header.
	ClientIP func(*http.Request) string
	// MinPassword is the shortest password, in Unicode code points, 8 to 256.
	// Defaults to 8; 15 is advised where the password is the only factor (NIST
	// SP 800-63B-4, 3.1.1.2).
	MinPassword int
	// CheckPassword is asked after the built-in rules, for instance to look a
	// password up among breached ones. It refuses with a *PasswordError; any
	// other error fails the change. Defaults to no further rule.
	CheckPassword func(ctx context.Context, u User, password string) error
	// Workers is how many mails Run sends at a time, 1 to 1,000. Defaults to 4.
	// A mail waits where all are at work, so that when it arrives may tell how
	// many of those before it were for users. That matters where one client may
	// ask for many addresses in the time of a few exchanges with the mail
	// server: with one worker, or with a slow server and a PerClient that is
	// much larger than Workers.
	Workers int
	// Logger gets the events, each a record with the attribute "event". No
	// record holds an activation, a link, a password or the address of somebody
	// who has no account. Defaults to slog.Default(). The events are:
	//
	//	INFO   mail_sent, password_changed, run_elsewhere
	//	WARN   mail_expired, mail_undeliverable, over_cap, revoked_by_user,
	//	       limiter_full, proxy_unknown, user_ambiguous, user_mismatch
	//	ERROR  mail_failed, request_failed, limiter_failed, lease_failed,
	//	       settle_failed, purge_failed, panic
	Logger *slog.Logger
}

// Brand is what pages and mail show of the host.
type Brand struct {
	Name  string // defaults to the host name of BaseURL
	Logo  string // path or URL of an image on the origin of BaseURL, for pages; defaults to the name in letters
	Color string // of buttons and links, "#rrggbb"; defaults to a dark blue
}

const (
	minTTL, defaultTTL, maxTTL = 5 * time.Minute, time.Hour, 24 * time.Hour
	notificationTTL            = 24 * time.Hour
	defaultMaxRequests         = 3
	defaultCeiling             = 100
	defaultMinPassword         = 8
	defaultWorkers             = 4
	minKeyLength               = 32
	maxUserID                  = 255 // bytes
	limiterPatience            = 200 * time.Millisecond
	hashPatience               = 5 * time.Second
	maxPublicDelay             = 2 * time.Second
)

// A Service resets passwords. It is safe for use from many goroutines.
type Service struct {
	cfg    Config
	base   *url.URL
	render *renderer
	log    *slog.Logger
	random io.Reader
	hash   chan struct{} // a slot for each HashPassword at work
	wake   chan struct{} // tells Run that mail is due

	proxyKnown bool        // the host has said how to tell clients apart
	warned     atomic.Bool // that proxyKnown should be
	ran        atomic.Bool // Run was called
	told       atomic.Bool // that it was not
}

// New checks cfg and returns a Service. Its error names the field at fault.
// New starts nothing: mail is sent while Run runs.
func New(cfg Config) (*Service, error) {
	proxyKnown := cfg.ClientIP != nil
	base, err := checkConfig(&cfg)
	if err != nil {
		return nil, err
	}
	r, err := newRenderer(&cfg)
	if err != nil {
		return nil, fmt.Errorf("reset: Config.Templates: %w", err)
	}
	return &Service{
		cfg:    cfg,
		base:   base,
		render: r,
		log:    cfg.Logger,
		random: rand.Reader,
		hash:   make(chan struct{}, runtime.GOMAXPROCS(0)),
		wake:   make(chan struct{}, 1),

		proxyKnown: proxyKnown,
	}, nil
}

// checkConfig fills in the defaults.
func checkConfig(c *Config) (base *url.URL, err error) {
	switch {
	case c.Users == nil:
		return nil, errors.New("reset: Config.Users is required")
	case c.Store == nil:
		return nil, errors.New("reset: Config.Store is required")
	case c.Mailer == nil:
		return nil, errors.New("reset: Config.Mailer is required")
	}
	if m, ok := c.Mailer.(interface{ Check() error }); ok {
		if err := m.Check(); err != nil {
			return nil, fmt.Errorf("reset: Config.Mailer: %w", err)
		}
	}
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	if base, err = checkURL(c.BaseURL); err != nil {
		return nil, fmt.Errorf("reset: Config.BaseURL: %w", err)
	}
	if c.ResetURL == "" {
		c.ResetURL = c.BaseURL + "/reset"
	}
	if u, err := checkURL(c.ResetURL); err != nil {
		return nil, fmt.Errorf("reset: Config.ResetURL: %w", err)
	} else if u.Scheme != base.Scheme || u.Host != base.Host {
		return nil, errors.New("reset: Config.ResetURL: not on the origin of BaseURL")
	}
	if err := checkLink(c.SignInURL, "https", "http"); err != nil {
		return nil, fmt.Errorf("reset: Config.SignInURL: %w", err)
	}
	if err := checkLink(c.SupportURL, "https", "http", "mailto"); err != nil {
		return nil, fmt.Errorf("reset: Config.SupportURL: %w", err)
	}
	for i, key := range c.APIKeys {
		if len(key) < minKeyLength {
			return nil, fmt.Errorf("reset: Config.APIKeys[%d]: shorter than %d characters", i, minKeyLength)
		}
		if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }) {
			return nil, fmt.Errorf("reset: Config.APIKeys[%d]: has a character other than visible ASCII, or a comma", i)
		}
	}
	if c.TTL, err = inRange(c.TTL, minTTL, defaultTTL, maxTTL); err != nil {
		return nil, fmt.Errorf("reset: Config.TTL: %w", err)
	}
	if c.MaxRequestsCeiling, err = inRange(c.MaxRequestsCeiling, 1, defaultCeiling, 10_000); err != nil {
		return nil, fmt.Errorf("reset: Config.MaxRequestsCeiling: %w", err)
	}
	if c.MaxRequests, err = inRange(c.MaxRequests, 1, min(defaultMaxRequests, c.MaxRequestsCeiling), c.MaxRequestsCeiling); err != nil {
		return nil, fmt.Errorf("reset: Config.MaxRequests: %w", err)
	}
	if c.MinPassword, err = inRange(c.MinPassword, defaultMinPassword, defaultMinPassword, maxPasswordRunes); err != nil {
		return nil, fmt.Errorf("reset: Config.MinPassword: %w", err)
	}
	if c.Workers, err = inRange(c.Workers, 1, defaultWorkers, 1000); err != nil {
		return nil, fmt.Errorf("reset: Config.Workers: %w", err)
	}
	if c.PerClient == nil {
		c.PerClient = NewMemoryLimiter(20, time.Minute)
	}
	if c.PerAddress == nil {
		c.PerAddress = Unlimited
	}
	if c.ClientIP == nil {
		c.ClientIP = ClientIPBehind()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Brand.Name == "" {
		c.Brand.Name = base.Hostname()
	}
	if err := c.Brand.check(base); err != nil {
		return nil, fmt.Errorf("reset: Config.Brand.%w", err)
	}
	return base, nil
}

// inRange replaces the zero value by def.
func inRange[T int | time.Duration](v, low, def, high T) (T, error) {
	if v == 0 {
		v = def
	}
	if v < low || v > high {
		return 0, fmt.Errorf("%v is not between %v and %v", v, low, high)
	}
	return v, nil
}

const hostBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

// checkURL parses a URL that secrets may be sent to.
func checkURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	port, _ := strconv.Atoi(cmp.Or(u.Port(), "443"))
	ip, _ := netip.ParseAddr(u.Hostname())
	switch {
	case u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("not an absolute URL")
	case !ip.IsValid() && strings.Trim(u.Hostname(), hostBytes) != "" || ip.Zone() != "":
		return nil, errors.New("has a host that is neither a name in ASCII (xn--… for others) nor an IP address")
	case port < 1 || port > 65535:
		return nil, errors.New("has a port that is not between 1 and 65535")
	case strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("\"<>\\^`{|}", c) }):
		return nil, errors.New("has characters that must be percent-encoded")
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		return nil, errors.New("neither https nor http on a loopback address")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#"):
		return nil, errors.New("has userinfo, a query or a fragment")
	}
	return u, nil
}

// checkLink checks an optional URL that is only shown.
func checkLink(s string, schemes ...string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("not a URL")
	}
	for _, scheme := range schemes {
		if u.Scheme == scheme && (u.Host != "" || scheme == "mailto") {
			return nil
		}
	}
	return fmt.Errorf("not an absolute URL with one of the schemes %s", strings.Join(schemes, ", "))
}

// RequestOptions are what a trusted caller may say about a request.
type RequestOptions struct {
	// MaxRequests is how many live requests the user may have. Defaults to
	// Config.MaxRequests.
	MaxRequests int
	// PreventEmailSending leaves it to the caller to deliver the activation.
	// The request counts like any other, also for the public pages. The mail
	// that tells of the changed password is sent all the same.
	PreventEmailSending bool
}

// RequestReset is for trusted callers only. Its result, its error and its
// timing tell whether an address has an account, and the activation that it
// returns takes that account over. Never forward a browser's JSON to it (it
// could set MaxRequests), nor its answer to a browser or a log. For a form use
// Forgot or Pages.
//
// It returns the activation of a new request, 24 characters that ChangePassword
// takes, and queues a mail with another one unless that is prevented. If no
// user has the address it returns "" and no error. Errors wrap ErrBadRequest
// for a malformed address or MaxRequests out of range; they match
// ErrTooManyRequests, as a *LimitError, where the user has as many live
// requests as allowed, and then nothing has changed. Any other error is a
// failure of the host's accounts, store or limiter.
func (s *Service) RequestReset(ctx context.Context, email string, o RequestOptions) (activation string, err error) {
	address, err := CanonicalAddress(email)
	if err != nil {
		return "", err
	}
	if o.MaxRequests == 0 {
		o.MaxRequests = s.cfg.MaxRequests
	}
	if o.MaxRequests < 1 || o.MaxRequests > s.cfg.MaxRequestsCeiling {
		return "", fmt.Errorf("%w: MaxRequests: %d is not between 1 and %d", ErrBadRequest, o.MaxRequests, s.cfg.MaxRequestsCeiling)
	}
	if err := s.allow(ctx, s.cfg.PerAddress, "address", address); err != nil {
		return "", err
	}
	user, err := s.findUser(ctx, address)
	if errors.Is(err, ErrNoUser) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	now := time.Now()
	id, err := s.newID(now)
	if err != nil {
		return "", err
	}
	activation, a, err := s.mint(user, id, now.Add(s.cfg.TTL))
	if err != nil {
		return "", err
	}
	var m *Mail
	if !o.PreventEmailSending {
		m = &Mail{ID: id, Kind: MailReset, UserID: user.ID, Email: address, Due: s.ahead(now), Expires: a.Expires}
	}
	if err := s.cfg.Store.Issue(ctx, now, a, o.MaxRequests, m); err != nil {
		return "", fmt.Errorf("reset: issue: %w", err)
	}
	failpoint.Hit("issued")
	if m != nil {
		s.queuedNow(ctx)
	}
	return activation, nil
}

// Forgot takes a public request from the public: it mails a link to the user who has the
// address, if there is one. Neither its result nor its timing depends on that:
// it writes down the public request and leaves the rest to Run.
//
// client is the key for Config.PerClient, as Config.ClientIP gives it. Errors
// wrap ErrBadRequest for a malformed address or an empty client, match
// ErrTooManyRequests, as a *LimitError, or are a failure of store or limiter.
func (s *Service) Forgot(ctx context.Context, email, client string) error {
	return s.forgot(ctx, email, client, "")
}

func (s *Service) forgot(ctx context.Context, email, client, locale string) error {
	address, err := CanonicalAddress(email)
	if err != nil {
		return err
	}
	if client == "" {
		return fmt.Errorf("%w: no client", ErrBadRequest)
	}
	if err := s.allow(ctx, s.cfg.PerClient, "client", client); err != nil {
		return err
	}
	now := time.Now()
	id, err := s.newID(now)
	if err != nil {
		return err
	}
	// A random start keeps the work for a public request, and the order in which mails
	// arrive, from following at once what was asked.
	delay, err := s.randomDuration(maxPublicDelay)
	if err != nil {
		return err
	}
	err = s.cfg.Store.Enqueue(ctx, Mail{
		ID: id, Kind: MailReset, Email: address, Locale: locale,
		Due: now.Add(delay), Expires: now.Add(s.cfg.TTL),
	})
	if err != nil {
		return fmt.Errorf("reset: enqueue: %w", err)
	}
	s.queued(ctx)
	return nil
}

// ChangePassword uses an activation up: it saves the new password through
// Users.SetPassword, ends every other activation of the user and queues the
// mail that tells of the change.
//
// Errors: ErrInvalidActivation for one that is unknown, used, expired or
// revoked, or whose user is gone; a *PasswordError for a password that is
// refused. Neither uses the activation up. Any other error is a failure, of
// the host's or the store's, or too many changes at once. Whether it used the
// activation up is told by Store.Redeem.
func (s *Service) ChangePassword(ctx context.Context, activation, newPassword string) error {
	a, user, err := s.find(ctx, activation)
	if err != nil {
		return err
	}
	if err := checkPassword(user, newPassword, s.cfg.MinPassword); err != nil {
		return err
	}
	if s.cfg.CheckPassword != nil {
		if err := s.cfg.CheckPassword(ctx, user, newPassword); err != nil {
			return fmt.Errorf("reset: check password: %w", err)
		}
	}
	hash, err := s.hashPassword(ctx, a, newPassword)
	if err != nil {
		return err
	}
	now := time.Now()
	id, err := s.newID(now)
	if err != nil {
		return err
	}
	notification := Mail{
		ID: id, Kind: MailNotification, UserID: user.ID, Email: user.Email, Name: user.Name, Locale: user.Locale,
		Due: s.ahead(now), Expires: now.Add(notificationTTL),
	}
	err = s.cfg.Store.Redeem(ctx, now, a, notification, func(ctx context.Context) error {
		failpoint.Hit("claimed")
		err := s.cfg.Users.SetPassword(ctx, user.ID, hash)
		failpoint.Hit("set")
		if errors.Is(err, ErrNoUser) && !errors.Is(err, ErrNotChanged) {
			return fmt.Errorf("%w: %w", ErrNotChanged, err)
		}
		return err
	})
	switch {
	case errors.Is(err, ErrNoUser):
		return ErrInvalidActivation
	case err != nil:
		return fmt.Errorf("reset: redeem: %w", err)
	}
	s.event(ctx, slog.LevelInfo, "password_changed", "user", user.ID)
	s.queuedNow(ctx)
	return nil
}

// Revoke ends every activation of a user and takes back the mails that would
// bring new ones. The host calls it when a password or an address was changed
// by other means. Inside a transaction of its own on the store's database it
// passes the context of storebun.WithTx; on SQLite Revoke would otherwise wait
// for that transaction until it fails.
func (s *Service) Revoke(ctx context.Context, userID string) error {
	if err := s.cfg.Store.Revoke(ctx, userID); err != nil {
		return fmt.Errorf("reset: revoke: %w", err)
	}
	return nil
}

// find returns a live activation and its user, if that still has the address
// that the activation was issued for.
func (s *Service) find(ctx context.Context, activation string) (Activation, User, error) {
	h, ok := hashActivation(activation)
	if !ok {
		return Activation{}, User{}, ErrInvalidActivation
	}
	a, err := s.cfg.Store.Find(ctx, time.Now(), h)
	if err != nil {
		return Activation{}, User{}, fmt.Errorf("reset: find: %w", err)
	}
	address, err := CanonicalAddress(a.Email)
	if err != nil {
		return Activation{}, User{}, ErrInvalidActivation
	}
	user, err := s.findUser(ctx, address)
	if errors.Is(err, ErrNoUser) || err == nil && user.ID != a.UserID {
		return Activation{}, User{}, ErrInvalidActivation
	}
	return a, user, err
}

// findUser looks a user up by a canonical address and believes the answer only
// if it has that address: collations know more letters to be equal than we do.
func (s *Service) findUser(ctx context.Context, address string) (User, error) {
	user, err := s.cfg.Users.FindByEmail(ctx, address)
	if errors.Is(err, ErrManyUsers) {
		s.event(ctx, slog.LevelWarn, "user_ambiguous")
	}
	if err != nil {
		return User{}, fmt.Errorf("reset: find user: %w", err)
	}
	stored, err := CanonicalAddress(user.Email)
	if err != nil || stored != address {
		s.event(ctx, slog.LevelWarn, "user_mismatch", "user", user.ID)
		return User{}, fmt.Errorf("%w: FindByEmail returned a user with another address", ErrNoUser)
	}
	if user.ID == "" || len(user.ID) > maxUserID {
		return User{}, fmt.Errorf("reset: find user: User.ID has %d bytes, not 1 to %d", len(user.ID), maxUserID)
	}
	return user, nil
}

// hashPassword waits for its turn and then makes sure that the work is not in
// vain.
func (s *Service) hashPassword(ctx context.Context, a Activation, password string) (string, error) {
	patience := time.NewTimer(hashPatience)
	defer patience.Stop()
	select {
	case s.hash <- struct{}{}:
		defer func() { <-s.hash }()
	case <-patience.C:
		return "", errors.New("reset: hash password: too many at once")
	case <-ctx.Done():
		return "", fmt.Errorf("reset: hash password: %w", context.Cause(ctx))
	}
	if _, err := s.cfg.Store.Find(ctx, time.Now(), a.Hash); err != nil {
		return "", fmt.Errorf("reset: find: %w", err)
	}
	hash, err := s.cfg.Users.HashPassword(ctx, password)
	if err != nil {
		return "", fmt.Errorf("reset: hash password: %w", err)
	}
	return hash, nil
}

// allow asks a limiter, with patience for one that is elsewhere.
func (s *Service) allow(ctx context.Context, l Limiter, name, key string) error {
	err := s.allowInTime(ctx, l, key)
	var limit *LimitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &limit):
		s.event(ctx, slog.LevelError, "limiter_failed", "limiter", name, "error", err)
		return fmt.Errorf("reset: limit per %s: %w", name, err)
	case limit.Full:
		s.event(ctx, slog.LevelWarn, "limiter_full", "limiter", name)
	}
	return fmt.Errorf("reset: limit per %s: %w", name, limit)
}

func (s *Service) allowInTime(ctx context.Context, l Limiter, key string) error {
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limiterPatience)
	defer cancel()
	return s.noPanic(ctx, func() error {
		_, err := inTime(ctx, 0, func() (struct{}, error) { return struct{}{}, l.Allow(ctx, key, now) })
		return err
	})
}

// inTime runs f, of the host's, and returns at the latest some time after ctx
// has ended, even if f does not heed that. f then goes on for nobody. A panic
// of f is one of inTime.
func inTime[T any](ctx context.Context, patience time.Duration, f func() (T, error)) (T, error) {
	type result struct {
		value    T
		err      error
		panicked *hostPanic
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errors.New("goroutine ended")}
		defer func() {
			if p := recover(); p != nil {
				r.panicked = panicOf(p)
			}
			done <- r
		}()
		r.value, r.err = f()
	}()
	get := func(r result) (T, error) {
		if r.panicked != nil {
			panic(r.panicked)
		}
		return r.value, r.err
	}
	select {
	case r := <-done:
		return get(r)
	case <-ctx.Done():
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case r := <-done:
		return get(r)
	case <-t.C:
		var none T
		return none, fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// noPanic logs a panic of f and makes an error of it: a store that fails so
// must not end the process of its host.
func (s *Service) noPanic(ctx context.Context, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(ctx, p)
		}
	}()
	return f()
}

// A hostPanic is a panic of the host's code. It does not keep the value, which
// may hold anything, a password even.
type hostPanic struct {
	kind  string
	stack []byte
}

func (p *hostPanic) Error() string { return "panic with a " + p.kind }

// panicOf is called where the panic is recovered, for its stack.
func panicOf(p any) *hostPanic {
	if p, ok := p.(*hostPanic); ok { // of another goroutine
		return p
	}
	return &hostPanic{fmt.Sprintf("%T", p), debug.Stack()}
}

// panicked logs a panic that has just been recovered.
func (s *Service) panicked(ctx context.Context, p any) *hostPanic {
	h := panicOf(p)
	s.event(ctx, slog.LevelError, "panic", "type", h.kind, "stack", string(h.stack))
	return h
}

// mint makes an activation and its record.
func (s *Service) mint(u User, request ID, expires time.Time) (string, Activation, error) {
	var b [18]byte
	if _, err := io.ReadFull(s.random, b[:]); err != nil {
		return "", Activation{}, fmt.Errorf("reset: random source: %w", err)
	}
	activation := base64.RawURLEncoding.EncodeToString(b[:])
	return activation, Activation{
		Hash: sha256.Sum256([]byte(activation)), Request: request, UserID: u.ID, Email: u.Email, Expires: expires,
	}, nil
}

// hashActivation returns the hash of anything that has the form of an
// activation.
func hashActivation(activation string) (Hash, bool) {
	// 24 characters that decode to 18 bytes: no padding, none of the newlines
	// that the decoder would pass over.
	b, err := base64.RawURLEncoding.Strict().DecodeString(activation)
	if err != nil || len(b) != 18 || len(activation) != 24 {
		return Hash{}, false
	}
	return sha256.Sum256([]byte(activation)), true
}

func (s *Service) newID(now time.Time) (id ID, err error) {
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	if _, err := io.ReadFull(s.random, id[6:]); err != nil {
		return ID{}, fmt.Errorf("reset: random source: %w", err)
	}
	return id, nil
}

// randomDuration returns a duration in [0, most), uniform to the millisecond.
func (s *Service) randomDuration(most time.Duration) (time.Duration, error) {
	n, err := rand.Int(s.random, big.NewInt(most.Milliseconds()))
	if err != nil {
		return 0, fmt.Errorf("reset: random source: %w", err)
	}
	return time.Duration(n.Int64()) * time.Millisecond, nil
}

// ahead returns when mail is due that goes before all public requests, however many wait:
// no public request lives longer than TTL, and Lease begins with what is due longest.
func (s *Service) ahead(now time.Time) time.Time { return now.Add(-s.cfg.TTL) }

// queued tells the operator, once, if mail was queued that nobody here sends.
func (s *Service) queued(ctx context.Context) {
	if !s.ran.Load() && s.told.CompareAndSwap(false, true) {
		s.event(ctx, slog.LevelInfo, "run_elsewhere", "hint", "mail is queued, and sent by a process that calls Run")
	}
}

// queuedNow also tells Run, for mail that is due.
func (s *Service) queuedNow(ctx context.Context) {
	s.queued(ctx)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// event logs one record.
func (s *Service) event(ctx context.Context, level slog.Level, name string, attrs ...any) {
	s.log.Log(ctx, level, "reset: "+strings.ReplaceAll(name, "_", " "), append([]any{"event", name}, attrs...)...)
}
