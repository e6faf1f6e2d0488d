package reset_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// The documentation of Config.Logger lists every event under its level.
func TestEventsAreDocumented(t *testing.T) {
	var want []string
	for _, e := range reset.Events() {
		want = append(want, fmt.Sprintf("%v %s", e.Level, e.Name))
	}
	_, list, ok := strings.Cut(fieldDoc(t, "config.go", "Logger"), "The events are:")
	if !ok {
		t.Fatal("no list of events")
	}
	var got []string
	level := ""
	for _, word := range regexp.MustCompile(`\w+`).FindAllString(list, -1) {
		if word == strings.ToUpper(word) {
			level = word
			continue
		}
		got = append(got, level+" "+word)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("documented events:\n%q, want\n%q", got, want)
	}
}

// docs/operations.md has a row for every event, and a heading with what to do
// for every WARN and ERROR.
func TestEventsAreInTheRunbook(t *testing.T) {
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, wantHeadings []string
	for _, e := range reset.Events() {
		want = append(want, fmt.Sprintf("| `%s` | %v | %s |", e.Name, e.Level, strings.Join(e.Attrs, ", ")))
		if e.Level >= slog.LevelWarn {
			wantHeadings = append(wantHeadings, "### "+e.Name)
		}
	}
	var got, headings []string
	for _, row := range regexp.MustCompile("(?m)^\\| `\\w+` \\| (?:DEBUG|INFO|WARN|ERROR) \\|.*?\\|").FindAllString(string(page), -1) {
		got = append(got, strings.ReplaceAll(row, "| |", "|  |"))
	}
	headings = regexp.MustCompile("(?m)^### .*$").FindAllString(string(page), -1)
	for _, list := range [][]string{got, want, headings, wantHeadings} {
		slices.Sort(list)
	}
	if !slices.Equal(got, want) {
		t.Errorf("rows of docs/operations.md:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Equal(headings, wantHeadings) {
		t.Errorf("headings of docs/operations.md:\n%q, want\n%q", headings, wantHeadings)
	}
}

// fieldDoc returns the comment of a field of a struct in a file.
func fieldDoc(t *testing.T, file, name string) (doc string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if field, ok := n.(*ast.Field); ok && len(field.Names) > 0 && field.Names[0].Name == name {
			doc = field.Doc.Text()
		}
		return true
	})
	return doc
}

// However often strangers cause an event, it is one record a minute per client,
// and however many they are, their number is bounded.
func TestEventCounts(t *testing.T) {
	inBubble(t, unlimited, func(t *testing.T, f *fixture) {
		requests := func(client string) (counts []any) {
			for _, record := range f.log.named("public_request") {
				if record["client"] == client || client == "" && record["client"] == nil {
					counts = append(counts, record["count"])
				}
			}
			return counts
		}
		forgot := func(client string, n int) {
			for range n {
				if err := f.Forgot(t.Context(), "nobody@example.com", client, reset.ForgotOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		forgot("192.0.2.1", 100)
		forgot("192.0.2.2", 1)
		pass(time.Minute)
		forgot("192.0.2.1", 10)
		pass(time.Hour)
		forgot("192.0.2.1", 1)
		for client, want := range map[string][]any{"192.0.2.1": {1., 99., 10., 1.}, "192.0.2.2": {1.}} {
			if got := requests(client); !slices.Equal(got, want) {
				t.Errorf("records of %s count %v, want %v", client, got, want)
			}
		}

		before := len(f.log.all())
		for i := range 3000 {
			forgot(fmt.Sprintf("198.51.100.%d", i), 1)
		}
		pass(time.Minute)
		if got := len(f.log.all()) - before; got > 1010 {
			t.Errorf("3000 clients cause %d records", got)
		}
		if got := requests(""); len(got) != 2 || got[1].(float64) < 1900 {
			t.Errorf("records without a client count %v", got)
		}

		// The errors of an outage may all differ.
		b, n := pagesOf(f), 0
		f.store.Before = func(context.Context, string) error {
			n++
			return fmt.Errorf("connection %d refused", n)
		}
		for range 50 {
			b.submit("/forgot", "email", "nobody@example.com")
		}
		pass(time.Minute)
		f.wantRecords("request_failed",
			map[string]any{"operation": "enqueue", "error": "reset: enqueue: connection 1 refused", "count": 1.},
			map[string]any{"operation": "enqueue", "error": "reset: enqueue: connection 50 refused", "count": 49.})
	})
}

// TestNoSecrets looks for secrets, and for an address without account, in all
// that is logged over a run in which everything goes wrong once.
func TestNoSecrets(t *testing.T) {
	const password = "canary 7 grey herons"
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		secrets := []string{password, hashPrefix + password, "stranger@example.com"}
		f.mailer.do = func(_ context.Context, n int, m reset.Message) error {
			if n == 0 {
				panic(m)
			}
			if n == 1 {
				return errors.New("421 try later")
			}
			return nil
		}
		failures := 0
		f.host.onSet = func(context.Context, string) error {
			if failures++; failures == 1 {
				return errors.New("deadlock")
			}
			return nil
		}
		id := f.request(ann.Email)
		handler := &trusted{f, f.Handler()}
		wrong := postJSON(resetPath, `{"email":"stranger@example.com"}`)
		wrong.Header.Set("Authorization", "canary-key")
		handler.do(wrong)
		handler.post(resetPath, `{"email":"stranger@example.com"}`)
		handler.post(newPath, newPassword("canary_activation_123456", password))
		secrets = append(secrets, id, "canary-key", "canary_activation", apiKey)
		f.forgot("stranger@example.com")
		f.run()
		pass(5 * time.Minute)
		for _, p := range []string{password, password, password} {
			f.ChangePassword(t.Context(), id, p)
		}
		pass(5 * time.Minute)
		if f.host.password(ann.ID) != password {
			t.Fatal("the password was not changed")
		}
		for _, m := range f.mailer.attempts() {
			if m.Kind == reset.MailReset {
				secrets = append(secrets, activationOf(t, m))
			}
		}
		log := f.log.String()
		for _, secret := range secrets {
			if strings.Contains(log, secret) {
				t.Errorf("the log holds %q:\n%s", secret, log)
			}
		}
		if len(secrets) < 6 || len(f.log.named("mail_failed")) < 2 {
			t.Errorf("the run was too smooth: %d secrets\n%s", len(secrets), log)
		}
	})
}
