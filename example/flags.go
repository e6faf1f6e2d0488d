package main

import (
	"cmp"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

// minKey is the shortest API key that the library takes.
const minKey = 32

// options are the flags, checked.
type options struct {
	addr string
	base string // scheme and host; "": as the listener has it
	db   source
	smtp *reset.SMTPMailer // nil: the inbox page

	apiKey       string
	keyGenerated bool

	users                 int
	perAddress, perClient reset.Limiter // nil: the library's default
}

// parseFlags returns flag.ErrHelp once it has shown the flags. No error repeats
// a value that may have a password in it.
func parseFlags(args []string, help io.Writer) (options, error) {
	fs := flag.NewFlagSet("example", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	addr := fs.String("addr", "127.0.0.1:8080", "listen on `HOST:PORT`")
	db := fs.String("db", "", "keep everything in this `FILE`, or in postgres://user:pass@host:port/db or mysql://user:pass@host:port/db (default a file in a temporary folder)")
	smtp := fs.String("smtp", "", "send mail through `smtp://[user:pass@]host:port[?tls=starttls|implicit|none]` (default the page /inbox)")
	apiKey := fs.String("api-key", "", "the `KEY` of trusted back ends, of at least 32 characters (default one that is made up and printed)")
	base := fs.String("url", "", "the `BASE` of this host's URLs as browsers see it, such as https://demo.example.com (default http://ADDR)")
	users := fs.Int("users", 0, "create user0000001@example.com up to the `N`th, with alice's password, for load tests")
	perAddress := fs.String("per-address", "0", "let trusted back ends make `N` requests an hour for one address; 0: no limit")
	perClient := fs.String("per-client", "", "let one client make `N` requests an hour in public; 0: no limit (default 20 a minute)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(help, "Usage of example:")
			fs.SetOutput(help)
			fs.PrintDefaults()
		}
		return options{}, err
	}
	if fs.NArg() > 0 {
		return options{}, fmt.Errorf("what is %q? There are flags only", fs.Arg(0))
	}

	o := options{addr: *addr, apiKey: *apiKey, users: *users}
	var err error
	check := func(name string, e error) {
		if e != nil && err == nil {
			err = fmt.Errorf("-%s: %w", name, e)
		}
	}
	var e error
	o.base, e = parseBase(*base)
	check("url", e)
	check("addr", checkAddr(o.addr, o.base))
	o.db, e = sourceOf(*db)
	check("db", e)
	o.smtp, e = parseSMTP(*smtp, o.base)
	check("smtp", e)
	if o.apiKey == "" {
		o.apiKey, o.keyGenerated = rand.Text()+rand.Text(), true
	}
	if len(o.apiKey) < minKey {
		check("api-key", fmt.Errorf("has %d characters, at least %d are needed", len(o.apiKey), minKey))
	}
	if o.users < 0 {
		check("users", errors.New("is negative"))
	}
	o.perAddress, e = parseLimit(*perAddress)
	check("per-address", e)
	o.perClient, e = parseLimit(*perClient)
	check("per-client", e)
	return o, err
}

// parseBase takes an origin, with TLS unless it is on this machine: mailed
// links lead there.
func parseBase(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(strings.TrimSuffix(s, "/"))
	switch {
	case err != nil || u.Host == "":
		return "", errors.New("is not of the form https://host or http://localhost:port")
	case u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.User != nil:
		return "", errors.New("has more than a scheme, a host and a port")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return "", errors.New("must be https, or http on this machine's loopback address")
	}
	return u.Scheme + "://" + u.Host, nil
}

// checkAddr makes sure that there is a URL for addr.
func checkAddr(addr, base string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not of the form host:port", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port", port)
	}
	if base == "" && !isLoopback(host) && !isUnspecified(host) {
		return fmt.Errorf("%q is not this machine's loopback address: give its https URL with -url", host)
	}
	return nil
}

// baseOf returns the URL of a listener that checkAddr has approved.
func baseOf(addr string, listening net.Addr) string {
	host, _, _ := net.SplitHostPort(addr)
	if isUnspecified(host) {
		host = "127.0.0.1"
	}
	_, port, _ := net.SplitHostPort(listening.String())
	return "http://" + net.JoinHostPort(host, port)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func isUnspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// parseSMTP returns nil for "".
func parseSMTP(s, base string) (*reset.SMTPMailer, error) {
	if s == "" {
		return nil, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "smtp" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.Fragment != "" {
		return nil, errors.New("is not of the form smtp://[user:pass@]host:port[?tls=starttls|implicit|none]")
	}
	m := &reset.SMTPMailer{Addr: u.Host, Username: u.User.Username()}
	m.Password, _ = u.User.Password()
	m.From = "Harbour <" + sender(m.Username, base) + ">"

	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("has a malformed query")
	}
	tls := query.Get("tls")
	delete(query, "tls")
	if len(query) > 0 {
		return nil, errors.New("knows the parameter tls only")
	}
	switch tls {
	case "": // implicit on port 465, STARTTLS on others
	case "starttls":
		if u.Port() == "465" {
			return nil, errors.New("tls=starttls is not for port 465, where TLS comes first")
		}
	case "implicit":
		m.ImplicitTLS = true
	case "none":
		m.InsecureNoTLS = true
	default:
		return nil, errors.New("tls is none of starttls, implicit and none")
	}
	return m, m.Check()
}

// sender guesses an address that the mail server lets us send from.
func sender(username, base string) string {
	if strings.Contains(username, "@") {
		return username
	}
	u, err := url.Parse(base)
	if err != nil || !strings.Contains(u.Hostname(), ".") || isLoopback(u.Hostname()) {
		return "no-reply@example.com"
	}
	return "no-reply@" + u.Hostname()
}

// parseLimit returns nil for "".
func parseLimit(s string) (reset.Limiter, error) {
	n, err := strconv.Atoi(cmp.Or(s, "-1"))
	switch {
	case s == "":
		return nil, nil
	case err != nil || n < 0:
		return nil, fmt.Errorf("%q is neither a number of requests nor 0", s)
	case n == 0:
		return reset.Unlimited, nil
	}
	return reset.NewMemoryLimiter(n, time.Hour), nil
}
