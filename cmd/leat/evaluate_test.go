package main

import (
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/schemas"
)

func TestAUC(t *testing.T) {
	for _, c := range []struct {
		name   string
		truth  string // 1 or 0 a row
		scores []float64
		want   float64
	}{
		{"the example of scikit-learn's roc_auc_score", "0011", []float64{0.1, 0.4, 0.35, 0.8}, 0.75},
		{"perfect", "0011", []float64{0, 0.1, 0.2, 1}, 1},
		{"inverse", "1100", []float64{0, 0.1, 0.2, 1}, 0},
		{"all tied", "0101", []float64{3, 3, 3, 3}, 0.5},
		{"a tie between both kinds counts one half", "01", []float64{7, 7}, 0.5},
		{"half of the ties", "0011", []float64{1, 2, 2, 3}, 0.875},
		{"infinities", "01", []float64{math.Inf(-1), math.Inf(1)}, 1},
		{"one kind", "11", []float64{1, 2}, math.NaN()},
		{"no rows", "", nil, math.NaN()},
		{"not a number", "01", []float64{math.NaN(), 1}, math.NaN()},
	} {
		got := auc(c.scores, func(i int) bool { return c.truth[i] == '1' })
		if got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// The definition: the share of pairs of a positive and a negative that are in order, ties one half.
func TestAUCIsTheShareOfPairs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		n := 2 + r.IntN(60)
		scores, truth := make([]float64, n), make([]bool, n)
		for i := range n {
			scores[i], truth[i] = float64(r.IntN(8)), r.IntN(3) == 0 // many ties
		}
		truth[0], truth[1] = true, false
		var won, pairs float64
		for i := range n {
			for j := range n {
				if truth[i] && !truth[j] {
					pairs++
					switch {
					case scores[i] > scores[j]:
						won++
					case scores[i] == scores[j]:
						won += 0.5
					}
				}
			}
		}
		if got := auc(scores, func(i int) bool { return truth[i] }); math.Abs(got-won/pairs) > 1e-12 {
			t.Fatalf("%v, want %v: %v %v", got, won/pairs, scores, truth)
		}
	}
}

func schema(t *testing.T, fs ...schemas.Field) *schemas.Schema {
	t.Helper()
	s, err := schemas.NewSchema(fs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// measured evaluates rows of float32 probabilities or values and, if given, labels.
func measured(t *testing.T, s *schemas.Schema, output string, truths []string, fill func(b *schemas.Batch, i int)) (*evaluation, error) {
	t.Helper()
	v, err := newEvaluator("truth", output, s)
	if err != nil {
		return nil, err
	}
	b := schemas.NewBatch(s)
	for i := range truths {
		fill(b, i)
		b.Advance(1)
	}
	if err := v.add(truths, b); err != nil {
		t.Fatal(err)
	}
	return v.evaluate()
}

func near(t *testing.T, what string, got *float64, want float64) {
	t.Helper()
	if got == nil || math.Abs(*got-want) > 1e-6 {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestEvaluateText(t *testing.T) { // scikit-learn's log_loss example: 0.21616...
	p := [][2]float64{{.1, .9}, {.9, .1}, {.8, .2}, {.35, .65}}
	s := schema(t, schemas.Field{Name: "p", Type: schemas.Float64, Shape: []int{2}})
	ev, err := measured(t, s, "", []string{"spam", "ham", "ham", "spam"}, func(b *schemas.Batch, i int) {
		schemas.Append(b.Column(0), p[i][0])
		schemas.Append(b.Column(0), p[i][1])
		b.Column(0).EndRow()
	})
	if err != nil {
		t.Fatal(err)
	}
	near(t, "log-loss", ev.LogLoss, 0.21616187468057912)
	near(t, "AUC", ev.AUC, 1)
	near(t, "accuracy", ev.Accuracy, 1)
	if want := (&confusion{[]string{"ham", "spam"}, [][]int{{2, 0}, {0, 2}}}); !reflect.DeepEqual(ev.Confusion, want) {
		t.Errorf("confusion %v", ev.Confusion)
	}
}

func TestEvaluateRegression(t *testing.T) { // scikit-learn's examples of r2_score and mean_absolute_error
	x := []float64{2.5, 0.0, 2, 8}
	s := schema(t, schemas.Field{Name: "y", Type: schemas.Float64})
	one := func(b *schemas.Batch, i int) { schemas.Append(b.Column(0), x[i]); b.Column(0).EndRow() }
	ev, err := measured(t, s, "", []string{"3", "-0.5", "2", "7"}, one)
	if err != nil {
		t.Fatal(err)
	}
	if ev.Kind != "regression" || ev.AUC != nil || ev.Accuracy != nil {
		t.Errorf("%+v", ev)
	}
	near(t, "R2", ev.R2, 0.9486081370449679)
	near(t, "MAE", ev.MAE, 0.5)
	near(t, "RMSE", ev.RMSE, math.Sqrt(0.375))
	if ev, err := measured(t, s, "", []string{"3", "3", nullTruth, "3"}, one); err != nil || ev.R2 != nil || ev.Rows != 3 || ev.Unknown != 1 {
		t.Errorf("a constant truth has no R2, and null is left out: %+v, %v", ev, err)
	}
	if _, err := measured(t, s, "", []string{"3", "x", "2", "7"}, one); err == nil || !strings.Contains(err.Error(), `"x" is not a number`) {
		t.Errorf("text as the truth of a number: %v", err)
	}
	if _, err := measured(t, s, "", []string{nullTruth}, one); err == nil {
		t.Error("nothing but nulls was evaluated")
	}
}

func TestEvaluateChoice(t *testing.T) {
	float := schemas.Field{Name: "score", Type: schemas.Float32}
	class := schemas.Field{Name: "class", Type: schemas.Int64}
	yes := schemas.Field{Name: "yes", Type: schemas.Bool}
	three := schemas.Field{Name: "three", Type: schemas.Float32, Shape: []int{3}}
	fill := func(b *schemas.Batch, i int) {
		for k := range b.Schema().Len() {
			c := b.Column(k)
			switch {
			case c.Width() == 3:
				for e := range 3 {
					schemas.Append(c, []float32{0.2, 0.2, 0.6}[(e+i)%3])
				}
			case c.Field().Type == schemas.Float32:
				schemas.Append(c, []float32{0.9, 0.2, 0.6}[i%3])
			case c.Field().Type == schemas.Bool:
				c.AppendBool(i%2 == 0)
			default:
				schemas.Append(c, int64(i%2))
			}
			c.EndRow()
		}
	}
	for _, c := range []struct {
		name, output, truth, kind string
		fields                    []schemas.Field
		auc, loss                 bool
	}{
		{"a probability and zeros and ones", "", "1 0 1", "classification", []schemas.Field{float}, true, true},
		{"a probability and booleans", "", "true false false", "classification", []schemas.Field{float}, true, true},
		{"a number and numbers", "", "1.5 0 1", "regression", []schemas.Field{float}, false, false},
		{"label and score", "", "0 1 0", "classification", []schemas.Field{class, float}, true, true},
		{"the label alone", "class", "0 1 0", "classification", []schemas.Field{class, float}, false, false},
		{"an integer that counts", "", "0.5 1 0", "regression", []schemas.Field{class}, false, false},
		{"a boolean against numbers", "", "1 0 1", "classification", []schemas.Field{yes}, false, false},
		{"three classes", "", "2 1 0", "classification", []schemas.Field{three}, false, true},
		{"one class only", "", "1 1 1", "classification", []schemas.Field{float}, false, true},
	} {
		ev, err := measured(t, schema(t, c.fields...), c.output, strings.Fields(c.truth), fill)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if ev.Kind != c.kind || (ev.AUC != nil) != c.auc || (ev.LogLoss != nil) != c.loss || (ev.Confusion != nil) != (c.kind == "classification") {
			t.Errorf("%s: %+v", c.name, ev)
		}
	}
	ev, _ := measured(t, schema(t, yes), "", []string{"1", "0", "1"}, fill)
	near(t, "accuracy of a boolean", ev.Accuracy, 1)
	ev, _ = measured(t, schema(t, three), "", []string{"2", "1", "0"}, fill)
	near(t, "accuracy of the highest", ev.Accuracy, 1)
	near(t, "log-loss of three", ev.LogLoss, -math.Log(float64(float32(0.6))))
	if _, err := newEvaluator("truth", "", schema(t, schemas.Field{Name: "emb", Type: schemas.Int8, Shape: []int{4}})); err == nil {
		t.Error("an output of packed integers was compared")
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 5, 2, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"2026-05-01T00:00:00Z": time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC),
		"2026-05-01":           time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC),
		"2h":                   now.Add(-2 * time.Hour), "7d": now.Add(-7 * 24 * time.Hour), "1.5d": now.Add(-36 * time.Hour), "0s": now,
	} {
		if got, err := parseTime(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "yesterday", "-2h", "-1d", "2", "d", "2026-13-01"} {
		if got, err := parseTime(in, now); err == nil {
			t.Errorf("%q was taken as %v", in, got)
		}
	}
}

func TestStdinFormat(t *testing.T) {
	for in, want := range map[string]files.Format{
		"PAR1\x15": files.Parquet, "ARROW1\x00\x00": files.Arrow, "\xff\xff\xff\xff\x10": files.Stream,
		`[{"a":1}]`: files.JSON, "{\"a\":1}\n{\"a\":2}\n": files.NDJSON, `{"a":1}`: files.JSON, "{\n \"a\":1}": files.JSON,
		"{\"rows\":[{\"a\":1}]}\n": files.JSON, "{\"rows\":[]}\n{\"rows\":[]}": files.JSON, "a,b\n1,2\n": files.CSV, "\ufeff a,b": files.CSV, "  \n[1": files.JSON,
	} {
		if got := stdinFormat([]byte(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestSmallThings(t *testing.T) {
	for in, want := range map[string]string{"a/Churn_v2.onnx": "churn-v2", "x.y.onnx": "x-y"} {
		if got := modelName(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[uint64]string{1023: "1023 B", 1536: "1.5 KiB", 3 << 20: "3.0 MiB", 5 << 30: "5.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	var b strings.Builder
	grid(&b, []string{"NAME", "N"}, [][]string{{"a", "1,000"}, {"bb", "2"}})
	if b.String() != "NAME      N\na     1,000\nbb        2\n" {
		t.Errorf("%q", b.String())
	}
}
