package limiterredis_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/limitertest"
	limiterredis "github.com/gopassreset/reset/limiter_redis"
)

// fresh returns a limiter that has not counted anything.
func fresh(t testing.TB, client redis.UniversalClient, n int, period time.Duration) *limiterredis.Limiter {
	t.Helper()
	l, err := limiterredis.New(client, freshPrefix(t), n, period)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// freshPrefix returns a prefix whose keys are removed from the given server at
// the end.
func freshPrefix(t testing.TB) string {
	t.Helper()
	prefix := "reset:test:" + rand.Text() + ":"
	t.Cleanup(func() {
		client, err := open(address(t))
		if err != nil {
			t.Error(err)
			return
		}
		defer client.Close()
		keys := client.Scan(context.Background(), 0, prefix+"*", 1000).Iterator()
		for keys.Next(context.Background()) {
			client.Del(context.Background(), keys.Val())
		}
		if err := keys.Err(); err != nil {
			t.Error(err)
		}
	})
	return prefix
}

func TestLimiter(t *testing.T) {
	client := connect(t)
	limitertest.Run(t, func(t *testing.T, n int, period time.Duration) reset.Limiter { return fresh(t, client, n, period) })
}

func TestLimiterInCluster(t *testing.T) {
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: startCluster(t), ContextTimeoutEnabled: true})
	defer client.Close()
	limitertest.Run(t, func(t *testing.T, n int, period time.Duration) reset.Limiter { return fresh(t, client, n, period) })
}

func TestProcesses(t *testing.T) {
	for _, n := range []int{4, 10} {
		limitertest.Processes(t, n, freshPrefix(t))
	}
}

// A hook counts the commands that go to Redis.
type hook struct{ commands atomic.Int64 }

func (h *hook) DialHook(next redis.DialHook) redis.DialHook { return next }
func (h *hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (h *hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.commands.Add(1)
		return next(ctx, cmd)
	}
}

func TestOneRoundTrip(t *testing.T) {
	client := connect(t)
	l := fresh(t, client, 2, time.Minute)
	if err := l.Allow(t.Context(), "first", time.Now()); err != nil { // loads the script
		t.Fatal(err)
	}
	var h hook
	client.AddHook(&h)
	const calls = 10
	for range calls {
		_ = l.Allow(t.Context(), "2001:db8::/64", time.Now())
	}
	if got := h.commands.Load(); got != calls {
		t.Errorf("%d calls made %d commands", calls, got)
	}
}

// Keys leave Redis once their buckets are full.
func TestKeysExpire(t *testing.T) {
	client := connect(t)
	prefix := freshPrefix(t)
	l, err := limiterredis.New(client, prefix, 2, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_ = l.Allow(t.Context(), "2001:db8::/64", time.Now())
	}
	names, err := client.Keys(t.Context(), prefix+"*").Result()
	if err != nil || len(names) != 4 {
		t.Fatalf("got the keys %v, %v, want 4", names, err)
	}
	for _, name := range names {
		if left := client.PTTL(t.Context(), name).Val(); left <= 0 || left > time.Minute+time.Second {
			t.Errorf("%s expires in %v, want at most the period and a second", name, left)
		}
	}
}

// Limiters with other prefixes count apart.
func TestPrefixes(t *testing.T) {
	client := connect(t)
	for range 2 {
		if err := fresh(t, client, 1, time.Hour).Allow(t.Context(), "key", time.Now()); err != nil {
			t.Errorf("the first event: %v", err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	client := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	defer client.Close()
	endless := redis.NewClient(&redis.Options{})
	defer endless.Close()
	cluster := redis.NewClusterClient(&redis.ClusterOptions{})
	defer cluster.Close()
	ring := redis.NewRing(&redis.RingOptions{})
	defer ring.Close()
	for _, tt := range []struct {
		want   string
		client redis.UniversalClient
		prefix string
		n      int
		period time.Duration
	}{
		{"positive", client, "p", 0, time.Second},
		{"positive", client, "p", 1, 0},
		{"prefix", client, "", 1, time.Second},
		{"nil", nil, "p", 1, time.Second},
		{"ContextTimeoutEnabled", endless, "p", 1, time.Second},
		{"ContextTimeoutEnabled", cluster, "p", 1, time.Second},
		{"ContextTimeoutEnabled", ring, "p", 1, time.Second},
	} {
		_, err := limiterredis.New(tt.client, tt.prefix, tt.n, tt.period)
		if err == nil || !strings.HasPrefix(err.Error(), "limiterredis: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New: got error %v, want %q", err, tt.want)
		}
	}
}

// A server that restarts in the middle costs errors, and only while it is away.
func TestRestart(t *testing.T) {
	s := startServer(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr(), ContextTimeoutEnabled: true})
	defer client.Close()
	l := fresh(t, client, 3, time.Hour)
	use := func() {
		t.Helper()
		for i := range 4 {
			if err := limitertest.Allow(l, "key"); (err == nil) != (i < 3) || err != nil && !errors.Is(err, reset.ErrTooManyRequests) {
				t.Fatalf("call %d of a limit of 3: %v", i+1, err)
			}
		}
	}
	use()
	s.kill()
	if err := limitertest.Allow(l, "key"); err == nil || errors.Is(err, reset.ErrTooManyRequests) {
		t.Errorf("without a server: got error %v, want a failure", err)
	}
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	until(ctx, t, "the limiter does not recover", func() bool { return limitertest.Allow(l, "another key") == nil })
	use() // it has forgotten the counts, and the script
}

// A Redis that hangs or is gone has public requests refused in time, and
// nothing is queued.
func TestServiceRefusesInTime(t *testing.T) {
	hanging := startServer(t)
	silent := listenSilently(t)
	for name, addr := range map[string]string{"hangs": hanging.addr(), "accepts only": silent, "is gone": "127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
			defer client.Close()
			l := fresh(t, client, 3, time.Hour)
			if name == "hangs" {
				if err := l.Allow(t.Context(), "key", time.Now()); err != nil {
					t.Fatal(err)
				}
				if err := hanging.process.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			limitertest.RefusesInTime(t, l)
		})
	}
}

// listenSilently returns the address of a server that answers nothing.
func listenSilently(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var conns []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func BenchmarkAllow(b *testing.B) {
	l := fresh(b, connect(b), 1_000_000, time.Second)
	for _, key := range []string{"192.0.2.1", "2001:db8::/64"} {
		b.Run(key, func(b *testing.B) {
			for b.Loop() {
				if err := l.Allow(b.Context(), key, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
