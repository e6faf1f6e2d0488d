// Command bench measures package reset beside the least work that would do:
// a bare handler on the same database. It prints one table.
//
//	go run ./bench                    # everything, some 20 minutes
//	go run ./bench -run public,mails  # some rows
//
// Every server runs in a process of its own with GOMAXPROCS=1, where Linux
// allows it on a processor of its own; the clients and the mail sink are in this
// process. A row's two sides run in turn, A B A B …, and the row shows the
// median, lowest and highest ratio of the pairs, since machines drift.
//
// PostgreSQL and MariaDB are measured where the environment variables
// RESET_TEST_POSTGRES and RESET_TEST_MYSQL name them, as for the tests.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	log.SetFlags(0)
	var (
		serve = flag.String("serve", "", "internal: be the server of this kind")
		run   = flag.String("run", "", "comma-separated parts of the names of rows; all if empty")
		pairs = flag.Int("pairs", 5, "pairs of measurements a row")
		each  = flag.Duration("time", 3*time.Second, "length of one measurement of a rate")
	)
	options := serverFlags()
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *serve != "" {
		if err := serveKind(ctx, *serve, options); err != nil {
			log.Fatal(err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "reset-bench")
	if err != nil {
		log.Fatal(err)
	}
	b := &bench{pairs: *pairs, each: *each, dir: dir}
	err = b.all(ctx, strings.FieldsFunc(*run, func(r rune) bool { return r == ',' }))
	os.RemoveAll(dir)
	os.Remove(pocketBase)
	if err != nil {
		log.Fatal(err)
	}
}

// A bench runs the rows of the table.
type bench struct {
	pairs int
	each  time.Duration
	dir   string
	files int
}

// A result is one row.
type result struct {
	name   string
	ours   []float64
	floor  []float64 // empty: the row has no other side
	unit   string
	inTime bool // the sides are times, so that less is better
}

func (b *bench) all(ctx context.Context, only []string) error {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer out.Flush()
	fmt.Fprintln(out, "what\treset\tbeside it\tratio (lowest–highest)\t")
	for _, row := range rows() {
		if len(only) > 0 && !slices.ContainsFunc(only, func(part string) bool { return strings.Contains(row.name, part) }) {
			continue
		}
		log.Printf("%s …", row.name)
		r := result{name: row.name, unit: row.unit, inTime: row.inTime}
		for pair := range b.pairs {
			if row.once && pair > 0 {
				break
			}
			ours, floor, err := row.measure(ctx, b)
			if err == errNotHere {
				log.Printf("%s: not measured: %v", row.name, err)
				break
			}
			if err != nil {
				return fmt.Errorf("%s: %w", row.name, err)
			}
			r.ours = append(r.ours, ours)
			if floor > 0 {
				r.floor = append(r.floor, floor)
			}
		}
		r.print(out)
	}
	return nil
}

func (r result) print(out *tabwriter.Writer) {
	if len(r.ours) == 0 {
		fmt.Fprintf(out, "%s\tnot measured\t\t\t\n", r.name)
		return
	}
	fmt.Fprintf(out, "%s\t%s %s\t", r.name, figure(median(r.ours)), r.unit)
	if len(r.floor) == 0 {
		fmt.Fprint(out, "\t\t\n")
		return
	}
	var ratios []float64
	for i := range r.floor {
		ratios = append(ratios, r.ours[i]/r.floor[i])
	}
	fmt.Fprintf(out, "%s %s\t%.2f (%.2f–%.2f)\t\n", figure(median(r.floor)), r.unit, median(ratios), slices.Min(ratios), slices.Max(ratios))
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

func figure(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
