package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// evaluation compares outputs with the truth.
type evaluation struct {
	Expect    string     `json:"expect"`
	Outputs   []string   `json:"outputs"`
	Kind      string     `json:"kind"` // classification or regression
	Rows      int        `json:"rows"`
	Unknown   int        `json:"unknown,omitempty"` // rows without truth, left out
	Accuracy  *float64   `json:"accuracy,omitempty"`
	AUC       *float64   `json:"auc,omitempty"`
	LogLoss   *float64   `json:"log_loss,omitempty"`
	Confusion *confusion `json:"confusion,omitempty"`
	RMSE      *float64   `json:"rmse,omitempty"`
	MAE       *float64   `json:"mae,omitempty"`
	R2        *float64   `json:"r2,omitempty"`
}

// confusion counts rows by what was expected and what was predicted.
type confusion struct {
	Classes []string `json:"classes"`
	Counts  [][]int  `json:"counts"` // Counts[expected][predicted]
}

// maxClasses bounds a confusion table; integers of more values are measured as a regression.
const maxClasses = 50

// evaluator collects truths and outputs. It holds a few numbers a row.
type evaluator struct {
	expect string
	out    *schemas.Schema
	label  int // scalar output that names a class; -1: none
	score  int // float output; -1: none
	width  int // of score

	truths  []string
	labels  []string  // with label
	best    []int32   // without label, score of several: the class of the highest
	values  []float64 // score of one: itself; of two: the second; of more: that of the true class, if the truth is its number
	unknown int
	intern  map[string]string
}

// newEvaluator picks the outputs: the one that was named, else the first that names a class and the first of floats.
func newEvaluator(expect, output string, out *schemas.Schema) (*evaluator, error) {
	v := &evaluator{expect: expect, out: out, label: -1, score: -1, intern: map[string]string{}}
	for i := range out.Len() {
		f := out.Field(i)
		if output != "" && f.Name != output {
			continue
		}
		switch {
		case f.Type.Float() && v.score < 0:
			v.score, v.width = i, f.Width()
		case v.label < 0 && f.Width() == 1 && (f.Type.Integer() || f.Type == schemas.Bool || f.Type == schemas.String):
			v.label = i
		}
	}
	if v.label < 0 && v.score < 0 {
		if output != "" && out.Index(output) < 0 {
			return nil, fmt.Errorf("--output %s: no such output; the pipeline gives %s", output, out)
		}
		return nil, fmt.Errorf("--expect: nothing among the outputs can be compared: %s", out)
	}
	return v, nil
}

// add takes a chunk: truths[i] belongs to row i of out.
func (v *evaluator) add(truths []string, out *schemas.Batch) error {
	for i, t := range truths {
		if t == nullTruth {
			v.unknown++
			continue
		}
		if v.label >= 0 {
			c := out.Column(v.label)
			t = alike(t, c.Field().Type)
			v.labels = append(v.labels, v.one(text(c, i, 0)))
		}
		t = v.one(t)
		v.truths = append(v.truths, t)
		if v.score >= 0 {
			v.addScore(out.Column(v.score), i, t)
		}
	}
	return nil
}

func (v *evaluator) addScore(c *schemas.Column, row int, truth string) {
	if v.width == 1 {
		v.values = append(v.values, number(c, row))
		return
	}
	best := 0
	for e := 1; e < v.width; e++ {
		if number(c, row*v.width+e) > number(c, row*v.width+best) {
			best = e
		}
	}
	v.best = append(v.best, int32(best))
	at := 1
	if v.width > 2 {
		n, err := strconv.Atoi(truth)
		if err != nil || n < 0 || n >= v.width {
			v.values = append(v.values, math.NaN())
			return
		}
		at = n
	}
	v.values = append(v.values, number(c, row*v.width+at))
}

// one keeps one copy of each text.
func (v *evaluator) one(s string) string {
	if k, ok := v.intern[s]; ok {
		return k
	}
	s = strings.Clone(s)
	v.intern[s] = s
	return s
}

// alike writes a truth as the label's type writes it, where booleans meet 0 and 1.
func alike(truth string, t schemas.DType) string {
	switch {
	case t.Integer() && truth == "true", t == schemas.Bool && truth == "1":
		return map[bool]string{true: "1", false: "true"}[t.Integer()]
	case t.Integer() && truth == "false", t == schemas.Bool && truth == "0":
		return map[bool]string{true: "0", false: "false"}[t.Integer()]
	}
	return truth
}

// evaluate computes the measures.
func (v *evaluator) evaluate() (*evaluation, error) {
	ev := &evaluation{Expect: v.expect, Rows: len(v.truths), Unknown: v.unknown}
	for _, i := range []int{v.label, v.score} {
		if i >= 0 {
			ev.Outputs = append(ev.Outputs, v.out.Field(i).Name)
		}
	}
	if ev.Rows == 0 {
		return nil, fmt.Errorf("--expect %s: every row is null", v.expect)
	}
	if v.regression() {
		return ev, v.regress(ev)
	}
	v.classify(ev)
	return ev, nil
}

// regression decides which measures fit.
func (v *evaluator) regression() bool {
	if v.score >= 0 && v.width > 1 {
		return false
	}
	distinct := map[string]bool{}
	zeroOne, numbers, whole := true, true, true
	for _, t := range v.truths {
		if len(distinct) <= maxClasses {
			distinct[t] = true
		}
		zeroOne = zeroOne && (t == "0" || t == "1" || t == "false" || t == "true")
		if f, err := strconv.ParseFloat(t, 64); err != nil {
			numbers = false
		} else if f != math.Trunc(f) {
			whole = false
		}
	}
	if v.label >= 0 {
		return v.out.Field(v.label).Type.Integer() && numbers && (!whole || len(distinct) > maxClasses)
	}
	return !(v.unit() && (zeroOne || !numbers && len(distinct) <= 2))
}

// unit reports whether all values are in 0..1, as probabilities are.
func (v *evaluator) unit() bool {
	return !slices.ContainsFunc(v.values, func(x float64) bool { return !(x >= 0 && x <= 1) })
}

// regress measures RMSE, MAE and R2.
func (v *evaluator) regress(ev *evaluation) error {
	ev.Kind = "regression"
	values := v.values
	if v.score < 0 {
		values = make([]float64, len(v.labels))
		for i, l := range v.labels {
			values[i], _ = strconv.ParseFloat(l, 64)
		}
	} else {
		ev.Outputs = []string{v.out.Field(v.score).Name}
	}
	var sum, squares, abs, total float64
	truths := make([]float64, len(values))
	for i, t := range v.truths {
		f, err := strconv.ParseFloat(t, 64)
		if err != nil {
			return fmt.Errorf("--expect %s: %q is not a number, and the output %s is one", v.expect, t, ev.Outputs[0])
		}
		truths[i] = f
		sum += f
	}
	n := float64(len(values))
	for i, x := range values {
		d := x - truths[i]
		squares += d * d
		abs += math.Abs(d)
		total += (truths[i] - sum/n) * (truths[i] - sum/n)
	}
	ev.RMSE, ev.MAE = finite(math.Sqrt(squares/n)), finite(abs/n)
	if total > 0 {
		ev.R2 = finite(1 - squares/total)
	}
	return nil
}

// classify measures accuracy, AUC, log-loss and the confusion table.
func (v *evaluator) classify(ev *evaluation) {
	ev.Kind = "classification"
	predicted := v.predicted(distinct(v.truths, v.labels))
	classes := distinct(v.truths, predicted)
	index := map[string]int{}
	for i, c := range classes {
		index[c] = i
	}
	right := 0
	counts := make([][]int, len(classes))
	for i := range counts {
		counts[i] = make([]int, len(classes))
	}
	for i, t := range v.truths {
		if t == predicted[i] {
			right++
		}
		counts[index[t]][index[predicted[i]]]++
	}
	ev.Accuracy = finite(float64(right) / float64(len(v.truths)))
	if len(classes) <= maxClasses {
		ev.Confusion = &confusion{classes, counts}
	}
	switch {
	case v.score < 0:
	case v.width > 2: // values are those of the true class
		ev.LogLoss = finite(logLoss(v.values, func(int) bool { return true }))
	case len(classes) <= 2:
		yes := positive(classes)
		isYes := func(i int) bool { return v.truths[i] == yes }
		ev.AUC = finite(auc(v.values, isYes))
		if v.unit() && yes != "" {
			ev.LogLoss = finite(logLoss(v.values, isYes))
		}
	}
}

// distinct lists the classes, sorted.
func distinct(lists ...[]string) []string {
	seen := map[string]bool{}
	for _, s := range lists {
		for _, t := range s {
			seen[t] = true
		}
	}
	all := slices.Collect(maps.Keys(seen))
	sortClasses(all)
	return all
}

// sortClasses sorts numbers as numbers, else texts as texts: scikit-learn's order of predict_proba's columns.
func sortClasses(cs []string) {
	num := func(s string) float64 {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return math.NaN()
		}
		return f
	}
	if slices.ContainsFunc(cs, func(s string) bool { return math.IsNaN(num(s)) }) {
		slices.Sort(cs)
		return
	}
	slices.SortFunc(cs, func(a, b string) int { return cmp.Or(cmp.Compare(num(a), num(b)), strings.Compare(a, b)) })
}

// predicted is the label of each row: the output's, or the class of the highest score, or by the threshold 0.5.
func (v *evaluator) predicted(classes []string) []string {
	if v.label >= 0 {
		return v.labels
	}
	name := func(i int) string {
		if n := max(v.width, 2); len(classes) == n {
			return classes[i]
		}
		if slices.Contains(classes, "true") || slices.Contains(classes, "false") {
			return strconv.FormatBool(i == 1)
		}
		return strconv.Itoa(i)
	}
	out := make([]string, len(v.truths))
	for i := range out {
		k := 0
		switch {
		case v.width > 1:
			k = int(v.best[i])
		case v.values[i] > 0.5:
			k = 1
		}
		out[i] = name(k)
	}
	return out
}

// positive is the class whose probability stands second; "" if that cannot be told.
func positive(classes []string) string {
	if len(classes) == 2 {
		return classes[1]
	}
	switch classes[0] {
	case "1", "true":
		return classes[0]
	case "0":
		return "1"
	case "false":
		return "true"
	}
	return ""
}

// finite returns nil for what has no value.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// auc is the area under the ROC curve: the probability that a positive scores above a negative, ties counting one half.
// It is the Mann-Whitney statistic with mid-ranks: (R - p(p+1)/2) / (p n), where R is the sum of the ranks of the p
// positives among all (Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, Radiology 143, 1982;
// Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 27, 2006). NaN without both kinds, or if a
// score is NaN.
func auc(scores []float64, positive func(i int) bool) float64 {
	order := make([]int, len(scores))
	for i := range order {
		if math.IsNaN(scores[i]) {
			return math.NaN()
		}
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case scores[a] < scores[b]:
			return -1
		case scores[a] > scores[b]:
			return 1
		}
		return 0
	})
	var ranks float64 // doubled, so that mid-ranks stay whole and the sum exact
	var p, n int
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && scores[order[j]] == scores[order[i]] {
			j++
		}
		twice := float64(i + 1 + j) // first and last rank of the ties
		for _, k := range order[i:j] {
			if positive(k) {
				p++
				ranks += twice
			} else {
				n++
			}
		}
		i = j
	}
	if p == 0 || n == 0 {
		return math.NaN()
	}
	return (ranks/2 - float64(p)*float64(p+1)/2) / (float64(p) * float64(n))
}

// logLoss is the mean of -ln of the probability that was given to what came true, which is held above 1e-15 so that one
// certain error does not make it infinite.
func logLoss(p []float64, positive func(i int) bool) float64 {
	const eps = 1e-15
	var sum float64
	for i, x := range p {
		if !positive(i) {
			x = 1 - x
		}
		sum -= math.Log(min(max(x, eps), 1-eps))
	}
	return sum / float64(len(p))
}
