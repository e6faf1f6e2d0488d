package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// limits are what a sink does not do, or not at once.
type limits struct {
	delay       time.Duration // before the answer to the final dot
	connections int           // at a time; beyond: 421
	aSecond     int           // messages; beyond: 454
	logIn       bool          // demanded, and always refused
}

// A sink is a mail server that accepts everything within its limits and keeps
// the time at which each recipient's first mail came.
type sink struct {
	limits
	listener net.Listener

	mu       sync.Mutex
	at       map[string]time.Time
	n        int
	last     time.Time
	open     int   // connections
	second   int64 // in which
	inSecond int   // so many messages came
	logIns   int
}

func startSink(l limits) (*sink, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{limits: l, listener: listener, at: make(map[string]time.Time)}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s, nil
}

func (s *sink) addr() string { return s.listener.Addr().String() }

func (s *sink) close() { s.listener.Close() }

func (s *sink) serve(conn net.Conn) {
	defer conn.Close()
	c := bufio.NewWriter(conn)
	defer c.Flush()
	defer s.add(&s.open, -1)
	if n := s.add(&s.open, 1); s.connections > 0 && n > s.connections {
		fmt.Fprint(c, "421 4.7.0 too many connections\r\n")
		return
	}
	r := bufio.NewReaderSize(conn, 16<<10)
	fmt.Fprint(c, "220 sink\r\n")
	to := ""
	for {
		if r.Buffered() == 0 { // the client waits; else it has sent several commands
			c.Flush()
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(line[:min(4, len(line))]); verb {
		case "EHLO", "HELO":
			fmt.Fprint(c, "250-sink\r\n")
			if s.logIn {
				fmt.Fprint(c, "250-AUTH PLAIN\r\n")
			}
			fmt.Fprint(c, "250-PIPELINING\r\n250 8BITMIME\r\n")
		case "AUTH":
			s.add(&s.logIns, 1)
			fmt.Fprint(c, "535 5.7.8 wrong password\r\n")
		case "MAIL":
			if s.isThrottled() {
				fmt.Fprint(c, "454 4.7.0 too many messages a second\r\n")
				break
			}
			fmt.Fprint(c, "250 ok\r\n")
		case "RCPT":
			_, to, _ = strings.Cut(line, "<")
			to, _, _ = strings.Cut(to, ">")
			fmt.Fprint(c, "250 ok\r\n")
		case "DATA":
			fmt.Fprint(c, "354 go on\r\n")
			c.Flush()
			for line != ".\r\n" {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
			}
			time.Sleep(s.delay)
			s.accepted(to)
			fmt.Fprint(c, "250 ok\r\n")
		case "QUIT":
			fmt.Fprint(c, "221 bye\r\n")
			return
		default:
			fmt.Fprint(c, "250 ok\r\n")
		}
	}
}

// add adds to one of the sink's counts and returns it.
func (s *sink) add(count *int, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	*count += n
	return *count
}

// isThrottled counts a message and reports whether it is one too many.
func (s *sink) isThrottled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now().Unix(); now != s.second {
		s.second, s.inSecond = now, 0
	}
	s.inSecond++
	return s.aSecond > 0 && s.inSecond > s.aSecond
}

func (s *sink) accepted(to string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	s.last = now
	if _, ok := s.at[to]; !ok {
		s.at[to] = now
	}
}

// count returns how many mails came, and when the last of them did.
func (s *sink) count() (int, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n, s.last
}

// await waits until n mails came, for at most two minutes after the latest.
func (s *sink) await(ctx context.Context, n int) error {
	return await(ctx, 2*time.Minute, func() (bool, time.Time, error) {
		got, last := s.count()
		return got >= n, last, fmt.Errorf("%d mails came, want %d", got, n)
	})
}

// arrival waits for the first mail to an address, for at most ten minutes, and
// returns when it came.
func (s *sink) arrival(ctx context.Context, to string) (at time.Time, err error) {
	err = await(ctx, 10*time.Minute, func() (came bool, _ time.Time, _ error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		at, came = s.at[to]
		return came, time.Time{}, fmt.Errorf("no mail to %s came", to)
	})
	return at, err
}

// await waits until ok reports true. It returns the error of ok if that takes
// longer than d, also since the time that ok returns.
func await(ctx context.Context, d time.Duration, ok func() (bool, time.Time, error)) error {
	for began := time.Now(); ; {
		done, latest, err := ok()
		switch {
		case done:
			return nil
		case time.Since(began) > d && time.Since(latest) > d:
			return err
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}
