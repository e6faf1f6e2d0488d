package storesqlite

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/gopassreset/reset/internal/sqlstore"
)

// Pause makes the writer wait until f has returned.
func (s *Store) Pause(f func()) error {
	t := newTurn()
	if err := s.writer.submit(context.Background(), t); err != nil {
		return err
	}
	<-t.begun
	defer close(t.over)
	f()
	return nil
}

// RestPart returns the part of the time that the writer would leave to others.
func (s *Store) RestPart() (part time.Duration, err error) {
	err = s.Pause(func() { part = s.writer.restPart() })
	return part, err
}

// Together runs ops in one batch and returns how each has ended. The contexts
// of the first are ctxs.
func (s *Store) Together(ops []sqlstore.Op, ctxs ...context.Context) (errs []error, err error) {
	err = s.Pause(func() {
		var batch []*write
		for i, op := range ops {
			ctx := context.Background()
			if i < len(ctxs) {
				ctx = ctxs[i]
			}
			batch = append(batch, newWrite(ctx, op))
		}
		s.writer.commit(slices.Clone(batch))
		for _, j := range batch {
			errs = append(errs, j.err)
		}
	})
	return errs, err
}

// Pragma makes a setting of the writer's connection.
func (s *Store) Pragma(setting string) (err error) {
	pauseErr := s.Pause(func() {
		_, err = s.writer.conn.Conn.ExecContext(context.Background(), "PRAGMA "+setting)
	})
	if pauseErr != nil {
		return pauseErr
	}
	return err
}

// CountCommits counts those of the writer from now on.
func (s *Store) CountCommits() (*atomic.Int64, error) {
	var n atomic.Int64
	err := s.writer.conn.Conn.Raw(func(conn any) error {
		conn.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 { n.Add(1); return 0 })
		return nil
	})
	return &n, err
}
