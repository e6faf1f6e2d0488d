package reset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gopassreset/reset/internal/ui"
)

// Config configures a Service. The first four fields are required.
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
	// characters. Several may be active, for rotation. Handler panics without
	// any.
	APIKeys []string

	// ResetURL is where mailed links lead, for single-page apps. It is on the
	// origin of BaseURL and gets the query parameter "activation". Defaults to
	// BaseURL + "/reset".
	ResetURL string
	// SignInURL is the host's sign-in page, which the pages link to: an
	// absolute http(s) URL. Defaults to no link.
	SignInURL string
	// SupportURL is linked from pages and mail: an http(s) or mailto URL.
	// Defaults to no link.
	SupportURL string
	// Brand is the look of pages and mail. Defaults to the host of BaseURL.
	Brand Brand
	// Templates overrides single files of the built-in templates and locales,
	// by name; see docs/templates.md. Defaults to the built-in ones.
	Templates fs.FS

	// TTL is how long a request lives, 5 minutes to 24 hours. Defaults to 60
	// minutes.
	TTL time.Duration
	// MaxRequests is how many live requests a user may have, unless a trusted
	// caller says otherwise. Defaults to 3.
	MaxRequests int
	// MaxRequestsCeiling is the highest MaxRequests of a trusted caller, at
	// most 10,000. Defaults to 100.
	MaxRequestsCeiling int
	// PerClient limits the public requests of one client. Defaults to 20 at
	// once and 20 more over each minute, in the memory of this process.
	PerClient Limiter
	// PerAddress limits the requests of trusted callers for one address, with
	// or without an account. Defaults to Unlimited, since MaxRequests bounds
	// the mail.
	PerAddress Limiter
	// ClientIP returns the client of a request to Pages, the key for PerClient.
	// Defaults to ClientIPBehind(), which trusts no header.
	ClientIP func(*http.Request) string
	// MinPassword is the length of the shortest password in Unicode code
	// points, 8 to 256. Defaults to 8; NIST SP 800-63B-4, 3.1.1.2, advises 15
	// where the password is the only factor.
	MinPassword int
	// CheckPassword is called after the built-in rules, for instance to look a
	// password up among breached ones. It refuses a password with a
	// *PasswordError; any other error fails the change. Defaults to no further
	// rule.
	CheckPassword func(ctx context.Context, u User, password string) error
	// Workers is how many mails Run sends at a time, 1 to 1,000. Defaults to 20,
	// the burst that the default PerClient allows one client. While all workers
	// are busy mail waits, so its arrival time can reveal how many earlier
	// requests matched real users. New logs workers_few if PerClient reports a
	// greater burst than that. Workers of all processes together should fit what
	// the mail system takes at a time.
	Workers int
	// Logger receives the events, each a record with the attribute "event". No
	// record holds an activation, a link, a password, or an address that may
	// belong to nobody. An event whose rate strangers decide has the attribute
	// "count": the first is logged at once, and those like it that follow, as one
	// record a minute. Defaults to slog.Default(). The events are:
	//
	//	DEBUG  bad_request
	//	INFO   mail_sent, password_changed, mailer_recovered, started,
	//	       run_elsewhere, trusted_request, public_request
	//	WARN   mail_expired, mail_undeliverable, mail_unconfirmed, over_cap,
	//	       revoked_by_user, key_refused, activation_refused, foreign_post,
	//	       client_limited, limiter_full, proxy_unknown, user_ambiguous,
	//	       user_mismatch, workers_few, mailer_throttled, mailer_failing,
	//	       base_url_mismatch, body_consumed, busy
	//	ERROR  mail_failed, mailer_failed, request_failed, limiter_failed,
	//	       lease_failed, settle_failed, purge_failed, panic
	Logger *slog.Logger
}

// Brand is what pages and mail show of the host.
type Brand struct {
	Name  string // defaults to the host name of BaseURL
	Logo  string // path or URL of an image on the origin of BaseURL, for pages; defaults to the name in letters
	Color string // of buttons and links, "#rrggbb"; defaults to a dark blue
}

const (
	minTTL             = 5 * time.Minute
	defaultTTL         = time.Hour
	maxTTL             = 24 * time.Hour
	defaultMaxRequests = 3
	defaultCeiling     = 100
	maxCeiling         = 10_000
	defaultMinPassword = 8
	defaultWorkers     = defaultPerClient // a burst of one client keeps no mail waiting
	maxWorkers         = 1000
	defaultPerClient   = 20 // a minute
	minKeyLength       = 32 // characters
)

// checkConfig checks every field and fills in the defaults.
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
	if c.MaxRequestsCeiling, err = inRange(c.MaxRequestsCeiling, 1, defaultCeiling, maxCeiling); err != nil {
		return nil, fmt.Errorf("reset: Config.MaxRequestsCeiling: %w", err)
	}
	if c.MaxRequests, err = inRange(c.MaxRequests, 1, min(defaultMaxRequests, c.MaxRequestsCeiling), c.MaxRequestsCeiling); err != nil {
		return nil, fmt.Errorf("reset: Config.MaxRequests: %w", err)
	}
	if c.MinPassword, err = inRange(c.MinPassword, defaultMinPassword, defaultMinPassword, maxPasswordRunes); err != nil {
		return nil, fmt.Errorf("reset: Config.MinPassword: %w", err)
	}
	if c.Workers, err = inRange(c.Workers, 1, defaultWorkers, maxWorkers); err != nil {
		return nil, fmt.Errorf("reset: Config.Workers: %w", err)
	}
	if c.PerClient == nil {
		c.PerClient = NewMemoryLimiter(defaultPerClient, time.Minute)
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
	if err := ui.Brand(c.Brand).Check(base); err != nil {
		return nil, fmt.Errorf("reset: Config.Brand.%w", err)
	}
	return base, nil
}

// inRange returns v, or def for the zero value, if it is between low and high.
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

// checkURL parses a URL that secrets are sent to.
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

// isLoopback reports whether a host name or address is this machine's.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
