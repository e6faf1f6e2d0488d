package servertest

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
	"github.com/gopassreset/reset/internal/smtptest"
	"github.com/gopassreset/reset/internal/sqlstore"
	"github.com/gopassreset/reset/resettest"
	storebun "github.com/gopassreset/reset/store_bun"
)

// These tests use every node of a cluster at once, each of which takes writes.
// .ci/galera.sh and .ci/mysql.sh start one each and print what they need:
//
//	RESET_TEST_GALERA='root@tcp(127.0.0.1:3407)/test,root@tcp(127.0.0.1:3408)/test'
//	RESET_TEST_GALERA_CONTROL=/tmp/…/control

// A cluster is a server of several nodes.
type cluster struct {
	server
	control string // the environment variable for the program that kills a node and starts it again
	// Connections need this variable to see what was done on other nodes.
	variable, value string
	lags            string // a value that New refuses
	users           int    // how many are in the races
}

var (
	galera = cluster{
		server{name: "Galera", kind: kindMySQL, env: "RESET_TEST_GALERA"}, "RESET_TEST_GALERA_CONTROL",
		"wsrep_sync_wait", "7", "1", 1000,
	}
	group = cluster{
		server{name: "group replication", kind: kindMySQL, env: "RESET_TEST_GROUP"}, "RESET_TEST_GROUP_CONTROL",
		"group_replication_consistency", "'BEFORE'", "'EVENTUAL'", 100,
	}
)

func onEachCluster(t *testing.T, f func(t *testing.T, c cluster)) {
	for _, c := range []cluster{galera, group} {
		t.Run(c.name, func(t *testing.T) { f(t, c) })
	}
}

// nodes returns how to connect to each node, as a host behind a load balancer
// does: it sees what was done on the others.
func (c cluster) nodes(t *testing.T) (configs []*mysql.Config) {
	t.Helper()
	for address := range strings.SplitSeq(c.address(t), ",") {
		config, err := mysql.ParseDSN(address)
		if err != nil {
			t.Fatal(err)
		}
		config.Params = map[string]string{c.variable: c.value}
		configs = append(configs, config)
	}
	return configs
}

// onNodes returns a place for one new database on each node.
func (c cluster) onNodes(t *testing.T) (places []place) {
	t.Helper()
	name := freshName()
	for i, config := range c.nodes(t) {
		admin, err := sql.Open("mysql", config.FormatDSN())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			makeAndDrop(t, admin, "CREATE DATABASE "+name, "DROP DATABASE "+name)
		} else {
			defer admin.Close()
			if _, err := admin.ExecContext(t.Context(), "SELECT 1"); err != nil { // waits until the node has it
				t.Fatal(err)
			}
		}
		config.DBName = name
		places = append(places, place{Kind: kindMySQL, DSN: config.FormatDSN()})
	}
	return places
}

// places returns a new place on each node.
func (c cluster) places(t *testing.T, elsewhere bool) []place {
	t.Helper()
	places := c.onNodes(t)
	if elsewhere {
		for i, users := range c.onNodes(t) {
			places[i].Elsewhere = users.DSN
		}
	}
	places[0].createUsers(t)
	return places
}

// A keeper is the store of the first node, but keeps the history on all.
type keeper struct {
	wholeStore
	nodes []reset.Store
}

func (k keeper) KeepHistory(d time.Duration) {
	for _, s := range k.nodes {
		s.(reset.HistoryStore).KeepHistory(d)
	}
}

// spread returns a store whose calls go to the stores of the nodes in turn.
func spread(nodes ...reset.Store) *resettest.FaultStore {
	var calls atomic.Int64
	next := func() reset.Store { return nodes[int(calls.Add(1))%len(nodes)] }
	return &resettest.FaultStore{
		Store:       keeper{nodes[0].(wholeStore), nodes}, // what only reads or only informs
		EnqueueFunc: func(ctx context.Context, m reset.Mail) error { return next().Enqueue(ctx, m) },
		IssueFunc: func(ctx context.Context, now time.Time, a reset.Activation, limits reset.Limits, m *reset.Mail) (reset.Activation, error) {
			return next().Issue(ctx, now, a, limits, m)
		},
		FindFunc: func(ctx context.Context, now time.Time, h reset.Hash) (reset.Activation, error) {
			return next().Find(ctx, now, h)
		},
		RedeemFunc: func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
			return next().Redeem(ctx, now, a, notification, apply)
		},
		RevokeFunc: func(ctx context.Context, now time.Time, userID string, quiet time.Time) error {
			return next().Revoke(ctx, now, userID, quiet)
		},
		LeaseFunc: func(ctx context.Context, now, until time.Time, n int) ([]reset.Mail, error) {
			return next().Lease(ctx, now, until, n)
		},
		SettleFunc: func(ctx context.Context, done []reset.Settlement) error { return next().Settle(ctx, done) },
		PurgeFunc: func(ctx context.Context, now time.Time, n int) (removed, unsent int, err error) {
			return next().Purge(ctx, now, n)
		},
		RealmFunc: func(name string) reset.Store {
			var views []reset.Store
			for _, s := range nodes {
				views = append(views, s.(reset.RealmStore).Realm(name))
			}
			return spread(views...)
		},
	}
}

// redeemAlone keeps other calls away from each Redeem.
func redeemAlone(s *resettest.FaultStore) {
	var alone sync.RWMutex
	redeem := s.RedeemFunc
	s.RedeemFunc = func(ctx context.Context, now time.Time, a reset.Activation, notification reset.Mail, apply func(context.Context) error) error {
		alone.Lock()
		defer alone.Unlock()
		return redeem(ctx, now, a, notification, apply)
	}
	s.Before = func(_ context.Context, method string) error {
		if method != "Redeem" {
			alone.RLock()
		}
		return nil
	}
	s.After = func(_ context.Context, method string, err error) error {
		if method != "Redeem" {
			alone.RUnlock()
		}
		return err
	}
}

// The contract holds for calls that go to different nodes. In one transaction,
// Redeem meets no other call here: nodes learn of each other's locks at COMMIT,
// when apply has run. TestClusterRaces has those that meet.
func TestClusterStore(t *testing.T) {
	onEachCluster(t, func(t *testing.T, c cluster) { clusterStore(t, c, false) })
}

func TestClusterStoreElsewhere(t *testing.T) {
	onEachCluster(t, func(t *testing.T, c cluster) { clusterStore(t, c, true) })
}

func clusterStore(t *testing.T, c cluster, elsewhere bool) {
	var nodes []*host
	var stores []reset.Store
	for _, p := range c.places(t, elsewhere) {
		h := openHost(t, p)
		nodes, stores = append(nodes, h), append(stores, h.store)
	}
	open := func(t *testing.T) reset.Store {
		if err := forget(t.Context(), nodes[0]); err != nil {
			t.Fatal(err)
		}
		store := spread(stores...)
		store.KeepHistory(0) // as in a new one
		if !elsewhere {
			redeemAlone(store)
		}
		settled := func(ctx context.Context, _ string, err error) error {
			if ctx.Err() != nil && t.Context().Err() == nil {
				for _, h := range nodes {
					h.settled(t)
				}
			}
			return err
		}
		return &resettest.FaultStore{Store: store, After: settled}
	}
	if elsewhere {
		resettest.TestStoreElsewhere(t, open)
	} else {
		resettest.TestStore(t, open)
	}
}

// A cluster whose nodes lag behind each other is refused.
func TestClusterNewRefuses(t *testing.T) {
	onEachCluster(t, func(t *testing.T, c cluster) {
		p := c.places(t, false)[1]
		config, err := mysql.ParseDSN(p.DSN)
		if err != nil {
			t.Fatal(err)
		}
		config.Params[c.variable] = c.lags
		db, err := openDB(p.Kind, config.FormatDSN())
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := storebun.New(t.Context(), db); err == nil || !strings.Contains(err.Error(), c.variable+" must be") {
			t.Errorf("New with %s = %s: %v", c.variable, c.lags, err)
		}
	})
}

// Processes on all nodes create the tables at once.
func TestClusterCreateSchema(t *testing.T) {
	onEachCluster(t, func(t *testing.T, c cluster) {
		for range 3 {
			places := c.onNodes(t)
			if c.name == group.name { // a process has died there, an hour ago
				db, err := openDB(places[0].Kind, places[0].DSN)
				if err != nil {
					t.Fatal(err)
				}
				mustExec(t, db, "CREATE TABLE reset_schema (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL)")
				mustExec(t, db, "INSERT INTO reset_schema (id, version) VALUES (2, UNIX_TIMESTAMP() DIV 60 - 1)")
				db.Close()
			}
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() {
					h, err := places[i%len(places)].open(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					h.close()
				})
			}
			wg.Wait()
			if got := count(t, openHost(t, places[0]).db, "SELECT COUNT(*) FROM reset_schema"); got != 1 {
				t.Errorf("reset_schema has %d rows", got)
			}
		}
	})
}

var clusterUsers = flag.Int("cluster-users", 0, "how many `users` are in the races over a cluster; 0: as many as a cluster takes in a minute")

// Hosts on every node take requests, send mail and change passwords of the same
// users at the same time.
func TestClusterRaces(t *testing.T) {
	onEachCluster(t, clusterRaces)
}

func clusterRaces(t *testing.T, c cluster) {
	const max, requests, redeems = 3, 3, 4 // from each node, at once
	var nodes []*host
	for _, p := range c.places(t, false) {
		nodes = append(nodes, openHost(t, p))
	}
	// Each change leaves a row, unless it is rolled back.
	mustExec(t, nodes[0].db, "CREATE TABLE changes (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id VARCHAR(255) NOT NULL)")
	mustExec(t, nodes[0].db, "CREATE TRIGGER changed AFTER UPDATE ON users FOR EACH ROW INSERT INTO changes (user_id) VALUES (NEW.id)")

	sink := smtptest.Listen(t, smtptest.Script{})
	var services []*reset.Service
	var leases atomic.Int64
	for _, h := range nodes {
		service, err := h.service(sink.Addr, overtaken{testLog{t}, &leases})
		if err != nil {
			t.Fatal(err)
		}
		services = append(services, service)
	}
	var users []string
	for i := range cmp.Or(*clusterUsers, c.users) {
		users = append(users, fmt.Sprintf("user-%d", i))
	}
	nodes[0].users.add(t, users...)

	var overCap, lost, refused atomic.Int64
	each(users, func(user string) {
		var mu sync.Mutex
		var activations []string
		atOnceOn(services, requests, func(s *reset.Service) {
			activation, err := s.RequestReset(t.Context(), emailOf(user), reset.RequestOptions{})
			switch {
			case errors.Is(err, reset.ErrTooManyRequests):
			case err != nil:
				t.Errorf("RequestReset: %v", err)
			default:
				mu.Lock()
				activations = append(activations, activation)
				mu.Unlock()
			}
		})
		if len(activations) != max {
			overCap.Add(1)
		}
	})
	if n := overCap.Load(); n != 0 {
		t.Errorf("cap broken: %d users do not have %d requests", n, max)
	}

	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, s := range services {
		running.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	if err := nodes[0].waitUntilSent(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	running.Wait()
	mailed, twice := make(map[string]bool), 0
	activations := make(map[string][]string) // by address
	for _, m := range inbox(t, sink) {
		if mailed[m.id] {
			twice++
		}
		mailed[m.id] = true
		activations[m.to] = append(activations[m.to], m.activation)
	}
	if len(mailed) != max*len(users) || twice != 0 {
		t.Errorf("mails twice: %d; %d of %d were sent", twice, len(mailed), max*len(users))
	}

	each(users, func(user string) {
		var succeeded, next atomic.Int64
		mine := activations[emailOf(user)]
		atOnceOn(services, redeems, func(s *reset.Service) {
			activation := mine[int(next.Add(1))%len(mine)]
			switch err := s.ChangePassword(t.Context(), activation, "nine grey herons"); {
			case err == nil:
				succeeded.Add(1)
			case errors.Is(err, reset.ErrInvalidActivation):
				refused.Add(1)
			case strings.Contains(err.Error(), "try again"):
				lost.Add(1)
			default:
				t.Errorf("ChangePassword: %v", err)
			}
		})
		if n := succeeded.Load(); n != 1 {
			t.Errorf("%d changes of one user's password succeeded", n)
		}
	})
	setTwice := count(t, nodes[0].db, "SELECT COUNT(*) FROM (SELECT user_id FROM changes GROUP BY user_id HAVING COUNT(*) > 1) twice")
	if set := count(t, nodes[0].db, "SELECT COUNT(DISTINCT user_id) FROM changes"); setTwice != 0 || set != len(users) {
		t.Errorf("set twice: %d; %d of %d users have a new password", setTwice, set, len(users))
	}
	if left := count(t, nodes[0].db, "SELECT COUNT(*) FROM reset_activations"); left != 0 {
		t.Errorf("%d activations are left", left)
	}
	if n := count(t, nodes[0].db, "SELECT COUNT(*) FROM reset_mails"); n != len(users) {
		t.Errorf("%d notifications are queued, want %d", n, len(users))
	}
	figure.Report(t, "users over the cap", int(overCap.Load()), len(users))
	figure.Report(t, "passwords set twice", setTwice, len(users))
	figure.Report(t, "mails sent twice", twice, len(mailed))
	t.Logf("%d users over %d nodes: cap broken %d, set twice %d, mails twice %d; %d changes were refused, %d to be tried again, %d leases were overtaken for 5 s",
		len(users), len(nodes), overCap.Load(), setTwice, twice, refused.Load(), lost.Load(), leases.Load())
}

// overtaken counts the leases that have lost all their races against other
// nodes. Run logs them, and that mail is late then, and goes on.
type overtaken struct {
	testLog
	leases *atomic.Int64
}

func (o overtaken) Handle(ctx context.Context, r slog.Record) error {
	lost, late := false, false
	r.Attrs(func(a slog.Attr) bool {
		err, _ := a.Value.Any().(error)
		lost = lost || sqlstore.MySQL.Busy(err)
		late = late || a.Key == "event" && a.Value.String() == "queue_late"
		return true
	})
	if lost {
		o.leases.Add(1)
	}
	if lost || late {
		return nil
	}
	return o.testLog.Handle(ctx, r)
}

func (o overtaken) WithAttrs([]slog.Attr) slog.Handler { return o }
func (o overtaken) WithGroup(string) slog.Handler      { return o }

// each calls f for every user, some at a time.
func each(users []string, f func(user string)) {
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for _, user := range users {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(user)
		})
	}
	wg.Wait()
}

// atOnceOn calls f n times for each service at once.
func atOnceOn(services []*reset.Service, n int, f func(*reset.Service)) {
	var wg sync.WaitGroup
	for _, s := range services {
		for range n {
			wg.Go(func() { f(s) })
		}
	}
	wg.Wait()
}

// A node dies, as by kill -9, while hosts on both work. The other node has
// everything that was answered and half of nothing, and so has the one that
// comes back.
func TestClusterKilled(t *testing.T) {
	onEachCluster(t, clusterKilled)
}

func clusterKilled(t *testing.T, cluster cluster) {
	const each = 30 // users of each host
	places := cluster.places(t, false)
	control := os.Getenv(cluster.control)
	rounds := max(*rounds, len(places)) // each node dies
	for round := range rounds {
		dead := round % len(places)
		t.Run(fmt.Sprintf("%d, node %d", round, 1+dead), func(t *testing.T) {
			survivor := openHost(t, places[(dead+1)%len(places)])
			c := newCrash(t, survivor, each*len(places))
			var mu sync.Mutex
			said := func() int { mu.Lock(); defer mu.Unlock(); return len(c.said) }
			var over sync.WaitGroup
			var children []*process
			for i, p := range places {
				child := startChild(t, job{Role: "storm", Place: p, MailServer: c.sink.Addr, Users: c.users[i*each : (i+1)*each]})
				children = append(children, child)
				over.Go(func() {
					for child.lines.Scan() && child.lines.Text() != "over" {
						mu.Lock()
						c.said = append(c.said, strings.Fields(child.lines.Text()))
						mu.Unlock()
					}
				})
			}
			for _, child := range children {
				child.start()
			}
			poll(t, func() bool { return said() > round*each/rounds })
			controlNode(t, control, "kill", strconv.Itoa(1+dead))
			over.Wait()
			for _, child := range children {
				if err := child.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				c.said = append(c.said, child.rest()...)
				child.wasKilled(t)
			}
			c.restart()
			controlNode(t, control, "start", strconv.Itoa(1+dead))
			back := openHost(t, places[dead])
			for _, table := range []string{"users", "sessions"} {
				query := "SELECT COUNT(*) FROM " + table
				if got, want := count(t, back.db, query), count(t, survivor.db, query); got != want {
					t.Errorf("the node that came back has %d %s, want %d", got, table, want)
				}
			}
			back.close()
		})
	}
}

func controlNode(t *testing.T, control string, args ...string) {
	t.Helper()
	if out, err := exec.Command(control, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}
