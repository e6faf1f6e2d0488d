package storesqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset/internal/sqlstore"
)

var errClosed = errors.New("storesqlite: store is closed")

const (
	lockTime = 10 * time.Second      // how long others may have the file locked
	pollTime = time.Millisecond      // the most between two looks whether they still have
	maxRest  = 50 * time.Millisecond // the longest pause for the others' sake
)

// maxBatch keeps a batch to some 20 ms, so that the first in it need not wait
// long for the last.
const maxBatch = 128

// A writer is the one connection of a Store that writes, and the goroutine that
// owns it. It serves jobs in the order in which they come and commits those
// together that come while it is at work: one fsync for all of them.
//
// The connection knows no context but its own, since one that may end costs a
// goroutine for every statement.
type writer struct {
	conn    bun.Conn
	dialect *sqlstore.Dialect
	jobs    chan *job // without a buffer: a job that was not taken is its caller's again
	quit    chan struct{}
	end     sync.Once
	done    chan struct{}
	locked  time.Time     // when the file was last locked
	owed    time.Duration // the pause that others are due
}

// A job is an Op for a batch or, without one, a caller that wants the
// connection for itself.
type job struct {
	ctx  context.Context
	op   sqlstore.Op
	err  error
	turn chan struct{} // closed when the connection is the caller's
	over chan struct{} // closed when err is set, or when the connection is given back
}

func newJob(ctx context.Context, op sqlstore.Op) *job {
	return &job{ctx: ctx, op: op, turn: make(chan struct{}), over: make(chan struct{})}
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

// Write implements sqlstore.Backend. ctx ends the wait for the writer and for
// the lock, but not a transaction that has begun: it is soon known whether that
// is committed.
func (w *writer) Write(ctx context.Context, f sqlstore.Op) error {
	j := newJob(ctx, f)
	if err := w.submit(j); err != nil {
		return err
	}
	<-j.over
	return j.err
}

// Begin implements sqlstore.Backend. The writer waits until the transaction is
// over.
func (w *writer) Begin(ctx context.Context) (*sqlstore.Tx, error) {
	j := newJob(ctx, nil)
	if err := w.submit(j); err != nil {
		return nil, err
	}
	<-j.turn
	var tx *sqlstore.Tx
	left, err := w.lock([]*job{j}, func() (err error) {
		tx, err = sqlstore.BeginSQLite(ctx, w.dialect, w.conn, func() { close(j.over) })
		return err
	})
	if len(left) == 0 {
		return nil, j.err
	}
	if err != nil {
		j.answer(err)
	}
	return tx, err
}

// submit returns when the writer has taken the job.
func (w *writer) submit(j *job) error {
	if w.stopped() {
		return errClosed
	}
	if j.ctx.Err() != nil {
		return context.Cause(j.ctx)
	}
	select {
	case w.jobs <- j:
		return nil
	case <-j.ctx.Done():
		return context.Cause(j.ctx)
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

// lock calls begin until the file is not locked by others, who may be the host
// or other processes. Jobs whose contexts end before that are answered, and
// those that are left returned.
//
// It does not leave the wait to SQLite, which looks less and less often, in the
// end every 100 ms. Between two transactions of somebody who writes on and on
// the file is free for a moment only, and SQLite would miss it each time.
func (w *writer) lock(jobs []*job, begin func() error) (left []*job, err error) {
	since := time.Now()
	w.locked = since
	for ; ; time.Sleep(rand.N(pollTime)) {
		jobs = slices.DeleteFunc(jobs, func(j *job) bool {
			if j.ctx.Err() == nil {
				return false
			}
			j.answer(context.Cause(j.ctx))
			return true
		})
		if len(jobs) == 0 {
			return nil, nil
		}
		if err = begin(); !w.dialect.Busy(err) || time.Since(since) > lockTime {
			w.locked = time.Now()
			return jobs, err
		}
	}
}

// rest leaves the file to others for a quarter of the time for which it was
// locked, however much there is to do: their waits are SQLite's. What is less
// than a millisecond is saved up, as no sleep is shorter.
func (w *writer) rest() {
	w.owed += min(time.Since(w.locked)/4, maxRest)
	if w.owed > time.Millisecond {
		time.Sleep(w.owed)
		w.owed = 0
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
		w.rest()
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
	left, failed, err := w.transact(batch)
	if !failed || len(left) == 1 {
		for _, j := range left {
			j.answer(err)
		}
		w.rest()
		return
	}
	for _, j := range left {
		alone, _, err := w.transact([]*job{j})
		if len(alone) > 0 {
			j.answer(err)
		}
		w.rest()
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

// transact runs jobs in one transaction and returns those that it has not
// answered. An error means that it was undone, and failed that this was because
// of one of the jobs.
func (w *writer) transact(jobs []*job) (left []*job, failed bool, err error) {
	// Without bun, which would write the arguments into the statements.
	ctx, conn := context.Background(), w.conn.Conn
	left = jobs
	err = w.dialect.Retry(ctx, func() (err error) {
		failed = false
		left, err = w.lock(left, func() error {
			_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
			return err
		})
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if len(left) == 0 {
			return nil
		}
		err = runAll(ctx, conn, left)
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
	return left, failed, err
}

func runAll(ctx context.Context, c sqlstore.Conn, jobs []*job) error {
	for _, j := range jobs {
		if j.err = j.op(ctx, c); j.err != nil && !sqlstore.IsVerdict(j.err) {
			return j.err
		}
	}
	return nil
}
