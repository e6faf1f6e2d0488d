package reset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

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

	// APIKeys are the keys that Handler accepts, each of at least 32 random
	// characters of visible ASCII, such as those that
	// "openssl rand -base64 32" prints. Several may be active, for rotation.
	// Handler panics without any.
	APIKeys []string

	// AllowedOrigins are the origins of single-page apps that may call the JSON
	// routes of Pages, beside the origin of BaseURL: exactly "https://host" or
	// "https://host:port", or http on a loopback address. Their requests get
	// CORS headers, without credentials. Defaults to none.
	AllowedOrigins []string
	// ResetURL is where mailed links lead, for single-page apps. It is on the
	// origin of BaseURL or one of AllowedOrigins and gets the query parameter
	// "activation". Defaults to BaseURL + "/reset".
	ResetURL string
	// RevokeURL is where the links of "it wasn't me" lead, likewise. Defaults to
	// BaseURL + "/revoke".
	RevokeURL string
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

	// Realm names whose records these are, where several applications or brands
	// share a store: each needs a realm of its own, of at most 64 bytes. The
	// Store must be a RealmStore. Defaults to "", the realm of a store that is
	// not shared.
	Realm string
	// TTL is how long a request lives, 5 minutes to 24 hours. Defaults to 60
	// minutes.
	TTL time.Duration
	// MaxRequests is how many live requests a user may have, unless a trusted
	// caller says otherwise. Defaults to 3.
	MaxRequests int
	// MaxRequestsCeiling is the highest MaxRequests of a trusted caller, at
	// most 10,000. Defaults to 100.
	MaxRequestsCeiling int
	// MaxMailsPerHour and MaxMailsPerDay are how many public requests are mailed
	// to one user in any hour and in any 24 hours, whatever TTL is and whatever
	// becomes of them, 1 to 1,000. Further ones are dropped in silence. So are
	// those that come within TTL after the user revoked a request that somebody
	// else had made. They default to 3 and 12. Mail for trusted callers and
	// notifications do not count.
	MaxMailsPerHour int
	MaxMailsPerDay  int
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
	// points, 8 to a quarter of MaxPasswordBytes. Defaults to 8; NIST SP
	// 800-63B-4, 3.1.1.2, advises 15 where the password is the only factor.
	MinPassword int
	// MaxPasswordBytes is the length of the longest password in bytes, 64 to
	// 1,024. Set it to 72 for bcrypt, which ignores or refuses the bytes after
	// that: longer passwords are then refused, and the pages say what fits.
	// Defaults to 1,024, what 256 code points need; more of these are never
	// accepted.
	MaxPasswordBytes int
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
	// MaxQueued is how many mails that have not expired may be queued, at least
	// 1,000. Beyond it public requests are refused, alike for everybody, until
	// there is room; trusted ones are not. The count is some seconds old, and
	// needs a [StatsStore].
	// Defaults to 1,000,000, which is some 200 MB of a database.
	MaxQueued int
	// KeepHistory is for how long [Service.History] says what became of a user's
	// requests and mail, 24 hours to 90 days. It needs a [HistoryStore]. Set it
	// alike in all processes of a database: mail that expires is noted by
	// whichever removes it. Defaults to 7 days; a negative one turns
	// it off.
	KeepHistory time.Duration
	// Observe is called for every operation, for metrics and traces; package
	// resetotel has one for OpenTelemetry. Defaults to none.
	Observe Observation
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
	//	       over_budget, revoked_by_user, key_refused,
	//	       activation_refused, foreign_post, app_not_json,
	//	       client_limited, limiter_full, proxy_unknown, user_ambiguous,
	//	       user_mismatch, clock_skew, mail_purged, queue_late,
	//	       queue_full, workers_few, mailer_throttled, mailer_failing,
	//	       base_url_mismatch, base_url_conflict, body_consumed, busy,
	//	       transaction_not_used
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
	defaultPerHour     = 3
	defaultPerDay      = 12
	maxMails           = 1000 // an hour, a day
	maxCeiling         = 10_000
	defaultMinPassword = 8
	defaultWorkers     = defaultPerClient // a burst of one client keeps no mail waiting
	maxWorkers         = 1000
	minQueued          = 1000
	defaultQueued      = 1_000_000
	defaultPerClient   = 20 // a minute
	minHistory         = 24 * time.Hour
	defaultHistory     = 7 * 24 * time.Hour
	maxHistory         = 90 * 24 * time.Hour
	minKeyLength       = 32 // characters
)

// mistakes are what is wrong with a Config, each with its field.
type mistakes []error

func (m *mistakes) add(field string, err error) {
	if err != nil {
		*m = append(*m, fmt.Errorf("reset: Config.%s: %w", field, err))
	}
}

// checkConfig checks every field and fills in the defaults. Its error joins all
// mistakes, a line for each.
func checkConfig(c *Config) (base *url.URL, render *ui.Renderer, err error) {
	var m mistakes
	m.add("Users", given(c.Users))
	if err := given(c.Store); err != nil {
		m.add("Store", err)
	} else {
		c.Store, err = realmOf(c.Store, c.Realm)
		m.add("Realm", err)
	}
	if err := given(c.Mailer); err != nil {
		m.add("Mailer", err)
	} else if mailer, ok := c.Mailer.(interface{ Check() error }); ok {
		m.add("Mailer", mailer.Check())
	}
	for _, optional := range []struct {
		field string
		value any
	}{{"PerClient", c.PerClient}, {"PerAddress", c.PerAddress}, {"Templates", c.Templates}} {
		if optional.value != nil {
			m.add(optional.field, given(optional.value))
		}
	}

	base = checkURLs(c, &m)
	m.add("SignInURL", checkLink(c.SignInURL, "https", "http"))
	m.add("SupportURL", checkLink(c.SupportURL, "https", "http", "mailto"))
	for i, key := range c.APIKeys {
		m.add(fmt.Sprintf("APIKeys[%d]", i), checkKey(key))
	}

	inRange(&m, "TTL", &c.TTL, minTTL, defaultTTL, maxTTL)
	inRange(&m, "MaxRequestsCeiling", &c.MaxRequestsCeiling, 1, defaultCeiling, maxCeiling)
	ceiling := max(1, c.MaxRequestsCeiling) // which may be a mistake
	inRange(&m, "MaxRequests", &c.MaxRequests, 1, min(defaultMaxRequests, ceiling), ceiling)
	inRange(&m, "MaxMailsPerHour", &c.MaxMailsPerHour, 1, defaultPerHour, maxMails)
	inRange(&m, "MaxMailsPerDay", &c.MaxMailsPerDay, 1, defaultPerDay, maxMails)
	checkLengths(c, &m)
	inRange(&m, "Workers", &c.Workers, 1, defaultWorkers, maxWorkers)
	inRange(&m, "MaxQueued", &c.MaxQueued, minQueued, defaultQueued, math.MaxInt32)
	if c.KeepHistory >= 0 {
		inRange(&m, "KeepHistory", &c.KeepHistory, minHistory, defaultHistory, maxHistory)
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
	brand := ui.Brand(c.Brand)
	if err := brand.Check(base); err != nil {
		m = append(m, fmt.Errorf("reset: Config.Brand.%w", err))
		brand = ui.Brand{Name: "Brand"} // for the templates, which may be wrong too
	}
	if given(c.Templates) == nil || c.Templates == nil {
		render, err = ui.New(ui.Options{
			Brand:       brand,
			Templates:   c.Templates,
			BaseURL:     c.BaseURL,
			SignInURL:   c.SignInURL,
			SupportURL:  c.SupportURL,
			TTL:         c.TTL,
			MinPassword: c.MinPassword,
			MaxPassword: maxCharacters(c.MaxPasswordBytes),
			CountsBytes: c.MaxPasswordBytes < maxPasswordBytes,
		})
		m.add("Templates", err)
	}
	return base, render, errors.Join(m...)
}

// checkLengths checks the limits of a password's length.
func checkLengths(c *Config, m *mistakes) {
	if n := c.MaxPasswordBytes; n != 0 && n < minPasswordLimit {
		m.add("MaxPasswordBytes", fmt.Errorf("%d is less than %d, the characters that NIST SP 800-63B-4 asks for: set 72 for bcrypt, or hash with argon2id or scrypt", n, minPasswordLimit))
		c.MaxPasswordBytes = 0
	}
	inRange(m, "MaxPasswordBytes", &c.MaxPasswordBytes, minPasswordLimit, maxPasswordBytes, maxPasswordBytes)
	inRange(m, "MinPassword", &c.MinPassword, defaultMinPassword, defaultMinPassword, maxPasswordRunes)
	if n := c.MinPassword; n <= maxPasswordRunes && n*utf8.UTFMax > c.MaxPasswordBytes && c.MaxPasswordBytes >= minPasswordLimit {
		m.add("MinPassword", fmt.Errorf("%d characters may need %d bytes, and MaxPasswordBytes is %d", n, n*utf8.UTFMax, c.MaxPasswordBytes))
	}
}

// maxCharacters returns how many characters the longest password has at most.
func maxCharacters(maxBytes int) int { return min(maxBytes, maxPasswordRunes) }

// given refuses what a host has forgotten to set, or has set to a nil pointer.
func given(v any) error {
	if v == nil {
		return errors.New("required")
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Chan:
		if r.IsNil() {
			return fmt.Errorf("a nil %T", v)
		}
	}
	return nil
}

// unset is what an empty value says of where it comes from.
const unset = "is empty: if it comes from an environment variable, that is not set"

// checkURLs checks the URLs that secrets are sent to, and the origins they may
// have. It returns some URL if BaseURL is none.
func checkURLs(c *Config, m *mistakes) (base *url.URL) {
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	base, err := checkURL(c.BaseURL)
	baseIsWrong := err != nil
	if baseIsWrong {
		m.add("BaseURL", err)
		base = &url.URL{Scheme: "https", Host: "example.com"}
	}
	origins := []string{originOf(base)}
	for i, origin := range c.AllowedOrigins {
		u, err := checkURL(origin)
		if origin != "" && !strings.Contains(origin, "//") {
			err = quoted(origin, "is not an origin, such as https://app.example.com")
		}
		if err == nil && originOf(u) != origin {
			err = quoted(origin, "is not an origin as browsers send it: want %s", originOf(u))
		}
		m.add(fmt.Sprintf("AllowedOrigins[%d]", i), err)
		origins = append(origins, origin)
	}
	for _, link := range []struct {
		field, route string
		value        *string
	}{{"ResetURL", "/reset", &c.ResetURL}, {"RevokeURL", "/revoke", &c.RevokeURL}} {
		if *link.value == "" {
			*link.value = c.BaseURL + link.route
			continue
		}
		u, err := checkURL(*link.value)
		if err == nil && !baseIsWrong && !slices.Contains(origins, originOf(u)) {
			err = quoted(*link.value, "is neither on the origin of BaseURL, %s, nor on one of AllowedOrigins", origins[0])
		}
		m.add(link.field, err)
	}
	return base
}

// originOf returns the origin as browsers write it: in lower case, without the
// default port (RFC 6454, 6.1).
func originOf(u *url.URL) string {
	host := strings.ToLower(u.Host)
	defaultPort := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]
	return u.Scheme + "://" + strings.TrimSuffix(host, defaultPort)
}

// inRange fills in the default, and checks the limits.
func inRange[T int | time.Duration](m *mistakes, field string, v *T, low, def, high T) {
	if *v == 0 {
		*v = def
	}
	if *v < low || *v > high {
		m.add(field, fmt.Errorf("%v is not between %v and %v", *v, low, high))
	}
}

// quoted returns an error about a URL, without its userinfo.
func quoted(s, format string, args ...any) error {
	if at := strings.LastIndex(s, "@"); at >= 0 {
		scheme, _, ok := strings.Cut(s, "//")
		if !ok {
			scheme = ""
		}
		s = scheme + "//…" + s[at:]
	}
	return fmt.Errorf("%q "+format, append([]any{s}, args...)...)
}

const hostBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"

// checkURL parses a URL that secrets are sent to.
func checkURL(s string) (*url.URL, error) {
	if s == "" {
		return nil, errors.New(unset)
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, quoted(s, "is not a URL")
	}
	port, _ := strconv.Atoi(cmp.Or(u.Port(), "443"))
	ip, _ := netip.ParseAddr(u.Hostname())
	switch {
	case u.Scheme == "" || u.Opaque != "" || u.Host == "" && !strings.Contains(s, "//"):
		return nil, quoted(s, "is not an absolute URL, such as https://app.example.com/account")
	case u.Hostname() == "":
		return nil, quoted(s, "has no host: if that comes from an environment variable, it is not set")
	case !ip.IsValid() && strings.Trim(u.Hostname(), hostBytes) != "" || ip.Zone() != "":
		return nil, quoted(s, "has a host that is neither a name in ASCII (xn--… for others) nor an IP address")
	case port < 1 || port > 65535:
		return nil, quoted(s, "has a port that is not between 1 and 65535")
	case strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("\"<>\\^`{|}", c) }):
		return nil, quoted(s, "has characters that must be percent-encoded")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#"):
		return nil, quoted(s, "has userinfo, a query or a fragment")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, quoted(s, "is http, and not on a loopback address: links carry secrets. %s", secureWay(u))
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, quoted(s, "is neither https nor http on a loopback address")
	}
	return u, nil
}

// secureWay says how to get away from http.
func secureWay(u *url.URL) string {
	if strings.HasSuffix(u.Hostname(), ".localhost") {
		local := url.URL{Scheme: "http", Host: "localhost", Path: u.Path}
		if port := u.Port(); port != "" {
			local.Host += ":" + port
		}
		return "Use " + local.String() + ", or https"
	}
	return "Use https, in a local network with a certificate of your own (mkcert, or Caddy's tls internal), or http://localhost through a tunnel (ssh -L)"
}

// checkLink checks an optional URL that is only shown.
func checkLink(s string, schemes ...string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return quoted(s, "is not a URL")
	}
	for _, scheme := range schemes {
		if u.Scheme == scheme && (u.Host != "" || scheme == "mailto") {
			return nil
		}
	}
	if slices.Contains(schemes, "mailto") && u.Scheme == "" && strings.Contains(s, "@") {
		return fmt.Errorf("%q is not a URL: want mailto:%s", s, s)
	}
	return quoted(s, "is not an absolute URL with one of the schemes %s", strings.Join(schemes, ", "))
}

// placeholders are what keys contain that were copied from documentation.
var placeholders = []string{"example", "placeholder", "changeme", "change-me", "change_me", "your-", "your_", "-or-more", "secret"}

// minKeyVariety is how many different characters a key has at least. Of random
// keys of 32 hexadecimal digits one in 27 million has fewer.
const minKeyVariety = 8

// repeats reports whether s is a piece of at most half its length over and over.
func repeats(s string) bool {
	for n := 1; n <= len(s)/2; n++ {
		if s[n:] == s[:len(s)-n] {
			return true
		}
	}
	return false
}

// checkKey checks an API key. Its errors do not show the key.
func checkKey(key string) error {
	variety := make(map[rune]bool)
	for _, r := range key {
		variety[r] = true
	}
	lower := strings.ToLower(key)
	switch {
	case key == "":
		return errors.New(unset)
	case len(key) < minKeyLength:
		return fmt.Errorf("has %d characters, of at least %d", len(key), minKeyLength)
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }):
		return errors.New("has a character other than visible ASCII, or a comma")
	case slices.ContainsFunc(placeholders, func(s string) bool { return strings.Contains(lower, s) }):
		return errors.New("is a placeholder: use random characters, such as those of openssl rand -base64 32")
	case len(variety) < minKeyVariety || repeats(key):
		return errors.New("repeats itself: use random characters, such as those of openssl rand -base64 32")
	}
	return nil
}

// isLoopback reports whether a host name or address is this machine's.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// attrs describe a checked configuration for the operator.
func (c *Config) attrs() []any {
	limiter := func(l Limiter) string {
		if l == Unlimited {
			return "unlimited"
		}
		if b, ok := l.(interface{ Burst() int }); ok {
			return fmt.Sprintf("%T, %d at once", l, b.Burst())
		}
		return fmt.Sprintf("%T", l)
	}
	return []any{
		"links", c.ResetURL, "store", fmt.Sprintf("%T", c.Store), "mailer", fmt.Sprintf("%T", c.Mailer),
		"per_client", limiter(c.PerClient), "per_address", limiter(c.PerAddress),
		"max_requests", c.MaxRequests, "ttl", c.TTL, "workers", c.Workers,
	}
}
