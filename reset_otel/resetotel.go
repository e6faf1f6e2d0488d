// Package resetotel reports what package reset does to OpenTelemetry.
//
//	telemetry, err := resetotel.New(resetotel.Options{})
//	svc, err := reset.New(reset.Config{
//		Observe: telemetry.Observe,
//		Logger:  slog.New(telemetry.Handler(slog.Default().Handler())),
//		…
//	})
//	stop, err := telemetry.ReportStats(svc)
//
// The metrics are
//
//	reset.operation.duration  histogram, s        operation, outcome
//	reset.events              counter             event
//	reset.queue.waiting       gauge, mails
//	reset.queue.leased        gauge, mails
//	reset.queue.expired       gauge, mails
//	reset.queue.oldest        gauge, s            how long a due mail has waited
//	reset.requests.live       gauge, requests
//	reset.run.age             gauge, s            since some process ran Run
//	reset.mailer.down         gauge, 0 or 1       whether mail waits for the mail system
//
// The gauges are figures of the store, and so the same from every process: take
// their maximum, not their sum. Operations are those of [reset.Observation], and
// each is a span, too. Events are those of [reset.Config].Logger.
//
// No attribute holds an address, a user, a client or a secret. How often mail is
// sent depends on who has an account, so metrics and traces are for operators
// only.
package resetotel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/gopassreset/reset"
)

const scope = "github.com/gopassreset/reset"

// Options are the options of New.
type Options struct {
	TracerProvider trace.TracerProvider // defaults to otel.GetTracerProvider()
	MeterProvider  metric.MeterProvider // defaults to otel.GetMeterProvider()
}

// Telemetry reports one reset.Service. It is safe for concurrent use.
type Telemetry struct {
	tracer   trace.Tracer
	meter    metric.Meter
	duration metric.Float64Histogram
	events   metric.Int64Counter
}

// New returns a Telemetry. It starts nothing.
func New(o Options) (*Telemetry, error) {
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	t := &Telemetry{tracer: o.TracerProvider.Tracer(scope), meter: o.MeterProvider.Meter(scope)}
	var err error
	t.duration, err = t.meter.Float64Histogram("reset.operation.duration", metric.WithUnit("s"), metric.WithDescription("How long operations take."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300))
	if err != nil {
		return nil, fmt.Errorf("resetotel: %w", err)
	}
	t.events, err = t.meter.Int64Counter("reset.events", metric.WithUnit("{event}"), metric.WithDescription("Events of the log."))
	if err != nil {
		return nil, fmt.Errorf("resetotel: %w", err)
	}
	return t, nil
}

// Observe is for [reset.Config].Observe.
func (t *Telemetry) Observe(ctx context.Context, operation string) (context.Context, func(outcome string)) {
	start := time.Now()
	ctx, span := t.tracer.Start(ctx, "reset "+operation)
	return ctx, func(outcome string) {
		span.SetAttributes(attribute.String("outcome", outcome))
		if outcome == "failed" {
			span.SetStatus(codes.Error, "")
		}
		span.End()
		// A context that has ended would not do for every exporter.
		t.duration.Record(context.WithoutCancel(ctx), time.Since(start).Seconds(),
			metric.WithAttributes(attribute.String("operation", operation), attribute.String("outcome", outcome)))
	}
}

// StatsSource is a [reset.Service].
type StatsSource interface {
	Stats(ctx context.Context) (reset.Stats, error)
}

// ReportStats reports the figures of the store whenever metrics are collected,
// until stop is called. It fails if the store has none.
func (t *Telemetry) ReportStats(source StatsSource) (stop func() error, err error) {
	if _, err := source.Stats(context.Background()); errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("resetotel: %w", err)
	}
	var gauges []metric.Observable
	var errs []error
	count := func(name, unit, description string) metric.Int64ObservableGauge {
		g, err := t.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		gauges, errs = append(gauges, g), append(errs, err)
		return g
	}
	seconds := func(name, description string) metric.Float64ObservableGauge {
		g, err := t.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(description))
		gauges, errs = append(gauges, g), append(errs, err)
		return g
	}
	waiting := count("reset.queue.waiting", "{mail}", "Mails that wait to be sent.")
	leased := count("reset.queue.leased", "{mail}", "Mails that a process is sending.")
	expired := count("reset.queue.expired", "{mail}", "Mails that expired before they were sent.")
	oldest := seconds("reset.queue.oldest", "How long the oldest due mail has waited.")
	live := count("reset.requests.live", "{request}", "Requests with a live activation.")
	age := seconds("reset.run.age", "Time since some process ran Run.")
	down := count("reset.mailer.down", "1", "Whether mail waits for the mail system.")
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("resetotel: %w", err)
	}
	registration, err := t.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		stats, err := source.Stats(ctx)
		if err != nil {
			return err
		}
		now := cmp.Or(stats.Now, time.Now()) // the store's clock, not the machine's
		o.ObserveInt64(waiting, int64(stats.Waiting))
		o.ObserveInt64(leased, int64(stats.Leased))
		o.ObserveInt64(expired, int64(stats.Expired))
		o.ObserveFloat64(oldest, stats.OldestDue.Seconds())
		o.ObserveInt64(live, int64(stats.LiveRequests))
		if !stats.LastRun.IsZero() {
			o.ObserveFloat64(age, max(0, now.Sub(stats.LastRun).Seconds()))
		}
		isDown := int64(0)
		if now.Sub(stats.MailerFailed) < time.Minute {
			isDown = 1
		}
		o.ObserveInt64(down, isDown)
		return nil
	}, gauges...)
	if err != nil {
		return nil, fmt.Errorf("resetotel: %w", err)
	}
	return registration.Unregister, nil
}

// Handler returns a handler that counts the events among its records, from INFO
// on, and passes on to next what next is enabled for.
func (t *Telemetry) Handler(next slog.Handler) slog.Handler {
	return &handler{Handler: next, events: t.events}
}

type handler struct {
	slog.Handler
	events metric.Int64Counter
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.Handler.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	name, n := "", int64(1)
	r.Attrs(func(a slog.Attr) bool {
		switch {
		case a.Key == "event" && a.Value.Kind() == slog.KindString:
			name = a.Value.String()
		case a.Key == "count" && a.Value.Kind() == slog.KindInt64:
			n = a.Value.Int64()
		}
		return true
	})
	if name != "" {
		h.events.Add(context.WithoutCancel(ctx), n, metric.WithAttributes(attribute.String("event", name)))
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.events}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.events}
}
