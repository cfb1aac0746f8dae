package lineagetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
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

// feedbackExported: what prune may delete lies in files, feedback too: known or unknown, repeated, before its decision or after that is
// gone.
func feedbackExported(t *testing.T, b *bench) {
	s, r := b.open(t)
	k := lineage.NewKeeper(r, b.stores.KV)
	in := random(floats("x", 2), 30, 1)
	reward := -12.5
	requests(t, s, contextOf("fraud", ""), in, 0, 3, lineage.StatusOK)
	requests(t, s, contextOf("fraud", "job"), in, 3, 5, lineage.StatusOK)
	if _, held := exportWith(t, r, lineage.FormatParquet, lineage.Query{}); len(held) != 0 {
		t.Errorf("nothing was said: %v", held)
	}
	say(t, s,
		lineage.Feedback{RequestID: "q0", Label: true, ID: "x", Principal: "ann", Via: "http"},
		lineage.Feedback{RequestID: "q99", Row: 7, Node: "route/b", Label: 0.5, Reward: &reward, Comment: "of what nobody knows"},
		lineage.Feedback{Entity: "N123", Label: "late", EventTime: received},
		lineage.Feedback{RequestID: "q4", Comment: "of a job's"})
	say(t, s, lineage.Feedback{Pipeline: "gone", RequestID: "q0", Label: false})
	say(t, s, lineage.Feedback{RequestID: "q0", Label: false, ID: "x", Principal: "ann"}) // counts for nothing, and was said

	later := func() time.Time { return time.Now().Add(time.Minute) }
	refused := func(why string) {
		t.Helper()
		if _, err := k.Prune(t.Context(), later()); schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), "leat lineage export FILE.parquet --until") {
			t.Fatalf("%s: %v", why, err)
		}
	}
	// One that leaves out anything holds none of it as rows of their own, and counts for nothing.
	for _, q := range []lineage.Query{{Pipeline: "fraud"}, {Pipeline: "fraud", Join: true}, {Status: lineage.StatusOK}, {Run: "job"}} {
		ex, held := exportWith(t, r, lineage.FormatNDJSON, q)
		if ex.Ranges != nil || ex.Feedback != 0 || len(held) != 0 {
			t.Errorf("%+v: %+v holds %v", q, ex, held)
		}
		refused("a filtered export")
	}
	var safe []string
	for _, format := range []string{lineage.FormatNDJSON, lineage.FormatParquet} {
		want := statements(t, r)
		for _, q := range []lineage.Query{{}, {Join: true}, {All: true}, {Run: lineage.RunNone}} {
			ex, held := exportWith(t, r, format, q)
			if !slices.Equal(held, want) || int(ex.Feedback) != len(want) || len(want) == 0 {
				t.Fatalf("%s of %+v, %+v, holds\n%s\nwant\n%s", format, q, ex, strings.Join(held, "\n"), strings.Join(want, "\n"))
			}
		}
		ex, held := exportWith(t, r, format, lineage.Query{})
		safe = append(safe, held...)
		if err := k.Confirm(t.Context(), ex.Ranges); err != nil {
			t.Fatal(err)
		}
		say(t, s, lineage.Feedback{RequestID: "q1", Comment: "known, after " + format}, lineage.Feedback{RequestID: "q98", Comment: "unknown, after " + format})
		refused("feedback that came after the " + format)
		want = statements(t, r)[len(want):]
		through := ex.Ranges[lineage.LogOnline].Through
		if ex, held = exportWith(t, r, format, lineage.Query{From: through + 1, Run: lineage.RunNone}); !slices.Equal(held, want) || len(want) != 2 || ex.Records != 0 {
			t.Fatalf("the rest: %+v holds %v", ex, held)
		}
		safe = append(safe, held...)
		if err := k.Confirm(t.Context(), ex.Ranges); err != nil {
			t.Fatal(err)
		}
		if ps, err := k.Prune(t.Context(), later()); err != nil || ps[0].Messages == 0 {
			t.Fatalf("%+v, %v", ps, err)
		}
		if left := statements(t, r); len(left) != 0 {
			t.Fatalf("left: %v", left)
		}
		say(t, s, lineage.Feedback{RequestID: "q0", Label: true, ID: "y"}) // its decision is pruned
	}
	if len(safe) != 6+2+1+2 {
		t.Errorf("%d pieces of feedback in files:\n%s", len(safe), strings.Join(safe, "\n"))
	}
}

// statements is all feedback that is in the log, as JSON.
func statements(t testing.TB, r *lineage.StreamReader) []string {
	t.Helper()
	var fs []string
	err := r.Feedback(t.Context(), lineage.Query{All: true}, func(f *lineage.Feedback) (bool, error) {
		fs = append(fs, jsonOf(t, f.View()))
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// exportWith exports to a file and returns the feedback in it, as JSON.
func exportWith(t testing.TB, r *lineage.StreamReader, format string, q lineage.Query) (lineage.Exported, []string) {
	t.Helper()
	if format == lineage.FormatParquet {
		path := filepath.Join(t.TempDir(), "x.parquet")
		ex, err := r.ExportFile(t.Context(), q, format, path)
		if err != nil {
			t.Fatal(err)
		}
		return ex, saidIn(t, path, ex)
	}
	var out bytes.Buffer
	ex, err := r.Export(t.Context(), q, format, &out)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	records := 0
	for line := range bytes.Lines(out.Bytes()) {
		var v struct {
			RecordID string `json:"record_id"`
			lineage.FeedbackView
		}
		if bytes.Contains(line, []byte(`"record_id"`)) {
			records++
			continue
		}
		if err := json.Unmarshal(line, &v); err != nil || v.ID == "" {
			t.Fatalf("%v: %s", err, line)
		}
		said = append(said, jsonOf(t, v.FeedbackView))
	}
	if records != int(ex.Records) {
		t.Errorf("%+v, and %d lines of records", ex, records)
	}
	return ex, said
}

// saidIn reads feedback back from a Parquet file, and holds its rows against the export's numbers.
func saidIn(t testing.TB, path string, ex lineage.Exported) (all []string) {
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
		if i := tab.Schema().FieldIndices(name); len(i) == 1 {
			return tab.Column(i[0]).Data().Chunk(0)
		}
		return nil
	}
	if tab.NumRows() != ex.Records+ex.Feedback {
		t.Errorf("%d rows of %+v", tab.NumRows(), ex)
	}
	if column("said") == nil {
		return nil
	}
	said := column("said").(*array.Struct)
	for i := range int(tab.NumRows()) {
		id := column("record_id").(*array.String).Value(i)
		if said.IsNull(i) != (id != "") || id == "" && (column("pipeline").(*array.String).Value(i) != "" || column("status").(*array.String).Value(i) != "") {
			t.Errorf("row %d is of record %q, and says something: %v", i, id, said.IsValid(i))
		}
		if said.IsNull(i) {
			continue
		}
		field := func(name string) arrow.Array {
			at, _ := said.DataType().(*arrow.StructType).FieldIdx(name)
			return said.Field(at)
		}
		text := func(name string) string {
			if a := field(name).(*array.String); a.IsValid(i) {
				return a.Value(i)
			}
			return ""
		}
		moment := func(a arrow.Array) (at time.Time) {
			if a := a.(*array.Timestamp); a.IsValid(i) {
				at = time.Unix(0, int64(a.Value(i))).UTC()
			}
			return at
		}
		v := lineage.FeedbackView{
			ID: text("feedback_id"), Pipeline: text("pipeline"), RequestID: text("request_id"), Entity: text("entity"), Node: text("node"),
			Comment: text("comment"), Principal: text("principal"), Via: text("via"), Time: moment(field("event_time")), Received: moment(field("received")),
			Position: column("position").(*array.String).Value(i), Index: int(column("index").(*array.Int32).Value(i)),
			Appended: moment(column("appended")), Superseded: column("superseded").(*array.Boolean).Value(i),
		}
		if want := fmt.Sprintf("%s/0/%d", lineage.LogOnline, column("sequence").(*array.Uint64).Value(i)); v.Position != want {
			t.Errorf("row %d: position %s, want %s", i, v.Position, want)
		}
		if row := field("row").(*array.Int32).Value(i); v.RequestID != "" {
			v.Row = &row
		}
		if a := field("reward").(*array.Float64); a.IsValid(i) {
			reward := a.Value(i)
			v.Reward = &reward
		}
		switch number, truth := field("label_number").(*array.Float64), field("label_bool").(*array.Boolean); {
		case number.IsValid(i):
			v.Label = number.Value(i)
		case truth.IsValid(i):
			v.Label = truth.Value(i)
		case field("label_text").IsValid(i):
			v.Label = text("label_text")
		}
		all = append(all, jsonOf(t, v))
	}
	return all
}

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
