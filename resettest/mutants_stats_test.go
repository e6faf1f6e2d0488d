package resettest

import (
	"context"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// A wrongStats is a MemStore with a fault in what reset.StatsStore adds.
type wrongStats struct {
	*MemStore
	stats func(s *MemStore, now time.Time, right reset.Stats) reset.Stats
	beat  func(s *MemStore, now time.Time, mailerFails bool) // instead of MemStore's

	queued func(s *MemStore, limit int) int // instead of MemStore's
}

func (s *wrongStats) Queued(ctx context.Context, now time.Time, limit int) (int, error) {
	if s.queued == nil {
		return s.MemStore.Queued(ctx, now, limit)
	}
	return s.queued(s.MemStore, limit), nil
}

func (s *wrongStats) Stats(ctx context.Context, now time.Time) (reset.Stats, error) {
	stats, err := s.MemStore.Stats(ctx, now)
	if s.stats != nil {
		stats = s.stats(s.MemStore, now, stats)
	}
	return stats, err
}

func (s *wrongStats) Beat(ctx context.Context, now time.Time, mailerFails bool) error {
	if s.beat == nil {
		return s.MemStore.Beat(ctx, now, mailerFails)
	}
	s.beat(s.MemStore, now, mailerFails)
	return nil
}

func TestStatsMutants(t *testing.T) {
	stats := func(name string, f func(s *MemStore, now time.Time, right reset.Stats) reset.Stats, caught ...string) mutant[wrongStats] {
		return mutant[wrongStats]{name, wrongStats{stats: f}, caught}
	}
	beat := func(name string, f func(s *MemStore, now time.Time, mailerFails bool)) mutant[wrongStats] {
		return mutant[wrongStats]{name, wrongStats{beat: f}, []string{"Beat"}}
	}
	specimen[wrongStats, *storeCheck]{
		sentences: statsSentences(),
		mutants: []mutant[wrongStats]{
			{"no limit", wrongStats{queued: func(*MemStore, int) int { return 2 }}, []string{"Queued"}},
			{"expired mails are counted", wrongStats{queued: func(s *MemStore, limit int) int { return min(len(s.mails), limit) }}, []string{"Queued"}},
			{"leased mails are not queued", wrongStats{queued: func(s *MemStore, limit int) (n int) {
				for _, m := range s.mails {
					if m.Lease == (reset.ID{}) {
						n++
					}
				}
				return min(n, limit)
			}}, []string{"Queued"}},
			stats("leased mails wait, too", func(_ *MemStore, _ time.Time, right reset.Stats) reset.Stats {
				right.Waiting, right.Leased = right.Waiting+right.Leased, 0
				return right
			}, "Stats/mails"),
			stats("expired mails wait, too", func(_ *MemStore, _ time.Time, right reset.Stats) reset.Stats {
				right.Waiting += right.Expired
				return right
			}, "Stats/mails", "Stats/oldest"),
			stats("due before it was made", func(s *MemStore, now time.Time, right reset.Stats) reset.Stats {
				for _, m := range s.mails {
					right.OldestDue = max(right.OldestDue, now.Sub(m.Due))
				}
				return right
			}, "Stats/oldest"),
			stats("activations, not requests", func(s *MemStore, _ time.Time, right reset.Stats) reset.Stats {
				right.LiveRequests = len(s.activations)
				return right
			}, "Stats/requests"),
			stats("purges", func(s *MemStore, now time.Time, right reset.Stats) reset.Stats {
				s.Purge(context.Background(), now, 1000)
				return right
			}, "Stats/changes nothing"),
			beat("the last call wins", func(s *MemStore, now time.Time, mailerFails bool) {
				s.ran = now
				if mailerFails {
					s.failed = now
				}
			}),
			beat("a success ends a failure", func(s *MemStore, now time.Time, mailerFails bool) {
				s.ran, s.failed = latest(s.ran, now), time.Time{}
				if mailerFails {
					s.failed = now
				}
			}),
		},
		check: func(t testing.TB, fault wrongStats) *storeCheck {
			fault.MemStore = new(MemStore)
			return &storeCheck{TB: t, store: &fault}
		},
	}.prove(t)
}
