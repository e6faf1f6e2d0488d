package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/url"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

func TestPanels(t *testing.T) { onEachDatabase(t, testPanels) }

func testPanels(t *testing.T, db string) {
	h, _ := start(t, "-db", db)
	if _, err := h.service.RequestReset(t.Context(), "bob@example.com", reset.RequestOptions{}); err != nil {
		t.Fatal(err)
	}
	m := wait(t, h, "bob@example.com", reset.MailReset)
	b := newBrowser(t, h)
	home, shown := b.get("/"), b.get("/demo/panels")
	want(t, "home", home, 200, "/")
	want(t, "panels", shown, 200, "/demo/panels")
	for _, part := range []string{`id="account-nav"`, `id="sessions-panel"`, `id="inbox-panel"`, `id="events-panel"`, `id="rows-panel"`, m.ID, "reset_activations"} {
		for _, got := range []page{home, shown} {
			if !strings.Contains(got.body, part) {
				t.Errorf("%s: %s is missing", got.path, part)
			}
		}
	}
	u, err := url.Parse(m.Link)
	if err != nil {
		t.Fatal(err)
	}
	activation := u.Query().Get("activation")
	_, rows, _ := strings.Cut(shown.body, `id="events-panel"`)
	if activation == "" || strings.Contains(rows, activation) {
		t.Errorf("the events or rows show the activation %q", activation)
	}
	html := b.get("/demo/mail?part=html&id=" + m.ID)
	if html.status != 200 || !strings.Contains(html.body, m.HTML) {
		t.Errorf("HTML part: got %d %s", html.status, html.body)
	}
	want(t, "no such mail", b.get("/demo/mail?id=1"), 404, "/demo/mail")
	want(t, "no such part", b.get("/demo/mail?part=x&id="+m.ID), 404, "/demo/mail")
	source := b.get("/demo/mail?part=source&id=" + m.ID)
	want(t, "source", source, 200, "/demo/mail")
	checkSource(t, source.body, m)
}

// checkSource parses a raw message and compares it with its message.
func checkSource(t *testing.T, source string, m reset.Message) {
	t.Helper()
	raw, err := mail.ReadMessage(strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	if to, err := raw.Header.AddressList("To"); err != nil || len(to) != 1 || to[0].Address != m.To {
		t.Errorf("To: got %v, %v, want %s", to, err, m.To)
	}
	_, params, err := mime.ParseMediaType(raw.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(raw.Body, params["boundary"])
	for _, text := range []string{m.Text, m.HTML} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(part)
		if err != nil || strings.ReplaceAll(string(got), "\r\n", "\n") != strings.ReplaceAll(text, "\r\n", "\n") {
			t.Errorf("part: got %q, %v, want %q", got, err, text)
		}
	}
}

func TestEvents(t *testing.T) {
	var text strings.Builder
	e := newEvents(slog.NewTextHandler(&text, nil), newMetrics())
	log := slog.New(e)
	log.Info("no event", "n", 0)
	log.Debug("not wanted", "event", "quiet")
	log.With("event", "with").WithGroup("g").Warn("m", "n", 1)
	for i := range eventsKept {
		log.InfoContext(context.Background(), "m", "event", "mail_sent", "n", i, "stack", "long")
	}
	got := e.latest()
	if len(got) != eventsKept || got[0].Attrs != fmt.Sprintf("n=%d", eventsKept-1) || got[eventsKept-1].Attrs != "n=0" {
		t.Errorf("got %d events from %+v to %+v", len(got), got[0], got[len(got)-1])
	}
	if n := strings.Count(text.String(), "\n"); n != eventsKept+2 {
		t.Errorf("%d records were passed on, want %d\n%s", n, eventsKept+2, text.String())
	}

	e = newEvents(slog.DiscardHandler, newMetrics())
	slog.New(e).With("event", "with").Warn("m", "n", 1)
	if got := e.latest(); len(got) != 0 {
		t.Errorf("what the log does not take is kept: %+v", got)
	}
}
