// Package smtp hands messages to a mail server over SMTP (RFC 5321). It knows
// envelopes and bytes, not what the messages say.
package smtp

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	quitTimeout = 2 * time.Second // for QUIT, whose reply changes nothing
	idleTimeout = 5 * time.Second // how long a connection stays open for the next message
	maxUses     = 100             // messages over one connection
)

// DotTimeout bounds the reply to the final dot, which ends a message (RFC 5321,
// 4.5.3.2.6). A shorter one breeds duplicates: the server may have accepted the
// message and be busy with it.
const DotTimeout = 10 * time.Minute

// Steps is the greatest number of steps of an exchange that Server.Timeout
// bounds, from the dialling to the message's last byte.
const Steps = 20

// A Server says how to reach a mail server and how to log in.
type Server struct {
	Network, Addr string      // as for net.Dial
	TLS           *tls.Config // nil: no TLS; at least 1.2, and ServerName defaults to the host of Addr
	ImplicitTLS   bool        // TLS comes before SMTP (RFC 8314), else by STARTTLS (RFC 3207)
	Hello         string      // the client's name in EHLO; "": the address of the connection's own end
	Username      string      // "": no log-in
	Password      string
	Token         func(context.Context) (string, error) // an OAuth 2 access token in place of the password
	Timeout       time.Duration                         // of each step; DotTimeout is the exception

	// Dial replaces the network in tests.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// An Envelope is a message as it travels: from whom, to whom, and its bytes.
type Envelope struct {
	From, To string   // local parts are quoted where they must be
	UTF8     bool     // the envelope needs SMTPUTF8 (RFC 6531)
	Data     []byte   // lines end in CRLF
	Secrets  []string // parts of Data that no error may repeat
}

// A Client sends messages to one server. The zero Client is ready for use, also
// from many goroutines.
type Client struct {
	mu       sync.Mutex
	idle     []*session // the most recently used is the last
	refusals refusals
}

// Send hands e to the server. Its error is an [*Error].
func (c *Client) Send(ctx context.Context, server Server, e Envelope) error {
	err := c.deliver(ctx, server, e)
	if err == nil {
		c.refusals.accepted()
		return nil
	}
	failure := err.(*Error)
	if ctx.Err() != nil && failure.Code == 0 {
		failure.cause = context.Cause(ctx)
		if failure.Fault == OfServer {
			failure.Fault = Passing
		}
		return failure
	}
	failure.Fault = c.refusals.judge(failure, e.To)
	return failure
}

// Close says goodbye on the idle connections, which otherwise happens after
// 5 s. It disturbs no Send, and c may be used afterwards.
func (c *Client) Close() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()

	var wg sync.WaitGroup
	for _, s := range idle {
		s.expiry.Stop()
		wg.Go(func() { s.quit(context.Background()) })
	}
	wg.Wait()
}

// Idle returns the number of idle connections.
func (c *Client) Idle() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.idle)
}

// deliver prefers an idle connection. The server may have closed it meanwhile,
// or refuse to use it any longer: then the message goes over a new one.
func (c *Client) deliver(ctx context.Context, server Server, e Envelope) error {
	if ctx.Err() != nil {
		return &Error{Stage: StageDial, cause: context.Cause(ctx)}
	}
	if s := c.takeIdle(); s != nil {
		if err := c.transact(ctx, s, e); !isStale(err) || ctx.Err() != nil {
			return err
		}
	}
	s, err := connect(ctx, server)
	if err != nil {
		return err
	}
	return c.transact(ctx, s, e)
}

// transact sends one message and keeps or ends the session.
func (c *Client) transact(ctx context.Context, s *session, e Envelope) error {
	stop := context.AfterFunc(ctx, s.abort)
	err := s.send(e)
	open := stop()
	switch {
	case err == nil && open && c.keepIdle(s):
	case err == nil || err.(*Error).Code != 0:
		s.quit(ctx)
	default:
		s.abort()
	}
	return err
}

func (c *Client) takeIdle() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.idle)
	if n == 0 {
		return nil
	}
	s := c.idle[n-1]
	c.idle = slices.Delete(c.idle, n-1, n)
	s.expiry.Stop()
	return s
}

// keepIdle keeps s for the next message, unless it was used often enough.
func (c *Client) keepIdle(s *session) bool {
	if s.uses++; s.uses >= maxUses {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, s)
	s.expiry = time.AfterFunc(idleTimeout, func() {
		if c.dropIdle(s) {
			s.quit(context.Background())
		}
	})
	return true
}

// dropIdle reports whether s was still idle.
func (c *Client) dropIdle(s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.idle, s)
	if i >= 0 {
		c.idle = slices.Delete(c.idle, i, i+1)
	}
	return i >= 0
}
