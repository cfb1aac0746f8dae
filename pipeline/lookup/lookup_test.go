package lookup

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
	"github.com/leatstream/leat/schemas/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// told is what a scripted source tells next: a change, that all is told, or that the watch has ended.
type told struct {
	change *schemas.Change
	all    bool
	first  uint64
	ends   error
	taken  chan struct{} // closed when it is taken in
}

// script is a Follower that tells what the test tells it.
type script struct {
	ch      chan told
	follows chan Source
}

func newScript() *script { return &script{make(chan told), make(chan Source, 100)} }

func (s *script) Follow(ctx context.Context, src Source, each func(*schemas.Change), all func(uint64)) error {
	s.follows <- src
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case x := <-s.ch:
			switch {
			case x.ends != nil:
				close(x.taken)
				return x.ends
			case x.all:
				all(x.first)
			default:
				each(x.change)
			}
			close(x.taken)
		}
	}
}

func (s *script) tell(x told) {
	x.taken = make(chan struct{})
	s.ch <- x
	<-x.taken
}

func (s *script) set(key, value string, version uint64) {
	s.tell(told{change: &schemas.Change{Key: key, Value: []byte(value), Version: version, Time: time.Unix(int64(version), 0)}})
}

func (s *script) delete(key string, version uint64) {
	s.tell(told{change: &schemas.Change{Key: key, Deleted: true, Version: version, Time: time.Unix(int64(version), 0)}})
}

func newTables(t testing.TB, s Follower, most int64, r prometheus.Registerer) *Tables {
	ts, err := New(Config{MaxBytes: most}, s, r, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

var customers = Source{schemas.TransportNATS, "customers"}

func text(s string) *string { return &s }

var plain = []Column{{Name: "tier", Type: schemas.String, Default: text("none")}, {Name: "limit", Type: schemas.Float64}}

// open opens a table of a script that tells some values first.
func open(t testing.TB, ts *Tables, s *script, cols []Column, keysAndValues ...string) *Table {
	t.Helper()
	go func() {
		for i := 0; i < len(keysAndValues); i += 2 {
			s.set(keysAndValues[i], keysAndValues[i+1], uint64(i/2+1))
		}
		s.tell(told{all: true})
	}()
	table, err := ts.Open(t.Context(), customers, cols)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// row is what a table says of a key, as JSON; "" if it is not there.
func row(t *Table, key string) string {
	r := t.Find([]byte(key))
	if r == nil {
		return ""
	}
	return rowText(t, r)
}

func rowText(t *Table, r *Row) string {
	b := schemas.NewBatch(t.layout.schema)
	t.Append(b, []*Row{r})
	b.Advance(1)
	var out []string
	for c := range b.Schema().Len() {
		col := b.Column(c)
		switch {
		case col.IsNull(0):
			out = append(out, "null")
		case col.Field().Type == schemas.String:
			for e := range col.Width() {
				out = append(out, string(col.Text(e)))
			}
		case col.Field().Type == schemas.Float64:
			out = append(out, fmt.Sprint(schemas.Values[float64](col)))
		default:
			out = append(out, fmt.Sprint(col.Data()))
		}
	}
	return strings.Join(out, " ")
}

func wants(t *testing.T, table *Table, want map[string]string) {
	t.Helper()
	for key, v := range want {
		if got := row(table, key); got != v {
			t.Errorf("%q: %q, want %q", key, got, v)
		}
	}
}

// TestTable: what is set is found, what is deleted or cannot be read is not, and defaults stand for what a value lacks.
func TestTable(t *testing.T) {
	s := newScript()
	reg := prometheus.NewRegistry()
	ts := newTables(t, s, 1<<20, reg)
	table := open(t, ts, s, plain, "a", `{"tier":"gold","limit":5}`, "b", `{"limit":1.5,"more":[1]}`, "c", ` {"tier":null}`, "d", `nonsense`)
	wants(t, table, map[string]string{"a": "gold [5]", "b": "none [1.5]", "c": "none null", "d": "", "e": "", "": ""})
	if r := table.Find([]byte("b")); r.Version() != 2 || r.Time() != time.Unix(2, 0).UnixNano() {
		t.Error(r.Version(), r.Time())
	}
	held := table.Find([]byte("a"))
	s.set("a", `{"tier":"lead"}`, 5)
	s.set("d", `{"limit":9}`, 6)
	s.delete("b", 7)
	s.delete("never", 8)
	wants(t, table, map[string]string{"a": "lead null", "b": "", "c": "none null", "d": "none [9]", "never": ""})
	if got := rowText(table, held); got != "gold [5]" {
		t.Errorf("a row that is held has become %q", got)
	}
	for i, bad := range []string{``, ` `, `[]`, `"x"`, `{"limit":"x"}`, `{"limit":1`, `{"rows":[{"limit":1},{"limit":2}]}`, `{"rows":[]}`, "\xff\xff\xff\xff\x00", `{"tier":"a\u0000"`} {
		s.set("c", bad, uint64(20+2*i))
		if got := row(table, "c"); got != "" {
			t.Errorf("of %q came %q", bad, got)
		}
		s.set("c", `{"limit":7}`, uint64(21+2*i)) // heals
		wants(t, table, map[string]string{"c": "none [7]"})
	}
	if got := rowText(table, table.Absent(true)) + "; " + rowText(table, table.Absent(false)); got != "none null; null null" {
		t.Error(got)
	}
	figures := map[string]float64{}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		m := f.Metric[0]
		figures[f.GetName()+" "+m.Label[0].GetValue()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	if figures["leat_lookup_entries bucket customers"] != 3 || figures["leat_lookup_bad_values_total bucket customers"] != 11 || len(figures) != 5 {
		t.Error(figures)
	}
	table.Close()
	if n := ts.used.Load(); n != 0 {
		t.Errorf("%d bytes are taken by no table", n)
	}
}

// TestEveryType: columns of every type and shape come through, from Arrow, in any order, with columns that nobody wants.
func TestEveryType(t *testing.T) {
	var cols []Column
	every := schemastest.Everything()
	for _, f := range every.Fields() {
		cols = append(cols, Column{Name: f.Name, Type: f.Type, Shape: f.Shape})
	}
	s := newScript()
	ts := newTables(t, s, 64<<20, nil)
	r := rand.New(rand.NewPCG(3, 3))
	in := schemas.NewBatch(every)
	schemastest.Fill(in, r, 50)
	var values []string
	for i := range 50 {
		values = append(values, fmt.Sprint("k", i), string(wire.AppendStream(nil, in, i, i+1)))
	}
	table := open(t, ts, s, cols, values...)
	defer table.Close()
	out := schemas.NewBatch(every)
	var rows []*Row
	for i := range 50 {
		rows = append(rows, table.Find(fmt.Appendf(nil, "k%d", i)))
	}
	table.Append(out, rows[:20])
	for _, r := range rows[20:] {
		table.Append(out, []*Row{r})
	}
	out.Advance(50)
	if a, b := wire.AppendBatch(nil, in, 0, 50), wire.AppendBatch(nil, out, 0, 50); string(a) != string(b) {
		t.Error("not what was stored")
	}
	// A part of the columns.
	two := schemas.MustSchema(schemas.Field{Name: "zz", Type: schemas.Bool}, schemas.Field{Name: "int64", Type: schemas.Int32})
	b := schemas.NewBatch(two)
	b.Column(0).AppendBool(true)
	b.Column(0).EndRow()
	schemas.Append(b.Column(1), int32(-7))
	b.Column(1).EndRow()
	b.Advance(1)
	s.set("part", string(wire.AppendStream(nil, b, 0, 1)), 99)
	out.Reset()
	table.Append(out, []*Row{table.Find([]byte("part"))})
	for c := range out.Schema().Len() {
		if col := out.Column(c); col.IsNull(0) != (col.Field().Name != "int64") {
			t.Errorf("column %s: null %v", col.Field().Name, col.IsNull(0))
		}
	}
	if v := schemas.Values[int64](out.Column(every.Index("int64"))); v[0] != -7 {
		t.Error(v)
	}
}

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		typ   schemas.DType
		shape []int
		text  string
		want  string // "": refused
	}{
		{schemas.Float64, nil, "0.5", "[0.5]"}, {schemas.Float64, nil, "NaN", "[NaN]"}, {schemas.Float64, []int{3}, "2", "[2 2 2]"}, {schemas.Float64, nil, "x", ""},
		{schemas.Float64, nil, "1}", ""}, {schemas.Float64, nil, "null", ""}, {schemas.Float64, nil, "", ""}, {schemas.Float64, nil, `[1]`, ""},
		{schemas.Int8, nil, "127", "[127]"}, {schemas.Int8, nil, "128", ""}, {schemas.Int8, nil, "1.5", ""}, {schemas.Bool, nil, "true", "[1]"}, {schemas.Bool, nil, "1", ""},
		{schemas.String, nil, "", ""}, {schemas.String, nil, `a"b`, `a"b`}, {schemas.String, []int{2}, "x", "x x"}, {schemas.Binary, nil, "AQI=", "[1 2]"}, {schemas.Binary, nil, "%", ""},
		{schemas.Timestamp, nil, "1970-01-01T00:00:00.000000001Z", "[1 0 0 0 0 0 0 0]"}, {schemas.Timestamp, nil, "soon", ""},
	} {
		col := Column{Name: `q"uoted`, Type: c.typ, Shape: c.shape, Default: &c.text}
		err := col.Check()
		if good := c.want != "" || c.typ == schemas.String; good != (err == nil) {
			t.Errorf("%s %q: %v", c.typ, c.text, err)
			continue
		}
		if err != nil {
			if schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), "default") {
				t.Error(err)
			}
			continue
		}
		r, err := newReader([]Column{col})
		if err != nil {
			t.Fatal(err)
		}
		if got := rowText(&Table{layout: r.layout}, r.absent(true)); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.typ, c.text, got, c.want)
		}
	}
}

// TestFollowedAgain: a watch that ends is taken up again; meanwhile the table answers, and afterwards it has what the source
// has, and nothing else.
func TestFollowedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		ts := newTables(t, s, 1<<20, nil)
		table := open(t, ts, s, plain, "stays", `{"limit":1}`, "goes", `{"limit":2}`, "changes", `{"limit":3}`)
		defer table.Close()
		<-s.follows
		time.Sleep(5 * time.Second)
		s.tell(told{ends: schemas.Errorf(schemas.Unavailable, "test", "away")})
		synctest.Wait()
		if wants(t, table, map[string]string{"stays": "none [1]", "goes": "none [2]", "changes": "none [3]"}); table.Age() != 5*time.Second {
			t.Error(table.Age())
		}
		<-s.follows
		if table.Age() != 5*time.Second+againSoon {
			t.Error(table.Age())
		}
		same := table.Find([]byte("stays"))
		s.set("stays", `{"limit":1}`, 1)
		s.set("changes", `{"limit":4}`, 9)
		wants(t, table, map[string]string{"goes": "none [2]"})
		s.tell(told{all: true})
		wants(t, table, map[string]string{"stays": "none [1]", "goes": "", "changes": "none [4]"})
		if table.Age() != 0 || table.Find([]byte("stays")) != same {
			t.Error(table.Age(), "or a row that has not changed was made again")
		}
		s.tell(told{all: true, first: 5}) // what is older was taken away without a word
		wants(t, table, map[string]string{"stays": "", "changes": "none [4]"})
	})
}

// TestCannotOpen: a source that cannot be read, or has no room, is told at once, and nothing stays.
func TestCannotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		ts := newTables(t, s, 1<<20, nil)
		go s.tell(told{ends: schemas.Errorf(schemas.NotFound, "test", "no bucket")})
		if _, err := ts.Open(t.Context(), customers, plain); schemas.KindOf(err) != schemas.NotFound {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			s.set("a", `{}`, 1)
			cancel()
		}()
		if _, err := ts.Open(ctx, customers, plain); err != context.Canceled {
			t.Error(err)
		}
		started := time.Now()
		if _, err := ts.Open(t.Context(), customers, plain); schemas.KindOf(err) != schemas.Unavailable || time.Since(started) != loadPatience {
			t.Error(err, time.Since(started))
		}
		enough := make(chan struct{})
		defer close(enough)
		go func() {
			for i := range 10 {
				x := told{change: &schemas.Change{Key: fmt.Sprint(i), Value: []byte(`{"tier":"` + strings.Repeat("x", 300<<10) + `"}`), Version: 1}, taken: make(chan struct{})}
				select {
				case s.ch <- x:
				case <-enough:
					return
				}
			}
		}()
		if _, err := ts.Open(t.Context(), customers, plain); schemas.KindOf(err) != schemas.Overloaded || !strings.Contains(err.Error(), "lookup.max_bytes") {
			t.Error(err)
		}
		if ts.used.Load() != 0 || len(ts.mu.open) != 0 {
			t.Error(ts.used.Load(), len(ts.mu.open))
		}
	})
}

// TestNoRoom: what has no room later is missing, never old, and comes back when it fits.
func TestNoRoom(t *testing.T) {
	s := newScript()
	ts := newTables(t, s, 1<<20, nil)
	large := `{"tier":"` + strings.Repeat("x", 600<<10) + `"}`
	table := open(t, ts, s, plain, "a", large, "b", `{"limit":1}`)
	defer table.Close()
	s.set("b", large, 10)
	s.set("c", large, 11)
	s.set("d", `{"limit":4}`, 12)
	if wants(t, table, map[string]string{"b": "", "c": "", "d": "none [4]"}); table.refused.Load() != 2 || table.Find([]byte("a")) == nil {
		t.Error(table.refused.Load())
	}
	s.delete("a", 13)
	s.set("c", large, 14)
	if table.Find([]byte("c")) == nil {
		t.Error("there is room again, and it was not taken")
	}
}

// counted counts how often its source is followed.
type counted struct {
	many
	follows atomic.Int32
}

func (c *counted) Follow(ctx context.Context, s Source, each func(*schemas.Change), all func(uint64)) error {
	c.follows.Add(1)
	return c.many.Follow(ctx, s, each, all)
}

// TestShared: the same columns of a source are one table, which ends with the last who uses it.
func TestShared(t *testing.T) {
	s := &counted{many: 3}
	ts := newTables(t, s, 1<<20, nil)
	var all []*Table
	for _, cols := range [][]Column{plain, plain, plain[:1]} {
		table, err := ts.Open(t.Context(), customers, cols)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, table)
	}
	if all[0] != all[1] || all[0] == all[2] || s.follows.Load() != 2 {
		t.Fatal(s.follows.Load())
	}
	all[0].Close()
	all[2].Close()
	if wants(t, all[1], map[string]string{"customer-2": "gold [2.5]"}); len(ts.mu.open) != 1 {
		t.Error("a table that is used was closed, or one that is not stays")
	}
	all[1].Close()
	if len(ts.mu.open) != 0 || ts.used.Load() != 0 {
		t.Error("a table stays")
	}
}

// TestIndex: the index is a map, whatever comes and goes.
func TestIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := newScript()
	ts := newTables(t, s, 64<<20, nil)
	table := open(t, ts, s, plain)
	defer table.Close()
	model := map[string]string{}
	for v := uint64(1); v <= 30_000; v++ {
		key := fmt.Sprint("key-", r.IntN(3000))
		if r.IntN(3) == 0 {
			delete(model, key)
			s.delete(key, v)
		} else {
			model[key] = fmt.Sprintf("none [%d]", v)
			s.set(key, fmt.Sprintf(`{"limit":%d}`, v), v)
		}
	}
	for i := range 3000 {
		key := fmt.Sprint("key-", i)
		if got := row(table, key); got != model[key] {
			t.Fatalf("%s: %q, want %q", key, got, model[key])
		}
	}
	if int(table.keys.Load()) != len(model) {
		t.Error(table.keys.Load(), len(model))
	}
}

// TestConcurrent: readers see whole rows, and each key's versions rise, while the table changes and grows.
func TestConcurrent(t *testing.T) {
	s := newScript()
	ts := newTables(t, s, 64<<20, nil)
	table := open(t, ts, s, plain)
	defer table.Close()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			last := map[string]uint64{}
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprint(i % 500)
				r := table.Find([]byte(key))
				if r == nil {
					continue
				}
				if want := fmt.Sprintf("t%d [%d]", r.Version(), r.Version()); rowText(table, r) != want || r.Version() < last[key] {
					t.Errorf("key %s, version %d after %d: %s", key, r.Version(), last[key], rowText(table, r))
				}
				last[key] = r.Version()
			}
		})
	}
	for v := uint64(1); v <= 5000; v++ {
		if key := fmt.Sprint(v * 7 % 500); v%5 == 0 {
			s.delete(key, v)
		} else {
			s.set(key, fmt.Sprintf(`{"tier":"t%d","limit":%d}`, v, v), v)
		}
	}
	close(stop)
	wg.Wait()
}
