// Command bench measures package reset beside the least work that would do: a
// bare handler on the same database. It prints one table, in Markdown, each row
// as soon as it is measured.
//
//	go run ./bench                     # everything, about an hour
//	go run ./bench -run 'public|mails' # rows whose names match
//	go run ./bench -large              # rows with 10⁷ records, too
//
// Every server runs in a process of its own with GOMAXPROCS=1. On Linux it has
// a processor of its own, and the clients and the mail sink, which are in this
// process, have the others. Database servers run where their system lets them. A
// row's two sides run in turn, A B A B …, and the row shows the median, the
// lowest and the highest result of the pairs, since machines drift.
//
// Of other packages PocketBase is measured, in the module bench/pocketbase.
// authboss, the other one that sends such mail, is not: the module proxy did not
// serve it.
//
// PostgreSQL and MariaDB are measured where the environment variables
// RESET_TEST_POSTGRES and RESET_TEST_MYSQL name them, as for the tests.
//
// Bench exits with status 1 if a row could not be measured or is not as wanted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

func main() {
	log.SetFlags(0)
	var (
		serve = flag.String("serve", "", "internal: be this server")
		run   = flag.String("run", "", "a regular expression for the names of rows; all if empty")
		pairs = flag.Int("pairs", 5, "pairs of measurements a row")
		each  = flag.Duration("time", 3*time.Second, "length of one measurement of a rate")
		large = flag.Bool("large", false, "also measure with 10⁷ records, which takes an hour more")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *serve != "" {
		if err := serveUntilClosed(ctx, *serve); err != nil {
			log.Fatal(err)
		}
		return
	}
	names, err := regexp.Compile(*run)
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "reset-bench")
	if err != nil {
		log.Fatal(err)
	}
	divideProcessors()
	b := &bench{pairs: *pairs, each: *each, dir: dir}
	err = b.all(ctx, rows(*large), names)
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

// A bench runs the rows of the table.
type bench struct {
	pairs int
	each  time.Duration
	dir   string // for what the bench leaves behind
	files int
}

// A row is one or more lines of the table that are measured together.
type row struct {
	lines   []line
	once    bool // too long to be repeated
	measure func(ctx context.Context, b *bench) ([]sample, error)
}

type line struct {
	what, unit string
	want       want
	more       bool // the result is the difference of the sides, not their ratio
}

// A sample is one measurement of the two sides of a line. A line without another
// side has 0 there.
type sample struct{ ours, beside float64 }

// A want is what a result should be. The zero value is anything.
type want struct {
	sign  string
	bound float64
}

func atLeast(bound float64) want { return want{"≥", bound} }
func atMost(bound float64) want  { return want{"≤", bound} }

func (w want) metBy(result float64) bool {
	switch w.sign {
	case "≥":
		return result >= w.bound
	case "≤":
		return result <= w.bound
	}
	return true
}

// all prints the table of the rows whose names match.
func (b *bench) all(ctx context.Context, rows []row, names *regexp.Regexp) error {
	var chosen []row
	width := 0
	for _, r := range rows {
		if !slices.ContainsFunc(r.lines, func(l line) bool { return names.MatchString(l.what) }) {
			continue
		}
		chosen = append(chosen, r)
		for _, l := range r.lines {
			width = max(width, utf8.RuneCountInString(l.what))
		}
	}
	printRow := func(what string, cells ...string) {
		fmt.Printf("| %-*s | %s |\n", width, what, strings.Join(cells, " | "))
	}
	b.printMachine(ctx)
	printRow("what", "reset", "beside it", "result (lowest–highest)", "wanted")
	printRow("---", "---", "---", "---", "---")
	wrong := 0
	for _, r := range chosen {
		samples, err := b.measure(ctx, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && err != errNotHere {
			wrong++
		}
		for i, l := range r.lines {
			if err != nil {
				printRow(l.what, "not measured: "+strings.NewReplacer("|", "/", "\n", " ").Replace(err.Error()), "", "", "")
				continue
			}
			cells, met := l.cells(samples[i])
			printRow(l.what, cells...)
			if !met {
				wrong++
			}
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d results are missing or not as wanted", wrong)
	}
	return nil
}

// measure returns the samples of each line.
func (b *bench) measure(ctx context.Context, r row) (samples [][]sample, err error) {
	samples = make([][]sample, len(r.lines))
	n := b.pairs
	if r.once {
		n = 1
	}
	for range n {
		pair, err := r.measure(ctx, b)
		if err != nil {
			return nil, err
		}
		for i, s := range pair {
			samples[i] = append(samples[i], s)
		}
	}
	return samples, nil
}

// cells returns what the table says about the samples of a line, and whether
// that is as wanted.
func (l line) cells(samples []sample) (cells []string, met bool) {
	var ours, beside, results []float64
	for _, s := range samples {
		ours, beside = append(ours, s.ours), append(beside, s.beside)
		switch {
		case s.beside == 0:
			results = append(results, s.ours)
		case l.more:
			results = append(results, s.ours-s.beside)
		default:
			results = append(results, s.ours/s.beside)
		}
	}
	cells = []string{figure(median(ours)) + l.unit, "", fmt.Sprintf("**%.2f**", median(results)), ""}
	if median(beside) > 0 {
		cells[1] = figure(median(beside)) + l.unit
	}
	if len(results) > 1 {
		cells[2] += fmt.Sprintf(" (%.2f–%.2f)", slices.Min(results), slices.Max(results))
	}
	met = l.want.metBy(median(results))
	if l.want.sign != "" {
		cells[3] = fmt.Sprintf("%s %v", l.want.sign, l.want.bound)
	}
	if !met {
		cells[3] += ", missed"
	}
	return cells, met
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

var errNotHere = errors.New("this machine or its environment does not have what it takes")
