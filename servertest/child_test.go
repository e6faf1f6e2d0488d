package servertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/failpoint"
	"github.com/gopassreset/reset/internal/smtptest"
	"github.com/gopassreset/reset/internal/wall"
)

// childEnv holds the job of a process that a test has started. It is this
// binary again.
const childEnv = "RESET_TEST_CHILD"

// A job says what a child does.
type job struct {
	Role        string
	Place       place
	MailServer  string
	Point       string // where the child kills itself; "": nowhere
	Hit         int    // at which time
	Child       int    // 0, 1, 2, ...
	Users       []string
	Activations []string      // one for each user, where the role needs them
	Skew        time.Duration // how far the clock of the child is ahead
	Soon        time.Time     // when what the first of the users has expires, where the role purges
}

// A child does a job in a process of its own.
type child struct {
	job
	*host
	*reset.Service
}

// roles are what children do, by name.
var roles = map[string]func(ctx context.Context, c *child) error{
	"visit":   visit,
	"storm":   storm,
	"request": requestAtOnce,
	"forgot":  forgotAtOnce,
	"redeem":  redeemAtOnce,
	"send":    func(ctx context.Context, c *child) error { return c.drain(ctx, c.Service) },
	"quarrel": quarrel,
}

func init() {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	if err := beChild(context.Background(), text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func beChild(ctx context.Context, text string) error {
	c := &child{}
	if err := json.Unmarshal([]byte(text), &c.job); err != nil {
		return err
	}
	wall.Skew(c.Skew)
	var err error
	if c.host, err = c.Place.open(ctx); err != nil {
		return err
	}
	defer c.close()
	warnings := unprovoked{slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})}
	if c.Service, err = c.service(c.MailServer, warnings); err != nil {
		return err
	}
	if c.Point != "" {
		failpoint.Arm(killAt(c.Point, c.Hit))
	}
	report("ready")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	return roles[c.Role](ctx, c)
}

// killAt returns a hook that ends the process as kill -9 does.
func killAt(point string, hit int) func(string) {
	var hits atomic.Int64
	return func(name string) {
		if name != point || hits.Add(1) != int64(hit) {
			return
		}
		self, err := os.FindProcess(os.Getpid())
		if err != nil || self.Kill() != nil {
			os.Exit(1)
		}
		select {} // until it comes true
	}
}

// report writes one line for the parent, at once.
func report(words ...string) { fmt.Println(strings.Join(words, " ")) }

// A process is a child as its parent sees it.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	start  func()
	lines  *bufio.Scanner
	stderr bytes.Buffer
}

// startChild returns once the child is ready, and waits for start.
func startChild(t *testing.T, j job) *process {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.CommandContext(t.Context(), self)}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = &p.stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.stdin, p.lines = stdin, bufio.NewScanner(stdout)
	p.start = func() {
		if _, err := stdin.Write([]byte("\n")); err != nil {
			t.Errorf("start child: %v", err)
		}
	}
	if !p.lines.Scan() || p.lines.Text() != "ready" {
		t.Fatalf("the child is not ready: %q, %s, %v", p.lines.Text(), &p.stderr, p.cmd.Wait())
	}
	return p
}

// rest returns the words of every line that the child reports until it ends.
func (p *process) rest() (lines [][]string) {
	for p.lines.Scan() {
		lines = append(lines, strings.Fields(p.lines.Text()))
	}
	return lines
}

// wasKilled waits for the end of the child.
func (p *process) wasKilled(t *testing.T) {
	t.Helper()
	var exit *exec.ExitError
	if err := p.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the child was not killed, it ended with %v: %s", err, &p.stderr)
	}
}

// wentWell waits for the end of the child, which must not have written to stderr.
func (p *process) wentWell(t *testing.T) {
	t.Helper()
	if err := p.cmd.Wait(); err != nil || p.stderr.Len() > 0 {
		t.Errorf("child: %v: %s", err, &p.stderr)
	}
}

// A received is a message that has arrived at the mail server.
type received struct {
	id         string // of the message
	to         string
	activation string // "" of a notification
}

var activationIn = regexp.MustCompile(`activation=([A-Za-z0-9_-]{24})`)

// inbox returns every message that has arrived so far.
func inbox(t *testing.T, sink *smtptest.Server) (all []received) {
	t.Helper()
	for _, text := range sink.Messages() {
		l, err := parseMessage(strings.ReplaceAll(text, "\r\n..", "\r\n."))
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		all = append(all, l)
	}
	return all
}

func parseMessage(text string) (l received, err error) {
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		return l, err
	}
	to, err := mail.ParseAddress(m.Header.Get("To"))
	if err != nil {
		return l, err
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return l, err
	}
	part, err := multipart.NewReader(m.Body, params["boundary"]).NextPart()
	if err != nil {
		return l, err
	}
	body, err := io.ReadAll(part)
	if err != nil {
		return l, err
	}
	l = received{id: m.Header.Get("Message-ID"), to: to.Address}
	if found := activationIn.FindSubmatch(body); found != nil {
		l.activation = string(found[1])
	}
	return l, nil
}
