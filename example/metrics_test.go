package main

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What the board and the alerts read is there.
func TestMetrics(t *testing.T) {
	h, _ := start(t)
	read := func(path, key string) (status int, text string) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", h.base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		got := newBrowser(t, h).do(r)
		return got.status, got.body
	}
	scrape := func(key string) (status int, text string) { return read("/metrics", key) }
	if status, text := scrape("wrong"); status != 401 || strings.Contains(text, "reset_") {
		t.Errorf("without the key: %d %s", status, text)
	}
	b := newBrowser(t, h)
	b.get("/account/forgot")
	b.post("/account/forgot", "email", demoUsers[0].Email)
	if _, err := h.mailbox.Wait(t.Context(), demoUsers[0].Email); err != nil {
		t.Fatal(err)
	}
	_, text := scrape(h.options.apiKey)
	for start := time.Now(); !strings.Contains(text, `event="mail_sent"`) && time.Since(start) < 10*time.Second; { // it is settled first
		_, text = scrape(h.options.apiKey)
	}
	for _, line := range []string{
		`reset_operation_duration_seconds_count{operation="public_request",outcome="ok"} 1`,
		`reset_operation_duration_seconds_count{operation="send",outcome="ok"} 1`,
		`reset_events_total{event="public_request"} 1`,
		`reset_events_total{event="mail_sent"} 1`,
		`reset_queue_oldest_seconds 0`,
		`reset_requests_live 1`,
		`reset_mailer_down 0`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
	if status, text := read("/history/alice", "wrong"); status != 401 || strings.Contains(text, "public") {
		t.Errorf("the history without the key: %d %s", status, text)
	}
	if status, text := read("/history/alice", h.options.apiKey); status != 200 || strings.Count(text, "\n") != 1 || !strings.Contains(text, " public ") || !strings.Contains(text, "; sent ") {
		t.Errorf("the history of a user: %d %s", status, text)
	}
	if status, text := read("/history/nobody", h.options.apiKey); status != 200 || text != "" {
		t.Errorf("the history of nobody: %d %s", status, text)
	}
	for _, file := range []string{"grafana.json", "alerts.yml"} {
		used, err := os.ReadFile("../docs/ops/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\breset_\w+`).FindAllString(string(used), -1) {
			if !regexp.MustCompile(`(?m)^` + name + `[ {]`).MatchString(text) {
				t.Errorf("%s: %s is not served", file, name)
			}
		}
	}
}
