package servertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
	"github.com/gopassreset/reset/internal/smtptest"
)

// These tests start a PostgreSQL and a standby of their own, from the programs
// in the folder RESET_TEST_POSTGRES_BIN, as the user postgres where root runs
// them.
var postgresPrograms = server{name: "a standby of PostgreSQL", env: "RESET_TEST_POSTGRES_BIN"}

// A node is a PostgreSQL server that a test may kill.
type node struct {
	*testing.T
	dir, port string
}

// newNode returns a node without data.
func newNode(t *testing.T) node {
	t.Helper()
	postgresPrograms.address(t)
	dir, err := os.MkdirTemp("", "reset_test_")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if c := serverAccount(t); c != nil {
		if err := os.Chown(dir, int(c.Uid), int(c.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return node{t, dir, port}
}

// serverAccount is who runs the servers: they refuse root.
func serverAccount(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// run runs one of PostgreSQL's programs on the data of the node.
func (n node) run(program string, args ...string) {
	n.Helper()
	cmd := exec.Command(filepath.Join(os.Getenv(postgresPrograms.env), program), append([]string{"-D", filepath.Join(n.dir, "data")}, args...)...)
	cmd.Dir = n.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: serverAccount(n.T)}
	if out, err := cmd.CombinedOutput(); err != nil {
		n.Fatalf("%s %v: %v: %s", program, args, err, out)
	}
}

func (n node) start() {
	n.Helper()
	n.run("pg_ctl", "-w", "-l", filepath.Join(n.dir, "log"), "-o", fmt.Sprintf(
		"-p %s -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c shared_buffers=32MB -c fsync=off -c wal_receiver_status_interval=1", n.port), "start")
	n.Cleanup(func() { // if it still runs
		_ = exec.Command("kill", "-9", n.pid()).Run()
	})
}

func (n node) pid() string {
	text, _ := os.ReadFile(filepath.Join(n.dir, "data", "postmaster.pid"))
	pid, _, _ := strings.Cut(string(text), "\n")
	return pid
}

func (n node) open() *sql.DB {
	n.Helper()
	db, err := sql.Open("pgx", "postgres://postgres@127.0.0.1:"+n.port+"/postgres")
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { db.Close() })
	return db
}

// set changes a setting of a node that runs.
func (n node) set(name, value string) {
	n.Helper()
	db := n.open()
	for _, query := range []string{"ALTER SYSTEM SET " + name + " = '" + value + "'", "SELECT pg_reload_conf()"} {
		if _, err := db.ExecContext(n.Context(), query); err != nil {
			n.Fatal(err)
		}
	}
	poll(n.T, func() bool {
		var got string
		err := db.QueryRowContext(n.Context(), "SELECT current_setting('"+name+"')").Scan(&got)
		return err == nil && got == value
	})
}

// A pair is a primary and its standby, and a host that finds the one that takes
// writes.
type pair struct {
	primary, standby node
	link             *proxy // between them
	h                *host
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{primary: newNode(t), standby: newNode(t)}
	p.primary.run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	p.primary.start()
	p.link = newProxy(t, "127.0.0.1:"+p.primary.port)
	_, port, err := net.SplitHostPort(p.link.addr)
	if err != nil {
		t.Fatal(err)
	}
	p.standby.run("pg_basebackup", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-R", "-c", "fast", "--no-sync")
	p.standby.start()
	there := place{Kind: kindPostgres, DSN: fmt.Sprintf(
		"postgres://postgres@127.0.0.1:%s,127.0.0.1:%s/postgres?target_session_attrs=read-write&application_name=reset_test", p.primary.port, p.standby.port)}
	there.createUsers(t)
	p.h = openHost(t, there)
	return p
}

// catchUp waits until the standby has everything.
func (p *pair) catchUp(t *testing.T) {
	t.Helper()
	poll(t, func() bool {
		return count(t, p.h.db, "SELECT COUNT(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()") == 1
	})
}

// failOver kills the primary and promotes the standby. The host is not
// restarted.
func (p *pair) failOver(t *testing.T) {
	t.Helper()
	p.primary.run("pg_ctl", "-w", "-m", "immediate", "stop")
	p.standby.run("pg_ctl", "-w", "promote")
	p.recovers(t)
}

// writes reports whether the store of the host can write.
func (p *pair) writes(t *testing.T) bool {
	return p.h.store.Revoke(t.Context(), start, "nobody", start) == nil
}

// recovers waits until the store of the host works.
func (p *pair) recovers(t *testing.T) {
	t.Helper()
	poll(t, func() bool { return p.writes(t) })
	for p.h.db.Stats().OpenConnections > 0 { // those that died idle
		p.h.db.SetMaxIdleConns(0)
	}
	p.h.db.SetMaxIdleConns(hostConns)
}

// With synchronous replication a failover loses nothing that was accepted, and
// no activation works twice.
func TestFailoverSynchronous(t *testing.T) {
	const users = 40
	p := newPair(t)
	p.primary.set("synchronous_standby_names", "*")
	poll(t, func() bool {
		return count(t, p.h.db, "SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1
	})
	c := newCrash(t, p.h, users)
	child := c.start(job{Role: "storm"})
	var mu sync.Mutex
	var over sync.WaitGroup
	over.Go(func() {
		for child.lines.Scan() && child.lines.Text() != "over" {
			mu.Lock()
			c.said = append(c.said, strings.Fields(child.lines.Text()))
			mu.Unlock()
		}
	})
	child.start()
	poll(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(c.said) > users/3 })
	p.failOver(t)
	over.Wait()
	if err := child.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.said = append(c.said, child.rest()...)
	child.wasKilled(t)
	c.restart()
}

// With asynchronous replication a failover takes back what the standby had not
// received, and nothing else.
func TestFailoverAsynchronous(t *testing.T) {
	p := newPair(t)
	h := p.h
	sink := smtptest.Listen(t, smtptest.Script{})
	service, err := h.service(sink.Addr, testLog{t})
	if err != nil {
		t.Fatal(err)
	}
	activations := make(map[string]string)
	request := func(user string) {
		t.Helper()
		h.users.add(t, user)
		if activations[user], err = service.RequestReset(t.Context(), emailOf(user), reset.RequestOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	change := func(user string) error {
		return service.ChangePassword(t.Context(), activations[user], "correct horse battery")
	}
	for _, user := range []string{"kept", "changed", "changed-late"} {
		request(user)
	}
	if err := change("changed"); err != nil {
		t.Fatal(err)
	}
	p.catchUp(t)
	p.link.refuse()
	if err := change("changed-late"); err != nil {
		t.Fatal(err)
	}
	request("late")
	p.failOver(t)

	again := make(map[string]int)
	for user, live := range map[string]bool{"kept": true, "changed": false, "changed-late": true, "late": false} {
		err := change(user)
		if err == nil {
			again[user]++
		}
		if live != (err == nil) || err != nil && !errors.Is(err, reset.ErrInvalidActivation) {
			t.Errorf("after the failover the activation of %s: %v, want live: %t", user, err, live)
		}
	}
	if err := h.drain(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, l := range inbox(t, sink) {
		got[l.to]++
	}
	figure.Report(t, "redeemed links that the standby had and that work again", again["changed"], 1)
	figure.Report(t, "redeemed links within the lag that work again, as documented", again["changed-late"], 1)
	figure.Report(t, "accepted requests that the standby had and that are lost", 2-min(2, got[emailOf("kept")]+got[emailOf("changed")]), 2)
	figure.Report(t, "accepted requests within the lag that are lost, as documented", 1-min(1, got[emailOf("late")]), 1)
	for user, want := range map[string]int{"kept": 1, "changed": 1, "changed-late": 1, "late": 0} { // notifications
		if got[emailOf(user)] != want {
			t.Errorf("%s got %d mails, want %d", user, got[emailOf(user)], want)
		}
	}
}

// A primary that restarts, or is read-only for a while, needs no restart of the
// host. Meanwhile calls fail, with nothing half done.
func TestPrimaryInterrupted(t *testing.T) {
	p := newPair(t)
	h := p.h
	h.users.add(t, "alice")
	for _, op := range operations {
		e := endingsOf(t, h, op)
		stockUp(t, h)
		before := stock(t, h)
		p.primary.set("default_transaction_read_only", "on")
		poll(t, func() bool { return !p.writes(t) }) // its connections have seen the setting
		err := op.do(t.Context(), h)
		if got := stock(t, h); op.name != "Find" && (err == nil || got != before) || op.name == "Find" && err != nil {
			t.Errorf("%s on a read-only primary: %v, %s", op.name, err, got)
		}
		p.primary.set("default_transaction_read_only", "off")
		p.recovers(t)
		e.check(t, op.name+" after the primary was read-only", op.do(t.Context(), h), stock(t, h))
	}
	stopped, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 1000 * (1 + i); stopped.Err() == nil; n++ {
				err := h.store.Enqueue(t.Context(), publicRequest(n))
				if errors.Is(err, reset.ErrInvalidActivation) {
					t.Error(err)
				}
			}
		})
	}
	p.primary.run("pg_ctl", "-w", "-l", filepath.Join(p.primary.dir, "log"), "-m", "fast", "restart")
	stop()
	wg.Wait()
	p.recovers(t)
	if err := forget(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	useOnce(t, "after a restart", h.store)
}
