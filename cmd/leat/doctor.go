package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/scorers/onnx/ortlib"
)

// finding is what one check found.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warn, fail
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"`
}

type doctor struct {
	e       *env
	data    string
	library string
	config  string // of a server, whose Kafka is checked
	kafka   string // brokers, over those of config
	topics  []string
	fix     bool
}

func doctorCommand(e *env) *cobra.Command {
	d := &doctor{e: e}
	var only []string
	checks := []struct {
		name string
		run  func(*doctor, context.Context) []finding
	}{
		{"onnxruntime", one((*doctor).onnxruntime)}, {"disk", one((*doctor).disk)}, {"space", one((*doctor).space)}, {"ports", one((*doctor).ports)},
		{"limits", one((*doctor).limits)}, {"server", one((*doctor).serverUp)}, {"clock", one((*doctor).clock)}, {"kafka", (*doctor).brokers},
	}
	var names []string
	for _, c := range checks {
		names = append(names, c.name)
	}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this machine and the server, and say what to do",
		Long: `Check ONNX Runtime's library, the speed and space of the disk, ports, limits, the
server, the clocks, and with --kafka or --config the Kafka cluster: what its
brokers speak; our rights, and that a message of the size we send is stored, read
by a group and in a transaction, and deleted again; and how the topics are set
that Leat, the server's pipelines and --topic name. Each line says what was found
and, where something is wrong, what to do. Exit status 1 if a check failed.

With --fix, fetch ONNX Runtime's library (pinned version and SHA-256, through
pip) into your cache folder if it is missing.`,
		Example: `  leat doctor
  leat doctor --fix --only onnxruntime
  leat doctor --kafka 10.0.0.5:9092
  leat doctor --only kafka --config leat.yaml --topic orders
  leat doctor --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, n := range only {
				if !slices.Contains(names, n) {
					return fmt.Errorf("no check %q: there are %s", n, strings.Join(names, ", "))
				}
			}
			var all []finding
			bad := false
			for _, c := range checks {
				if len(only) > 0 && !slices.Contains(only, c.name) {
					continue
				}
				for _, f := range c.run(d, cmd.Context()) {
					f.Check = c.name
					bad = bad || f.Status == "fail"
					all = append(all, f)
				}
			}
			err := e.print(all, func(w io.Writer) {
				var rows [][]string
				for _, f := range all {
					rows = append(rows, []string{e.status(f.Status), f.Check, f.Found})
					if f.Advice != "" {
						rows = append(rows, []string{"", "", "-> " + f.Advice})
					}
				}
				table(w, []string{"", "CHECK", "FOUND"}, rows)
			})
			if err == nil && bad {
				err = failed(errors.New("a check failed: see above"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&d.fix, "fix", false, "fetch what is missing")
	cmd.Flags().StringSliceVar(&only, "only", nil, "run only these checks ("+strings.Join(names, ", ")+")")
	cmd.Flags().StringVar(&d.library, "onnxruntime", "", "ONNX Runtime's library (default: $LEAT_ONNXRUNTIME, the cache, the system)")
	cmd.Flags().StringVar(&d.config, "config", "", "a server's YAML file, whose Kafka cluster is checked")
	cmd.Flags().StringVar(&d.kafka, "kafka", "", "brokers of a Kafka cluster to check, HOST:PORT,...")
	cmd.Flags().StringSliceVar(&d.topics, "topic", nil, "topics of the Kafka cluster to look at, beside those of Leat and of the server's pipelines")
	cmd.Flags().StringVar(&d.data, "data", "", "the server's data folder (default: in your data folder)")
	return cmd
}

// one is a check that finds one thing.
func one(check func(*doctor, context.Context) finding) func(*doctor, context.Context) []finding {
	return func(d *doctor, ctx context.Context) []finding { return []finding{check(d, ctx)} }
}

func (e *env) status(s string) string {
	if !e.color {
		return s
	}
	return map[string]string{"ok": "\x1b[32mok\x1b[0m", "warn": "\x1b[33mwarn\x1b[0m", "fail": "\x1b[31mfail\x1b[0m"}[s]
}

func (d *doctor) search() ortlib.Search {
	return ortlib.Search{Path: d.library, Env: os.Getenv("LEAT_ONNXRUNTIME")}
}

func (d *doctor) onnxruntime(ctx context.Context) finding {
	lib, err := ortlib.Open(d.search())
	if err != nil && d.fix {
		lib, err = ortlib.Ensure(ctx, d.search(), func(line string) { fmt.Fprintln(d.e.err, line) })
		if err == nil {
			lib, err = ortlib.Open(d.search())
		}
	}
	if err != nil {
		return finding{Status: "fail", Found: err.Error(), Advice: "leat doctor --fix --only onnxruntime; models of other kinds, and all else, work without it"}
	}
	return finding{Status: "ok", Found: fmt.Sprintf("version %s, %s (%s)", ortlib.Version, lib.Path, lib.Origin)}
}

func (d *doctor) folder() (string, error) {
	dir := d.data
	if dir == "" {
		var err error
		if dir, err = defaultData(); err != nil {
			return "", err
		}
	}
	for { // the nearest folder that exists
		if _, err := os.Stat(dir); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no folder above %s", d.data)
		}
		dir = up
	}
}

// slowSync is the time of one sync above which a synced append costs more than a request otherwise takes.
const slowSync = 5 * time.Millisecond

func (d *doctor) disk(context.Context) finding {
	dir, err := d.folder()
	if err != nil {
		return finding{Status: "fail", Found: err.Error()}
	}
	f, err := os.CreateTemp(dir, ".leat-doctor-*")
	if err != nil {
		return finding{Status: "fail", Found: err.Error(), Advice: "name a folder that this user may write with --data"}
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var times []time.Duration
	page := make([]byte, 4096)
	for range 20 {
		start := time.Now()
		if _, err = f.Write(page); err == nil {
			err = f.Sync()
		}
		if err != nil {
			return finding{Status: "fail", Found: err.Error()}
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	m := times[len(times)/2]
	r := finding{Status: "ok", Found: fmt.Sprintf("a synced write of 4 KiB takes %s (median of %d) in %s", m.Round(time.Microsecond), len(times), dir)}
	if m > slowSync {
		r.Status, r.Advice = "warn", "each answer waits for one synced append: use a faster disk, or accept a loss on power failure with 'leat serve --sync interval'"
	}
	return r
}

func (d *doctor) space(context.Context) finding {
	dir, err := d.folder()
	if err != nil {
		return finding{Status: "fail", Found: err.Error()}
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return finding{Status: "fail", Found: err.Error()}
	}
	free := uint64(s.Bavail) * uint64(s.Bsize)
	f := finding{Status: "ok", Found: size(free) + " free in " + dir}
	if free < 2<<30 {
		f.Status, f.Advice = "warn", "less than 2 GiB: the streams get less room; export and prune the lineage, or move --data"
	}
	return f
}

func (d *doctor) ports(ctx context.Context) finding {
	var busy []string
	for _, a := range []string{defaultHTTP, defaultNATS} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a)
		if err != nil {
			busy = append(busy, a)
			continue
		}
		l.Close()
	}
	if len(busy) == 0 {
		return finding{Status: "ok", Found: defaultHTTP + " and " + defaultNATS + " are free"}
	}
	if c, err := d.e.dial(); err == nil && c.call(ctx, http.MethodGet, "/v2/health/live", nil, nil, nil) == nil {
		return finding{Status: "ok", Found: strings.Join(busy, ", ") + " in use; a Leat server answers at " + c.base}
	}
	return finding{Status: "warn", Found: strings.Join(busy, ", ") + " in use, not by a Leat server", Advice: "leat serve --http 127.0.0.1:0 --nats 127.0.0.1:0 picks free ones"}
}

func (d *doctor) limits(context.Context) finding {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return finding{Status: "fail", Found: err.Error()}
	}
	f := finding{Status: "ok", Found: fmt.Sprintf("%d open files (at most %d)", l.Cur, l.Max)}
	if l.Max < 4096 {
		f.Status, f.Advice = "warn", "streams and callers take a file each: raise it with 'ulimit -n 65536'"
	}
	return f
}

func (d *doctor) serverUp(ctx context.Context) finding {
	c, err := d.e.dial()
	if err != nil {
		return finding{Status: "fail", Found: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var meta struct {
		Name, Version string
	}
	if err := c.call(ctx, http.MethodGet, "/v2", nil, nil, &meta); err != nil {
		return finding{Status: "warn", Found: err.Error(), Advice: "leat serve"}
	}
	if err := c.call(ctx, http.MethodGet, "/v2/health/ready", nil, nil, nil); err != nil {
		return finding{Status: "warn", Found: fmt.Sprintf("%s %s at %s is not ready: %v", meta.Name, meta.Version, c.base, err)}
	}
	return finding{Status: "ok", Found: fmt.Sprintf("%s %s is ready at %s", meta.Name, meta.Version, c.base)}
}

// maxSkew is the difference of clocks that begins to eat deadlines; relative timeouts (Leat-Timeout) do not mind it.
const maxSkew = 2 * time.Second

func (d *doctor) clock(ctx context.Context) finding {
	if y := time.Now().Year(); y < 2025 {
		return finding{Status: "fail", Found: "this machine's clock says " + time.Now().Format(time.RFC3339), Advice: "set it"}
	}
	c, err := d.e.dial()
	if err != nil {
		return finding{Status: "fail", Found: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := c.send(ctx, http.MethodGet, "/v2/health/live", nil, nil, nil)
	if err != nil {
		return finding{Status: "ok", Found: "this machine: " + time.Now().Format(time.RFC3339) + "; no server to compare with"}
	}
	defer r.Body.Close()
	at, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil {
		return finding{Status: "warn", Found: "the server gives no time"}
	}
	skew := time.Since(at)
	if skew.Abs() > maxSkew {
		return finding{Status: "warn", Found: fmt.Sprintf("the server's clock differs by %s", skew.Round(time.Second)), Advice: "set the clocks, or give relative timeouts (Leat-Timeout) instead of deadlines"}
	}
	return finding{Status: "ok", Found: "within 2 s of the server's"}
}
