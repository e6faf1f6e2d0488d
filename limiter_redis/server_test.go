package limiterredis_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/limitertest"
	limiterredis "github.com/gopassreset/reset/limiter_redis"
)

const howTo = `needs Redis, and redis-server in PATH. To run it:

	RESET_TEST_REDIS=redis://127.0.0.1:6379 go test ./limiter_redis`

// TestMain says that nothing was tested if nothing was: go test shows the skips
// of a package that passes only with -v.
func TestMain(m *testing.M) {
	limitertest.Child(func(_ context.Context, prefix string) (reset.Limiter, error) {
		client, err := open(os.Getenv("RESET_TEST_REDIS"))
		if err != nil {
			return nil, err
		}
		return limiterredis.New(client, prefix, limitertest.ChildLimit, limitertest.ChildPeriod)
	})
	if os.Getenv("RESET_TEST_REDIS") == "" && os.Getenv("CI") != "true" {
		fmt.Println("testing: warning: no tests to run") // go test adds it to its summary
		fmt.Printf("limiter_redis %s\n", howTo)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// address returns the URL of the given server.
func address(t testing.TB) string {
	t.Helper()
	url := os.Getenv("RESET_TEST_REDIS")
	if url == "" {
		t.Fatalf("RESET_TEST_REDIS is not set: %s", howTo)
	}
	return url
}

// connect returns a client of the given server.
func connect(t testing.TB) *redis.Client {
	t.Helper()
	client, err := open(address(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func open(url string) (*redis.Client, error) {
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.ContextTimeoutEnabled = true
	return redis.NewClient(o), nil
}

// A server is a redis-server of a test's own.
type server struct {
	t       *testing.T
	port    int
	args    []string
	process *os.Process
}

// startServer starts a server that ends with the test.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, port: freePort(t)}
	s.args = append([]string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir,
		"--logfile", filepath.Join(dir, "log"),
	}, args...)
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	command := exec.Command("redis-server", s.args...)
	if err := command.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.process = command.Process
	client := redis.NewClient(&redis.Options{Addr: s.addr()})
	defer client.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	until(ctx, s.t, "redis-server does not answer", func() bool { return client.Ping(ctx).Err() == nil })
}

func (s *server) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// kill ends the server without notice.
func (s *server) kill() {
	s.process.Signal(syscall.SIGCONT)
	s.process.Kill()
	s.process.Wait()
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// until polls a server until it is as wanted.
func until(ctx context.Context, t *testing.T, problem string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(problem)
		}
	}
}

// startCluster returns the addresses of a cluster of three nodes.
func startCluster(t *testing.T) (addrs []string) {
	t.Helper()
	const nodes, slots = 3, 16384
	var clients []*redis.Client
	for range nodes {
		// The port of the bus would otherwise be the other one plus 10,000.
		s := startServer(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(freePort(t)))
		addrs = append(addrs, s.addr())
		client := redis.NewClient(&redis.Options{Addr: s.addr()})
		t.Cleanup(func() { client.Close() })
		clients = append(clients, client)
		meet := []any{"CLUSTER", "MEET", "127.0.0.1", s.port, s.args[len(s.args)-1]}
		if err := clients[0].Do(t.Context(), meet...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i, client := range clients {
		if err := client.ClusterAddSlotsRange(ctx, i*slots/nodes, (i+1)*slots/nodes-1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, client := range clients {
		until(ctx, t, "the cluster does not form", func() bool {
			info, err := client.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return addrs
}
