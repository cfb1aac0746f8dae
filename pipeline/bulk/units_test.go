package bulk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/wire"
)

func TestLocations(t *testing.T) {
	for _, c := range []struct {
		in, want string // kind name sequence time, or part of the error
		to       bool
	}{
		{"/a/b.parquet", "0 /a/b.parquet 0 ", false},
		{"/a/../b.csv", "0 /b.csv 0 ", false},
		{"topic:flights.departures", "1 flights.departures 0 ", false},
		{"topic:flights@42", "1 flights 42 ", false},
		{"topic:flights@2026-05-01T00:00:00Z", "1 flights 0 2026-05-01T00:00:00Z", false},
		{"topic:flights@0:120", "1 flights 0  map[0:120]", false},
		{"topic:kafka:Flights_v2@12:1,0:18446744073709551615", "1 kafka:Flights_v2 0  map[0:18446744073709551615 12:1]", false},
		{"lineage:fraud", "2 fraud 0 ", false},
		{"lineage:fraud@2026-05-01T00:00:00.5+02:00", "2 fraud 0 2026-04-30T22:00:00.5Z", false},
		{"topic:scores", "1 scores 0 ", true},
		{"", "want a file", false},
		{"b.parquet", "absolute path", false},
		{"file:/b.parquet", "absolute path", false},
		{"/a\x00b.csv", "NUL", false},
		{"topic:", "topic name", false},
		{"topic:Flights", "topic name", false},
		{"topic:flights@", "after @", false},
		{"topic:flights@0", "count from 1", false},
		{"topic:flights@-1", "after @", false},
		{"topic:flights@yesterday", "after @", false},
		{"topic:flights@0:1,", "such as 0:120", false},
		{"topic:flights@0:1,1", "such as 0:120", false},
		{"topic:flights@0:1,x:2", "such as 0:120", false},
		{"topic:flights@0:-1", "such as 0:120", false},
		{"topic:flights@0:1-7", "such as 0:120", false},
		{"topic:flights@2147483648:1", "such as 0:120", false},
		{"topic:flights@-1:1", "after @", false},
		{"topic:flights@0:0", "count from 1", false},
		{"topic:flights@3:1,3:2", "named twice", false},
		{"topic:flights@0:120,2026-05-01T00:00:00Z", "such as 0:120", false},
		{"lineage:fraud@0:7", "want a time", false},
		{"topic:scores@0:1", "written at its end", true},
		{"topic:flights@2999-01-01T00:00:00Z", "1970 to 2261", false},
		{"lineage:fraud@7", "want a time", false},
		{"lineage:a.b", "pipeline name", false},
		{"lineage:fraud", "a file, topic:NAME or shadow:NAME", true},
		{"shadow:forest", "a shadow is no source", false},
		{"shadow:forest@7", "leave out what follows @", true},
		{"shadow:Forest", "shadow name", true},
		{"topic:scores@1", "written at its end", true},
	} {
		parse, field := parseFrom, "from"
		if c.to {
			parse, field = parseTo, "to"
		}
		l, err := parse(c.in)
		if err != nil {
			e := schemas.AsError("", err)
			if !strings.Contains(err.Error(), c.want) || e.Kind != schemas.Invalid || e.Field != field {
				t.Errorf("%q: %v (%v %s), want %q", c.in, err, e.Kind, e.Field, c.want)
			}
			continue
		}
		when := ""
		if !l.start.Time.IsZero() {
			when = schemas.FormatTime(l.start.Time)
		}
		got := fmt.Sprint(l.kind, " ", l.name, " ", l.start.Sequence, " ", when)
		if l.parts != nil {
			got += fmt.Sprint(" ", l.parts)
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
	err := Config{Folder: "relative", LineageFill: 2}.Validate()
	for _, f := range []string{"folder", "chunk_rows", "piece_rows", "queue_bytes", "result_bytes", "window", "parallel", "lease_expiry", "progress", "lineage_fill"} {
		if err == nil || !strings.Contains(err.Error(), "jobs."+f+":") {
			t.Errorf("%s is not named in: %v", f, err)
		}
	}
}

// A request that cannot work is refused when it is made, with the field.
func TestRunRefuses(t *testing.T) {
	w := newWorld(t)
	w.config.Folder = w.dir
	p := w.start("x")
	src := w.writeEvents("in.parquet", events(10, 1))
	lacks := filepath.Join(w.dir, "lacks.csv")
	outside := filepath.Join(t.TempDir(), "in.parquet")
	out := filepath.Join(w.dir, "out.parquet")
	for path, text := range map[string]string{lacks: "a,b\n1,2\n", outside: "x", filepath.Join(w.dir, "there.csv"): "x"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(w.dir, "link.parquet")); err != nil {
		t.Fatal(err)
	}
	if err := p.client.EnsureTopic(t.Context(), "flights", 1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r     RunRequest
		kind  schemas.Kind
		field string
		text  string
	}{
		{RunRequest{Pipeline: "none", From: src, To: out}, schemas.NotFound, "pipeline", "none"},
		{RunRequest{From: "in.parquet", To: out}, schemas.Invalid, "from", "absolute"},
		{RunRequest{From: filepath.Join(w.dir, "no.parquet"), To: out}, schemas.NotFound, "from", "no such file"},
		{RunRequest{From: w.dir, To: out}, schemas.Invalid, "from", "regular"},
		{RunRequest{From: lacks, To: out}, schemas.Invalid, "", "missing: c, name"},
		{RunRequest{From: outside, To: out}, schemas.Denied, "from", "below"},
		{RunRequest{From: w.dir + "/../x.csv", To: out}, schemas.Denied, "from", "below"},
		{RunRequest{From: filepath.Join(w.dir, "link.parquet"), To: out}, schemas.Denied, "from", "below"},
		{RunRequest{From: src, To: filepath.Join(filepath.Dir(outside), "out.parquet")}, schemas.Denied, "to", "below"},
		{RunRequest{From: src, To: filepath.Join(w.dir, "out.xls")}, schemas.Invalid, "to", "format"},
		{RunRequest{From: src, To: filepath.Join(w.dir, "no", "out.csv")}, schemas.NotFound, "to", "no"},
		{RunRequest{From: src, To: filepath.Join(w.dir, "there.csv")}, schemas.Invalid, "to", "exists"},
		{RunRequest{From: "topic:none", To: out}, schemas.NotFound, "", "none"},
		{RunRequest{From: "topic:flights", To: "topic:flights"}, schemas.Invalid, "to", "source"},
		{RunRequest{From: src, To: out, Carry: []string{"nothing"}}, schemas.Invalid, "carry", "nothing"},
		{RunRequest{From: "topic:flights", To: out, Carry: []string{"all"}}, schemas.Invalid, "carry", "file"},
		{RunRequest{From: src, To: out, ChunkRows: -1}, schemas.Invalid, "chunk_rows", "-1"},
		{RunRequest{From: src, To: out, Throttle: -1}, schemas.Invalid, "throttle", "-1"},
		{RunRequest{From: src, To: out, ResultBytes: 10}, schemas.Invalid, "result_bytes", "10"},
	} {
		if c.r.Pipeline == "" {
			c.r.Pipeline = "sums"
		}
		_, err := p.RunJob(t.Context(), &c.r)
		e := schemas.AsError("", err)
		if err == nil || e.Kind != c.kind || c.field != "" && e.Field != c.field || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v (%v)", c.r, err, e)
		}
	}
	list, err := p.List(t.Context(), &ListRequest{})
	if err != nil || len(list.Jobs) != 0 {
		t.Fatalf("%v %v", list, err)
	}
	slow, err := p.RunJob(t.Context(), &RunRequest{Pipeline: "sums", From: src, To: out, Throttle: 1})
	if err != nil {
		t.Fatal(err)
	}
	p.wait(slow.ID, func(v *View) bool { return v.Status == Running })
	if _, err := p.RunJob(t.Context(), &RunRequest{Pipeline: "sums", From: src, To: out}); err == nil || !strings.Contains(err.Error(), slow.ID) {
		t.Fatalf("two jobs write one file: %v", err)
	}
	if _, err := p.Cancel(t.Context(), &IDRequest{ID: slow.ID}); err != nil {
		t.Fatal(err)
	}
	// What is allowed, over the table.
	for _, op := range p.Operations() {
		if op.Name != "jobs.run" {
			continue
		}
		body, err := json.Marshal(RunRequest{Pipeline: "sums", From: src, To: filepath.Join(w.dir, "there.csv"), Overwrite: true})
		if err != nil {
			t.Fatal(err)
		}
		req, err := op.DecodeObject(body)
		if err != nil {
			t.Fatal(err)
		}
		v, err := op.Handle(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		p.done(v.(*View).ID)
		w.checkFile(filepath.Join(w.dir, "there.csv"), events(10, 1), nil)
	}
	if list, err = p.List(t.Context(), &ListRequest{Status: "done"}); err != nil || len(list.Jobs) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	if _, err := p.Show(t.Context(), &IDRequest{ID: "none"}); schemas.KindOf(err) != schemas.NotFound {
		t.Fatal(err)
	}
}

func TestColumnsOfOneNameGetSuffixes(t *testing.T) {
	fs := distinct([]schemas.Field{{Name: "row"}, {Name: "id"}, {Name: "label"}, {Name: "row"}, {Name: "label"}, {Name: "label"}, {Name: "label_2"}})
	var names []string
	for _, f := range fs {
		names = append(names, f.Name)
	}
	if want := []string{"row", "id", "label", "row_2", "label_2", "label_3", "label_2_2"}; !slices.Equal(names, want) {
		t.Fatalf("%v", names)
	}
}

func TestChunkRowsFitMessagesAndStreams(t *testing.T) {
	wide := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float64, Shape: []int{1000}})
	thin := schemas.MustSchema(schemas.Field{Name: "y", Type: schemas.Float32})
	for _, c := range []struct {
		sig      schemas.Signature
		throttle float64
		total    int64
		want     int
	}{
		{schemas.Signature{Inputs: thin, Outputs: thin}, 0, 0, 4096},
		{schemas.Signature{Inputs: wide, Outputs: thin}, 0, 0, 65},
		{schemas.Signature{Inputs: thin, Outputs: wide}, 0, 0, 65},
		{schemas.Signature{Inputs: thin, Outputs: thin}, 10, 0, 11},
		{schemas.Signature{Inputs: thin, Outputs: thin}, 0.5, 0, 1},
		{schemas.Signature{Inputs: thin, Outputs: thin}, 0, 10_000_000_000, 4096 * 4},
	} {
		if n := chunkRows(4096, c.sig, c.throttle, c.total); n != c.want {
			t.Errorf("%+v: %d", c, n)
		}
	}
}

func TestResultBytesAreNoMoreThanRowsCanTake(t *testing.T) {
	out := newArithmetic().sig.Outputs
	for rows, want := range map[int64]int64{0: 1 << 30, 1000: 16<<20 + 220_000, 1 << 30: 1 << 30, 1 << 62: 1 << 30} {
		if n := resultBytes(1<<30, out, rows); n != want {
			t.Errorf("%d rows: %d, want %d", rows, n, want)
		}
	}
}

func TestViewEstimates(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	j := &Job{Status: Running, Started: now.Add(-10 * time.Second)}
	j.Total, j.Passed, j.Rows, j.Rate = 1000, 250, 500, 50 // two rows a message
	v := view(j, now)
	if v.Progress != 0.25 || v.Left != "30s" || v.Elapsed != 10 || v.Ended || v.Exit != 1 {
		t.Fatalf("%+v", v)
	}
	j.Status, j.Finished = Done, now
	if v := view(j, now.Add(time.Hour)); v.Progress != 1 || v.Left != "" || v.Elapsed != 10 || !v.Ended || v.Exit != 0 {
		t.Fatalf("%+v", v)
	}
	j.Skipped = 1
	if j.ExitCode() != 3 {
		t.Fatal(j.ExitCode())
	}
}

// randomRows makes rows as a source would.
func randomRows(r *rand.Rand, in *schemas.Schema, stored bool) *rows {
	rs := newRows(in)
	rs.stored = stored
	at := ref{Unit: 5}
	for range r.IntN(50) {
		if stored && r.IntN(3) == 0 {
			at.Sub++
		} else {
			at = ref{Unit: at.Unit + 1 + r.Uint64N(3)}
		}
		if r.IntN(5) == 0 {
			rs.bad = append(rs.bad, bad{at: at, skipped: r.IntN(2) == 0, kind: "invalid", reason: strings.Repeat("x", r.IntN(9))})
			continue
		}
		for range 3 {
			schemas.Append(rs.in.Column(0), r.Float32())
		}
		rs.in.Column(0).EndRow()
		rs.in.Column(1).AppendString(strings.Repeat("y", r.IntN(9)))
		rs.in.Column(1).EndRow()
		rs.in.Advance(1)
		rs.at = append(rs.at, at)
		if stored {
			rs.origins = append(rs.origins, origin{request: "r", row: at.Sub, event: r.Int64N(5), key: "k"})
		}
	}
	return rs
}

func TestPackAndUnpack(t *testing.T) {
	in := newArithmetic().sig.Inputs
	p, err := newPacker(in)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	got := newRows(in)
	for range 300 {
		want := randomRows(r, in, r.IntN(2) == 0)
		b, l := p.pack(nil, want, 0, want.in.Rows(), want.bad)
		if err := p.unpack(got, b, l); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.at, want.at) || !slices.Equal(got.origins, want.origins) || !slices.Equal(got.bad, want.bad) || got.stored != want.stored {
			t.Fatalf("%+v\n%+v", got, want)
		}
		if !bytes.Equal(wire.AppendBatch(nil, got.in, 0, got.in.Rows()), wire.AppendBatch(nil, want.in, 0, want.in.Rows())) {
			t.Fatal("other inputs")
		}
	}
}

func TestDropKeepsTheRest(t *testing.T) {
	in := newArithmetic().sig.Inputs
	r := rand.New(rand.NewPCG(3, 4))
	spare := schemas.NewBatch(in)
	for range 200 {
		rs := randomRows(r, in, true)
		at, bads, x := slices.Clone(rs.at), slices.Clone(rs.bad), slices.Clone(schemas.Values[float32](rs.in.Column(0)))
		end := ref{Unit: r.Uint64N(100), Sub: int32(r.IntN(3))}
		n, nbad := rs.before(end)
		spare = rs.drop(n, nbad, spare)
		if !slices.Equal(rs.at, at[n:]) || !slices.Equal(rs.bad, bads[nbad:]) || !slices.Equal(schemas.Values[float32](rs.in.Column(0)), x[3*n:]) ||
			len(rs.origins) != len(rs.at) || spare.Rows() != 0 {
			t.Fatalf("%+v after dropping %d and %d", rs, n, nbad)
		}
		for _, a := range rs.at {
			if a.before(end) {
				t.Fatalf("%s is left before %s", a, end)
			}
		}
	}
}

func FuzzUnpack(f *testing.F) {
	in := newArithmetic().sig.Inputs
	p, err := newPacker(in)
	if err != nil {
		f.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 8 {
		rs := randomRows(r, in, r.IntN(2) == 0)
		b, l := p.pack(nil, rs, 0, rs.in.Rows(), rs.bad)
		f.Add(b, uint8(l))
	}
	f.Fuzz(func(t *testing.T, b []byte, l uint8) {
		// All anew: coverage must follow from the input alone, or the fuzzer spends its time on minimizing.
		p, err := newPacker(in)
		if err != nil {
			t.Fatal(err)
		}
		rs := newRows(in)
		if p.unpack(rs, b, layout(l)) != nil {
			return
		}
		if rs.in.Rows() != len(rs.at) || rs.stored && len(rs.origins) != len(rs.at) || !slices.IsSortedFunc(rs.at, compareRef) {
			t.Fatalf("%+v", rs)
		}
	})
}

func FuzzParseResult(f *testing.F) {
	r := result{Chunk: 3, Part: 1, Parts: 2, Layout: withBad, span: span{Stream: "s", First: ref{4, 0}, End: ref{8, 1}}, body: []byte("body")}
	f.Add(r.append(nil))
	f.Add([]byte("LJR1\x02\x00\x00\x00{}"))
	f.Add([]byte("LJR1\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseResult(b)
		if err != nil {
			return
		}
		again, err := parseResult(r.append(nil))
		if err != nil || again.span != r.span || again.Chunk != r.Chunk || !bytes.Equal(again.body, r.body) {
			t.Fatalf("%+v %+v %v", r, again, err)
		}
	})
}

func FuzzParseChunkHead(f *testing.F) {
	h := chunkHead{chunk: 7, layout: withOrigins, span: span{Stream: "s", Partition: 2, First: ref{1, 0}, End: ref{9, 3}}}
	hd := h.header(&Job{ID: "j", Revision: "r"}, schemas.SchemaID{})
	f.Add(hd.Get(headerChunk), hd.Get(headerPartition), hd.Get(headerFirst), hd.Get(headerEnd), hd.Get(headerLayout))
	f.Add("-1", "x", "1", "1.", "99")
	f.Fuzz(func(t *testing.T, chunk, partition, first, end, layout string) {
		h, err := parseChunkHead(schemas.Header{
			headerChunk: {chunk}, headerPartition: {partition}, headerFirst: {first}, headerEnd: {end}, headerLayout: {layout},
		})
		if err != nil {
			return
		}
		again, err := parseChunkHead(h.header(&Job{}, schemas.SchemaID{}))
		if err != nil || again != h {
			t.Fatalf("%+v %+v %v", h, again, err)
		}
	})
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"partition":1,"first":{"unit":1},"end":{"unit":2,"sub":3}}`))
	f.Add([]byte(`{"first":{"unit":2},"end":{"unit":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parsePlan(b); err == nil && s.End.before(s.First) {
			t.Fatalf("%+v", s)
		}
	})
}

func FuzzLocation(f *testing.F) {
	for _, s := range []string{"/a", "topic:a@1", "lineage:p@2026-05-01T00:00:00Z", "topic:@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := parseLocation("from", s); err == nil && l.name == "" {
			t.Fatalf("%q has no name", s)
		}
	})
}
