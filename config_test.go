package reset_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// unsetMailer is a host's own Mailer that lacks a setting.
type unsetMailer struct{ mailer }

func (*unsetMailer) Check() error { return errors.New("the API key is empty") }

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		field string
		edit  func(*reset.Config)
	}{
		{"Users", func(c *reset.Config) { c.Users = nil }},
		{"Users", func(c *reset.Config) { c.Users = (*host)(nil) }},
		{"Store", func(c *reset.Config) { c.Store = nil }},
		{"Store", func(c *reset.Config) { c.Store = (*resettest.MemStore)(nil) }},
		{"Realm", func(c *reset.Config) { c.Realm = strings.Repeat("x", 65) }},
		{"Realm", func(c *reset.Config) { c.Store, c.Realm = struct{ reset.Store }{c.Store}, "brand" }},
		{"Realm", func(c *reset.Config) { c.Store, c.Realm = &resettest.FaultStore{}, "brand" }},
		{"Mailer", func(c *reset.Config) { c.Mailer = nil }},
		{"Mailer", func(c *reset.Config) { c.Mailer = (*reset.SMTPMailer)(nil) }},
		{"Mailer", func(c *reset.Config) { c.Mailer = &reset.SMTPMailer{} }},
		{"Mailer", func(c *reset.Config) { c.Mailer = new(unsetMailer) }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "/account" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "app.example.com/account" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "//app.example.com/account" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https:app.example.com" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https:///account" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "http://app.example.com" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "http://localhost.example.com" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "http://10.0.0.1" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "ftp://app.example.com" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://user@app.example.com" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://user:secret@app.example.com" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com/?a=b" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com/?" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com/#a" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com/#" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com/\r\n" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com:port/" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com:0/" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com:99999/" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://:8443/account" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://[fe80::1%25eth0]/account" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com;x/" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://b\u00fccher.example/" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com/my account" }},
		{"BaseURL", func(c *reset.Config) { c.BaseURL = "https://app.example.com/\u00fc" }},
		{"ResetURL", func(c *reset.Config) { c.ResetURL = "/reset" }},
		{"ResetURL", func(c *reset.Config) { c.ResetURL = "https://evil.example/reset" }},
		{"ResetURL", func(c *reset.Config) { c.ResetURL = "https://app.example.com:8443/reset" }},
		{"ResetURL", func(c *reset.Config) { c.ResetURL = "http://app.example.com/reset" }},
		{"ResetURL", func(c *reset.Config) { c.BaseURL, c.ResetURL = "http://localhost", "https://localhost/reset" }},
		{"ResetURL", func(c *reset.Config) { c.ResetURL = "https://app.example.com/reset#/spa" }},
		{"RevokeURL", func(c *reset.Config) { c.RevokeURL = "https://evil.example/revoke" }},
		{"RevokeURL", func(c *reset.Config) {
			c.AllowedOrigins, c.RevokeURL = []string{"https://spa.example.net"}, "https://spa.example.net:8443/revoke"
		}},
		{"AllowedOrigins[0]", func(c *reset.Config) { c.AllowedOrigins = []string{"*"} }},
		{"AllowedOrigins[0]", func(c *reset.Config) { c.AllowedOrigins = []string{"null"} }},
		{"AllowedOrigins[0]", func(c *reset.Config) { c.AllowedOrigins = []string{"spa.example.net"} }},
		{"AllowedOrigins[0]", func(c *reset.Config) { c.AllowedOrigins = []string{"http://spa.example.net"} }},
		{"AllowedOrigins[0]", func(c *reset.Config) { c.AllowedOrigins = []string{"https://*.example.net"} }},
		{"AllowedOrigins[0]", func(c *reset.Config) { c.AllowedOrigins = []string{"https://spa.example.net/"} }},
		{"AllowedOrigins[0]", func(c *reset.Config) { c.AllowedOrigins = []string{"https://spa.example.net:443"} }},
		{"AllowedOrigins[1]", func(c *reset.Config) {
			c.AllowedOrigins = []string{"https://spa.example.net", "https://SPA.example.net"}
		}},
		{"SignInURL", func(c *reset.Config) { c.SignInURL = "javascript:alert(1)" }},
		{"SignInURL", func(c *reset.Config) { c.SignInURL = "/sign-in" }},
		{"SignInURL", func(c *reset.Config) { c.SignInURL = "mailto:help@example.com" }},
		{"SupportURL", func(c *reset.Config) { c.SupportURL = "data:text/html,x" }},
		{"SupportURL", func(c *reset.Config) { c.SupportURL = "help@example.com" }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{""} }},
		{"APIKeys[1]", func(c *reset.Config) { c.APIKeys = []string{apiKey, apiKey[:31]} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{apiKey + " "} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{apiKey + "\n"} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{apiKey + "," + apiKey} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{apiKey + "é"} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{strings.Repeat("k", 64)} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{strings.Repeat("0123456789abcdef", 2)} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{strings.Repeat("0123456789", 5)[:41]} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{"demo-key-of-32-characters-or-more"} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{"<your_secret_api_key>-0123456789ab"} }},
		{"APIKeys[0]", func(c *reset.Config) { c.APIKeys = []string{"ChangeMe-ChangeMe-Kq3vX9dLw0sTzR"} }},
		{"PerClient", func(c *reset.Config) { c.PerClient = (*reset.MemoryLimiter)(nil) }},
		{"PerAddress", func(c *reset.Config) { c.PerAddress = limiterFunc(nil) }},
		{"Templates", func(c *reset.Config) { c.Templates = fstest.MapFS(nil) }},
		{"TTL", func(c *reset.Config) { c.TTL = -1 }},
		{"TTL", func(c *reset.Config) { c.TTL = 5*time.Minute - 1 }},
		{"TTL", func(c *reset.Config) { c.TTL = 24*time.Hour + 1 }},
		{"MaxRequests", func(c *reset.Config) { c.MaxRequests = -1 }},
		{"MaxRequests", func(c *reset.Config) { c.MaxRequests = 101 }},
		{"MaxRequests", func(c *reset.Config) { c.MaxRequests, c.MaxRequestsCeiling = 3, 2 }},
		{"MaxRequestsCeiling", func(c *reset.Config) { c.MaxRequestsCeiling = -1 }},
		{"MaxRequestsCeiling", func(c *reset.Config) { c.MaxRequestsCeiling = 10_001 }},
		{"MinPassword", func(c *reset.Config) { c.MinPassword = 7 }},
		{"MinPassword", func(c *reset.Config) { c.MinPassword = 257 }},
		{"MinPassword", func(c *reset.Config) { c.MinPassword, c.MaxPasswordBytes = 19, 72 }},
		{"MaxPasswordBytes", func(c *reset.Config) { c.MaxPasswordBytes = 1025 }},
		{"KeepHistory", func(c *reset.Config) { c.KeepHistory = 24*time.Hour - 1 }},
		{"KeepHistory", func(c *reset.Config) { c.KeepHistory = 90*24*time.Hour + 1 }},
		{"Workers", func(c *reset.Config) { c.Workers = -1 }},
		{"Workers", func(c *reset.Config) { c.Workers = 1001 }},
		{"Brand.Name", func(c *reset.Config) { c.Brand.Name = "A\nB" }},
		{"Brand.Logo", func(c *reset.Config) { c.Brand.Logo = "https://cdn.example/logo.svg" }},
		{"Brand.Color", func(c *reset.Config) { c.Brand.Color = "red" }},
		{"Templates", func(c *reset.Config) {
			c.Templates = fstest.MapFS{"templates/forgot.html": {Data: []byte("{{.Nothing")}}
		}},
	} {
		cfg := reset.Config{Users: newHost(), Store: new(resettest.MemStore), Mailer: new(mailer), BaseURL: baseURL, APIKeys: []string{apiKey}}
		tt.edit(&cfg)
		svc, err := reset.New(cfg)
		if err == nil || svc != nil || !strings.HasPrefix(err.Error(), "reset: Config."+tt.field+" ") && !strings.HasPrefix(err.Error(), "reset: Config."+tt.field+":") {
			t.Errorf("%s: got %v", tt.field, err)
			continue
		}
		for _, secret := range []string{apiKey[:31], "user:secret"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error has a secret: %v", err)
			}
		}
	}
}

// New reports all mistakes at once, each with its field, its value and what to
// do.
func TestNewMistakes(t *testing.T) {
	whole := func(base, resetURL string) reset.Config {
		return reset.Config{Users: newHost(), Store: new(resettest.MemStore), Mailer: new(mailer), BaseURL: base, ResetURL: resetURL}
	}
	for _, tt := range []struct {
		name string
		cfg  reset.Config
		want string
	}{
		{"nothing set", reset.Config{
			APIKeys: []string{os.Getenv("RESET_NO_SUCH_VARIABLE")}, AllowedOrigins: []string{os.Getenv("RESET_NO_SUCH_VARIABLE")},
		}, `
reset: Config.Users: required
reset: Config.Store: required
reset: Config.Mailer: required
reset: Config.BaseURL: is empty: if it comes from an environment variable, that is not set
reset: Config.AllowedOrigins[0]: is empty: if it comes from an environment variable, that is not set
reset: Config.APIKeys[0]: is empty: if it comes from an environment variable, that is not set`},
		{"many at once", reset.Config{
			Users: (*host)(nil), Store: new(resettest.MemStore), Mailer: &unsetMailer{}, BaseURL: "https://" + os.Getenv("RESET_NO_SUCH_VARIABLE") + "/account",
			APIKeys: []string{"short"}, AllowedOrigins: []string{"https://spa.example.net/"}, ResetURL: "/reset", SignInURL: "/login",
			TTL: time.Second, MaxRequestsCeiling: -1, MinPassword: 4, MaxPasswordBytes: 56, Workers: -2, Brand: reset.Brand{Color: "red"},
			Templates: fstest.MapFS{"templates/nosuch.html": {}},
		}, `
reset: Config.Users: a nil *reset_test.host
reset: Config.Mailer: the API key is empty
reset: Config.BaseURL: "https:///account" has no host: if that comes from an environment variable, it is not set
reset: Config.AllowedOrigins[0]: "https://spa.example.net/" is not an origin as browsers send it: want https://spa.example.net
reset: Config.ResetURL: "/reset" is not an absolute URL, such as https://app.example.com/account
reset: Config.SignInURL: "/login" is not an absolute URL with one of the schemes https, http
reset: Config.APIKeys[0]: has 5 characters, of at least 32
reset: Config.TTL: 1s is not between 5m0s and 24h0m0s
reset: Config.MaxRequestsCeiling: -1 is not between 1 and 10000
reset: Config.MaxPasswordBytes: 56 is less than 64, the characters that NIST SP 800-63B-4 asks for: set 72 for bcrypt, or hash with argon2id or scrypt
reset: Config.MinPassword: 4 is not between 8 and 256
reset: Config.Workers: -2 is not between 1 and 1000
reset: Config.Brand.Color: is not of the form #rrggbb
reset: Config.Templates: templates/nosuch.html: no built-in file of this name to override`},
		{"http on a name of this machine", whole("http://app.localhost:8080/account", ""), `
reset: Config.BaseURL: "http://app.localhost:8080/account" is http, and not on a loopback address: links carry secrets. Use http://localhost:8080/account, or https`},
		{"http in a local network", whole("http://192.168.1.5:8080/account", ""), `
reset: Config.BaseURL: "http://192.168.1.5:8080/account" is http, and not on a loopback address: links carry secrets. Use https, in a local network with a certificate of your own (mkcert, or Caddy's tls internal), or http://localhost through a tunnel (ssh -L)`},
		{"a link elsewhere", whole(baseURL, "https://spa.example.net/reset"), `
reset: Config.ResetURL: "https://spa.example.net/reset" is neither on the origin of BaseURL, https://app.example.com, nor on one of AllowedOrigins`},
		{"a password in a URL", whole("https://ann:canary@app.example.com:port", ""), `
reset: Config.BaseURL: "https://…@app.example.com:port" is not a URL`},
	} {
		_, err := reset.New(tt.cfg)
		if got := fmt.Sprint(err); got != tt.want[1:] {
			t.Errorf("%s: got\n%s\nwant%s", tt.name, got, tt.want)
		}
	}
}

func TestNewAccepts(t *testing.T) {
	for _, edit := range []func(*reset.Config){
		func(*reset.Config) {},
		func(c *reset.Config) { c.APIKeys = nil },
		func(c *reset.Config) { c.BaseURL = "https://app.example.com:8443/a/b/" },
		func(c *reset.Config) { c.BaseURL = "http://localhost:8080" },
		func(c *reset.Config) { c.BaseURL = "http://127.0.0.1/x" },
		func(c *reset.Config) { c.BaseURL = "http://[::1]:80/x" },
		func(c *reset.Config) { c.ResetURL = "https://app.example.com/spa/reset" },
		func(c *reset.Config) { c.RevokeURL = "https://APP.example.com:443/spa/revoke" },
		func(c *reset.Config) {
			c.AllowedOrigins, c.ResetURL = []string{"https://spa.example.net:8443", "http://localhost:5173"}, "https://spa.example.net:8443/reset"
		},
		func(c *reset.Config) {
			c.APIKeys = []string{rand.Text() + rand.Text(), "9f86d081884c7d659a2feaa0c55ad015"}
		},
		func(c *reset.Config) {
			c.SignInURL, c.SupportURL = "https://login.example.com/", "mailto:help@example.com"
		},
		func(c *reset.Config) { c.TTL = 5 * time.Minute },
		func(c *reset.Config) { c.TTL = 24 * time.Hour },
		func(c *reset.Config) { c.MaxRequestsCeiling = 1 },
		func(c *reset.Config) { c.MaxRequests = 100 },
		func(c *reset.Config) { c.MinPassword = 256 },
		func(c *reset.Config) { c.MinPassword, c.MaxPasswordBytes = 16, 64 },
		func(c *reset.Config) { c.Workers = 1000 },
		func(c *reset.Config) { c.KeepHistory = 24 * time.Hour },
		func(c *reset.Config) { c.KeepHistory = 90 * 24 * time.Hour },
		func(c *reset.Config) { c.KeepHistory = -1 },
	} {
		newFixture(t, newHost(), edit)
	}
}

// The limit of a client and the mails sent at a time have the same default: a
// burst of one client keeps no mail waiting.
func TestDefaults(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		for i := range 20 {
			f.forgot(fmt.Sprintf("user%d@example.com", i))
		}
		err := f.Forgot(t.Context(), ann.Email, "192.0.2.1", reset.ForgotOptions{})
		var limit *reset.LimitError
		if !errors.As(err, &limit) || limit.RetryAfter != 3*time.Second {
			t.Errorf("request 21 of a client: %v, want a limit of 3 s", err)
		}
		f.wantEvents(map[string]int{"run_elsewhere": 1, "client_limited": 1})
	})
}

// Workers below the burst of a client are reported.
func TestWorkersFew(t *testing.T) {
	for _, tt := range []struct {
		name      string
		workers   int
		perClient reset.Limiter
		want      int
	}{
		{"defaults", 0, nil, 0},
		{"fewer", 19, nil, 1},
		{"as many", 40, reset.NewMemoryLimiter(40, time.Minute), 0},
		{"a greater burst", 0, reset.NewMemoryLimiter(21, time.Hour), 1},
		{"no limit", 1000, reset.Unlimited, 1},
		{"a limiter without Burst", 1, limiterFunc(func(context.Context, string, time.Time) error { return nil }), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, newHost(), func(c *reset.Config) { c.Workers, c.PerClient = tt.workers, tt.perClient })
			f.wantEvent("workers_few", tt.want)
		})
	}
}
