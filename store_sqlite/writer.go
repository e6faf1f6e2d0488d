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

	"github.com/gopassreset/reset/internal/bunpool"
	"github.com/gopassreset/reset/internal/sqlstore"
)

var errClosed = errors.New("storesqlite: store is closed")

const (
	lockTimeout = 10 * time.Second      // how long others may have the file locked
	maxPoll     = time.Millisecond      // between two attempts to lock it
	maxRest     = 50 * time.Millisecond // the longest pause that lets others lock it
	othersStay  = time.Minute           // how long others count who have had the file
)

// maxBatch keeps a batch to some 20 ms, so that the first write in it does not
// wait long for the last.
const maxBatch = 128

// A writer owns the one connection of a Store that writes. Its goroutine serves
// jobs in the order in which they come, and commits together the writes that
// arrive while it is busy: one fsync for all of them.
//
// The connection uses a context of its own: a context that can end costs a
// goroutine for every statement.
type writer struct {
	conn    bun.Conn
	batches *statements // on conn, for writes that share a transaction
	dialect *sqlstore.Dialect
	file    *file
	jobs    chan job // unbuffered: a job that was not received is still its caller's
	quit    chan struct{}
	end     sync.Once
	done    chan struct{}
	host    func() bool   // reports whether the host's connections are in use
	locked  time.Time     // when the file was last locked
	owed    time.Duration // the pause that others are due
	version int64         // changes when others write
	others  time.Time     // when others were last seen to write, or to have the file locked
}

// A job is a *write or a *turn.
type job interface {
	// serve does the job and returns another one, if it has received one that
	// it can't do as well.
	serve(w *writer) (next job)
}

// A write is an Op that shares a transaction with others.
type write struct {
	ctx  context.Context
	op   sqlstore.Op
	err  error
	over chan struct{} // closed when err is set
}

func newWrite(ctx context.Context, op sqlstore.Op) *write {
	return &write{ctx: ctx, op: op, over: make(chan struct{})}
}

// A turn gives one caller the connection.
type turn struct {
	begun chan struct{} // closed by the writer when the connection is the caller's
	over  chan struct{} // closed by the caller when it gives the connection back
}

func newTurn() *turn { return &turn{begun: make(chan struct{}), over: make(chan struct{})} }

func startWriter(conn bun.Conn, d *sqlstore.Dialect, f *file, host func() bool) *writer {
	w := &writer{conn: conn, batches: newStatements(conn.Conn), dialect: d, file: f, host: host, jobs: make(chan job), quit: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

// stop waits for the jobs that were received.
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

// Write implements sqlstore.Backend. The end of ctx ends the wait for the writer
// and for the lock, but not a transaction that has begun: its outcome is soon
// known.
func (w *writer) Write(ctx context.Context, f sqlstore.Op) error {
	j := newWrite(ctx, f)
	if err := w.submit(ctx, j); err != nil {
		return err
	}
	<-j.over
	return j.err
}

// Begin implements sqlstore.Backend. The writer waits until the transaction is
// over.
func (w *writer) Begin(ctx context.Context) (*sqlstore.Tx, error) {
	t := newTurn()
	if err := w.submit(ctx, t); err != nil {
		return nil, err
	}
	<-t.begun
	end := func(err error) error {
		defer close(t.over)
		if err != nil {
			return err
		}
		return w.check()
	}
	var tx *sqlstore.Tx
	err := w.lock(func() error { return context.Cause(ctx) }, func() (err error) {
		tx, err = sqlstore.BeginOn(ctx, w.dialect, bunpool.Session(w.conn), end)
		return err
	})
	if err != nil {
		return nil, end(err)
	}
	return tx, nil
}

// submit returns when the writer has received the job.
func (w *writer) submit(ctx context.Context, j job) error {
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
	defer w.batches.close()
	for {
		select {
		case j := <-w.jobs:
			for j != nil {
				j = j.serve(w)
			}
		case <-w.quit:
			return
		}
	}
}

// lock calls begin until others, who may be the host or other processes, have
// unlocked the file. Before each attempt it calls stop, whose error ends the
// wait.
//
// It does not leave the wait to SQLite, which tries less and less often, in the
// end every 100 ms. Between two transactions of somebody who writes without a
// pause the file is free for a moment only, and SQLite would miss it each time.
func (w *writer) lock(stop, begin func() error) error {
	if err := w.check(); err != nil {
		return err
	}
	since := time.Now()
	w.locked = since
	for ; ; time.Sleep(rand.N(maxPoll)) {
		if err := stop(); err != nil {
			return err
		}
		err := begin()
		w.locked = time.Now()
		if !w.dialect.Busy(err) || w.locked.Sub(since) > lockTimeout {
			return err
		}
		w.others = w.locked
	}
}

// check returns an error if the file was moved, deleted or replaced. It is called
// between transactions: after a COMMIT, since nobody may hear of a success that
// the file at its path does not have.
//
// SQLite does not checkpoint a file that was moved, not even when it closes it.
// The file must have what is in its WAL, which may stay behind, and the file
// that has taken its place must not get it.
func (w *writer) check() error {
	err := w.file.check()
	var moved *movedError
	if errors.As(err, &moved) && moved.path == w.file.path {
		_, _ = w.conn.Conn.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
	}
	return err
}

// rest leaves the file to others for a part of the time for which it was locked,
// however much there is to do: their waits are SQLite's. Nobody can see that they
// wait, so the part is a quarter while the host uses its connections or somebody
// has lately had the file, and otherwise small, for the first who comes. It saves
// up pauses of less than a millisecond, since no sleep is shorter.
func (w *writer) rest() {
	w.owed += min(time.Since(w.locked)/w.restPart(), maxRest)
	if w.owed > time.Millisecond {
		time.Sleep(w.owed)
		w.owed = 0
	}
}

func (w *writer) restPart() time.Duration {
	if time.Since(w.others) < othersStay || w.host() {
		return 4
	}
	return 16
}

// look notes, in a transaction, whether others have written since the last one.
func (w *writer) look(ctx context.Context) error {
	rows, err := w.batches.QueryContext(ctx, "PRAGMA data_version")
	if err != nil {
		return err
	}
	defer rows.Close()
	var version int64
	for rows.Next() {
		if err := rows.Scan(&version); err != nil {
			return err
		}
	}
	if w.version != 0 && version != w.version {
		w.others = w.locked
	}
	w.version = version
	return rows.Err()
}

func (t *turn) serve(w *writer) job {
	close(t.begun)
	<-t.over
	w.rest()
	return nil
}

// serve commits j together with the writes that have arrived by then.
func (j *write) serve(w *writer) job {
	batch := []*write{j}
	for len(batch) < maxBatch {
		next := w.next()
		other, ok := next.(*write)
		if !ok {
			w.commit(batch)
			return next
		}
		batch = append(batch, other)
	}
	w.commit(batch)
	return nil
}

// next returns a job that is waiting, or nil.
func (w *writer) next() job {
	select {
	case j := <-w.jobs:
		return j
	default:
	}
	// Callers that the last commit has just woken run first, or each commit
	// would have one write.
	runtime.Gosched()
	select {
	case j := <-w.jobs:
		return j
	default:
		return nil
	}
}

// commit answers a batch. Its writes need no savepoints: one that ends with a
// verdict has changed nothing, and if one fails all are rolled back, whatever
// SQLite may have undone by itself, and each runs again alone.
func (w *writer) commit(batch []*write) {
	left, failed, err := w.transact(batch)
	if !failed || len(left) == 1 {
		for _, j := range left {
			j.answer(err)
		}
		w.rest()
		return
	}
	for _, j := range left {
		alone, _, err := w.transact([]*write{j})
		if len(alone) > 0 {
			j.answer(err)
		}
		w.rest()
	}
}

// answer ends a write. err is why its transaction has failed; if it has not, the
// Op has set j.err.
func (j *write) answer(err error) {
	if err != nil {
		j.err = err
	}
	close(j.over)
}

var errNobody = errors.New("every caller has gone")

// transact runs writes in one transaction and returns those that it has not
// answered. An error means that the transaction was rolled back or is in a file
// that was moved, and failed that one of the writes was the cause.
func (w *writer) transact(batch []*write) (left []*write, failed bool, err error) {
	// Without bun, which would write the arguments into the statements.
	ctx, conn := context.Background(), w.batches
	left = batch
	answerGone := func() error {
		left = slices.DeleteFunc(left, func(j *write) bool {
			if j.ctx.Err() == nil {
				return false
			}
			j.answer(context.Cause(j.ctx))
			return true
		})
		if len(left) == 0 {
			return errNobody
		}
		return nil
	}
	err = w.dialect.Retry(ctx, func() error {
		failed = false
		err := w.lock(answerGone, func() error {
			_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
			return err
		})
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		if err = w.look(ctx); err == nil {
			err = runAll(ctx, conn, left)
			failed = err != nil
		}
		if err == nil {
			if _, err = conn.ExecContext(ctx, "COMMIT"); err == nil {
				return w.check()
			}
			err = fmt.Errorf("commit: %w", err)
		}
		_, _ = conn.ExecContext(ctx, "ROLLBACK")
		return err
	})
	return left, failed, err
}

func runAll(ctx context.Context, c sqlstore.Querier, batch []*write) error {
	for _, j := range batch {
		if j.err = j.op(ctx, sqlstore.On(c)); j.err != nil && !sqlstore.IsVerdict(j.err) {
			return j.err
		}
	}
	return nil
}
