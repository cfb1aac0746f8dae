package lineagetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

func corrupt(t *testing.T, b *bench) {
	s, r := b.open(t)
	in := random(floats("x", 2), 3, 1)
	requests(t, s, contextOf("fraud", ""), in, 0, 3, lineage.StatusOK)
	var whole []byte
	err := b.logs.Online.Read(t.Context(), 0, nil, false, func(e *schemas.Entry) bool { whole = e.Payload; return true })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.logs.Online.Append(t.Context(), "fraud", "", whole[:len(whole)-5]); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = r.Scan(t.Context(), lineage.Query{}, func(*lineage.Record) (bool, error) { n++; return true, nil })
	if n != 3 || schemas.KindOf(err) != schemas.Internal || !strings.Contains(err.Error(), lineage.LogOnline+"/0/2") {
		t.Fatalf("%d records, then %v", n, err)
	}
}

func recoverRecords(t *testing.T, b *bench) {
	s, r := b.open(t)
	w := lineage.NewWriteAhead(r, b.stores.KV)
	in := random(floats("x", 2), 30, 1)
	c := contextOf("fraud", "")
	add1 := func(i int, from schemas.Position) schemas.Position {
		var recs lineage.Records
		row := rowOf(fmt.Sprint("q", i), in, i, i+1)
		row.From = from
		add(t, &recs, c, row, in, i, i+1, in)
		return appendAll(t, s, &recs)
	}
	for i := range 5 {
		add1(i, schemas.Position{Stream: "LEAT_T_t", Sequence: uint64(i + 1)})
	}
	at := add1(5, schemas.Position{})
	for i := 6; i < 9; i++ {
		add1(i, schemas.Position{Stream: "LEAT_T_t", Sequence: uint64(i + 1)})
	}
	add1(7, schemas.Position{Stream: "LEAT_T_t", Sequence: 8}) // again: folded
	found := func(from uint64) string {
		var got []string
		err := w.Recover(t.Context(), "fraud", from, func(rec *lineage.Record) bool {
			if !same(rec.Output, rec.OutputRow, in, int(rec.From.Sequence)-1) {
				t.Errorf("%v: another output", rec.From)
			}
			got = append(got, fmt.Sprint(rec.From.Sequence))
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(got, " ")
	}
	if got := found(0); got != "1 2 3 4 5 7 8 9" {
		t.Fatalf("from the start: %s", got)
	}
	if got := found(at.Sequence); got != "7 8 9" {
		t.Fatalf("from %d: %s", at.Sequence, got)
	}
	if at, err := w.Checkpoint(t.Context(), "fraud"); err != nil || at != 0 {
		t.Fatalf("no checkpoint yet: %d %v", at, err)
	}
	for _, step := range [][2]uint64{{4, 4}, {9, 9}, {7, 9}} {
		if err := w.SaveCheckpoint(t.Context(), "fraud", step[0]); err != nil {
			t.Fatal(err)
		}
		if at, err := w.Checkpoint(t.Context(), "fraud"); err != nil || at != step[1] {
			t.Fatalf("after %d: %d %v", step[0], at, err)
		}
	}
	for range 2 {
		if err := w.DeleteCheckpoint(t.Context(), "fraud"); err != nil {
			t.Fatal(err)
		}
	}
}

// packed is a tensor whose features have names, and another model's input with one of these names of another type.
func packed() (with, without, other *schemas.Schema) {
	f := schemas.Field{Name: "features", Type: schemas.Float32, Shape: []int{2}}
	without = schemas.MustSchema(f)
	f.Features = []string{"amount", "age"}
	with = schemas.MustSchema(f)
	other = schemas.MustSchema(schemas.Field{Name: "amount", Type: schemas.Float64}, schemas.Field{Name: "city", Type: schemas.String, Nullable: true},
		schemas.Field{Name: "raw", Type: schemas.Int8, Shape: []int{2, 2}})
	return with, without, other
}

func export(t *testing.T, b *bench) {
	with, _, other := packed()
	b.describe = func(id schemas.SchemaID) *schemas.Schema {
		if id == with.ID() {
			return with
		}
		return nil
	}
	s, r := b.open(t)
	tensors, columns, out := random(with, 5, 1), random(other, 5, 2), random(floats("p", 1), 5, 3)
	schemas.Values[float32](tensors.Column(0))[0] = 12.5
	schemas.Values[float32](tensors.Column(0))[3] = float32(math.NaN())
	var recs lineage.Records
	for i := range 5 {
		add(t, &recs, contextOf("fraud", ""), rowOf(fmt.Sprint("t", i), tensors, i, i+1), tensors, i, i+1, out)
		add(t, &recs, contextOf("fraud", ""), rowOf(fmt.Sprint("c", i), columns, i, i+1), columns, i, i+1, nil)
	}
	appendAll(t, s, &recs)
	appendAll(t, s, &recs) // the same id: nothing
	requests(t, s, contextOf("fraud", "job"), tensors, 0, 5, lineage.StatusOK)

	path := filepath.Join(t.TempDir(), "x.parquet")
	ex, err := r.ExportFile(t.Context(), lineage.Query{}, lineage.FormatParquet, path)
	if err != nil || ex.Records != 15 || ex.Ranges[lineage.LogOnline].Through != 1 || ex.Ranges[lineage.LogJobs].Through != 1 {
		t.Fatalf("%+v %v", ex, err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v %v", left, err)
	}
	checkParquet(t, path, tensors, columns, out)

	var lines bytes.Buffer
	if ex, err := r.Export(t.Context(), lineage.Query{Pipeline: "fraud"}, lineage.FormatNDJSON, &lines); err != nil || ex.Records != 15 || ex.Ranges != nil {
		t.Fatalf("%+v %v", ex, err)
	}
	var v struct {
		lineage.View
		Input struct {
			Amount any
			Age    any
			City   *string
			Raw    [][]int
		} `json:"input"`
	}
	for i, line := range strings.Split(strings.TrimSpace(lines.String()), "\n") {
		v.Input.Raw = nil
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("line %d: %v: %s", i, err, line)
		}
		switch {
		case i == 0 && (v.Input.Amount != 12.5 || v.RequestID != "t0" || !v.Received.Equal(received)):
			t.Fatalf("line %d: %s", i, line)
		case i == 2 && v.Input.Age != "NaN":
			t.Fatalf("line %d: %s", i, line)
		case i == 1 && (len(v.Input.Raw) != 2 || len(v.Input.Raw[1]) != 2):
			t.Fatalf("line %d: %s", i, line)
		}
	}
	if _, err := r.Export(t.Context(), lineage.Query{}, "xml", &lines); schemas.KindOf(err) != schemas.Invalid {
		t.Fatalf("xml: %v", err)
	}
	if _, err := r.ExportFile(t.Context(), lineage.Query{}, "xml", path+"2"); err == nil {
		t.Fatal("xml to a file")
	}
	if _, err := os.Stat(path + "2"); !os.IsNotExist(err) {
		t.Fatalf("a failed export left a file: %v", err)
	}
	empty := filepath.Join(t.TempDir(), "empty.parquet")
	if ex, err := r.ExportFile(t.Context(), lineage.Query{Pipeline: "none"}, lineage.FormatParquet, empty); err != nil || ex.Records != 0 {
		t.Fatalf("nothing: %+v %v", ex, err)
	}
}

func checkParquet(t *testing.T, path string, tensors, columns, out *schemas.Batch) {
	t.Helper()
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fr, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	tab, err := fr.ReadTable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Release()
	column := func(name string) arrow.Array {
		i := tab.Schema().FieldIndices(name)
		if len(i) != 1 {
			t.Fatalf("no column %s in %v", name, tab.Schema())
		}
		return tab.Column(i[0]).Data().Chunk(0)
	}
	in, o := column("input").(*array.Struct), column("output").(*array.Struct)
	field := func(s *array.Struct, name string) arrow.Array {
		i, ok := s.DataType().(*arrow.StructType).FieldIdx(name)
		if !ok {
			t.Fatalf("no %s in %v", name, s.DataType())
		}
		return s.Field(i)
	}
	amount, amount64 := field(in, "amount").(*array.Float32), field(in, "amount_float64").(*array.Float64)
	p := field(o, "p0").(*array.Float32)
	ids := column("request_id").(*array.String)
	bits := math.Float32bits
	for i := range 10 {
		k := i / 2
		if i%2 == 0 {
			want := schemas.Values[float32](tensors.Column(0))[2*k]
			if ids.Value(i) != fmt.Sprint("t", k) || bits(amount.Value(i)) != bits(want) || !amount64.IsNull(i) || bits(p.Value(i)) != bits(schemas.Values[float32](out.Column(0))[k]) {
				t.Fatalf("row %d: %s %v", i, ids.Value(i), amount.Value(i))
			}
			continue
		}
		want := schemas.Values[float64](columns.Column(0))[k]
		if ids.Value(i) != fmt.Sprint("c", k) || math.Float64bits(amount64.Value(i)) != math.Float64bits(want) || !amount.IsNull(i) || !o.IsNull(i) {
			t.Fatalf("row %d: %s %v", i, ids.Value(i), amount64.Value(i))
		}
	}
	if tab.NumRows() != 15 {
		t.Fatalf("%d rows", tab.NumRows())
	}
}

func prune(t *testing.T, b *bench) {
	s, r := b.open(t)
	k, w := lineage.NewKeeper(r, b.stores.KV), lineage.NewWriteAhead(r, b.stores.KV)
	in := random(floats("x", 2), 30, 1)
	if ps, err := k.Prune(t.Context(), time.Now()); err != nil || len(ps) != 2 {
		t.Fatalf("nothing to prune: %v %v", ps, err)
	}
	requests(t, s, contextOf("fraud", ""), in, 0, 5, lineage.StatusOK)
	requests(t, s, contextOf("fraud", "job"), in, 0, 5, lineage.StatusOK)
	later := func() time.Time { return time.Now().Add(time.Minute) }
	refuse := func(why string) {
		t.Helper()
		if _, err := k.Prune(t.Context(), later()); schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), "leat lineage export FILE.parquet --until") {
			t.Fatalf("%s: %v", why, err)
		}
		if n := len(scan(t, r, lineage.Query{})); n < 10 {
			t.Fatalf("%s: %d records are left", why, n)
		}
	}
	refuse("nothing was exported")
	// A filtered export counts for nothing; one that nobody confirmed neither.
	ex, err := r.Export(t.Context(), lineage.Query{Pipeline: "fraud"}, lineage.FormatNDJSON, new(bytes.Buffer))
	if err != nil || ex.Ranges != nil {
		t.Fatalf("%+v %v", ex, err)
	}
	if ex, err = r.Export(t.Context(), lineage.Query{}, lineage.FormatNDJSON, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	refuse("the export was not confirmed")
	if err := k.Pending(t.Context(), "e1", ex.Ranges); err != nil {
		t.Fatal(err)
	}
	if _, err := k.ConfirmID(t.Context(), "e2"); schemas.KindOf(err) != schemas.NotFound {
		t.Fatalf("an export that never ran: %v", err)
	}
	old := lineage.Ranges{lineage.LogOnline: {From: 1, Through: 1, Time: time.Now().Add(-48 * time.Hour)}}
	for i := range 63 {
		if err := k.Pending(t.Context(), fmt.Sprint("old", i), old); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 63 { // makes room by forgetting the old ones, not e1
		if err := k.Pending(t.Context(), fmt.Sprint("new", i), ex.Ranges); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Pending(t.Context(), "more", ex.Ranges); schemas.KindOf(err) != schemas.Overloaded {
		t.Fatalf("65 exports wait: %v", err)
	}
	requests(t, s, contextOf("fraud", ""), in, 5, 9, lineage.StatusOK) // after the export
	if rs, err := k.ConfirmID(t.Context(), "e1"); err != nil || len(rs) != 2 {
		t.Fatal(rs, err)
	}
	refuse("newer records were not exported")
	if err := k.Confirm(t.Context(), lineage.Ranges{lineage.LogOnline: {From: 3, Through: 9}}); schemas.KindOf(err) != schemas.Invalid {
		t.Fatalf("a gap: %v", err)
	}
	if ex, err = r.Export(t.Context(), lineage.Query{}, lineage.FormatNDJSON, new(bytes.Buffer)); err == nil {
		err = k.Confirm(t.Context(), ex.Ranges)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SaveCheckpoint(t.Context(), "fraud", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Prune(t.Context(), later()); schemas.KindOf(err) != schemas.Unavailable || !strings.Contains(err.Error(), "fraud") {
		t.Fatalf("records that recovery needs: %v", err)
	}
	if err := w.SaveCheckpoint(t.Context(), "fraud", 2); err != nil {
		t.Fatal(err)
	}
	ps, err := k.Prune(t.Context(), later())
	if err != nil || ps[0].Messages != 2 || ps[1].Messages != 1 {
		t.Fatalf("%+v %v", ps, err)
	}
	requests(t, s, contextOf("fraud", ""), in, 20, 23, lineage.StatusOK)
	if rs := scan(t, r, lineage.Query{}); len(rs) != 3 || rs[0].RequestID != "q20" {
		t.Fatalf("%d records are left", len(rs))
	}
	st, err := k.Status(t.Context())
	if err != nil || len(st) != 3 || st[0].Log != lineage.LogOnline || st[0].Exported.Through != 2 || st[0].Messages != 1 || st[0].Fill <= 0 {
		t.Fatalf("%+v %v", st, err)
	}
}

func refusals(t *testing.T, b *bench) {
	b.config.RefusalsPerSecond, b.config.RefusalsBurst = 1, 20
	s, r := b.open(t)
	const each = 5000
	var wg sync.WaitGroup
	for p := range 4 { // nobody writes yet: Refuse must not block
		wg.Go(func() {
			for i := range each {
				s.Refuse(lineage.Refusal{Pipeline: "No Such; Pipeline>", Principal: fmt.Sprint("p", p), Kind: "not_found", Error: strings.Repeat("x", 2000), RequestID: fmt.Sprint(i)})
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	kept, counted := 0, int64(0)
	eventually(t, "every refusal is kept or counted", func() bool {
		kept, counted = 0, 0
		err := r.Refusals(t.Context(), time.Time{}, func(f *lineage.Refusal, rest map[string]int64) bool {
			if f == nil {
				counted += rest["not_found"]
			} else {
				kept++
				if f.Kind != "not_found" || len(f.Error) > 600 || f.Time.IsZero() {
					t.Errorf("%+v", f)
				}
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return int64(kept)+counted == 4*each
	})
	if kept < 80 || kept > 4*40 {
		t.Errorf("%d kept of 4 callers with a burst of 20 each", kept)
	}
	s.Refuse(lineage.Refusal{Principal: "last", Kind: "denied", Error: "no"})
	cancel()
	<-done
	last := ""
	err := r.Refusals(t.Context(), time.Now().Add(-time.Hour), func(f *lineage.Refusal, _ map[string]int64) bool {
		if f != nil {
			last = f.Principal
		}
		return true
	})
	if err != nil || last != "last" {
		t.Fatalf("what waited at the end was lost: %q %v", last, err)
	}
}

func fillWarning(t *testing.T, b *bench) {
	b.config.MaxBytes = 4 * lineage.MaxMessage
	b.open(t)
	var logged lockedBuffer
	s := lineage.NewStream(b.logs, b.catalogue, b.config, nil, slog.New(slog.NewTextHandler(&logged, nil)))
	running(t, s)
	in := random(floats("x", 100), 1600, 1)
	for i := range 4 { // 85 %
		var recs lineage.Records
		add(t, &recs, contextOf("fraud", ""), rowOf(fmt.Sprint("q", i), in, 0, 1600), in, 0, 1600, nil)
		appendAll(t, s, &recs)
	}
	if s.Full(false) {
		t.Fatal("full at 85 %")
	}
	eventually(t, "a warning", func() bool { return strings.Contains(logged.String(), "filling up") })
	if _, err := b.logs.Online.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.logs.Online.Purge(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	eventually(t, "room again", func() bool { return strings.Contains(logged.String(), "room again") })
	if n := strings.Count(logged.String(), "filling up"); n != 1 {
		t.Fatalf("%d warnings for one change of state", n)
	}
	if f, err := s.Fill(t.Context(), false); err != nil || f > 0.1 {
		t.Fatalf("fill %v %v", f, err)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
