package smtp

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
)

const maxReply = 64 << 10 // bytes of a server's reply

// A conn bounds what a server can say. It ends a reply that is too long. And a
// Read never goes beyond the end of a line, so that bytes which follow the
// reply to STARTTLS are not lost in a buffer but make the TLS handshake fail.
type conn struct {
	net.Conn
	r    *bufio.Reader
	left int // bytes that the server may send until it is written to
}

func newConn(c net.Conn) *conn {
	return &conn{Conn: c, r: bufio.NewReader(c), left: maxReply}
}

func (c *conn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, fmt.Errorf("a reply of more than %d bytes", maxReply)
	}
	if _, err := c.r.Peek(1); err != nil {
		return 0, err
	}
	n := min(len(p), c.left, c.r.Buffered())
	line, _ := c.r.Peek(n) // cannot fail: it is buffered
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		n = i + 1
	}
	c.left -= n
	return c.r.Read(p[:n])
}

func (c *conn) Write(p []byte) (int, error) {
	c.left = maxReply
	return c.Conn.Write(p)
}
