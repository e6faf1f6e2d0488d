package reset

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxEntries is how many entries of a history are shown.
const maxEntries = 100

// unhealthyAfter is how long a due mail may wait.
const unhealthyAfter = 5 * time.Minute

// Stats returns figures of Config.Store. It fails with an error that wraps
// [errors.ErrUnsupported] unless that is a [StatsStore]. It is cheap enough to
// be called every few seconds.
//
// The figures change with every mail to somebody who has an account: show them
// to operators only.
func (s *Service) Stats(ctx context.Context) (Stats, error) {
	return s.figures.get(ctx, s.clock.now(ctx))
}

// Health returns nil if the store answers, some process has run Run within the
// last minute, and no due mail has waited for 5 minutes unless the mail system
// is unavailable. Of a store that is no [StatsStore] it knows only the first.
//
// It is meant for alerts and for readiness probes. Restarting a process mends
// nothing that it reports.
func (s *Service) Health(ctx context.Context) error {
	now := s.clock.now(ctx)
	stats, err := s.figures.get(ctx, now)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		_, err = s.cfg.Store.Find(ctx, now, Hash{})
		if err != nil && !errors.Is(err, ErrInvalidActivation) {
			return wrap("health", err)
		}
		return nil
	case err != nil:
		return wrap("health", err)
	case stats.LastRun.IsZero():
		return errors.New("reset: health: no process has called Run")
	case !stats.delivers(now):
		return fmt.Errorf("reset: health: no process has run Run for %v", now.Sub(stats.LastRun).Truncate(time.Second))
	case stats.OldestDue >= unhealthyAfter && !stats.mailerFails(now):
		return fmt.Errorf("reset: health: a mail has been due for %v", stats.OldestDue.Truncate(time.Second))
	}
	return nil
}

// History returns what became of a user's requests and mail within
// Config.KeepHistory, the latest first, at most 100 entries. It fails with an error
// that wraps [errors.ErrUnsupported] unless Config.Store is a [HistoryStore] and
// KeepHistory is on.
//
// It is for operators. It holds no secret, but says that the user exists, and
// when a link was requested: show it to nobody else. Of an address without an
// account there is nothing to show.
func (s *Service) History(ctx context.Context, userID string) ([]HistoryEntry, error) {
	store, err := s.historyStore()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	now := s.clock.now(ctx)
	var entries []HistoryEntry
	err = s.events.noPanic(ctx, func() (err error) {
		entries, err = store.History(ctx, now, userID, maxEntries)
		return err
	})
	if err != nil {
		return nil, wrap("history", err)
	}
	return entries, nil
}

// EraseHistory removes what History returns, for a host that deletes an account.
// Call it after Revoke, and like Revoke inside a transaction of the host: what is
// still queued stays, and begins a history again.
func (s *Service) EraseHistory(ctx context.Context, userID string) error {
	store, err := s.historyStore()
	if err == nil {
		err = store.EraseHistory(ctx, userID)
	}
	if err != nil {
		return wrap("erase history", err)
	}
	return nil
}

func (s *Service) historyStore() (HistoryStore, error) {
	store, ok := s.cfg.Store.(HistoryStore)
	switch {
	case !ok:
		return nil, fmt.Errorf("reset: Config.Store is no HistoryStore: %w", errors.ErrUnsupported)
	case s.cfg.KeepHistory < 0:
		return nil, fmt.Errorf("reset: Config.KeepHistory is negative: %w", errors.ErrUnsupported)
	}
	return store, nil
}
