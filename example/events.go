package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// eventsKept is how many events the page shows at most.
const eventsKept = 40

// events is a slog.Handler that passes every record on to another one. Those
// that have the attribute "event", as all of the library have, it counts, and it
// keeps the latest.
type events struct {
	slog.Handler
	name    string // of the event, if WithAttrs has said it
	ring    *ring
	metrics *metrics
}

// An event is a record as the page shows it.
type event struct {
	Number int
	Time   time.Time
	Level  slog.Level
	Name   string
	Attrs  string
}

func newEvents(next slog.Handler, m *metrics) *events {
	return &events{Handler: next, ring: new(ring), metrics: m}
}

// Handle implements slog.Handler.
func (e *events) Handle(ctx context.Context, r slog.Record) error {
	name, attrs, count := e.name, []string(nil), int64(1)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "event":
			name = a.Value.String()
		case "stack": // long, and in the log
		case "count": // how many events the record stands for
			count = a.Value.Int64()
			attrs = append(attrs, a.String())
		default:
			attrs = append(attrs, a.String())
		}
		return true
	})
	if name != "" {
		e.metrics.count(name, count)
		e.ring.add(event{Time: r.Time, Level: r.Level, Name: name, Attrs: strings.Join(attrs, " ")})
	}
	return e.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (e *events) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *e
	with.Handler = e.Handler.WithAttrs(attrs)
	for _, a := range attrs {
		if a.Key == "event" {
			with.name = a.Value.String()
		}
	}
	return &with
}

// WithGroup implements slog.Handler.
func (e *events) WithGroup(name string) slog.Handler {
	with := *e
	with.Handler = e.Handler.WithGroup(name)
	return &with
}

// latest returns what was kept, the latest first.
func (e *events) latest() []event { return e.ring.latest() }

// A ring keeps the latest events.
type ring struct {
	mu    sync.Mutex
	count int
	kept  [eventsKept]event
}

func (r *ring) add(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	e.Number = r.count
	r.kept[r.count%eventsKept] = e
}

func (r *ring) latest() (all []event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.kept {
		if e.Number > 0 {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b event) int { return b.Number - a.Number })
	return all
}
