// Command example is a small host of package reset: people sign up, log in, see
// where they are logged in, forget their password and get a new one. It is to
// be read as much as run:
//
//	go run ./example
//
// Without flags it needs nothing: its database is a file in a temporary folder,
// and the mail it sends shows on its own pages. Its start page shows what the
// library does meanwhile.
//
// Read host.go first, which puts the library together, then users.go, which is
// all that it needs of a host. What hosts do anyway is in sessions.go, hash.go,
// account.go and web.go; what only a demonstration does is in panels.go,
// events.go, rows.go, source.go and seed.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "example: %v\nexample: -h shows the flags\n", err)
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	h, err := newHost(ctx, o, log)
	if err != nil {
		log.Error("start failed", "error", err)
		return 1
	}
	h.greet(stdout)
	if err := h.run(ctx); err != nil {
		log.Error("stopped", "error", err)
		return 1
	}
	log.Info("stopped")
	return 0
}
