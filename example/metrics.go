package main

import (
	"context"
	"crypto/subtle"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gopassreset/reset"
)

// metrics are what Prometheus reads: events and operations of the library, and
// figures of its store. docs/ops has a board and alerts for them. A host that
// has OpenTelemetry takes package resetotel instead.
type metrics struct {
	mu         sync.Mutex
	events     map[string]int64
	operations map[operation]duration
}

type operation struct{ name, outcome string }

type duration struct {
	count int64
	sum   time.Duration
}

func newMetrics() *metrics {
	return &metrics{events: make(map[string]int64), operations: make(map[operation]duration)}
}

// count counts n events.
func (m *metrics) count(event string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events[event] += n
}

// observe is for reset.Config.
func (m *metrics) observe(ctx context.Context, name string) (context.Context, func(outcome string)) {
	start := time.Now()
	return ctx, func(outcome string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		d := m.operations[operation{name, outcome}]
		m.operations[operation{name, outcome}] = duration{d.count + 1, d.sum + time.Since(start)}
	}
}

// text is all of them in Prometheus's text format.
func (m *metrics) text(s reset.Stats, now time.Time) string {
	var b strings.Builder
	family := func(name, kind string) { fmt.Fprintf(&b, "# TYPE %s %s\n", name, kind) }
	gauge := func(name string, value float64) {
		family(name, "gauge")
		fmt.Fprintf(&b, "%s %v\n", name, value)
	}
	gauge("reset_queue_waiting", float64(s.Waiting))
	gauge("reset_queue_leased", float64(s.Leased))
	gauge("reset_queue_expired", float64(s.Expired))
	gauge("reset_queue_oldest_seconds", s.OldestDue.Seconds())
	gauge("reset_requests_live", float64(s.LiveRequests))
	if !s.LastRun.IsZero() {
		gauge("reset_run_age_seconds", max(0, now.Sub(s.LastRun).Seconds()))
	}
	down := 0.
	if now.Sub(s.MailerFailed) < time.Minute {
		down = 1
	}
	gauge("reset_mailer_down", down)

	m.mu.Lock()
	defer m.mu.Unlock()
	family("reset_events_total", "counter")
	for _, name := range slices.Sorted(maps.Keys(m.events)) {
		fmt.Fprintf(&b, "reset_events_total{event=%q} %d\n", name, m.events[name])
	}
	family("reset_operation_duration_seconds", "summary")
	for _, o := range slices.SortedFunc(maps.Keys(m.operations), func(a, b operation) int {
		return strings.Compare(a.name+" "+a.outcome, b.name+" "+b.outcome)
	}) {
		labels, d := fmt.Sprintf("{operation=%q,outcome=%q}", o.name, o.outcome), m.operations[o]
		fmt.Fprintf(&b, "reset_operation_duration_seconds_count%s %d\n", labels, d.count)
		fmt.Fprintf(&b, "reset_operation_duration_seconds_sum%s %v\n", labels, d.sum.Seconds())
	}
	return b.String()
}

// forOperators answers those with the API key, as Prometheus's "authorization"
// sends it.
func (h *host) forOperators(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		want := "Bearer " + h.options.apiKey
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte(want)) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "The API key is needed.", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		next(w, r)
	}
}

// showHistory says where a user's mail is, a line for each request and mail.
func (h *host) showHistory(w http.ResponseWriter, r *http.Request) {
	entries, err := h.service.History(r.Context(), r.PathValue("user"))
	if err != nil {
		h.log.Error("history", "error", err)
		http.Error(w, "no history", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, e := range entries {
		fmt.Fprintln(w, e)
	}
}

// showMetrics is for operators: how often mail is sent depends on who has an
// account.
func (h *host) showMetrics(w http.ResponseWriter, r *http.Request) {
	stats, err := h.service.Stats(r.Context())
	if err != nil {
		h.log.Error("metrics", "error", err)
		http.Error(w, "no figures", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprint(w, h.metrics.text(stats, time.Now()))
}
