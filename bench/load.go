package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A post is one request that the load makes.
type post struct {
	path string
	body func(n int64) string
	// client returns the value of X-Client, by which the server under test
	// distinguishes clients; nil: none.
	client func(n int64) string
}

// next numbers the requests of this process, so that no two are for one user.
var next atomic.Int64

func email(n int64) string { return fmt.Sprintf("user%d@example.com", n%users) }

func emailBody(n int64) string { return `{"email":"` + email(n) + `"}` }

func nobodyBody(n int64) string { return fmt.Sprintf(`{"email":"nobody%d@example.com"}`, n) }

// A load is what closed-loop clients saw.
type load struct {
	ok      int
	bad     string // the first answer that was no success
	elapsed time.Duration
	times   []time.Duration
}

func (l load) rate() float64 { return float64(l.ok) / l.elapsed.Seconds() }

// percentile returns the time in milliseconds that a share p of the answers did
// not exceed.
func (l load) percentile(p float64) float64 {
	if len(l.times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l.times))
	return float64(sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]) / float64(time.Millisecond)
}

// drive lets a number of connections make one request after the other, until
// the time is over or most requests are made.
func drive(ctx context.Context, addr string, p post, connections int, d time.Duration, most int64) (load, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var (
		left  atomic.Int64
		mu    sync.Mutex
		total load
		first error
		wg    sync.WaitGroup
	)
	left.Store(most)
	start := time.Now()
	for range connections {
		wg.Go(func() {
			l, err := driveOne(ctx, addr, p, &left)
			mu.Lock()
			defer mu.Unlock()
			total.ok += l.ok
			total.times = append(total.times, l.times...)
			if total.bad == "" {
				total.bad = l.bad
			}
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	total.elapsed = time.Since(start)
	if first == nil && (total.ok == 0 || total.bad != "") {
		first = fmt.Errorf("%d succeeded, and one was answered %s", total.ok, total.bad)
	}
	return total, first
}

// driveOne writes HTTP/1.1 by hand: a client that costs more than the server
// would be what is measured.
func driveOne(ctx context.Context, addr string, p post, left *atomic.Int64) (l load, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return l, err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for ctx.Err() == nil && left.Add(-1) >= 0 {
		n := next.Add(1)
		body := p.body(n)
		var b strings.Builder
		fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nAuthorization: %s\r\n", p.path, addr, len(body), apiKey)
		if p.client != nil {
			fmt.Fprintf(&b, "X-Client: %s\r\n", p.client(n))
		}
		b.WriteString("\r\n" + body)
		start := time.Now()
		if _, err := io.WriteString(c, b.String()); err != nil {
			return l, err
		}
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			return l, err
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return l, err
		}
		l.times = append(l.times, time.Since(start))
		if response.StatusCode/100 == 2 {
			l.ok++
		} else if l.bad == "" {
			l.bad = fmt.Sprintf("%s: %.100s", response.Status, text)
		}
	}
	return l, nil
}
