package storesqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset/internal/sqlstore"
)

var errClosed = errors.New("storesqlite: store is closed")

// maxBatch keeps a batch to some 20 ms, so that the first in it need not wait
// long for the last.
const maxBatch = 128

// A writer is the one connection of a Store that writes, and the goroutine that
// owns it. It serves jobs in the order in which they come and commits those
// together that come while it is at work: one fsync for all of them.
//
// The connection knows no context but its own. SQLite can't be interrupted
// while it waits for a lock anyway, and a context that may end costs a
// goroutine for every statement.
type writer struct {
	conn    bun.Conn
	dialect *sqlstore.Dialect
	jobs    chan *job // without a buffer: a job that was not taken is its caller's again
	quit    chan struct{}
	end     sync.Once
	done    chan struct{}
}

// A job is an Op for a batch or, without one, a caller that wants the
// connection for itself.
type job struct {
	op   sqlstore.Op
	err  error
	turn chan struct{} // closed when the connection is the caller's
	over chan struct{} // closed when err is set, or when the connection is given back
}

func newJob(op sqlstore.Op) *job {
	return &job{op: op, turn: make(chan struct{}), over: make(chan struct{})}
}

func startWriter(conn bun.Conn, d *sqlstore.Dialect) *writer {
	w := &writer{conn: conn, dialect: d, jobs: make(chan *job), quit: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

// stop waits until the jobs that were taken are over.
func (w *writer) stop() {
	w.end.Do(func() { close(w.quit) })
	<-w.done
}

func (w *writer) stopped() bool {
	select {
	case <-w.quit:
		return true
	default:
		return false
	}
}

// Write implements sqlstore.Backend. ctx ends the wait for the writer, but not
// for what the writer has begun: it is soon known whether that is committed.
func (w *writer) Write(ctx context.Context, f sqlstore.Op) error {
	j := newJob(f)
	if err := w.submit(ctx, j); err != nil {
		return err
	}
	<-j.over
	return j.err
}

// Begin implements sqlstore.Backend. The writer waits until the transaction is
// over.
func (w *writer) Begin(ctx context.Context) (*sqlstore.Tx, error) {
	j := newJob(nil)
	if err := w.submit(ctx, j); err != nil {
		return nil, err
	}
	<-j.turn
	return sqlstore.BeginSQLite(ctx, w.dialect, w.conn, func() { close(j.over) })
}

// submit returns when the writer has taken the job.
func (w *writer) submit(ctx context.Context, j *job) error {
	if w.stopped() {
		return errClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case w.jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.quit:
		return errClosed
	}
}

func (w *writer) run() {
	defer close(w.done)
	defer w.conn.Close()
	for {
		select {
		case j := <-w.jobs:
			w.serve(j)
		case <-w.quit:
			return
		}
	}
}

// serve does j and what has come by then.
func (w *writer) serve(j *job) {
	var batch []*job
	for j != nil && j.op != nil {
		batch = append(batch, j)
		j = w.next(len(batch))
	}
	if len(batch) > 0 {
		w.commit(batch)
	}
	if j != nil {
		close(j.turn)
		<-j.over
	}
}

// next returns another job for a batch of n, or nil.
func (w *writer) next(n int) *job {
	if n == maxBatch {
		return nil
	}
	select {
	case j := <-w.jobs:
		return j
	default:
	}
	// Those who are about to ask get to run first, or else each commit would
	// have one job: they are only now being woken by the last one.
	runtime.Gosched()
	select {
	case j := <-w.jobs:
		return j
	default:
		return nil
	}
}

// commit answers a batch. Jobs need no savepoints: one that ends with a verdict
// has changed nothing, and where one fails all are undone, whatever SQLite may
// have undone by itself, and each is run again alone.
func (w *writer) commit(batch []*job) {
	failed, err := w.transact(batch)
	alone := failed && len(batch) > 1
	for _, j := range batch {
		if alone {
			_, err = w.transact([]*job{j})
		}
		j.answer(err)
	}
}

// answer ends a job. err is why its transaction was undone, if it was;
// otherwise the job has its verdict.
func (j *job) answer(err error) {
	if err != nil {
		j.err = err
	}
	close(j.over)
}

// transact runs jobs in one transaction. An error means that it was undone, and
// failed that this was because of one of the jobs.
func (w *writer) transact(jobs []*job) (failed bool, err error) {
	// Without bun, which would write the arguments into the statements.
	ctx, conn := context.Background(), w.conn.Conn
	err = w.dialect.Retry(ctx, func() error {
		failed = false
		if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		err := runAll(ctx, conn, jobs)
		failed = err != nil
		if !failed {
			if _, err = conn.ExecContext(ctx, "COMMIT"); err != nil {
				err = fmt.Errorf("commit: %w", err)
			}
		}
		if err != nil {
			_, _ = conn.ExecContext(ctx, "ROLLBACK")
		}
		return err
	})
	return failed, err
}

func runAll(ctx context.Context, c sqlstore.Conn, jobs []*job) error {
	for _, j := range jobs {
		if j.err = j.op(ctx, c); j.err != nil && !sqlstore.IsVerdict(j.err) {
			return j.err
		}
	}
	return nil
}
