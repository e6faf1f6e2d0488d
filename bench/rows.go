package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"net"
	"strings"
	"time"
)

// A row is one line of the table. measure returns both sides; a floor of 0
// means that there is none.
type row struct {
	name    string
	unit    string
	inTime  bool
	once    bool // too long to be repeated
	measure func(ctx context.Context, b *bench) (ours, floor float64, err error)
}

var (
	public            = post{path: "/forgot", body: emailBody}
	trusted           = post{path: "/v1/auth/reset-password", body: emailBody}
	insert            = post{path: "/", body: emailBody}
	throughPocketBase = post{path: "/api/collections/users/request-password-reset", body: emailBody}
	// preventing makes the trusted path comparable with a floor that mails
	// nothing.
	preventing = post{path: trusted.path, body: func(n int64) string {
		return `{"email":"` + email(n) + `","preventEmailSending":true}`
	}}
)

const unbounded = math.MaxInt64

func rows() []row {
	return []row{
		rates("public, 64 connections, SQLite ÷ group commit", "reset-sqlite", public, "insert-sqlite", 64),
		rates("trusted, 64 connections, SQLite ÷ group commit", "reset-sqlite", trusted, "insert-sqlite", 64),
		rates("trusted, 1 connection, delivery running, SQLite ÷ one INSERT a commit", "reset-sqlite", trusted, "insert-sqlite", 1),
		rates("trusted, 64 connections, PostgreSQL ÷ look-up, count, INSERT, COMMIT", "reset-postgres", trusted, "cap-postgres", 64),
		rates("public, 64 connections, PostgreSQL ÷ one INSERT a commit", "reset-postgres", public, "insert-postgres", 64),
		{name: "mails out, SQLite ÷ group commit, 64 connections", unit: "/s", measure: func(ctx context.Context, b *bench) (float64, float64, error) {
			return pair(ctx, b, side{"reset-sqlite", mailsOut}, side{"insert-sqlite", rateOf(insert, 64)})
		}},
		{name: "mails out, PostgreSQL ÷ one INSERT a commit, 1 connection", unit: "/s", measure: func(ctx context.Context, b *bench) (float64, float64, error) {
			return pair(ctx, b, side{"reset-postgres", mailsOut}, side{"insert-postgres", rateOf(insert, 1)})
		}},
		{name: "mails out, MariaDB ÷ PostgreSQL", unit: "/s", measure: func(ctx context.Context, b *bench) (float64, float64, error) {
			return pair(ctx, b, side{"reset-mysql", mailsOut}, side{"reset-postgres", mailsOut})
		}},
		{name: "accepted and mailed, public, SQLite ÷ PocketBase", unit: "/s", measure: func(ctx context.Context, b *bench) (float64, float64, error) {
			return pair(ctx, b, side{"reset-sqlite", acceptedAndMailed(public)}, side{"pocketbase", acceptedAndMailed(throughPocketBase)})
		}},
		{name: "p99 ÷ p50, 256 connections, public, SQLite", unit: "ms", inTime: true, measure: func(ctx context.Context, b *bench) (p99, p50 float64, err error) {
			err = b.with(ctx, "reset-sqlite", serverConfig{users: users}, func(c *child, s *sink) error {
				l, err := drive(ctx, c.addr, public, 256, b.each, unbounded)
				if err == nil {
					p99, p50 = ms(l.percentile(0.99)), ms(l.percentile(0.5))
				}
				return err
			})
			return p99, p50, err
		}},
		{name: "p50, trusted, 10⁶ users ÷ 10³, SQLite", unit: "ms", inTime: true, measure: func(ctx context.Context, b *bench) (float64, float64, error) {
			return pair(ctx, b, side{"reset-sqlite", medianOf(preventing, 1_000_000, 0)}, side{"reset-sqlite", medianOf(preventing, users, 0)})
		}},
		{name: "p50, public, 10⁶ expired rows ÷ none, SQLite", unit: "ms", inTime: true, measure: func(ctx context.Context, b *bench) (float64, float64, error) {
			return pair(ctx, b, side{"reset-sqlite", medianOf(public, users, 1_000_000)}, side{"reset-sqlite", medianOf(public, users, 0)})
		}},
		soak("resident memory after 10⁶ public requests ÷ after 10⁵, SQLite", 1_000_000),
		flood("honest mail behind 50,000 of others, less without, unknown", 50_000, 0),
		flood("honest mail behind 200,000 of others, less without, unknown", 200_000, 0),
		flood("honest mail behind 20,000 of others, less without, known, 100 ms a mail", 20_000, 100*time.Millisecond),
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// A side is a server and what is measured of it.
type side struct {
	kind    string
	measure func(ctx context.Context, b *bench, kind string) (float64, error)
}

func pair(ctx context.Context, b *bench, ours, floor side) (a, c float64, err error) {
	if a, err = ours.measure(ctx, b, ours.kind); err != nil {
		return 0, 0, err
	}
	c, err = floor.measure(ctx, b, floor.kind)
	return a, c, err
}

// with runs a server on a new database, and a sink for its mail.
func (b *bench) with(ctx context.Context, kind string, c serverConfig, f func(*child, *sink) error) error {
	return b.withSink(ctx, kind, c, 0, f)
}

func (b *bench) withSink(ctx context.Context, kind string, c serverConfig, delay time.Duration, f func(*child, *sink) error) error {
	s, err := startSink(delay)
	if err != nil {
		return err
	}
	defer s.close()
	_, place, _ := strings.Cut(kind, "-")
	name, drop, err := b.newPlace(ctx, place)
	if err != nil {
		return err
	}
	defer drop()
	c.db, c.smtp = name, s.addr()
	child, err := start(ctx, kind, c)
	if err != nil {
		return err
	}
	defer child.stop()
	return f(child, s)
}

func rates(name, ours string, p post, floor string, connections int) row {
	return row{name: name, unit: "/s", measure: func(ctx context.Context, b *bench) (float64, float64, error) {
		return pair(ctx, b, side{ours, rateOf(p, connections)}, side{floor, rateOf(insert, connections)})
	}}
}

func rateOf(p post, connections int) func(context.Context, *bench, string) (float64, error) {
	return func(ctx context.Context, b *bench, kind string) (rate float64, err error) {
		err = b.with(ctx, kind, serverConfig{users: users}, func(c *child, s *sink) error {
			if _, err := drive(ctx, c.addr, p, connections, b.each/3, unbounded); err != nil { // warm-up
				return err
			}
			l, err := drive(ctx, c.addr, p, connections, b.each, unbounded)
			rate = l.rate()
			return err
		})
		return rate, err
	}
}

func medianOf(p post, accounts, expired int) func(context.Context, *bench, string) (float64, error) {
	return func(ctx context.Context, b *bench, kind string) (p50 float64, err error) {
		err = b.with(ctx, kind, serverConfig{users: accounts, requests: expired}, func(c *child, s *sink) error {
			l, err := drive(ctx, c.addr, p, 16, b.each, unbounded)
			if err == nil {
				p50 = ms(l.percentile(0.5))
			}
			return err
		})
		return p50, err
	}
}

// soak compares the memory of a server after n requests with that after a tenth,
// and logs that after half of them.
func soak(name string, n int64) row {
	return row{name: name, unit: "MB", inTime: true, once: true, measure: func(ctx context.Context, b *bench) (all, tenth float64, err error) {
		err = b.with(ctx, "reset-sqlite", serverConfig{users: users}, func(c *child, _ *sink) error {
			var half float64
			for _, part := range []struct {
				requests int64
				memory   *float64
			}{{n / 10, &tenth}, {n/2 - n/10, &half}, {n - n/2, &all}} {
				if _, err := drive(ctx, c.addr, public, 64, time.Hour, part.requests); err != nil {
					return err
				}
				if *part.memory, err = c.resident(); err != nil {
					return err
				}
			}
			log.Printf("%s: %.0f MB after a tenth, %.0f after half, %.0f after all", name, tenth, half, all)
			return nil
		})
		return all, tenth, err
	}}
}

// backlog is how many mails a measurement of delivery begins with.
const backlog = 5_000

// mailsOut queues public requests of known users, lets the server deliver, and
// measures from the first mail to the last.
func mailsOut(ctx context.Context, b *bench, kind string) (rate float64, err error) {
	err = b.with(ctx, kind, serverConfig{users: users, idle: true}, func(c *child, s *sink) error {
		if _, err := drive(ctx, c.addr, public, 64, time.Minute, backlog); err != nil {
			return err
		}
		// Public requests are due within 2 s of their arrival.
		if err := sleep(ctx, 2*time.Second); err != nil {
			return err
		}
		start := time.Now()
		if err := c.deliver(); err != nil {
			return err
		}
		if err := s.await(ctx, backlog, time.Minute); err != nil {
			return err
		}
		_, last := s.count()
		rate = backlog / last.Sub(start).Seconds()
		return nil
	})
	return rate, err
}

// acceptedAndMailed lets 64 clients make requests and counts until the last
// mail of theirs has come.
func acceptedAndMailed(p post) func(context.Context, *bench, string) (float64, error) {
	return func(ctx context.Context, b *bench, kind string) (rate float64, err error) {
		err = b.with(ctx, kind, serverConfig{users: users}, func(c *child, s *sink) error {
			start := time.Now()
			l, err := drive(ctx, c.addr, p, 64, time.Minute, 2*backlog)
			if err != nil {
				return err
			}
			if err := s.await(ctx, l.ok, 2*time.Minute); err != nil {
				return err
			}
			_, last := s.count()
			rate = float64(l.ok) / last.Sub(start).Seconds()
			return nil
		})
		return rate, err
	}
}

// flood measures in seconds by how much the requests of 20 times fewer clients
// delay the mail of one honest user.
func flood(name string, n int, delay time.Duration) row {
	return row{name: name, unit: "s", inTime: true, once: true, measure: func(ctx context.Context, b *bench) (float64, float64, error) {
		with, err := honest(ctx, b, n, delay)
		if err != nil {
			return 0, 0, err
		}
		without, err := honest(ctx, b, 0, delay)
		return with - without, 0, err
	}}
}

func honest(ctx context.Context, b *bench, n int, delay time.Duration) (seconds float64, err error) {
	err = b.withSink(ctx, "reset-sqlite", serverConfig{users: users}, delay, func(c *child, s *sink) error {
		attack := post{path: public.path, client: func(i int64) string { return attacker(i % int64(n/20)) }, body: func(i int64) string {
			if delay > 0 {
				return emailBody(i)
			}
			return fmt.Sprintf(`{"email":"nobody%d@example.com"}`, i)
		}}
		if n > 0 {
			if _, err := drive(ctx, c.addr, attack, 64, 5*time.Minute, int64(n)); err != nil {
				return err
			}
		}
		me := post{path: public.path, body: func(int64) string { return `{"email":"` + email(users-1) + `"}` }}
		start := time.Now()
		if _, err := drive(ctx, c.addr, me, 1, time.Minute, 1); err != nil {
			return err
		}
		for end := start.Add(10 * time.Minute); time.Now().Before(end); {
			if at, ok := s.arrival(email(users - 1)); ok {
				seconds = at.Sub(start).Seconds()
				return nil
			}
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
		return fmt.Errorf("the honest mail did not come within 10 minutes")
	})
	return seconds, err
}

// attacker returns the address of one of many clients.
func attacker(n int64) string {
	return net.IPv4(10, byte(n>>16), byte(n>>8), byte(n)).String()
}

// await waits until n mails came.
func (s *sink) await(ctx context.Context, n int, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		got, _ := s.count()
		switch {
		case got >= n:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%d mails came within %v, want %d", got, d, n)
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
