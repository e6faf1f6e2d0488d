package main

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

func TestBadFlags(t *testing.T) {
	for _, test := range []struct {
		args string
		want string
	}{
		{"-nonsense", "-nonsense"},
		{"serve", `what is "serve"?`},
		{"-addr 8080", `-addr: "8080" is not of the form host:port`},
		{"-addr 127.0.0.1:http", `-addr: "http" is not a port`},
		{"-addr 192.0.2.1:80", "-addr: \"192.0.2.1\" is not this machine's loopback address: give its https URL with -url"},
		{"-url demo.example.com", "-url: is not of the form"},
		{"-url http://demo.example.com", "-url: must be https"},
		{"-url https://demo.example.com/app", "-url: has more than"},
		{"-url https://u:p@demo.example.com", "-url: has more than"},
		{"-url ftp://demo.example.com", "-url: must be https"},
		{"-db redis://localhost/1", "-db: is neither a file nor a URL"},
		{"-db mysql://root@localhost", "-db: is not of the form mysql://"},
		{"-db mysql://root@localhost/x?parseTime=maybe", "-db: is not understood"},
		{"-db postgres://u:secret@localhost:port/db", "-db: is not a URL"},
		{"-db postgres://u:secret@localhost/db?sslmode=x", "-db: is not understood"},
		{"-db postgres://u@localhost/db?password=secret&sslmode=x", "-db: is not understood"},
		{"-smtp mail.example.com:25", "-smtp: is not of the form"},
		{"-smtp smtp://mail.example.com", "-smtp: is not of the form"},
		{"-smtp http://mail.example.com:25", "-smtp: is not of the form"},
		{"-smtp smtp://mail.example.com:25?tls=maybe", "-smtp: tls is none of"},
		{"-smtp smtp://mail.example.com:25?timeout=1", "-smtp: knows the parameter tls only"},
		{"-smtp smtp://mail.example.com:465?tls=starttls", "-smtp: tls=starttls is not for port 465"},
		{"-smtp smtp://u:secret@mail.example.com:25?tls=none", "-smtp: reset: SMTPMailer.InsecureNoTLS"},
		{"-smtp smtp://u@mail.example.com:25", "-smtp: reset: SMTPMailer.Username"},
		{"-api-key short", "-api-key: has 5 characters, at least 32 are needed"},
		{"-users -1", "-users: is negative"},
		{"-users many", "-users"},
		{"-per-client -1", `-per-client: "-1" is neither`},
		{"-per-client x", `-per-client: "x" is neither`},
		{"-per-address 1.5", `-per-address: "1.5" is neither`},
	} {
		var stdout, stderr strings.Builder
		code := run(t.Context(), strings.Fields(test.args), &stdout, &stderr)
		if code != 2 || !strings.Contains(stderr.String(), test.want) || stdout.Len() > 0 {
			t.Errorf("%s: got %d, %q and %q, want 2 and %q", test.args, code, stderr.String(), stdout.String(), test.want)
		}
		if strings.Contains(stderr.String(), "secret") {
			t.Errorf("%s: shows the password: %s", test.args, stderr.String())
		}
	}
}

func TestFlagDefaults(t *testing.T) {
	o, err := parseFlags(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.addr != "127.0.0.1:8080" || o.base != "" || o.smtp != nil || o.users != 0 || o.perClient != nil || o.perAddress != reset.Unlimited {
		t.Errorf("got %+v", o)
	}
	if len(o.apiKey) < minKey || !o.keyGenerated {
		t.Errorf("API key: got %q", o.apiKey)
	}
	if again, _ := parseFlags(nil, io.Discard); again.apiKey == o.apiKey {
		t.Error("two starts have one API key")
	}
}

func TestSMTPFlag(t *testing.T) {
	const base = "https://demo.example.org"
	for _, test := range []struct {
		url, base string
		want      *reset.SMTPMailer
	}{
		{"smtp://127.0.0.1:2525?tls=none", "", &reset.SMTPMailer{Addr: "127.0.0.1:2525", From: "Harbour <no-reply@example.com>", InsecureNoTLS: true}},
		{"smtp://[::1]:2525?tls=none", "http://127.0.0.1:8080", &reset.SMTPMailer{Addr: "[::1]:2525", From: "Harbour <no-reply@example.com>", InsecureNoTLS: true}},
		{"smtp://u:p%40ss@mail.example.org:587", base, &reset.SMTPMailer{Addr: "mail.example.org:587", From: "Harbour <no-reply@demo.example.org>", Username: "u", Password: "p@ss"}},
		{"smtp://me%40example.org:p@mail.example.org:587?tls=starttls", base, &reset.SMTPMailer{Addr: "mail.example.org:587", From: "Harbour <me@example.org>", Username: "me@example.org", Password: "p"}},
		{"smtp://mail.example.org:2465?tls=implicit", base, &reset.SMTPMailer{Addr: "mail.example.org:2465", From: "Harbour <no-reply@demo.example.org>", ImplicitTLS: true}},
	} {
		got, err := parseSMTP(test.url, test.base)
		if err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		if got.Addr != test.want.Addr || got.From != test.want.From || got.Username != test.want.Username || got.Password != test.want.Password ||
			got.ImplicitTLS != test.want.ImplicitTLS || got.InsecureNoTLS != test.want.InsecureNoTLS {
			t.Errorf("%s: got %+v, want %+v", test.url, got, test.want)
		}
	}
}

func TestBaseOf(t *testing.T) {
	listening := &net.TCPAddr{IP: net.IPv4zero, Port: 4711}
	for addr, want := range map[string]string{
		"127.0.0.1:0":    "http://127.0.0.1:4711",
		"[::1]:4711":     "http://[::1]:4711",
		"localhost:4711": "http://localhost:4711",
		":4711":          "http://127.0.0.1:4711",
		"0.0.0.0:4711":   "http://127.0.0.1:4711",
		"[::]:4711":      "http://127.0.0.1:4711",
	} {
		if got := baseOf(addr, listening); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
		if err := checkAddr(addr, ""); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestRun(t *testing.T) {
	db := filepath.Join(t.TempDir(), "demo.db")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	stopped, stop := context.WithCancel(t.Context())
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-h"}, 0, "-per-client N"},
		{[]string{"-addr", taken.Addr().String(), "-db", db}, 1, ""},
		{[]string{"-addr", "127.0.0.1:0", "-db", filepath.Join(db, "nowhere")}, 1, ""},
	} {
		var stdout, stderr strings.Builder
		if code := run(t.Context(), test.args, &stdout, &stderr); code != test.code || !strings.Contains(stdout.String(), test.want) {
			t.Errorf("%q: got %d, %q and %q, want %d and %q", test.args, code, stdout.String(), stderr.String(), test.code, test.want)
		}
	}

	var stdout stopWriter
	stdout.stop = stop
	var stderr strings.Builder
	if code := run(stopped, []string{"-addr", "127.0.0.1:0", "-db", db}, &stdout, &stderr); code != 0 {
		t.Errorf("got %d and %q, want 0", code, stderr.String())
	}
	for _, want := range []string{"Open      http://127.0.0.1:", "alice@example.com", "/inbox\n", "API key   ", "Database  " + db} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is missing in\n%s", want, stdout.String())
		}
	}
}

// A stopWriter sends the signal to stop once the host has greeted.
type stopWriter struct {
	strings.Builder
	stop func()
}

func (w *stopWriter) Write(b []byte) (int, error) {
	if strings.HasPrefix(string(b), "Database") {
		w.stop()
	}
	return w.Builder.Write(b)
}
