package lookup

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/schemas"
)

// Source is what a table is read from.
type Source struct {
	Transport string // schemas.TransportNATS: a KV bucket; schemas.TransportKafka: a compacted topic
	Name      string
}

// String names the source in errors and metrics: bucket NAME, or topic kafka:NAME.
func (s Source) String() string {
	if s.Transport == schemas.TransportKafka {
		return "topic kafka:" + s.Name
	}
	return "bucket " + s.Name
}

// Follower reads sources; cmd makes one of the connectors.
type Follower interface {
	// Follow calls each for every key of the source as it is now, and for each change from then on; and all each time that
	// everything that the source has is known to have been told, first when all that was there at the start has been, then
	// every few seconds. What is older than version first is gone from the source, also if nothing was told of it (0: it
	// does not say). Both run on one goroutine. Follow returns when ctx ends or the source cannot be followed any more:
	// NotFound if it is not there.
	Follow(ctx context.Context, s Source, each func(*schemas.Change), all func(first uint64)) error
}

// Config bounds what tables hold.
type Config struct {
	MaxBytes int64 `yaml:"max_bytes"` // of all tables of the process together
}

// Default returns room for some millions of small rows.
func Default() Config { return Config{MaxBytes: 1 << 30} }

// Validate reports what is wrong.
func (c Config) Validate() error {
	if c.MaxBytes < 1<<20 {
		return schemas.FieldErrorf(schemas.Invalid, "lookup.Config", "lookup.max_bytes", "%d: want at least 1 MiB", c.MaxBytes)
	}
	return nil
}

// Tables are the tables of a process, safe for concurrent use.
type Tables struct {
	config   Config
	follower Follower
	log      *slog.Logger
	used     atomic.Int64

	mu struct {
		sync.Mutex
		open map[string]*Table
	}
}

// New makes the tables of a process, none of them open. They register their figures; a nil registerer means none.
func New(c Config, f Follower, r prometheus.Registerer, log *slog.Logger) (*Tables, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	ts := &Tables{config: c, follower: f, log: log}
	ts.mu.open = map[string]*Table{}
	if r != nil {
		if err := r.Register(collector{ts}); err != nil {
			return nil, schemas.Errorf(schemas.Internal, op, "%w", err)
		}
	}
	return ts, nil
}

// Open returns the table of some columns of a source, full. Who opens the same columns shares it; each closes it. It waits
// while the source is read: NotFound if there is no such source, Overloaded if it has no room.
func (ts *Tables) Open(ctx context.Context, s Source, cols []Column) (*Table, error) {
	id, err := json.Marshal([]any{s, cols})
	if err != nil {
		return nil, schemas.Errorf(schemas.Internal, op, "%w", err)
	}
	t, err := ts.join(ctx, s, string(id), cols)
	if err != nil {
		return nil, err
	}
	if err := t.wait(ctx); err != nil {
		ts.leave(t, ctx.Err() == nil)
		return nil, err
	}
	return t, nil
}

// join counts one more user of a table, and makes it if there is none.
func (ts *Tables) join(ctx context.Context, s Source, id string, cols []Column) (*Table, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t := ts.mu.open[id]; t != nil {
		t.users++
		return t, nil
	}
	r, err := newReader(slices.Clone(cols))
	if err != nil {
		return nil, err
	}
	t := &Table{
		source: s, id: id, of: ts, users: 1, layout: r.layout, absent: [2]*Row{r.absent(false), r.absent(true)}, log: ts.log, reader: r,
		said: map[string]time.Time{}, ready: make(chan struct{}), done: make(chan struct{}),
	}
	t.index.now.Store(newSlots(leastSlots))
	run, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it outlives who opened it first
	t.cancel = cancel
	ts.mu.open[id] = t
	go t.run(run)
	return t, nil
}

// leave counts one user less; the last one ends the table. One that has failed is not joined any more.
func (ts *Tables) leave(t *Table, failed bool) {
	ts.mu.Lock()
	t.users--
	last := t.users == 0
	if (last || failed) && ts.mu.open[t.id] == t {
		delete(ts.mu.open, t.id)
	}
	ts.mu.Unlock()
	if last {
		t.stop()
	}
}

// Close gives up one use of the table; the last one ends it.
func (t *Table) Close() { t.of.leave(t, false) }

// take asks for room for some more bytes; fewer are always taken.
func (ts *Tables) take(n int64) bool {
	if ts.used.Add(n) > ts.config.MaxBytes && n > 0 {
		ts.used.Add(-n)
		return false
	}
	return true
}

// collector shows the tables that are open, by source. Sources are those that specifications name.
type collector struct{ *Tables }

func figure(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("leat_lookup_"+name, help, []string{"source"}, nil)
}

var (
	entriesFigure = figure("entries", "Keys that the lookup tables of a source hold.")
	bytesFigure   = figure("bytes", "Bytes that the lookup tables of a source take.")
	ageFigure     = figure("age_seconds", "How long ago a lookup table was known to have all that its source has.")
	badFigure     = figure("bad_values_total", "Values of a source that could not be read; their keys are missing.")
	refusedFigure = figure("refused_total", "Values of a source for which there was no room; their keys are missing.")
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{entriesFigure, bytesFigure, ageFigure, badFigure, refusedFigure} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	type sums struct{ entries, bytes, age, bad, refused float64 }
	by := map[string]*sums{}
	c.mu.Lock()
	for _, t := range c.mu.open {
		s := by[t.source.String()]
		if s == nil {
			s = &sums{}
			by[t.source.String()] = s
		}
		s.entries += float64(t.keys.Load())
		s.bytes += float64(t.bytes.Load())
		s.age = max(s.age, t.Age().Seconds())
		s.bad += float64(t.bad.Load())
		s.refused += float64(t.refused.Load())
	}
	c.mu.Unlock()
	for source, s := range by {
		ch <- prometheus.MustNewConstMetric(entriesFigure, prometheus.GaugeValue, s.entries, source)
		ch <- prometheus.MustNewConstMetric(bytesFigure, prometheus.GaugeValue, s.bytes, source)
		ch <- prometheus.MustNewConstMetric(ageFigure, prometheus.GaugeValue, s.age, source)
		ch <- prometheus.MustNewConstMetric(badFigure, prometheus.CounterValue, s.bad, source)
		ch <- prometheus.MustNewConstMetric(refusedFigure, prometheus.CounterValue, s.refused, source)
	}
}
