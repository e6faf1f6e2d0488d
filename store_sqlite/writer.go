package storesqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"github.com/gopassreset/reset/internal/sqlstore"
)

var errClosed = errors.New("storesqlite: store is closed")

const (
	lockTime = 10 * time.Second // how long others may have the file locked
	pollTime = time.Millisecond // at most, and half of it on average
	maxRest  = 50 * time.Millisecond
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
	giveBack := func() { close(j.over) }
	var tx *sqlstore.Tx
	err := w.lock(func() (err error) {
		tx, err = sqlstore.BeginSQLite(ctx, w.dialect, w.conn, giveBack)
		return err
	})
	if err != nil {
		giveBack()
	}
	return tx, err
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
			w.rest()
		case <-w.quit:
			return
		}
	}
}

// lock calls begin until the file is not locked by others, which may be the
// host or other processes. SQLite's own wait is not used, for nobody is told
// that a lock is free and SQLite would look less and less often, in the end
// every 100 ms: it would find the lock taken, each time, by one that writes on
// and on.
func (w *writer) lock(begin func() error) error {
	since := time.Now()
	for {
		err := begin()
		if !w.dialect.Busy(err) || time.Since(since) > lockTime {
			w.locked = time.Now()
			return err
		}
		time.Sleep(rand.N(pollTime))
	}
}

// rest leaves the file to others for a fifth of the time, however much there is
// to do: the host's own connections wait as SQLite does.
func (w *writer) rest() {
	w.owed += min(time.Since(w.locked)/4, maxRest)
	if w.owed > time.Millisecond { // of less, the system makes a millisecond
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
		err := w.lock(func() error {
			_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
			return err
		})
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		err = runAll(ctx, conn, jobs)
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
