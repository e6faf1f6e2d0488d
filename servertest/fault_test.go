package servertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/gopassreset/reset"
)

// A proxy stands between a store and its server. It counts what comes through,
// in either direction, and interferes.
type proxy struct {
	addr   string
	target string

	mu       sync.Mutex
	listener net.Listener
	refuses  bool
	conns    map[net.Conn]bool
	cutAt    int    // which message does not arrive, and none after it; 0: all do
	answers  bool   // messages of the server count, rather than those to it
	mute     bool   // what does not arrive is swallowed, rather than cut off
	onLoss   func() // called with the first that does not arrive
	seen     int
	delay    time.Duration
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{addr: "127.0.0.1:0", target: target, conns: make(map[net.Conn]bool)}
	p.listen(t)
	t.Cleanup(p.refuse)
	return p
}

func (p *proxy) listen(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener, p.addr, p.refuses = l, l.Addr().String(), false
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			if p.add(client) {
				go p.serve(client)
			}
		}
	}()
}

// refuse ends all connections and takes no more.
func (p *proxy) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener.Close()
	p.refuses = true
	for c := range p.conns {
		c.Close()
	}
}

// add reports whether a connection may go on, and closes it if not.
func (p *proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuses {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

// cut begins to count anew. at 0 ends all interference.
func (p *proxy) cut(at int, answers bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt, p.answers, p.mute, p.onLoss, p.seen = at, answers, false, nil, 0
}

// swallow begins to count anew.
func (p *proxy) swallow(at int, answers bool, onLoss func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt, p.answers, p.mute, p.onLoss, p.seen = at, answers, true, onLoss, 0
}

// reached reports whether as many messages came as there had to be.
func (p *proxy) reached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen >= p.cutAt
}

func (p *proxy) slowDown(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	p.add(server)
	var wg sync.WaitGroup
	wg.Go(func() { p.pass(server, client, false) })
	wg.Go(func() { p.pass(client, server, true) })
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
	delete(p.conns, server)
}

// pass hands on what src sends, as long as it may.
func (p *proxy) pass(dst, src net.Conn, answer bool) {
	defer dst.Close()
	defer src.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if err != nil {
			return
		}
		lost, mute, delay := p.count(answer)
		if lost && mute {
			io.Copy(io.Discard, src)
			return
		}
		if lost {
			return
		}
		if delay > 0 {
			<-time.After(delay)
		}
		if _, err := dst.Write(b[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) count(answer bool) (lost, mute bool, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cutAt > 0 && answer == p.answers {
		p.seen++
		lost = p.seen == p.cutAt || p.mute && p.seen > p.cutAt
		if p.seen == p.cutAt && p.onLoss != nil {
			p.onLoss()
		}
	}
	return lost, p.mute, p.delay
}

// behind returns a place that is reached through the proxy.
func (p *proxy) behind(t *testing.T, there place) place {
	t.Helper()
	through := func(dsn string) string {
		if dsn == "" {
			return ""
		}
		if there.Kind == kindMySQL {
			config, err := mysql.ParseDSN(dsn)
			if err != nil {
				t.Fatal(err)
			}
			config.Addr = p.addr
			return config.FormatDSN()
		}
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		u.Host = p.addr
		return u.String()
	}
	there.DSN, there.Elsewhere = through(there.DSN), through(there.Elsewhere)
	return there
}

func addressOf(t *testing.T, p place) string {
	t.Helper()
	if p.Kind == kindMySQL {
		config, err := mysql.ParseDSN(p.DSN)
		if err != nil {
			t.Fatal(err)
		}
		return config.Addr
	}
	u, err := url.Parse(p.DSN)
	if err != nil {
		t.Fatal(err)
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "5432")
	}
	return u.Host
}

// An operation is a call of the store on the stock of records that stockUp
// makes.
type operation struct {
	name string
	do   func(ctx context.Context, h *host) error
}

var operations = []operation{
	{"Enqueue", func(ctx context.Context, h *host) error { return h.store.Enqueue(ctx, publicRequest(100)) }},
	{"Issue", func(ctx context.Context, h *host) error {
		a := activation(101, "alice")
		_, err := h.store.Issue(ctx, start, a, reset.Limits{MaxRequests: 9}, mailFor(a))
		return err
	}},
	{"Find", func(ctx context.Context, h *host) error {
		_, err := h.store.Find(ctx, start, activation(1, "alice").Hash)
		return err
	}},
	{"Redeem", func(ctx context.Context, h *host) error {
		return h.store.Redeem(ctx, start, activation(1, "alice"), notification(102, "alice"), func(ctx context.Context) error {
			return h.users.SetPassword(ctx, "alice", "new")
		})
	}},
	{"Revoke", func(ctx context.Context, h *host) error {
		return h.store.Revoke(ctx, start, "alice", start.Add(time.Hour))
	}},
	{"Lease", func(ctx context.Context, h *host) error {
		_, err := h.store.Lease(ctx, start, start.Add(time.Minute), 9)
		return err
	}},
	{"Settle", func(ctx context.Context, h *host) error {
		return h.store.Settle(ctx, []reset.Settlement{{Mail: id(4), Lease: id(40)}, {Mail: id(5), Lease: id(50), Retry: start}})
	}},
	{"Purge", func(ctx context.Context, h *host) error {
		_, _, err := h.store.Purge(ctx, start.Add(2*time.Hour), 1000)
		return err
	}},
}

// stockUp leaves exactly two activations of a user, their mails, a public request and two
// mails that are leased.
func stockUp(t *testing.T, h *host) {
	t.Helper()
	if err := forget(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	mustExec(t, h.users.db, "DELETE FROM sessions")
	mustExec(t, h.users.db, "INSERT INTO sessions (user_id) VALUES ('alice')")
	for n := range 2 {
		a := activation(1+n, "alice")
		if _, err := h.store.Issue(t.Context(), start, a, reset.Limits{MaxRequests: 9}, mailFor(a)); err != nil {
			t.Fatal(err)
		}
	}
	for n, lease := range map[int]reset.ID{3: {}, 4: id(40), 5: id(50)} {
		m := publicRequest(n)
		if m.Lease = lease; lease != (reset.ID{}) {
			m.Due = start.Add(time.Minute)
		}
		if err := h.store.Enqueue(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

// stock returns everything stored except the ids of leases and the lock rows,
// which reveal nothing.
func stock(t *testing.T, h *host) string {
	t.Helper()
	var all []string
	for _, query := range []string{
		"SELECT id, COALESCE(user_id, id), due, CASE WHEN lease IS NULL THEN 0 ELSE 1 END FROM reset_mails",
		"SELECT hash, user_id, expires, CASE WHEN claim IS NULL THEN 0 ELSE 1 END FROM reset_activations",
	} {
		rows, err := h.db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var key, user []byte
			var at int64
			var flag int
			if err := rows.Scan(&key, &user, &at, &flag); err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprintf("%x %x %d %d", key, user, at, flag))
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	hash, sessions := h.users.state(t, "alice")
	return fmt.Sprint(strings.Join(all, "\n"), "\n", hash, " ", sessions)
}

// Endings are how an operation may end: what was stored before it, and what
// is after it, without any fault. A Redeem of users elsewhere has more.
type endings struct {
	before, after string
	between       []string
}

func endingsOf(t *testing.T, h *host, op operation) (e endings) {
	t.Helper()
	stockUp(t, h)
	e.before = stock(t, h)
	if err := op.do(t.Context(), h); err != nil {
		t.Fatalf("%s without a fault: %v", op.name, err)
	}
	e.after = stock(t, h)
	if h.Elsewhere == "" || op.name != "Redeem" {
		return e
	}
	for _, changed := range []bool{false, true} { // used up, with either password
		stockUp(t, h)
		mustExec(t, h.db, "UPDATE reset_activations SET claim = request")
		if changed {
			if err := h.users.SetPassword(t.Context(), "alice", "new"); err != nil {
				t.Fatal(err)
			}
		}
		e.between = append(e.between, stock(t, h))
	}
	return e
}

// check says what is wrong with an outcome: half of an operation, or a success
// that was not stored.
func (e endings) check(t *testing.T, what string, err error, got string) {
	t.Helper()
	switch {
	case err == nil && got != e.after:
		t.Errorf("%s: succeeded, and what is stored is\n%s\nwant\n%s", what, got, e.after)
	case got != e.before && got != e.after && !slices.Contains(e.between, got):
		t.Errorf("%s: %v, and half of it is stored:\n%s", what, err, got)
	case errors.Is(err, reset.ErrInvalidActivation), errors.Is(err, reset.ErrGone), errors.Is(err, reset.ErrTooManyRequests):
		t.Errorf("%s: a fault was taken for a verdict: %v", what, err)
	}
}

// A connection that is cut off at any message, before or after it had its
// effect, COMMIT and its answer included, leaves all or nothing, and the next
// call succeeds.
func TestCutAnywhere(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		t.Run(map[bool]string{false: "one transaction", true: "users elsewhere"}[elsewhere], func(t *testing.T) {
			onEachAPI(t, func(t *testing.T, s server) { cutAnywhere(t, newPlace(t, s, elsewhere)) })
		})
	}
}

func cutAnywhere(t *testing.T, there place) {
	h := openHost(t, there)
	h.users.add(t, "alice")
	p := newProxy(t, addressOf(t, there))
	far := openHost(t, p.behind(t, there))
	for _, op := range operations {
		if there.Elsewhere != "" && op.name != "Redeem" {
			continue
		}
		e := endingsOf(t, h, op)
		for _, answers := range []bool{false, true} {
			cuts := 0
			for n := 1; ; n++ {
				stockUp(t, h)
				p.cut(n, answers)
				err := op.do(t.Context(), far)
				reached := p.reached()
				p.cut(0, false)
				h.settled(t, far)
				what := fmt.Sprintf("%s, cut at message %d, answers %v", op.name, n, answers)
				e.check(t, what, err, stock(t, h))
				if !reached {
					break
				}
				cuts++
				if _, err := far.store.Find(t.Context(), start, reset.Hash{}); !errors.Is(err, reset.ErrInvalidActivation) {
					t.Errorf("%s: afterwards, Find: %v", what, err)
				}
			}
			if cuts == 0 {
				t.Errorf("%s: no message was cut", op.name)
			}
		}
	}
}

// A call ends with its context, whichever of its messages or of the server's
// answers is swallowed, with all that would follow. COMMIT is the last message.
func TestSwallowed(t *testing.T) {
	for _, answers := range []bool{false, true} {
		t.Run(map[bool]string{false: "messages", true: "answers"}[answers], func(t *testing.T) {
			onEachAPI(t, func(t *testing.T, s server) {
				t.Parallel()
				h := openHost(t, newPlace(t, s, false))
				h.users.add(t, "alice")
				for _, op := range operations {
					swallowAnywhere(t, h, op, answers)
				}
			})
		})
	}
}

func swallowAnywhere(t *testing.T, h *host, op operation, answers bool) {
	t.Helper()
	const most = 100
	e := endingsOf(t, h, op)
	lastLeft := e.after // until COMMIT has arrived, there is nothing
	if !answers {
		lastLeft = e.before
	}
	left := ""
	for n := range most {
		what := fmt.Sprintf("%s, message %d swallowed, answers %v", op.name, 1+n, answers)
		stockUp(t, h)
		swallowed, err := swallow(t, h.place, op, 1+n, answers)
		h.settled(t)
		got := stock(t, h)
		e.check(t, what, err, got)
		if err == nil && !answers {
			swallowed = false // nobody waited for it to arrive: MySQL's drivers close a statement like that
		}
		if swallowed == (err == nil) {
			t.Errorf("%s: got error %v, and there was such a message: %v", what, err, swallowed)
		}
		if !swallowed {
			if left != lastLeft {
				t.Errorf("%s: the message before was not COMMIT's, it left\n%s\nwant\n%s", what, left, lastLeft)
			}
			return
		}
		left = got
	}
	t.Errorf("%s, answers %v: more than %d messages", op.name, answers, most)
}

// swallow calls op, from a connection that is not made yet, swallows the n-th
// message, and reports whether there was one. The proxy and the pool are used
// once: a driver that gives up sends a request to cancel, late.
func swallow(t *testing.T, there place, op operation, n int, answers bool) (swallowed bool, err error) {
	t.Helper()
	const patience, most = 10 * time.Millisecond, 5 * time.Second
	p := newProxy(t, addressOf(t, there))
	far, err := p.behind(t, there).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer far.close()
	defer p.refuse()
	p.cutAll()
	far.pools.dropIdle()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.swallow(n, answers, func() { time.AfterFunc(patience, cancel) })
	ended := make(chan error, 1)
	go func() { ended <- op.do(ctx, far) }()
	select {
	case err = <-ended:
	case <-time.After(most):
		t.Errorf("%s, message %d swallowed, answers %v: no end after %v", op.name, n, answers, most)
		p.refuse() // let it end
		err = <-ended
	}
	return p.reached(), err
}

// cutAll ends the connections, but takes new ones.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// A store works again when its server does, without a restart.
func TestRefused(t *testing.T) {
	onEachAPI(t, func(t *testing.T, s server) {
		there := newPlace(t, s, false)
		h := openHost(t, there)
		h.users.add(t, "alice")
		p := newProxy(t, addressOf(t, there))
		far := openHost(t, p.behind(t, there))
		for _, op := range operations {
			e := endingsOf(t, h, op)
			stockUp(t, h)
			p.refuse()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			err := op.do(ctx, far)
			if cancel(); err == nil {
				t.Errorf("%s without a server succeeded", op.name)
			}
			e.check(t, op.name+" without a server", err, stock(t, h))
			p.listen(t)
			p.slowDown(5 * time.Millisecond)
			e.check(t, op.name+" with a slow server", op.do(t.Context(), far), stock(t, h))
			p.slowDown(0)
		}
	})
}

// A pool that others have exhausted makes a call wait no longer than its
// context lasts.
func TestExhaustedPool(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		h := openHost(t, newPlace(t, s, false))
		h.users.add(t, "alice")
		h.db.SetMaxOpenConns(1)
		for _, op := range operations {
			e := endingsOf(t, h, op)
			stockUp(t, h)
			conn, err := h.db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			if err = op.do(ctx, h); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s with an exhausted pool: %v", op.name, err)
			}
			cancel()
			conn.Close()
			e.check(t, op.name+" with an exhausted pool", err, stock(t, h))
			e.check(t, op.name+" afterwards", op.do(t.Context(), h), stock(t, h))
		}
	})
}

// A caller may go at any moment.
func TestCancelAnywhere(t *testing.T) {
	const times = 12
	for _, elsewhere := range []bool{false, true} {
		t.Run(map[bool]string{false: "one transaction", true: "users elsewhere"}[elsewhere], func(t *testing.T) {
			onAllAPIs(t, func(t *testing.T, s server) {
				h := openHost(t, newPlace(t, s, elsewhere))
				h.users.add(t, "alice")
				for _, op := range operations {
					if elsewhere && op.name != "Redeem" {
						continue
					}
					e := endingsOf(t, h, op)
					for i := range times {
						stockUp(t, h)
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*300*time.Microsecond)
						err := op.do(ctx, h)
						cancel()
						h.settled(t)
						e.check(t, fmt.Sprintf("%s, cancelled after %d × 300 µs", op.name, i), err, stock(t, h))
					}
				}
			})
		})
	}
}
