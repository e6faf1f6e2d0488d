package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/emersion/go-smtp"

	"github.com/gopassreset/reset"
)

// rawMessage returns the bytes that a mail server gets for a message. It uses the
// library's own mailer, by being the server for that one message.
func rawMessage(ctx context.Context, m reset.Message) ([]byte, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("raw message: %w", err)
	}
	got := make(letterSession, 1)
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return got, nil }))
	server.EnableSMTPUTF8 = true
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(listener) })
	defer wg.Wait()
	defer server.Close()

	mailer := &reset.SMTPMailer{Addr: listener.Addr().String(), From: "Harbour <no-reply@example.com>", InsecureNoTLS: true}
	defer mailer.Close()
	if err := mailer.Send(ctx, m); err != nil {
		return nil, fmt.Errorf("raw message: %w", err)
	}
	select {
	case raw := <-got:
		return raw, nil
	default:
		return nil, errors.New("raw message: nothing was sent")
	}
}

// A letterSession accepts one letter.
type letterSession chan []byte

func (letterSession) Mail(string, *smtp.MailOptions) error { return nil }
func (letterSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (letterSession) Reset()                               {}
func (letterSession) Logout() error                        { return nil }

func (s letterSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	select {
	case s <- raw:
		return nil
	default:
		return errors.New("one message only")
	}
}
