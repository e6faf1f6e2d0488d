package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"time"
)

var (
	public            = post{path: "/forgot", body: emailBody}
	trusted           = post{path: "/v1/auth/reset-password", body: emailBody}
	insert            = post{path: "/", body: emailBody}
	throughPocketBase = post{path: "/api/collections/users/request-password-reset", body: emailBody}
)

func rows(large bool) []row {
	sqlite, postgres, pgx, mariaDB := "reset-sqlite", "reset-postgres", "reset-pgx", "reset-mysql"
	group, checked := rateOf("insert-sqlite", insert, 64), rateOf("cap-postgres", insert, 64)
	table := []row{
		one("mails out, SQLite ÷ group commit", "/s", atLeast(0.35), mailsOut(server{Kind: sqlite}), group),
		one("accepted and mailed, public, SQLite ÷ PocketBase", "/s", atLeast(2), acceptedAndMailed(sqlite, public), acceptedAndMailed("pocketbase", throughPocketBase)),
		one("public, SQLite ÷ group commit", "/s", atLeast(0.9), rateOf(sqlite, public, 64), group),
		one("trusted, SQLite ÷ group commit", "/s", atLeast(0.5), rateOf(sqlite, trusted, 64), group),
		one("trusted, 1 connection, delivering, SQLite ÷ one INSERT a commit", "/s", atLeast(0.4), rate(server{Kind: sqlite}, trusted, 1), rateOf("insert-sqlite", insert, 1)),

		one("public, PostgreSQL ÷ one INSERT a commit", "/s", want{}, rateOf(postgres, public, 64), rateOf("insert-postgres", insert, 64)),
		one("trusted, PostgreSQL ÷ look-up, count, INSERT, COMMIT", "/s", atLeast(0.9), rateOf(postgres, trusted, 64), checked),
		one("trusted, PostgreSQL by store_pgx ÷ the same", "/s", atLeast(0.9), rateOf(pgx, trusted, 64), checked),
		one("mails out, PostgreSQL ÷ one INSERT a commit, 1 connection", "/s", atLeast(0.4), mailsOut(server{Kind: postgres}), rateOf("insert-postgres", insert, 1)),
		one("mails out, PostgreSQL by store_pgx ÷ the same", "/s", atLeast(0.4), mailsOut(server{Kind: pgx}), rateOf("insert-postgres", insert, 1)),

		one("public, MariaDB ÷ one INSERT a commit", "/s", want{}, rateOf(mariaDB, public, 64), rateOf("insert-mysql", insert, 64)),
		one("trusted, MariaDB ÷ look-up, count, INSERT, COMMIT", "/s", want{}, rateOf(mariaDB, trusted, 64), rateOf("cap-mysql", insert, 64)),
		one("mails out, MariaDB ÷ PostgreSQL", "/s", atLeast(0.9), mailsOut(server{Kind: mariaDB}), mailsOut(server{Kind: postgres})),

		flood("honest mail behind 50,000 requests for nobody − without", 50_000, 0, atMost(3)),
		flood("honest mail behind 200,000 requests for nobody − without", 200_000, 0, atMost(3)),
		flood("honest mail behind 20,000 requests for users, 100 ms a mail − without", 20_000, 100*time.Millisecond, atMost(5)),

		tail("p99 ÷ p50, public, 256 connections, one processor, SQLite", 1),
		tail("p99 ÷ p50, public, 256 connections, two processors, SQLite", 2),
		scale("10⁵", 100_000),
		scale("10⁶", 1_000_000),
		beside("10⁶ expired records, SQLite", server{Kind: sqlite, Expired: 1_000_000}),
		beside("10⁶ expired records, PostgreSQL", server{Kind: postgres, Expired: 1_000_000}),
		beside("10⁶ expired records, MariaDB", server{Kind: mariaDB, Expired: 1_000_000}),
		beside("10⁵ mails awaiting a retry, SQLite", server{Kind: sqlite, Waiting: 100_000}),
		one("mails out, beside 10⁶ expired records, SQLite ÷ without", "/s", atLeast(0.67), mailsOut(server{Kind: sqlite, Expired: 1_000_000}), mailsOut(server{Kind: sqlite})),
		one("mails out, beside 10⁵ mails awaiting a retry, SQLite ÷ without", "/s", atLeast(0.67), mailsOut(server{Kind: sqlite, Waiting: 100_000}), mailsOut(server{Kind: sqlite})),
		purge(1_000_000),

		logIns(),
		throttled("500 mails, 32 ms each, through 2 connections (else 421) ÷ the server's own pace", limits{delay: 32 * time.Millisecond, connections: 2}, 500*32*time.Millisecond/2),
		throttled("500 mails through 14 a second (else 454) ÷ the server's own pace", limits{aSecond: 14}, 500*time.Second/14),
		soak("10⁶", 1_000_000),
	}
	if large {
		table = append(table, scale("10⁷", 10_000_000), beside("10⁷ expired records, SQLite", server{Kind: sqlite, Expired: 10_000_000}))
	}
	return table
}

// A side measures one of the two things that a row compares.
type side func(ctx context.Context, b *bench) (float64, error)

// one is a row of one line.
func one(what, unit string, w want, ours, beside side) row {
	return row{lines: []line{{what: what, unit: unit, want: w}}, measure: func(ctx context.Context, b *bench) ([]sample, error) {
		s, err := pair(ctx, b, ours, beside)
		return []sample{s}, err
	}}
}

func pair(ctx context.Context, b *bench, ours, beside side) (s sample, err error) {
	if s.ours, err = ours(ctx, b); err == nil {
		s.beside, err = beside(ctx, b)
	}
	return s, err
}

// with runs a server on a new database, and a sink for its mail.
func (b *bench) with(ctx context.Context, c server, l limits, f func(*child, *sink) error) error {
	s, err := startSink(l)
	if err != nil {
		return err
	}
	defer s.close()
	_, place, _ := strings.Cut(c.Kind, "-")
	name, drop, err := b.newPlace(ctx, place)
	if err != nil {
		return err
	}
	defer drop()
	if c.Users == 0 {
		c.Users = users
	}
	c.DB, c.SMTP = name, s.addr()
	child, err := b.start(ctx, c)
	if err != nil {
		return err
	}
	defer child.stop()
	return f(child, s)
}

// unbounded requests are made until the time is over, and forever is until they
// are made.
const (
	unbounded = math.MaxInt64
	forever   = time.Hour
)

// rateOf measures how many requests a second a server accepts that delivers
// nothing meanwhile.
func rateOf(kind string, p post, connections int) side {
	return rate(server{Kind: kind, Idle: true}, p, connections)
}

// rate measures how many requests a second a server accepts.
func rate(of server, p post, connections int) side {
	return func(ctx context.Context, b *bench) (rate float64, err error) {
		err = b.with(ctx, of, limits{}, func(c *child, _ *sink) error {
			l, err := b.drive(ctx, c, p, connections)
			rate = l.rate()
			return err
		})
		return rate, err
	}
}

// drive makes requests for the time of one measurement, after a warm-up.
func (b *bench) drive(ctx context.Context, c *child, p post, connections int) (load, error) {
	if l, err := drive(ctx, c.addr, p, connections, b.each/3, unbounded); err != nil {
		return l, err
	}
	return drive(ctx, c.addr, p, connections, b.each, unbounded)
}

// backlog is how many mails a measurement of delivery begins with.
const backlog = 5_000

// drain queues n public requests for users with a server, lets it deliver, and
// returns the time from there to the last mail.
func drain(ctx context.Context, b *bench, c server, l limits, n int) (d time.Duration, err error) {
	c.Idle = true
	err = b.with(ctx, c, l, func(c *child, s *sink) error {
		start, err := enqueue(ctx, c, n)
		if err != nil {
			return err
		}
		if err := s.await(ctx, n); err != nil {
			return err
		}
		_, last := s.count()
		d = last.Sub(start)
		return nil
	})
	return d, err
}

// enqueue queues n public requests for users, lets the server deliver them when
// all are due, and returns when that was.
func enqueue(ctx context.Context, c *child, n int) (time.Time, error) {
	if _, err := drive(ctx, c.addr, public, 64, forever, int64(n)); err != nil {
		return time.Time{}, err
	}
	if err := sleep(ctx, 2*time.Second); err != nil { // as long as a public request may have to wait
		return time.Time{}, err
	}
	return time.Now(), c.deliver()
}

// mailsOut measures how many mails a second leave a server.
func mailsOut(c server) side {
	return func(ctx context.Context, b *bench) (float64, error) {
		d, err := drain(ctx, b, c, limits{}, backlog)
		return backlog / d.Seconds(), err
	}
}

// throttled compares the time that mail takes through a server with limits to
// the least that these allow.
func throttled(what string, l limits, pace time.Duration) row {
	return one(what, " s", atMost(1.5), func(ctx context.Context, b *bench) (float64, error) {
		d, err := drain(ctx, b, server{Kind: "reset-sqlite"}, l, 500)
		return d.Seconds(), err
	}, func(context.Context, *bench) (float64, error) { return pace.Seconds(), nil })
}

// acceptedAndMailed lets 64 clients make requests and counts until the last
// mail of theirs has come.
func acceptedAndMailed(kind string, p post) side {
	return func(ctx context.Context, b *bench) (rate float64, err error) {
		err = b.with(ctx, server{Kind: kind}, limits{}, func(c *child, s *sink) error {
			start := time.Now()
			l, err := drive(ctx, c.addr, p, 64, forever, 2*backlog)
			if err != nil {
				return err
			}
			if err := s.await(ctx, l.ok); err != nil {
				return err
			}
			_, last := s.count()
			rate = float64(l.ok) / last.Sub(start).Seconds()
			return nil
		})
		return rate, err
	}
}

// flood measures by how much the requests of 20 times fewer clients delay the
// slowest of ten honest mails.
func flood(what string, n int, delay time.Duration, w want) row {
	return row{lines: []line{{what: what, unit: " s", want: w, more: true}}, once: n > 100_000, measure: func(ctx context.Context, b *bench) ([]sample, error) {
		s, err := pair(ctx, b, honest(n, delay), honest(0, delay))
		return []sample{s}, err
	}}
}

func honest(n int, delay time.Duration) side {
	const few = 10
	me := func(i int64) string { return email(users - 1 - i%few) }
	one := post{path: public.path, client: func(i int64) string { return fmt.Sprintf("192.0.2.%d", i%few) }, body: func(i int64) string { return emailBody(users - 1 - i%few) }}
	attack := post{path: public.path, client: func(i int64) string { return attacker(i % int64(n/20)) }, body: func(i int64) string {
		if delay > 0 {
			return emailBody(i % (users - few))
		}
		return nobodyBody(i)
	}}
	return func(ctx context.Context, b *bench) (seconds float64, err error) {
		err = b.with(ctx, server{Kind: "reset-sqlite"}, limits{delay: delay}, func(c *child, s *sink) error {
			if n > 0 {
				if _, err := drive(ctx, c.addr, attack, 64, forever, int64(n)); err != nil {
					return err
				}
			}
			start := time.Now()
			if _, err := drive(ctx, c.addr, one, 1, forever, few); err != nil {
				return err
			}
			for i := range int64(few) {
				at, err := s.arrival(ctx, me(i))
				if err != nil {
					return err
				}
				seconds = max(seconds, at.Sub(start).Seconds())
			}
			return nil
		})
		return seconds, err
	}
}

// attacker returns the address of one of many clients.
func attacker(n int64) string {
	return net.IPv4(10, byte(n>>16), byte(n>>8), byte(n)).String()
}

// tail compares the slowest of a hundred requests with the median.
func tail(what string, processors int) row {
	return row{lines: []line{{what: what, unit: " ms", want: atMost(3)}}, measure: func(ctx context.Context, b *bench) (samples []sample, err error) {
		err = b.with(ctx, server{Kind: "reset-sqlite", Processors: processors}, limits{}, func(c *child, _ *sink) error {
			l, err := b.drive(ctx, c, public, 256)
			samples = []sample{{l.percentile(0.99), l.percentile(0.5)}}
			return err
		})
		return samples, err
	}}
}

// scale compares requests among many users, each of whom has records, with
// requests among a thousand. Both sides make two for each of a thousand users:
// with the one that is live, that is the cap.
func scale(number string, many int) row {
	p50 := func(n int) side {
		return func(ctx context.Context, b *bench) (p50 float64, err error) {
			err = b.with(ctx, server{Kind: "reset-sqlite", Users: n, Live: n}, limits{}, func(c *child, _ *sink) error {
				spread := post{path: trusted.path, body: func(i int64) string {
					return fmt.Sprintf(`{"email":"user%d@example.com"}`, i*7919%int64(n))
				}}
				l, err := drive(ctx, c.addr, spread, 16, forever, 2_000)
				p50 = l.percentile(0.5)
				return err
			})
			return p50, err
		}
	}
	return one("p50, trusted, "+number+" users and three records of each ÷ 10³, SQLite", " ms", atMost(1.2), p50(many), p50(1_000))
}

// beside compares requests in a store that also holds other records with
// requests in a store without them.
func beside(what string, s server) row {
	p50 := func(s server) side {
		return func(ctx context.Context, b *bench) (p50 float64, err error) {
			err = b.with(ctx, s, limits{}, func(c *child, _ *sink) error {
				l, err := b.drive(ctx, c, public, 16)
				p50 = l.percentile(0.5)
				return err
			})
			return p50, err
		}
	}
	return one("p50, public, beside "+what+" ÷ without", " ms", atMost(1.5), p50(s), p50(server{Kind: s.Kind}))
}

// purge compares requests while n records are purged with requests without.
func purge(n int) row {
	measure := func(ctx context.Context, b *bench, n int) (p50, p99 float64, err error) {
		err = b.with(ctx, server{Kind: "reset-sqlite", Purgeable: n, Idle: true}, limits{}, func(c *child, _ *sink) error {
			if err := c.deliver(); err != nil {
				return err
			}
			l, err := b.drive(ctx, c, public, 16)
			if err != nil {
				return err
			}
			p50, p99 = l.percentile(0.5), l.percentile(0.99)
			if left, err := c.expired(); err != nil || n > 0 && (left == 0 || left == n) {
				return fmt.Errorf("of %d expired records %d were left at the end of the load, so that it was not beside the purge (%v)", n, left, err)
			}
			return nil
		})
		return p50, p99, err
	}
	return row{lines: []line{
		{what: "p50, public, during the purge of 10⁶ records ÷ without, SQLite", unit: " ms"},
		{what: "p99, public, during the purge of 10⁶ records ÷ without, SQLite", unit: " ms"},
	}, measure: func(ctx context.Context, b *bench) ([]sample, error) {
		with50, with99, err := measure(ctx, b, n)
		if err != nil {
			return nil, err
		}
		p50, p99, err := measure(ctx, b, 0)
		return []sample{{with50, p50}, {with99, p99}}, err
	}}
}

// logIns counts how often a server is knocked at that refuses the password,
// while mail is queued.
func logIns() row {
	return row{lines: []line{
		{what: "log-ins in the first minute, password refused, 5,000 mails queued", want: atMost(26)}, // 20 workers; after 1, 3, 7, 15, 31 and 63 s
		{what: "log-ins in the second minute", want: atMost(2)},
	}, once: true, measure: func(ctx context.Context, b *bench) (samples []sample, err error) {
		err = b.with(ctx, server{Kind: "reset-sqlite", Password: "wrong", Idle: true}, limits{logIn: true}, func(c *child, s *sink) error {
			if _, err := enqueue(ctx, c, backlog); err != nil {
				return err
			}
			for before := 0; len(samples) < 2; {
				if err := sleep(ctx, time.Minute); err != nil {
					return err
				}
				n := s.add(&s.logIns, 0)
				if n == 0 {
					return fmt.Errorf("no log-in was tried")
				}
				samples = append(samples, sample{ours: float64(n - before)})
				before = n
			}
			return nil
		})
		return samples, err
	}}
}

// soak compares the memory of a server after n requests of 50,000 clients with
// that after half and a tenth of them. One in 20 is for a user, and each of
// these users gets one mail. On one processor that would take five minutes.
func soak(number string, n int64) row {
	return row{lines: []line{
		{what: "resident memory after " + number + " public requests ÷ after half of them, SQLite", unit: " MB", want: atMost(1.1)},
		{what: "resident memory after " + number + " public requests ÷ after a tenth of them", unit: " MB"},
		{what: "mails that came ÷ mails wanted of these requests", want: atLeast(1)},
	}, once: true, measure: func(ctx context.Context, b *bench) (samples []sample, err error) {
		err = b.with(ctx, server{Kind: "reset-sqlite", Processors: 2}, limits{}, func(c *child, s *sink) error {
			first := next.Load() + 1
			mixed := post{path: public.path, client: func(i int64) string { return attacker(i % 50_000) }, body: func(i int64) string {
				if i -= first; i%20 == 0 {
					return emailBody(i / 20)
				}
				return nobodyBody(i)
			}}
			var memory [3]float64
			for i, requests := range []int64{n / 10, n/2 - n/10, n - n/2} {
				if _, err := drive(ctx, c.addr, mixed, 64, forever, requests); err != nil {
					return err
				}
				if memory[i], err = c.resident(); err != nil {
					return err
				}
			}
			mails := int(n / 20)
			if err := s.await(ctx, mails); err != nil {
				return err
			}
			if err := sleep(ctx, 2*time.Second); err != nil { // for mails too many
				return err
			}
			came, _ := s.count()
			if came > mails {
				return fmt.Errorf("%d mails came, want %d", came, mails)
			}
			samples = []sample{{memory[2], memory[1]}, {memory[2], memory[0]}, {float64(came), float64(mails)}}
			return nil
		})
		return samples, err
	}}
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
