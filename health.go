package reset

import (
	"context"
	"errors"
	"fmt"
	"time"
)

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
