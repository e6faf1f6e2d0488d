package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// A sink is a mail server that accepts everything and keeps the time at which
// each recipient's first mail came.
type sink struct {
	listener net.Listener
	delay    time.Duration // before the answer to the final dot

	mu   sync.Mutex
	at   map[string]time.Time
	n    int
	last time.Time
}

func startSink(delay time.Duration) (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{listener: l, delay: delay, at: make(map[string]time.Time)}
	go func() {
		for {
			c, err := l.Accept()
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

func (s *sink) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 16<<10)
	fmt.Fprint(c, "220 sink\r\n")
	to := ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(line[:min(4, len(line))]); verb {
		case "EHLO", "HELO":
			fmt.Fprint(c, "250-sink\r\n250 8BITMIME\r\n")
		case "RCPT":
			_, to, _ = strings.Cut(line, "<")
			to, _, _ = strings.Cut(to, ">")
			fmt.Fprint(c, "250 ok\r\n")
		case "DATA":
			fmt.Fprint(c, "354 go on\r\n")
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

// arrival returns when the first mail to an address came.
func (s *sink) arrival(to string) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[to]
	return at, ok
}
