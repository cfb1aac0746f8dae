package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/leatstream/leat/integration/floors"
	"golang.org/x/term"
)

// config is what the flags say.
type config struct {
	rounds     int
	duration   time.Duration
	quick      bool
	floorsOnly bool
	client     string // callers or requests
	only       *regexp.Regexp
	binary     string
	library    string
	example    string
	venv       string
	tmp        string
	out        string
	profile    string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == floors.ChildArg {
		if err := floors.ServeChild(context.Background(), os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // a reader that goes away is an error of the write, not the end of us before our children
	c, err := flags(os.Args[1:])
	if err == nil {
		err = bench(ctx, c)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errShort):
		stop()
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(2)
	}
}

func flags(args []string) (*config, error) {
	c := &config{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := f.String("only", "", "regular expression: only figures whose name matches (with -floors: samples)")
	f.IntVar(&c.rounds, "rounds", 5, "rounds; the medians are reported")
	f.DurationVar(&c.duration, "duration", 2*time.Second, "of one measurement")
	f.BoolVar(&c.quick, "quick", false, "one round of half-second measurements: shows that everything runs, measures little")
	f.BoolVar(&c.floorsOnly, "floors", false, "measure floors and peers alone; needs no product")
	f.StringVar(&c.client, "client", "callers", "who asks over NATS, on all sides: callers (a lean inbox) or requests (nats.go's own Request)")
	f.StringVar(&c.binary, "binary", "bin/leat", "the product")
	f.StringVar(&c.library, "onnxruntime", os.Getenv("LEAT_ONNXRUNTIME"), "shared library for floors and product; else the peers' one")
	f.StringVar(&c.example, "example", "examples/flights", "folder of the model and the sample")
	f.StringVar(&c.venv, "venv", os.Getenv("BENCH_DIR"), "folder of the Python peers; else in the user's cache folder")
	f.StringVar(&c.tmp, "tmp", "", "folder for the stores; else the system's: it should be on the disk that matters")
	f.StringVar(&c.out, "out", "bin/bench.json", "the report")
	f.StringVar(&c.profile, "cpuprofile", "", "prefix: write the server's CPU profile of each sample's first run to PREFIX.SAMPLE.pprof")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("bench: unknown argument %q", f.Arg(0))
	}
	var err error
	if c.only, err = regexp.Compile(*only); err != nil {
		return nil, fmt.Errorf("bench: -only: %w", err)
	}
	if c.quick {
		c.rounds, c.duration = 1, 500*time.Millisecond
	}
	if c.client != "callers" && c.client != "requests" {
		return nil, fmt.Errorf("bench: -client %q: want callers or requests", c.client)
	}
	if c.rounds < 1 || c.duration < 100*time.Millisecond {
		return nil, errors.New("bench: want at least one round and 100ms")
	}
	if c.venv == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("bench: name a folder with -venv: %w", err)
		}
		c.venv = filepath.Join(cache, "leat", "bench-venv")
	}
	for _, p := range []*string{&c.binary, &c.example} {
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
	}
	if _, err := os.Stat(c.binary); err != nil && !c.floorsOnly {
		return nil, fmt.Errorf("bench: %w: run `make build` first, or measure the floors alone with -floors", err)
	}
	return c, nil
}

// errShort says that a figure fell short of its target; the table shows which.
var errShort = errors.New("bench: a figure fell short")

func bench(ctx context.Context, c *config) error {
	wanted, figs := choose(c)
	if len(wanted) == 0 {
		return errors.New("bench: nothing to measure: -only matches no figure")
	}
	l, err := newLab(ctx, c)
	if err != nil {
		return err
	}
	defer l.close()
	r := &Report{Client: c.client, Machine: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), Rounds: c.rounds, Measures: map[string][]float64{}}
	failed := l.measure(ctx, wanted, r)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for i := range figs {
		row, err := figs[i].row(r.Measures)
		if err != nil {
			r.Faults = append(r.Faults, err.Error())
			continue
		}
		r.Figures = append(r.Figures, row)
	}
	for _, err := range floorFaults(r.Measures) {
		r.Faults = append(r.Faults, err.Error())
	}
	if c.floorsOnly {
		err = r.numbers(os.Stdout)
	} else {
		err = r.table(os.Stdout)
	}
	if err = errors.Join(err, r.write(c.out)); err != nil {
		return err
	}
	if failed != nil || len(r.Faults) > 0 {
		return errors.Join(failed, errors.New(strings.Join(r.Faults, "\n")))
	}
	if slices.ContainsFunc(r.Figures, func(f Row) bool { return !f.Met }) {
		return errShort
	}
	return nil
}

// choose returns the figures that are asked for and the samples that they need; the floors' scale is always measured.
func choose(c *config) (wanted []sample, figs []figure) {
	need := map[string]bool{}
	if !c.floorsOnly {
		for _, f := range figures {
			if !c.only.MatchString(f.name) {
				continue
			}
			figs = append(figs, f)
			for _, m := range append([]string{f.value}, f.floor.measures...) {
				name, _, _ := strings.Cut(m, ":")
				need[name] = true
			}
		}
		if len(figs) > 0 {
			need["fsync"], need["echo/1"], need["echo/requests/64"] = true, true, true
		}
	}
	for _, s := range samples() {
		if c.floorsOnly && !s.product && c.only.MatchString(s.name) || need[s.name] {
			wanted = append(wanted, s)
		}
	}
	return wanted, figs
}

// measure runs the rounds. A sample that fails is not tried again; the others go on.
func (l *lab) measure(ctx context.Context, wanted []sample, r *Report) error {
	var failed error
	broken := map[string]bool{}
	live := term.IsTerminal(int(os.Stderr.Fd()))
	for l.round = 1; l.round <= l.c.rounds; l.round++ {
		if !live {
			fmt.Fprintf(os.Stderr, "round %d of %d\n", l.round, l.c.rounds)
		}
		for _, s := range wanted {
			if broken[s.name] || s.once && l.round != l.c.rounds {
				continue
			}
			if live {
				fmt.Fprintf(os.Stderr, "\rround %d of %d: %-40s", l.round, l.c.rounds, s.name)
			}
			n, err := s.run(ctx, l)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				broken[s.name] = true
				failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
				continue
			}
			for key, v := range n {
				r.Measures[s.name+":"+key] = append(r.Measures[s.name+":"+key], v)
			}
		}
	}
	if live {
		fmt.Fprintf(os.Stderr, "\r%-60s\r", "")
	}
	return failed
}

// floorFaults checks the floors against what such code should reach here; see package floors.
func floorFaults(measures map[string][]float64) []error {
	// The field notes' echo was asked through the library's Request, so that is what the scale is taken from.
	alone, many := measures["echo/1:p50"], measures["echo/requests/64:rate"]
	if len(alone) == 0 || len(many) == 0 {
		return nil
	}
	scale := floors.NewScale(time.Duration(median(alone)*float64(time.Microsecond)), median(many))
	var fsync time.Duration // unknown: that of the field notes
	if v := measures["fsync:p50"]; len(v) > 0 {
		fsync = time.Duration(median(v) * float64(time.Microsecond))
	}
	var faults []error
	for _, f := range []struct {
		measure string
		ref     floors.Reference
	}{
		{"echo/64:rate", floors.RefEcho64},
		{"echo/256:rate", floors.RefEcho256},
		{"append/unsynced:p50", floors.RefAppend},
		{"append/synced:p50", floors.RefAppendSynced(fsync)},
		{"onnx/1:p50", floors.RefONNX1},
		{"onnx/bulk:rate", floors.RefONNX},
		{"httpecho/1:p50", floors.RefHTTP1},
		{"httpecho/64:rate", floors.RefHTTP64},
		{"kafka/echo/1:p50", floors.RefKafkaEcho1},
		{"kafka/echo/64:rate", floors.RefKafkaEcho64},
		{"kafka/echo/256:rate", floors.RefKafkaEcho64},
		{"kafka/append:p50", floors.RefKafkaAppend},
		{"kafka/topics/loop:rate", floors.RefKafkaTopics},
		{"kafka/topics/fetch:rate", floors.RefKafkaFetch},
		{"topics/unsynced:rate", floors.RefTopics},
		{"topics/synced:rate", floors.RefTopicsSynced(fsync)},
	} {
		v := median(measures[f.measure])
		if f.ref.Latency > 0 {
			v *= float64(time.Microsecond)
		}
		if err := f.ref.Check(f.measure, v, scale); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}
