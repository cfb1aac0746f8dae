package lineagetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// flights are rows of a plane and a number.
func flights(tails ...string) *schemas.Batch {
	b := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "tail", Type: schemas.String, Nullable: true}, schemas.Field{Name: "x", Type: schemas.Float64}))
	for i, tail := range tails {
		if c := b.Column(0); tail == "" {
			c.AppendNull()
		} else {
			c.AppendString(tail)
			c.EndRow()
		}
		schemas.Append(b.Column(1), float64(i))
		b.Column(1).EndRow()
		b.Advance(1)
	}
	return b
}

// decide records decisions a minute apart, of the event's time or of receipt; the second node of each answers too.
func decide(t testing.TB, s *lineage.Stream, c *lineage.Context, in *schemas.Batch, byEvent bool) {
	t.Helper()
	var recs lineage.Records
	arm := *c
	arm.Node, arm.Role = "route/b", lineage.RoleArm
	for i := range in.Rows() {
		row := rowOf(fmt.Sprint("q", i), in, i, i+1)
		at := received.Add(time.Duration(i) * time.Minute)
		if row.Received = at; byEvent {
			row.EventTime, row.Received = at, time.Now()
		}
		add(t, &recs, c, row, in, i, i+1, nil)
		if err := recs.Add(&arm, row, nil, 0, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	appendAll(t, s, &recs)
}

// outcomes shows each record that something was said of.
func outcomes(rs []*lineage.Record) string {
	var got []string
	for _, r := range rs {
		if o := lineage.OutcomeOf(r.Feedback); o != nil {
			w := fmt.Sprintf("%s:%v", r.RequestID, o.Label)
			if r.Node != "route" {
				w = r.Node + " " + w
			}
			if o.Reward != nil {
				w += fmt.Sprintf(",%v", *o.Reward)
			}
			if o.Comment != "" {
				w += "," + o.Comment
			}
			got = append(got, fmt.Sprintf("%s*%d", w, o.Count))
		}
	}
	return strings.Join(got, " ")
}

// feedbackJoined: what was said meets its decision, whenever it came; the last of each value counts, and what is about nothing is shown
// as such.
func feedbackJoined(t *testing.T, b *bench) {
	s, r := b.open(t)
	r.JoinBy(func(pipeline string) (string, time.Duration) {
		if pipeline == "fraud" {
			return "tail", time.Hour
		}
		return "", 0
	})
	at := func(minutes float64) time.Time { return received.Add(time.Duration(minutes * float64(time.Minute))) }
	one, two := 1.0, 2.5
	say(t, s, lineage.Feedback{RequestID: "q0", Label: 0.5}) // before its decision
	decide(t, s, contextOf("fraud", ""), flights("A", "A", "B", "", "A"), false)
	decide(t, s, contextOf("fraud", "job"), flights("A", "A"), false) // a job's rows are no decisions about entities; a request id means them too
	decide(t, s, contextOf("other", ""), flights("A"), true)
	say(t, s,
		lineage.Feedback{RequestID: "q0", Label: true, Reward: &one, ID: "x"},
		lineage.Feedback{RequestID: "q0", Label: "late"},
		lineage.Feedback{RequestID: "q0", Comment: "said"},
		lineage.Feedback{RequestID: "q0", Label: false, ID: "x"}, // a repeat changes nothing
		lineage.Feedback{RequestID: "q2", Node: "route/b", Reward: &two},
		lineage.Feedback{RequestID: "q2", Node: "route", Row: 1, Label: 9.0}, // no such row
		lineage.Feedback{RequestID: "q99", Label: 9.0},
		lineage.Feedback{Pipeline: "other", RequestID: "q0", Label: 7.0},
		lineage.Feedback{Pipeline: "other", Entity: "A", EventTime: at(1), Label: 9.0}, // it knows no entities
		lineage.Feedback{Entity: "A", EventTime: at(-1), Label: 9.0},                   // before the first
		lineage.Feedback{Entity: "A", EventTime: at(0), Label: 10.0},
		lineage.Feedback{Entity: "A", EventTime: at(1), Label: 11.0},
		lineage.Feedback{Entity: "A", EventTime: at(3.9), Label: 12.0},
		lineage.Feedback{Entity: "A", EventTime: at(64), Label: 13.0},
		lineage.Feedback{Entity: "A", EventTime: at(64.1), Label: 9.0}, // too late
		lineage.Feedback{Entity: "C", EventTime: at(5), Label: 9.0},
	)
	const inOne, inOther, inJob = "q0:10,1,said*5 q1:12*2 route/b q2:<nil>,2.5*1 q4:13*1", "q0:7*1", "q0:late,1,said*4"
	if got := outcomes(scan(t, r, lineage.Query{Pipeline: "fraud", Run: lineage.RunNone, Join: true})); got != inOne {
		t.Errorf("%s\nwant %s", got, inOne)
	}
	if got, want := outcomes(scan(t, r, lineage.Query{Join: true})), inOne+" "+inOther+" "+inJob; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got := outcomes(scan(t, r, lineage.Query{})); got != "" {
		t.Errorf("unasked: %s", got)
	}
	if err := r.Scan(t.Context(), lineage.Query{Join: true, Follow: true}, nil); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("followed: %v", err)
	}
	b.askedFor(t, r)
	b.exportJoined(t, r)
}

// askedFor looks through the operations.
func (b *bench) askedFor(t *testing.T, r *lineage.StreamReader) {
	table := map[string]api.Operation{}
	for _, o := range lineage.Operations(r, lineage.NewKeeper(r, b.stores.KV)) {
		table[o.Name] = o
	}
	call := func(name, path, query string) (any, error) {
		o := table[name]
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		req, err := o.Decode(func(string) string { return path }, q, nil)
		if err != nil {
			return nil, err
		}
		return o.Handle(t.Context(), req)
	}
	must := func(name, path, query string) any {
		t.Helper()
		v, err := call(name, path, query)
		if err != nil {
			t.Fatalf("%s %s %s: %v", name, path, query, err)
		}
		return v
	}
	got, cursor := "", ""
	for pages := 0; pages == 0 || cursor != ""; pages++ {
		page := must("lineage.list", "", "pipeline=fraud&run=-&with=feedback&limit=3&cursor="+url.QueryEscape(cursor)).(*lineage.ListReply)
		for _, v := range page.Records {
			if v.Feedback != nil {
				got += fmt.Sprintf("%s/%s=%v*%d ", v.RequestID, v.Node, v.Feedback.Label, v.Feedback.Count)
			}
		}
		cursor = page.Next
	}
	if got != "q0/route=10*5 q1/route=12*2 q2/route/b=<nil>*1 q4/route=13*1 " {
		t.Errorf("list: %s", got)
	}
	if v := must("lineage.list", "", "").(*lineage.ListReply); v.Records[0].Feedback != nil {
		t.Error("list: feedback that nobody asked for")
	}
	if _, err := call("lineage.list", "", "with=love"); schemas.KindOf(err) != schemas.Invalid || schemas.AsError("", err).Field != "with" {
		t.Error(err)
	}
	// All that was said of a request, repeats too; of one that nobody knows what was said at least.
	g := must("lineage.get", "q0", "").(*lineage.GetReply)
	said := map[bool]int{}
	for _, f := range g.Feedback {
		said[f.Superseded]++
		if f.Decision == nil || f.Unknown {
			t.Errorf("get: %+v", f)
		}
	}
	if len(g.Records) != 6 || said[false] != 6 || said[true] != 1 || g.Records[0].Feedback.Count != 5 {
		t.Errorf("get: %d records, %v", len(g.Records), said)
	}
	if g := must("lineage.get", "q99", "").(*lineage.GetReply); len(g.Records) != 0 || len(g.Feedback) != 1 || !g.Feedback[0].Unknown {
		t.Errorf("get of what nobody knows: %+v", g)
	}
	if g := must("lineage.get", "q2", "").(*lineage.GetReply); len(g.Feedback) != 2 || !g.Feedback[1].Unknown || *g.Feedback[1].Row != 1 {
		t.Errorf("get of a row that is none: %+v", g.Feedback)
	}
	if _, err := call("lineage.get", "q100", ""); schemas.KindOf(err) != schemas.NotFound {
		t.Error(err)
	}
	listed := func(query string) (all []lineage.FeedbackView) {
		cursor := ""
		for {
			page := must("feedback.list", "", query+"&cursor="+url.QueryEscape(cursor)).(*lineage.FeedbackListReply)
			all = append(all, page.Feedback...)
			if cursor = page.Next; cursor == "" {
				return all
			}
		}
	}
	for query, want := range map[string]int{
		"limit=2": 16, "limit=100&all=true": 17, "limit=3&unknown=true": 6, "pipeline=other": 2, "pipeline=fraud&entity=A": 6, "request_id=q0": 5,
		"pipeline=fraud&unknown=true": 5, "until=2020-01-01T00:00:00Z": 0,
	} {
		all := listed(query)
		if len(all) != want {
			t.Errorf("feedback.list %s: %d, want %d", query, len(all), want)
		}
		for _, f := range all {
			if wrong := f.Label == any(9.0); wrong != f.Unknown || f.Unknown == (f.Decision != nil) {
				t.Errorf("feedback.list %s: %+v", query, f)
			}
		}
	}
	for _, bad := range []string{"limit=20000", "cursor=x", "pipeline=A.B", "cursor=LEAT_LINEAGE_JOBS/0/1/1"} {
		if _, err := call("feedback.list", "", bad); schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("feedback.list %s: %v", bad, err)
		}
	}
}

// exportJoined looks into files.
func (b *bench) exportJoined(t *testing.T, r *lineage.StreamReader) {
	var lines bytes.Buffer
	ex, err := r.Export(t.Context(), lineage.Query{Join: true}, lineage.FormatNDJSON, &lines)
	if err != nil || len(ex.Ranges) != 2 {
		t.Fatal(ex, err)
	}
	n := 0
	for line := range bytes.Lines(lines.Bytes()) {
		var v lineage.View
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		if v.Feedback != nil {
			n++
		}
	}
	path := filepath.Join(t.TempDir(), "joined.parquet")
	if _, err := r.ExportFile(t.Context(), lineage.Query{Join: true}, lineage.FormatParquet, path); err != nil {
		t.Fatal(err)
	}
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
	column := func(name string) any {
		return tab.Column(tab.Schema().FieldIndices(name)[0]).Data().Chunk(0)
	}
	number, text := column("label_number").(*array.Float64), column("label_text").(*array.String)
	reward, comment, times := column("reward").(*array.Float64), column("comment").(*array.String), column("feedback").(*array.Int32)
	got, m := "", 0
	for i := range int(tab.NumRows()) {
		if times.Value(i) == 0 {
			if !number.IsNull(i) || !text.IsNull(i) || !reward.IsNull(i) || !comment.IsNull(i) {
				t.Errorf("row %d has what nobody said", i)
			}
			continue
		}
		m++
		got += fmt.Sprintf("%s|%s|%s|%s|%d ", number.ValueStr(i), text.ValueStr(i), reward.ValueStr(i), comment.ValueStr(i), times.Value(i))
	}
	const want = "10|(null)|1|said|5 12|(null)|(null)|(null)|2 (null)|(null)|2.5|(null)|1 13|(null)|(null)|(null)|1 7|(null)|(null)|(null)|1 (null)|late|1|said|4 "
	if got != want || n != m || n != 6 {
		t.Errorf("parquet: %s\nwant %s; %d lines", got, want, n)
	}
}
