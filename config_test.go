package reset_test

import (
	"errors"
	"fmt"
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
		{"Store", func(c *reset.Config) { c.Store = nil }},
		{"Mailer", func(c *reset.Config) { c.Mailer = nil }},
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

func TestNewAccepts(t *testing.T) {
	for _, edit := range []func(*reset.Config){
		func(*reset.Config) {},
		func(c *reset.Config) { c.APIKeys = nil },
		func(c *reset.Config) { c.BaseURL = "https://app.example.com:8443/a/b/" },
		func(c *reset.Config) { c.BaseURL = "http://localhost:8080" },
		func(c *reset.Config) { c.BaseURL = "http://127.0.0.1/x" },
		func(c *reset.Config) { c.BaseURL = "http://[::1]:80/x" },
		func(c *reset.Config) { c.ResetURL = "https://app.example.com/spa/reset" },
		func(c *reset.Config) {
			c.SignInURL, c.SupportURL = "https://login.example.com/", "mailto:help@example.com"
		},
		func(c *reset.Config) { c.TTL = 5 * time.Minute },
		func(c *reset.Config) { c.TTL = 24 * time.Hour },
		func(c *reset.Config) { c.MaxRequestsCeiling = 1 },
		func(c *reset.Config) { c.MaxRequests = 100 },
		func(c *reset.Config) { c.MinPassword = 256 },
		func(c *reset.Config) { c.Workers = 1000 },
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
		{"a limiter without Burst", 1, limiterFunc(nil), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, newHost(), func(c *reset.Config) { c.Workers, c.PerClient = tt.workers, tt.perClient })
			f.wantEvent("workers_few", tt.want)
		})
	}
}
