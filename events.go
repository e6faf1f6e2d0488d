package reset

import (
	"context"
	"log/slog"
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
	badRequest        = event{"bad_request", slog.LevelDebug, "request answered with 400", []string{"reason"}}
	mailSent          = event{"mail_sent", slog.LevelInfo, "mail sent", mailAttrs}
	passwordChanged   = event{"password_changed", slog.LevelInfo, "password changed", []string{"user"}}
	mailerRecovered   = event{"mailer_recovered", slog.LevelInfo, "mail system is available again", []string{"since", "failures", "sent"}}
	started           = event{"started", slog.LevelInfo, "started", []string{"links", "store", "mailer", "per_client", "per_address", "max_requests", "ttl", "workers"}}
	runElsewhere      = event{"run_elsewhere", slog.LevelInfo, "mail was queued, but Run has not been called in this process", nil}
	mailExpired       = event{"mail_expired", slog.LevelWarn, "mail expired before it could be sent", mailAttrs}
	mailUndeliverable = event{"mail_undeliverable", slog.LevelWarn, "mail cannot be delivered", mailAttrs}
	mailUnconfirmed   = event{"mail_unconfirmed", slog.LevelWarn, "mail system did not confirm a mail, which may have arrived", mailAttrs}
	overCap           = event{"over_cap", slog.LevelWarn, "public request dropped: the user has too many live requests", mailAttrs}
	revokedByUser     = event{"revoked_by_user", slog.LevelWarn, "user revoked a reset that somebody else requested", []string{"user"}}
	limiterFull       = event{"limiter_full", slog.LevelWarn, "limiter has no room for another key", []string{"limiter"}}
	proxyUnknown      = event{"proxy_unknown", slog.LevelWarn, "request has a forwarding header: if a proxy sent it, set Config.ClientIP to ClientIPBehind with its addresses", []string{"header", "peer"}}
	baseURLMismatch   = event{"base_url_mismatch", slog.LevelWarn, "Pages is visited elsewhere than Config.BaseURL says, where its links and forms lead", []string{"visited", "base_url"}}
	foreignPost       = event{"foreign_post", slog.LevelWarn, "form or JSON from another origin refused", []string{"origin", "base_url", "client", "count"}}
	bodyConsumed      = event{"body_consumed", slog.LevelWarn, "the body of a request was read before it came here: exempt the mount from the middleware that does", []string{"count"}}
	hashingBusy       = event{"busy", slog.LevelWarn, "a new password had to wait for hashing too long", []string{"count"}}
	userAmbiguous     = event{"user_ambiguous", slog.LevelWarn, "several accounts share an address: none of them is reset", nil}
	userMismatch      = event{"user_mismatch", slog.LevelWarn, "FindByEmail returned a user with another address", []string{"user"}}
	workersFew        = event{"workers_few", slog.LevelWarn, "Config.Workers is below the burst of Config.PerClient: the arrival of mail can reveal who has an account", []string{"workers", "burst"}}
	mailerThrottled   = event{"mailer_throttled", slog.LevelWarn, "mail system takes fewer messages at a time", []string{"limit", "error"}}
	mailerFailing     = event{"mailer_failing", slog.LevelWarn, "mail system is still unavailable", []string{"since", "failures", "sent", "error"}}
	mailFailed        = event{"mail_failed", slog.LevelError, "mail could not be sent and will be retried", mailAttrs}
	mailerFailed      = event{"mailer_failed", slog.LevelError, "mail system is unavailable: mail waits", []string{"error"}}
	requestFailed     = event{"request_failed", slog.LevelError, "request failed", []string{"error"}}
	limiterFailed     = event{"limiter_failed", slog.LevelError, "limiter failed", []string{"limiter", "error"}}
	leaseFailed       = event{"lease_failed", slog.LevelError, "leasing mail failed", []string{"error"}}
	settleFailed      = event{"settle_failed", slog.LevelError, "settling mail failed", []string{"error"}}
	purgeFailed       = event{"purge_failed", slog.LevelError, "purging expired records failed", []string{"error"}}
	panicked          = event{"panic", slog.LevelError, "recovered from a panic", []string{"type", "stack"}}
)

var mailAttrs = []string{"mail", "kind", "attempt", "user", "error"}

// allEvents is what the documentation of Config.Logger lists.
var allEvents = []event{
	mailSent, passwordChanged, mailerRecovered, runElsewhere,
	mailExpired, mailUndeliverable, overCap, revokedByUser, limiterFull, proxyUnknown, userAmbiguous, userMismatch, workersFew,
	badRequest, started, baseURLMismatch, foreignPost, bodyConsumed, hashingBusy,
	mailUnconfirmed, mailerThrottled, mailerFailing,
	mailFailed, mailerFailed, requestFailed, limiterFailed, leaseFailed, settleFailed, purgeFailed, panicked,
}

// An eventLog writes events to the host's logger.
type eventLog struct{ logger *slog.Logger }

func (l eventLog) log(ctx context.Context, e event, attrs ...any) {
	l.logAt(ctx, e.level, e, attrs...)
}

// logAt logs an event at another level than its own.
func (l eventLog) logAt(ctx context.Context, level slog.Level, e event, attrs ...any) {
	l.logger.Log(ctx, level, "reset: "+e.message, append([]any{"event", e.name}, attrs...)...)
}

// A throttle bounds the records of an event that clients can cause at any rate.
type throttle struct {
	mu   sync.Mutex
	busy bool // a record was logged less than throttlePeriod ago
	more int  // since then
}

const throttlePeriod = time.Minute

// throttled logs an event at once, and those that follow within throttlePeriod
// in one more record. The attribute "count" says for how many a record stands.
func (l eventLog) throttled(ctx context.Context, t *throttle, e event, attrs ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy {
		t.more++
		return
	}
	t.busy = true
	l.log(ctx, e, append(attrs, "count", 1)...)
	ctx = context.WithoutCancel(ctx)
	time.AfterFunc(throttlePeriod, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.more > 0 {
			l.log(ctx, e, "count", t.more)
		}
		t.busy, t.more = false, 0
	})
}
