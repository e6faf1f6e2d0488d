package reset

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// An event is one kind of log record. Config.Logger documents them all.
type event struct {
	name    string // the attribute "event"
	level   slog.Level
	message string
	attrs   []string // the attributes that a record may have besides
}

// No attribute holds an activation, a link, a password, or an address that may
// belong to nobody.
var (
	badRequest        = event{"bad_request", slog.LevelDebug, "request answered with 400, 413 or 415", []string{"reason"}}
	mailSent          = event{"mail_sent", slog.LevelInfo, "mail sent", mailAttrs}
	passwordChanged   = event{"password_changed", slog.LevelInfo, "password changed", []string{"client", "key", "user"}}
	mailerRecovered   = event{"mailer_recovered", slog.LevelInfo, "mail system is available again", []string{"since", "failures", "sent"}}
	started           = event{"started", slog.LevelInfo, "started", []string{"links", "store", "mailer", "per_client", "per_address", "max_requests", "ttl", "workers"}}
	runElsewhere      = event{"run_elsewhere", slog.LevelInfo, "mail was queued, but Run has not been called in this process", nil}
	trustedRequest    = event{"trusted_request", slog.LevelInfo, "trusted request for a reset", []string{"client", "key", "user", "count"}}
	publicRequest     = event{"public_request", slog.LevelInfo, "public request for a reset", []string{"client", "count"}}
	mailExpired       = event{"mail_expired", slog.LevelWarn, "mail expired before it could be sent", mailAttrs}
	mailUndeliverable = event{"mail_undeliverable", slog.LevelWarn, "mail cannot be delivered", mailAttrs}
	mailUnconfirmed   = event{"mail_unconfirmed", slog.LevelWarn, "mail system did not confirm a mail, which may have arrived", mailAttrs}
	overCap           = event{"over_cap", slog.LevelWarn, "request refused: the user has too many live requests", []string{"client", "key", "user", "count"}}
	overBudget        = event{"over_budget", slog.LevelWarn, "public request not mailed: the user has got enough mail, or has revoked a reset that somebody else requested", []string{"user", "count"}}
	revokedByUser     = event{"revoked_by_user", slog.LevelWarn, "user revoked a reset that somebody else requested", []string{"client", "key", "user"}}
	keyRefused        = event{"key_refused", slog.LevelWarn, "wrong API key", []string{"client", "count"}}
	activationRefused = event{"activation_refused", slog.LevelWarn, "activation is not live", []string{"client", "key", "reason", "count"}}
	clientLimited     = event{"client_limited", slog.LevelWarn, "client has reached a limit", []string{"client", "key", "limiter", "count"}}
	limiterFull       = event{"limiter_full", slog.LevelWarn, "limiter has no room for another key", []string{"limiter", "count"}}
	proxyUnknown      = event{"proxy_unknown", slog.LevelWarn, "request has a forwarding header: if a proxy sent it, set Config.ClientIP to ClientIPBehind with its addresses", []string{"header", "peer"}}
	baseURLMismatch   = event{"base_url_mismatch", slog.LevelWarn, "Pages is visited elsewhere than Config.BaseURL says, where its links and forms lead", []string{"visited", "base_url"}}
	baseURLConflict   = event{"base_url_conflict", slog.LevelWarn, "another Service uses the same realm of the store and has, or had, another BaseURL", []string{"base_url", "other"}}
	foreignPost       = event{"foreign_post", slog.LevelWarn, "request from a page of another origin refused", []string{"client", "key", "origin", "base_url", "count"}}
	appNotJSON        = event{"app_not_json", slog.LevelWarn, "POST from one of Config.AllowedOrigins refused: it needs Content-Type: application/json", []string{"client", "origin", "count"}}
	bodyConsumed      = event{"body_consumed", slog.LevelWarn, "the body of a request was read before it came here: exempt the mount from the middleware that does", []string{"path", "count"}}
	busy              = event{"busy", slog.LevelWarn, "request refused for now: hashing, the store or the accounts did not get to it in time", []string{"operation", "error", "count"}}
	userAmbiguous     = event{"user_ambiguous", slog.LevelWarn, "several accounts share an address: none of them is reset", []string{"count"}}
	userMismatch      = event{"user_mismatch", slog.LevelWarn, "FindByEmail returned a user with another address", []string{"user", "count"}}
	queueFull         = event{"queue_full", slog.LevelWarn, "public request refused: Config.MaxQueued mails are queued", []string{"count"}}
	clockSkew         = event{"clock_skew", slog.LevelWarn, "the clocks of this machine and of the store disagree, or the machine's clock has jumped", []string{"store_ahead", "jump"}}
	mailPurged        = event{"mail_purged", slog.LevelWarn, "mail expired and was removed without having been sent", []string{"mails"}}
	queueLate         = event{"queue_late", slog.LevelWarn, "mail that is due has waited for more than a minute", []string{"oldest", "waiting", "last_run"}}
	txNotUsed         = event{"transaction_not_used", slog.LevelWarn, "SetPassword did not write through the transaction in its context: password and link are not saved together", []string{"count"}}
	workersFew        = event{"workers_few", slog.LevelWarn, "Config.Workers is below the burst of Config.PerClient: the arrival of mail can reveal who has an account", []string{"workers", "burst"}}
	mailerThrottled   = event{"mailer_throttled", slog.LevelWarn, "mail system takes fewer messages at a time", []string{"limit", "error"}}
	mailerFailing     = event{"mailer_failing", slog.LevelWarn, "mail system is still unavailable", []string{"since", "failures", "sent", "error"}}
	mailFailed        = event{"mail_failed", slog.LevelError, "mail could not be sent and will be retried", mailAttrs}
	mailerFailed      = event{"mailer_failed", slog.LevelError, "mail system is unavailable: mail waits", []string{"error"}}
	requestFailed     = event{"request_failed", slog.LevelError, "request failed", []string{"operation", "error", "count"}}
	limiterFailed     = event{"limiter_failed", slog.LevelError, "limiter failed", []string{"limiter", "error", "count"}}
	leaseFailed       = event{"lease_failed", slog.LevelError, "leasing mail failed", []string{"error"}}
	settleFailed      = event{"settle_failed", slog.LevelError, "settling mail failed", []string{"error"}}
	purgeFailed       = event{"purge_failed", slog.LevelError, "purging expired records failed", []string{"error"}}
	panicked          = event{"panic", slog.LevelError, "recovered from a panic", []string{"type", "stack"}}
)

var mailAttrs = []string{"mail", "kind", "attempt", "user", "error"}

// allEvents is what the documentation of Config.Logger lists.
var allEvents = []event{
	badRequest, txNotUsed,
	mailSent, passwordChanged, mailerRecovered, started, runElsewhere, trustedRequest, publicRequest,
	mailExpired, mailUndeliverable, mailUnconfirmed, overCap, overBudget, revokedByUser, keyRefused, activationRefused, foreignPost, appNotJSON,
	clientLimited, limiterFull, proxyUnknown, userAmbiguous, userMismatch, clockSkew, mailPurged, queueLate, queueFull, workersFew, mailerThrottled, mailerFailing,
	baseURLMismatch, baseURLConflict, bodyConsumed, busy,
	mailFailed, mailerFailed, requestFailed, limiterFailed, leaseFailed, settleFailed, purgeFailed, panicked,
}

// An eventLog writes events to the host's logger.
type eventLog struct {
	logger *slog.Logger
	counts *counts
}

func newEventLog(logger *slog.Logger) eventLog {
	return eventLog{logger, &counts{of: make(map[string]*counted)}}
}

func (l eventLog) log(ctx context.Context, e event, attrs ...any) {
	l.logAt(ctx, e.level, e, attrs...)
}

// logAt logs an event at another level than its own.
func (l eventLog) logAt(ctx context.Context, level slog.Level, e event, attrs ...any) {
	defer func() { _ = recover() }() // of the host's handler: there is nowhere to report it
	l.logger.Log(ctx, level, "reset: "+e.message, append([]any{"event", e.name}, attrs...)...)
}

const (
	countPeriod = time.Minute
	maxCounted  = 1000
)

// counts are the events of the last countPeriod whose rate strangers decide.
type counts struct {
	mu      sync.Mutex
	of      map[string]*counted
	ticking bool // a timer runs
}

// A counted event has occurred n times since it was logged last.
type counted struct {
	event event
	attrs []any
	n     int
}

// count logs an event whose rate a stranger decides. The first is logged at
// once. Those with the same attributes that follow within a minute become one
// record with the attribute "count". Where too many differ, they are counted
// without their attributes. Errors may differ: the latest is logged.
func (l eventLog) count(ctx context.Context, e event, attrs ...any) {
	if !l.enabled(ctx, e.level) {
		return
	}
	attrs = slices.Clip(attrs)
	key := countKey(e, attrs)
	l.counts.mu.Lock()
	c := l.counts.of[key]
	if c == nil && len(l.counts.of) >= maxCounted {
		key, attrs = e.name, nil
		c = l.counts.of[key]
	}
	first := c == nil
	if first {
		l.counts.of[key] = &counted{event: e, attrs: attrs}
	} else {
		c.n++
		c.attrs = attrs
	}
	if !l.counts.ticking {
		l.counts.ticking = true
		time.AfterFunc(countPeriod, l.tick)
	}
	l.counts.mu.Unlock()
	if first {
		l.log(ctx, e, append(attrs, "count", 1)...)
	}
}

func (l eventLog) enabled(ctx context.Context, level slog.Level) (enabled bool) {
	defer func() { _ = recover() }() // as in logAt
	return l.logger.Enabled(ctx, level)
}

// countKey names what is counted together.
func countKey(e event, attrs []any) string {
	key := e.name
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i] != "error" {
			key += fmt.Sprintf(" %v=%v", attrs[i], attrs[i+1])
		}
	}
	return key
}

// tick logs the counts of a minute, and goes on until there are none.
func (l eventLog) tick() {
	l.logCounts()
	l.counts.mu.Lock()
	defer l.counts.mu.Unlock()
	if l.counts.ticking = len(l.counts.of) > 0; l.counts.ticking {
		time.AfterFunc(countPeriod, l.tick)
	}
}

// logCounts logs what was counted, and forgets events that did not recur.
func (l eventLog) logCounts() {
	var logged []counted
	l.counts.mu.Lock()
	for key, c := range l.counts.of {
		if c.n == 0 {
			delete(l.counts.of, key)
			continue
		}
		logged = append(logged, *c)
		c.n = 0
	}
	l.counts.mu.Unlock()
	for _, c := range logged {
		l.log(context.Background(), c.event, append(c.attrs, "count", c.n)...)
	}
}
