// Package smtptest is a mail server that follows a script, for tests of what
// servers do that they should not.
package smtptest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Script says how a connection goes. The zero Script accepts everything
// and offers nothing.
type Script struct {
	// Offers are the extensions that EHLO lists. STARTTLS is listed by itself.
	Offers []string
	// TLS is offered by STARTTLS, or begins the connection if Implicit is set.
	TLS      *tls.Config
	Implicit bool
	// On replaces what the server does at a moment: at "greeting", at a command,
	// named by its verb, at the "handshake" of TLS, at the "go-ahead" for a
	// message and at the end of the "message". With a number, as in "EHLO 2", it is for that time only.
	On map[string]Action
}

// An Action does something at a moment and reports whether the connection
// goes on.
type Action func(*Conn) bool

// Say sends lines, to which it adds CRLF.
func Say(lines ...string) Action {
	return func(c *Conn) bool {
		_, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n")
		return err == nil
	}
}

// HangUp closes the connection.
func HangUp(*Conn) bool { return false }

// SayAndHangUp sends lines and closes the connection.
func SayAndHangUp(lines ...string) Action {
	return func(c *Conn) bool {
		Say(lines...)(c)
		return false
	}
}

// Hang waits until the client closes the connection.
func Hang(c *Conn) bool {
	c.server.Hung <- struct{}{}
	io.Copy(io.Discard, c.Conn)
	return false
}

// Flood sends text until the client closes the connection, and waits for a
// while after each time.
func Flood(text string, wait time.Duration) Action {
	return func(c *Conn) bool {
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return false
			}
			if wait > 0 {
				<-time.After(wait)
			}
		}
	}
}

// A Conn is the server's end of a connection.
type Conn struct {
	net.Conn
	script Script
	server *Server
	log    *Session
	r      *bufio.Reader
	tls    bool
	times  map[string]int
	line   string
}

// Line returns the latest command.
func (c *Conn) Line() string { return c.line }

// A Session is what the server saw of a connection.
type Session struct {
	Lines    []string // the commands; "TLS" where a handshake was completed
	Messages []string // as they came, with dots stuffed and without the last line
}

// A Server plays one script for each connection, the last one also for those
// that follow.
type Server struct {
	Addr string        // "" unless it listens
	Hung chan struct{} // gets a value whenever Hang begins

	t        testing.TB
	scripts  []Script
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    []*trackedConn
	sessions []*Session
}

// New returns a server that is reached through its Dial alone, within the
// process.
func New(t testing.TB, scripts ...Script) *Server {
	return &Server{t: t, scripts: scripts, Hung: make(chan struct{}, 100)}
}

// Listen returns a server on a loopback port. The test ends it.
func Listen(t testing.TB, scripts ...Script) *Server {
	return ListenAt(t, "tcp", "127.0.0.1:0", scripts...)
}

// ListenAt is Listen on another network or address.
func ListenAt(t testing.TB, network, addr string, scripts ...Script) *Server {
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	s := New(t, scripts...)
	s.Addr = l.Addr().String()
	s.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(conn)
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

// Dial connects to the server, whatever the address.
func (s *Server) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	s.serve(server)
	return client, nil
}

// Sessions returns what the server has seen so far, one element a connection.
func (s *Server) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Session
	for _, log := range s.sessions {
		all = append(all, Session{slices.Clone(log.Lines), slices.Clone(log.Messages)})
	}
	return all
}

// Lines returns the commands of all connections, each as its verb alone.
func (s *Server) Lines() (verbs []string) {
	for _, session := range s.Sessions() {
		for _, line := range session.Lines {
			verbs = append(verbs, verbOf(line))
		}
	}
	return verbs
}

// Messages returns the messages of all connections.
func (s *Server) Messages() (all []string) {
	for _, session := range s.Sessions() {
		all = append(all, session.Messages...)
	}
	return all
}

// WaitClosed waits until every connection so far is closed on the client's
// side. It fails the test if that takes long.
func (s *Server) WaitClosed(t testing.TB) {
	t.Helper()
	for _, c := range s.open() {
		select {
		case <-c.done:
		case <-time.After(10 * time.Second):
			t.Fatal("a connection was not closed")
		}
	}
}

func (s *Server) open() []*trackedConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.conns)
}

// A trackedConn signals when the server is done with it, which is not before the
// client has closed it.
type trackedConn struct {
	net.Conn
	done chan struct{}
}

func (s *Server) serve(conn net.Conn) {
	tracked := &trackedConn{conn, make(chan struct{})}
	log := new(Session)
	s.mu.Lock()
	script := s.scripts[min(len(s.sessions), len(s.scripts)-1)]
	s.conns = append(s.conns, tracked)
	s.sessions = append(s.sessions, log)
	s.mu.Unlock()

	c := &Conn{Conn: conn, script: script, server: s, log: log, r: bufio.NewReader(conn), times: make(map[string]int)}
	s.wg.Go(func() {
		defer close(tracked.done)
		defer conn.Close()
		c.play()
		if half, ok := conn.(*net.TCPConn); ok { // see the client close its end, too
			half.CloseWrite()
			io.Copy(io.Discard, half)
		}
	})
}

// at does what the script has for a moment, or else what should be done.
func (c *Conn) at(moment string, usual Action) bool {
	c.times[moment]++
	if a, ok := c.script.On[fmt.Sprintf("%s %d", moment, c.times[moment])]; ok {
		return a(c)
	}
	if a, ok := c.script.On[moment]; ok {
		return a(c)
	}
	return usual(c)
}

func (c *Conn) play() {
	if c.script.Implicit && !c.at("handshake", (*Conn).Handshake) {
		return
	}
	if !c.at("greeting", Say("220 test ESMTP")) {
		return
	}
	for {
		line, err := c.readLine()
		if err != nil {
			return
		}
		c.server.note(func() { c.log.Lines = append(c.log.Lines, line) })
		c.line = line
		verb := verbOf(line)
		if !c.at(verb, usual(verb, line)) || verb == "QUIT" {
			return
		}
	}
}

func (c *Conn) readLine() (string, error) {
	line, err := c.r.ReadString('\n')
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), err
}

func verbOf(line string) string {
	verb, _, _ := strings.Cut(line, " ")
	return strings.ToUpper(verb)
}

func usual(verb, line string) Action {
	switch verb {
	case "EHLO":
		return hello
	case "HELO", "RSET", "NOOP", "MAIL", "RCPT":
		return Say("250 ok")
	case "STARTTLS":
		return func(c *Conn) bool { return Say("220 go on")(c) && c.at("handshake", (*Conn).Handshake) }
	case "AUTH":
		return func(c *Conn) bool { return logIn(c, line) }
	case "DATA":
		return func(c *Conn) bool { return c.at("go-ahead", Say("354 go on")) && c.message() }
	case "QUIT":
		return Say("221 bye")
	}
	return Say("500 what?")
}

func hello(c *Conn) bool {
	lines := append([]string{"test"}, c.script.Offers...)
	if c.script.TLS != nil && !c.tls {
		lines = append(lines, "STARTTLS")
	}
	for i := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		lines[i] = "250" + sep + lines[i]
	}
	return Say(lines...)(c)
}

// Handshake does the server's part of the TLS handshake.
func (c *Conn) Handshake() bool {
	over := tls.Server(c.Conn, c.script.TLS)
	if over.Handshake() != nil {
		return false
	}
	c.Conn, c.r, c.tls = over, bufio.NewReader(over), true
	c.server.note(func() { c.log.Lines = append(c.log.Lines, "TLS") })
	return true
}

// logIn takes any password.
func logIn(c *Conn, line string) bool {
	prompts := 0
	if strings.EqualFold(line, "AUTH LOGIN") {
		prompts = 2
	}
	for i := range prompts {
		if !Say([]string{"334 VXNlciBOYW1lAA==", "334 UGFzc3dvcmQA"}[i])(c) {
			return false
		}
		answer, err := c.readLine()
		if err != nil {
			return false
		}
		c.server.note(func() { c.log.Lines = append(c.log.Lines, answer) })
	}
	return Say("235 welcome")(c)
}

func (c *Conn) message() bool {
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		all.WriteString(line)
	}
	c.server.note(func() { c.log.Messages = append(c.log.Messages, all.String()) })
	return c.at("message", Say("250 accepted"))
}

func (s *Server) note(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}
