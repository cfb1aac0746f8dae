package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatstream/leat/connectors/files"
)

var sample = filepath.Join(example, "sample.parquet")

// scores is what leat score --json prints.
type scores struct {
	Results []struct {
		Input, Output map[string]any
		Expected      *string
	}
	Pipeline, Model string
	Rows, Requests  int
	RequestID       string `json:"request_id"`
	Evaluation      *evaluation
}

// head writes the sample's first rows in a format and returns the path.
func head(t *testing.T, ext string, rows int) string {
	t.Helper()
	ctx := context.Background()
	r, err := files.Open(ctx, sample, files.Options{BatchRows: rows})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rec, err := r.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Release()
	path := filepath.Join(t.TempDir(), "head."+ext)
	w, err := files.Create(path, r.Schema(), files.WriterOptions{})
	if err == nil {
		if err = w.Write(rec); err == nil {
			err = w.Commit()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestScoreOneRow(t *testing.T) {
	out := ok(t, "score", "flight-delay", filepath.Join(example, "flight.json"))
	has(t, out, "INPUT", "OUTPUT", "carrier", "MQ", "label", "[0.381378, 0.618622]", "1 row by flight-delay@1 in", "leat lineage get ")
	s := okJSON[scores](t, "score", "flight-delay", filepath.Join(example, "flight.json"), "--id", "one-row", "--version", "1", "--timeout", "5s")
	if s.Model != "flight-delay@1" || s.Rows != 1 || s.RequestID != "one-row" || len(s.Results) != 1 {
		t.Fatalf("%+v", s)
	}
	if p := s.Results[0].Output["probabilities"].([]any)[1].(float64); math.Abs(p-0.61862177) > 1e-6 {
		t.Errorf("probability %v", p)
	}
	if s.Results[0].Input["pressure"] != nil || s.Results[0].Input["dest"] != "ATL" {
		t.Errorf("input %v", s.Results[0].Input)
	}
}

// The whole sample, as examples/flights/README.md says.
func TestScoreExpect(t *testing.T) {
	for _, c := range []struct {
		pipeline      string
		auc, loss     float64
		table         [][]int
		line1, line2  string
		accuracyPrint string
	}{
		{"flight-delay", 0.8998, 0.2566, [][]int{{85773, 1981}, {8069, 13796}}, "85,773", "AUC       0.8998", "0.9083"},
		{"flight-boost", 0.9049, 0.2532, [][]int{{86071, 1683}, {8277, 13588}}, "13,588", "AUC       0.9049", "0.9091"},
	} {
		s := okJSON[scores](t, "score", c.pipeline, sample, "--expect", "late", "--limit", "1")
		ev := s.Evaluation
		if s.Rows != 109619 || s.Requests != 110 || len(s.Results) != 1 || ev == nil || ev.Rows != 109619 {
			t.Fatalf("%s: %d rows, %d requests, %d printed, %+v", c.pipeline, s.Rows, s.Requests, len(s.Results), ev)
		}
		if math.Abs(*ev.AUC-c.auc) > 5e-5 || math.Abs(*ev.LogLoss-c.loss) > 5e-5 || fmt.Sprint(ev.Confusion.Counts) != fmt.Sprint(c.table) {
			t.Errorf("%s: AUC %v, log-loss %v, %v", c.pipeline, *ev.AUC, *ev.LogLoss, ev.Confusion)
		}
	}
	out := ok(t, "score", "flight-boost", head(t, "parquet", 3000), "--expect", "late", "--limit", "3")
	has(t, out, "expected \\ predicted", "AUC", "log-loss", "accuracy", "3 of 3,000 rows (--limit 0 prints all)", "columns not shown (--all-columns)", "label, probabilities against late, 3,000 rows", "3 requests")
}

func TestScoreOutputs(t *testing.T) {
	path := head(t, "parquet", 2000)
	byLabel := okJSON[scores](t, "score", "flight-boost", path, "--expect", "late", "--output", "label", "--limit", "1").Evaluation
	byScore := okJSON[scores](t, "score", "flight-boost", path, "--expect", "late", "--output", "probabilities", "--limit", "1").Evaluation
	if byLabel.AUC != nil || byScore.AUC == nil || *byLabel.Accuracy != *byScore.Accuracy {
		t.Errorf("%+v\n%+v", byLabel, byScore)
	}
	number := okJSON[scores](t, "score", "flight-boost", path, "--expect", "dep_delay", "--output", "label", "--limit", "1").Evaluation
	if number.Kind != "regression" || number.RMSE == nil || number.MAE == nil || number.R2 == nil {
		t.Errorf("%+v", number)
	}
}

// Every format gives the same answers.
func TestScoreFormats(t *testing.T) {
	const rows = 40
	want := okJSON[scores](t, "score", "flight-delay", head(t, "parquet", rows))
	if len(want.Results) != rows {
		t.Fatalf("%d rows printed: with --json all are", len(want.Results))
	}
	same := func(name string, got scores) {
		t.Helper()
		a, _ := json.Marshal(want.Results)
		b, _ := json.Marshal(got.Results)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: other answers:\n%.300s\n%.300s", name, a, b)
		}
	}
	for _, ext := range []string{"csv", "ndjson", "json", "arrow", "arrows"} {
		path := head(t, ext, rows)
		same(ext, okJSON[scores](t, "score", "flight-delay", path))
		if ext == "arrow" {
			continue // needs a file
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, flags := range [][]string{nil, {"--format", ext}} {
			r := leatIn(context.Background(), string(content), append([]string{"score", "flight-delay", "-", "--json"}, flags...)...)
			var got scores
			if err := json.Unmarshal([]byte(r.out), &got); r.code != 0 || err != nil {
				t.Fatalf("%s %v from standard input: %s %v", ext, flags, r.err, err)
			}
			same(ext+" from standard input", got)
		}
	}
}

// The bodies of requests.
func TestScoreBodies(t *testing.T) {
	one, err := os.ReadFile(filepath.Join(example, "flight-boost.json"))
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Rows []map[string]any }
	if err := json.Unmarshal(one, &body); err != nil {
		t.Fatal(err)
	}
	columns := map[string][]any{}
	for k, v := range body.Rows[0] {
		columns[k] = []any{v}
	}
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	want := okJSON[scores](t, "score", "flight-boost", filepath.Join(example, "flight-boost.json"))
	for name, doc := range map[string]string{
		"rows beside an id": text(map[string]any{"id": "x", "rows": body.Rows}),
		"columns":           text(map[string]any{"columns": columns}),
		"the open protocol": text(map[string]any{"inputs": []any{map[string]any{"name": "features", "datatype": "FP32", "shape": []int{1, 13},
			"data": []any{20, 525, 145, 7, 762, 78.08, 78.48, 6.9, 0, "NaN", 10, "NaN", "NaN"}}}}),
	} {
		got := okJSON[scores](t, "score", "flight-boost", file(t, "body.json", doc))
		if text(got.Results[0].Output) != text(want.Results[0].Output) {
			t.Errorf("%s: %v, want %v", name, got.Results[0].Output, want.Results[0].Output)
		}
	}
}

func TestScoreRequestIDs(t *testing.T) {
	s := okJSON[scores](t, "score", "flight-boost", head(t, "parquet", 2500), "--id", "long", "--limit", "2")
	if s.Requests != 3 || s.RequestID != "long-3" || len(s.Results) != 2 {
		t.Fatalf("%d requests, the last %q, %d printed", s.Requests, s.RequestID, len(s.Results))
	}
	for id, rows := range map[string]string{"long": "row 999", "long-3": "row 499"} {
		has(t, ok(t, "lineage", "get", id), "request "+id+", "+rows)
	}
}

func TestScoreTable(t *testing.T) {
	path := head(t, "parquet", 30)
	out := ok(t, "score", "flight-delay", path)
	if n := strings.Count(out, "\n"); n != 1+20+1+1+2 {
		t.Errorf("%d lines:\n%s", n, out)
	}
	for _, l := range strings.Split(out, "\n")[:21] {
		if len([]rune(l)) > usualWidth {
			t.Errorf("wider than %d: %s", usualWidth, l)
		}
	}
	wide := ok(t, "score", "flight-delay", path, "--all-columns", "--limit", "0")
	has(t, wide, "seats", "plane_age", "-> label")
	if strings.Contains(wide, "not shown") || strings.Contains(wide, " of 30 rows") {
		t.Errorf("something was left out:\n%s", wide)
	}
}
