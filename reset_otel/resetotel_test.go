package resetotel_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/gopassreset/reset"
	_ "github.com/gopassreset/reset/internal/bubble"
	resetotel "github.com/gopassreset/reset/reset_otel"
	"github.com/gopassreset/reset/resettest"
)

const apiKey = "key-0123456789abcdef0123456789abcdef"

// users has one account.
type users struct{}

func (users) FindByEmail(_ context.Context, address string) (reset.User, error) {
	if address != "ann@example.com" {
		return reset.User{}, reset.ErrNoUser
	}
	return reset.User{ID: "user-1", Email: address}, nil
}
func (users) HashPassword(context.Context, string) (string, error) { return "hash", nil }
func (users) SetPassword(context.Context, string, string) error    { return nil }

// A mailer fails once with an error, if there is one.
type mailer struct{ fails chan error }

func (m mailer) Send(context.Context, reset.Message) error {
	select {
	case err := <-m.fails:
		return err
	default:
		return nil
	}
}

// A host is a service whose telemetry is kept.
type host struct {
	*reset.Service
	telemetry *resetotel.Telemetry
	reader    *metric.ManualReader
	spans     *tracetest.SpanRecorder
	mailer    mailer
	log       *strings.Builder // from ERROR on
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{reader: metric.NewManualReader(), spans: tracetest.NewSpanRecorder(), mailer: mailer{make(chan error, 1)}, log: new(strings.Builder)}
	var err error
	h.telemetry, err = resetotel.New(resetotel.Options{
		TracerProvider: trace.NewTracerProvider(trace.WithSpanProcessor(h.spans)),
		MeterProvider:  metric.NewMeterProvider(metric.WithReader(h.reader)),
	})
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(h.telemetry.Handler(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelError})))
	h.Service, err = reset.New(reset.Config{
		Users: users{}, Store: new(resettest.MemStore), Mailer: h.mailer, BaseURL: "https://app.example.com/account",
		APIKeys: []string{apiKey}, Observe: h.telemetry.Observe, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	stop, err := h.telemetry.ReportStats(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// journey makes everything happen once: requests of all kinds, mail, a changed
// password, an activation that is refused, a wrong key.
func (h *host) journey(t *testing.T) (secrets []string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	activation, err := h.RequestReset(ctx, "ann@example.com", reset.RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"ann@example.com", "stranger@example.com"} {
		if err := h.Forgot(ctx, email, "192.0.2.1", reset.ForgotOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r := httptest.NewRequest("POST", "/v1/auth/reset-password", nil)
	r.Header.Set("Authorization", "canary-key")
	h.Handler().ServeHTTP(httptest.NewRecorder(), r)
	<-time.After(5 * time.Second)
	for _, password := range []string{"short", "correct horse battery staple", "correct horse battery staple"} {
		h.ChangePassword(ctx, activation, password)
	}
	<-time.After(5 * time.Second)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return []string{activation, "canary-key", "ann@", "stranger@", "192.0.2.1", "user-1", "horse"}
}

// collect returns what is exported.
func (h *host) collect(t *testing.T) []metricdata.Metrics {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := h.reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	if len(data.ScopeMetrics) != 1 {
		t.Fatalf("%d scopes", len(data.ScopeMetrics))
	}
	return data.ScopeMetrics[0].Metrics
}

// points returns the attributes and values of a metric; of a histogram, how
// often something was recorded.
func points(m metricdata.Metrics) map[string]float64 {
	all := make(map[string]float64)
	add := func(set attribute.Set, value float64) { all[set.Encoded(attribute.DefaultEncoder())] += value }
	switch data := m.Data.(type) {
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			add(p.Attributes, float64(p.Count))
		}
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			add(p.Attributes, float64(p.Value))
		}
	case metricdata.Gauge[int64]:
		for _, p := range data.DataPoints {
			add(p.Attributes, float64(p.Value))
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			add(p.Attributes, p.Value)
		}
	}
	return all
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.journey(t)
		got := make(map[string]map[string]float64)
		for _, m := range h.collect(t) {
			got[m.Name] = points(m)
		}
		for name, want := range map[string]map[string]float64{
			"reset.operation.duration": {
				"operation=trusted_request,outcome=ok": 1, "operation=public_request,outcome=ok": 2,
				"operation=redeem,outcome=refused": 1, "operation=redeem,outcome=ok": 1,
				"operation=send,outcome=ok": 3,
			},
			"reset.events": {
				"event=trusted_request": 1, "event=public_request": 2, "event=key_refused": 1, "event=activation_refused": 1,
				"event=mail_sent": 3, "event=password_changed": 1,
			},
			"reset.queue.waiting": {"": 0}, "reset.queue.leased": {"": 0}, "reset.queue.expired": {"": 0}, "reset.queue.oldest": {"": 0},
			"reset.requests.live": {"": 0}, "reset.mailer.down": {"": 0},
		} {
			for attrs, value := range want {
				if v, ok := got[name][attrs]; !ok || v != value {
					t.Errorf("%s of %q is %v, want %v", name, attrs, v, value)
				}
			}
		}
		if age := got["reset.run.age"][""]; age < 0 || age > 20 {
			t.Errorf("reset.run.age is %v", age)
		}
		if h.log.Len() > 0 {
			t.Errorf("next got records that it is not enabled for:\n%s", h.log)
		}
	})
}

func TestSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.mailer.fails <- errors.New("421 <ann@example.com> later")
		h.journey(t)
		names := make(map[string]int)
		for _, span := range h.spans.Ended() {
			if span.Name() == "reset send" && span.Status().Code == codes.Error {
				names["failed send"]++
				continue
			}
			names[span.Name()]++
		}
		for name, want := range map[string]int{"reset trusted_request": 1, "reset public_request": 2, "reset redeem": 2, "failed send": 1} {
			if names[name] != want {
				t.Errorf("%d spans %s, want %d: %v", names[name], name, want, names)
			}
		}
	})
}

// No metric and no span says whom it is about.
func TestLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.mailer.fails <- errors.New("421 <ann@example.com> later")
		secrets := h.journey(t)
		var exported strings.Builder
		encode := json.NewEncoder(&exported)
		for _, m := range h.collect(t) {
			encode.Encode(m.Name)
			encode.Encode(points(m))
		}
		for _, span := range h.spans.Ended() {
			encode.Encode([]any{span.Name(), span.Attributes(), span.Events(), span.Status()})
		}
		for _, secret := range secrets {
			if strings.Contains(exported.String(), secret) {
				t.Errorf("%s is exported", secret)
			}
		}
	})
	// For an address with an account, and for one without, a public request is
	// the same at the time.
	synctest.Test(t, func(t *testing.T) {
		var exported []map[string]float64
		for _, email := range []string{"ann@example.com", "stranger@example.com"} {
			h := newHost(t)
			if err := h.Forgot(t.Context(), email, "192.0.2.1", reset.ForgotOptions{}); err != nil {
				t.Fatal(err)
			}
			all := make(map[string]float64)
			for _, m := range h.collect(t) {
				for attrs, value := range points(m) {
					all[m.Name+" "+attrs] = value
				}
			}
			exported = append(exported, all)
		}
		a, _ := json.Marshal(exported[0])
		b, _ := json.Marshal(exported[1])
		if string(a) != string(b) {
			t.Errorf("with an account %s, without %s", a, b)
		}
	})
}

// A source has figures of its own.
type source reset.Stats

func (s source) Stats(context.Context) (reset.Stats, error) { return reset.Stats(s), nil }

// Ages are by the store's clock, however wrong that of the machine is.
func TestReportStatsClock(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		now := time.Now().Add(off)
		h := &host{reader: metric.NewManualReader()}
		telemetry, err := resetotel.New(resetotel.Options{MeterProvider: metric.NewMeterProvider(metric.WithReader(h.reader))})
		if err != nil {
			t.Fatal(err)
		}
		stop, err := telemetry.ReportStats(source{Now: now, LastRun: now.Add(-30 * time.Second), MailerFailed: now.Add(-2 * time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		for _, m := range h.collect(t) {
			want, ok := map[string]float64{"reset.run.age": 30, "reset.mailer.down": 0}[m.Name]
			if got := points(m)[""]; ok && got != want {
				t.Errorf("%v ahead: %s = %v, want %v", off, m.Name, got, want)
			}
		}
	}
}

func TestReportStatsWithoutStats(t *testing.T) {
	h := newHost(t)
	svc, err := reset.New(reset.Config{
		Users: users{}, Store: struct{ reset.Store }{new(resettest.MemStore)}, Mailer: h.mailer, BaseURL: "https://app.example.com/account",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.telemetry.ReportStats(svc); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ReportStats: %v", err)
	}
}

// The board, the alerts and the table in docs/operations.md are about metrics
// that are exported, and events that there are.
func TestExported(t *testing.T) {
	var names []string
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.journey(t)
		for _, m := range h.collect(t) {
			names = append(names, prometheusName(m))
		}
	})
	slices.Sort(names)

	operations := read(t, "../docs/operations.md")
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(reset_\\w+)` \\|").FindAllStringSubmatch(operations, -1) {
		listed = append(listed, row[1])
	}
	slices.Sort(listed)
	if !slices.Equal(listed, names) {
		t.Errorf("docs/operations.md lists %q, exported are %q", listed, names)
	}

	alerts, board := read(t, "../docs/ops/alerts.yml"), read(t, "../docs/ops/grafana.json")
	if !json.Valid([]byte(board)) {
		t.Error("grafana.json is not JSON")
	}
	if got := strings.Count(alerts, "- alert: "); got != 5 {
		t.Errorf("%d alerts, want 5", got)
	}
	for _, text := range []string{alerts, board} {
		used := regexp.MustCompile(`\breset_\w+`).FindAllString(text, -1)
		for _, name := range used {
			base := strings.TrimSuffix(strings.TrimSuffix(name, "_count"), "_sum")
			if !slices.Contains(names, base) {
				t.Errorf("%s is not exported", name)
			}
		}
		for _, list := range regexp.MustCompile(`(event|operation|outcome)(?:=~|!=|=)\\?"([\w|]+)\\?"`).FindAllStringSubmatch(text, -1) {
			for word := range strings.SplitSeq(list[2], "|") {
				if !strings.Contains(map[string]string{
					"event":     operations,
					"operation": read(t, "../observe.go"),
					"outcome":   read(t, "../observe.go"),
				}[list[1]], map[bool]string{true: "| `" + word + "` |", false: `"` + word + `"`}[list[1] == "event"]) {
					t.Errorf("there is no %s %s", list[1], word)
				}
			}
		}
	}
	for _, page := range regexp.MustCompile(`runbook: docs/operations\.md#(\w+)`).FindAllStringSubmatch(alerts, -1) {
		if !strings.Contains(operations, "### "+page[1]+"\n") {
			t.Errorf("docs/operations.md has no part %s", page[1])
		}
	}
}

// prometheusName is the name that exporters for Prometheus give a metric.
func prometheusName(m metricdata.Metrics) string {
	name := strings.ReplaceAll(m.Name, ".", "_")
	if m.Unit == "s" {
		name += "_seconds"
	}
	if sum, ok := m.Data.(metricdata.Sum[int64]); ok && sum.IsMonotonic {
		name += "_total"
	}
	return name
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
