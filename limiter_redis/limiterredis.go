// Package limiterredis has a reset.Limiter whose counts are in Redis, so that
// all processes of a host share them.
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true})
//	perClient, err := limiterredis.New(client, "reset:client:", 20, time.Minute)
//	svc, err := reset.New(reset.Config{PerClient: perClient, …})
//
// # Failures
//
// While Redis can't be reached, Allow fails and the Service refuses public
// requests, after 200 ms at the latest. Redeeming goes on. A Redis that restarts
// without its data has forgotten the counts: every key may have n events again.
//
// # Clocks
//
// Allow counts with the time that it is given. A process whose clock is behind
// that of another one allows a key less, by the difference, and never more.
package limiterredis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/gcra"
)

var _ reset.Limiter = (*Limiter)(nil)

//go:embed gcra.lua
var source string

var script = redis.NewScript(source)

// A Limiter is a reset.Limiter in Redis (2.6 or later), on one server, with
// sentinels or as a cluster. A key that is an IPv6 /64 prefix is also charged to
// its /48, /40 and /32, as by reset.MemoryLimiter.
//
// Each call of Allow is one round trip, in which Redis runs a script. A key
// leaves Redis at most a second after its bucket is full again. Keys hold client
// addresses in plain text.
type Limiter struct {
	client redis.UniversalClient
	prefix string
	rate   gcra.Rate
}

// New returns a Limiter that allows each key n events at once and n more over
// each period. prefix begins the names of its keys in Redis: give each Limiter
// another one.
//
// New connects to nothing. It fails unless n and period are positive, prefix is
// not empty, and the options of client have ContextTimeoutEnabled, without which
// a Redis that hangs would hold a connection for longer than the Service waits.
// The client stays the host's.
func New(client redis.UniversalClient, prefix string, n int, period time.Duration) (*Limiter, error) {
	rate, err := gcra.NewRate(n, period)
	switch {
	case err != nil:
	case client == nil:
		err = errors.New("client is nil")
	case prefix == "":
		err = errors.New("prefix is empty")
	case !endsWithContext(client):
		err = errors.New("the client's options need ContextTimeoutEnabled")
	}
	if err != nil {
		return nil, fmt.Errorf("limiterredis: %w", err)
	}
	return &Limiter{client, prefix, rate}, nil
}

// endsWithContext reports whether the client's calls end with their context. It
// believes clients of other packages.
func endsWithContext(client redis.UniversalClient) bool {
	switch c := client.(type) {
	case *redis.Client:
		return c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		return c.Options().ContextTimeoutEnabled
	case *redis.Ring:
		return c.Options().ContextTimeoutEnabled
	}
	return true
}

// Burst returns how many events one key may have at once.
func (l *Limiter) Burst() int { return l.rate.Burst() }

// Allow implements reset.Limiter.
func (l *Limiter) Allow(ctx context.Context, key string, now time.Time) error {
	limits := l.rate.Limits(key)
	args := []any{now.UnixMicro()}
	for _, limit := range limits {
		args = append(args, limit.Interval, limit.Bucket)
	}
	wait, err := script.Run(ctx, l.client, l.names(limits), args...).Int64()
	if err != nil {
		return fmt.Errorf("limiterredis: %w", err)
	}
	if wait > 0 {
		return &reset.LimitError{RetryAfter: time.Duration(wait) * time.Microsecond}
	}
	return nil
}

// names returns the names of keys in Redis. Those of one event have one hash
// tag, its widest network, since the script runs on one node of a cluster.
func (l *Limiter) names(limits []gcra.Limit) []string {
	if len(limits) == 1 {
		return []string{l.prefix + "key:" + limits[0].Key}
	}
	names := make([]string, len(limits))
	for i, limit := range limits {
		names[i] = l.prefix + "network:{" + limits[len(limits)-1].Key + "}" + limit.Key
	}
	return names
}
