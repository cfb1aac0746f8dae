package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/floors"
)

// TestFigures: every figure stands on samples that exist, and its numbers come out of their kind.
func TestFigures(t *testing.T) {
	known := map[string]bool{}
	for _, s := range samples() {
		if known[s.name] {
			t.Errorf("two samples %s", s.name)
		}
		known[s.name] = true
	}
	names := map[string]bool{}
	for _, f := range figures {
		if names[f.name] {
			t.Errorf("two figures %s", f.name)
		}
		names[f.name] = true
		for _, m := range append([]string{f.value}, f.floor.measures...) {
			name, key, _ := strings.Cut(m, ":")
			if !known[name] || key == "" {
				t.Errorf("%s: nothing measures %s", f.name, m)
			}
			if (f.unit == micros) != (key == "p50" || key == "p99") {
				t.Errorf("%s: %s in %s", f.name, m, f.unit)
			}
		}
		if (f.bound == shown) != (f.target == 0) {
			t.Errorf("%s: bound and target disagree", f.name)
		}
	}
}

func TestRow(t *testing.T) {
	m := map[string][]float64{"p:p50": {30, 10, 20}, "a:p50": {5, 6, 100}, "b:p50": {5, 4, 0}, "short:p50": {1}}
	f := figure{name: "x", value: "p:p50", floor: sum("a:p50", "b:p50"), bound: atMost, target: 2}
	r, err := f.row(m)
	if err != nil || r.Value != 20 || r.Floor != 10 || r.Ratio != 2 || !r.Met || r.Target != "<= 2" || r.Of != "a:p50 + b:p50" {
		t.Fatalf("%+v, %v", r, err)
	}
	if f.target = 1.9; func() bool { r, _ := f.row(m); return r.Met }() {
		t.Error("2 is taken for at most 1.9")
	}
	f.bound, f.target = atLeast, 2.1
	if r, _ := f.row(m); r.Met || r.Target != ">= 2.1" {
		t.Errorf("%+v", r)
	}
	f.floor = sum("short:p50")
	if _, err := f.row(m); err == nil {
		t.Error("a floor of fewer rounds is taken")
	}
	f.value = "none:p50"
	if _, err := f.row(m); err == nil {
		t.Error("a figure without a value is taken")
	}
	if v := median([]float64{4, 1, 3, 2}); v != 2.5 {
		t.Errorf("median %v", v)
	}
	if !math.IsNaN(median(nil)) {
		t.Error("a median of nothing")
	}
}

func TestReport(t *testing.T) {
	r := &Report{Figures: []Row{{Name: "fast", Value: 1234.5, Unit: "1/s", Floor: 1000, Ratio: 1.23, Target: ">= 1", Met: true},
		{Name: "slow", Value: 3, Unit: "us", Floor: 2, Ratio: 1.5, Target: "<= 1.4"}}, Measures: map[string][]float64{"a:p50": {1, 2, 3}}}
	var b bytes.Buffer
	if err := r.table(&b); err != nil || !regexp.MustCompile(`fast +1234 +1000 +1/s +1.23 +>= 1 +met`).Match(b.Bytes()) ||
		!regexp.MustCompile(`slow .* SHORT`).Match(b.Bytes()) {
		t.Fatalf("%s%v", &b, err)
	}
	path := filepath.Join(t.TempDir(), "bin", "bench.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Figures []map[string]any `json:"figures"`
	}
	if err := json.Unmarshal(raw, &back); err != nil || len(back.Figures) != 2 {
		t.Fatalf("%s: %v", raw, err)
	}
	for _, key := range []string{"name", "value", "unit", "floor", "ratio", "target", "met"} {
		if _, ok := back.Figures[1][key]; !ok {
			t.Errorf("no %s in %v", key, back.Figures[1])
		}
	}
}

// TestChoose: a figure brings its samples and the scale of the floors, and nothing else.
func TestChoose(t *testing.T) {
	c := &config{only: regexp.MustCompile("^bulk")}
	wanted, figs := choose(c)
	var names []string
	for _, s := range wanted {
		names = append(names, s.name)
	}
	if got := strings.Join(names, " "); len(figs) != 1 || got != "fsync echo/1 echo/requests/64 onnx/bulk leat/bulk" {
		t.Errorf("%s for %d figures", got, len(figs))
	}
	c.only = regexp.MustCompile("no such figure")
	if wanted, _ := choose(c); len(wanted) > 0 {
		t.Errorf("%v", wanted)
	}
	c = &config{only: regexp.MustCompile(""), floorsOnly: true}
	wanted, figs = choose(c)
	for _, s := range wanted {
		if s.product {
			t.Errorf("%s needs the product", s.name)
		}
	}
	if len(wanted) == 0 || len(figs) > 0 {
		t.Error("floors alone")
	}
}

// TestFloorFaults: a floor that is too slow fails the run.
func TestFloorFaults(t *testing.T) {
	m := map[string][]float64{"echo/1:p50": {63}, "echo/requests/64:rate": {floors.RefEcho64.Rate}, "onnx/1:p50": {60}, "httpecho/64:rate": {30_000}}
	if faults := floorFaults(m); len(faults) > 0 {
		t.Errorf("%v", faults)
	}
	m["onnx/1:p50"], m["httpecho/64:rate"] = []float64{70}, []float64{20_000}
	if faults := floorFaults(m); len(faults) != 2 {
		t.Errorf("%v", faults)
	}
	// Syncs take what the disk takes, and no floor is blamed for that.
	m["append/synced:p50"] = []float64{900}
	if faults := floorFaults(m); len(faults) != 3 {
		t.Errorf("%v", faults)
	}
	m["fsync:p50"] = []float64{800}
	if faults := floorFaults(m); len(faults) != 2 {
		t.Errorf("%v", faults)
	}
	if err := errors.Join(floorFaults(m)...); err == nil || !strings.Contains(err.Error(), "onnx/1:p50: 70µs is more than twice the 33µs") {
		t.Errorf("%v", err)
	}
}

func TestLate(t *testing.T) {
	for answer, want := range map[string]float64{
		`{"rows":[{"label":1,"probabilities":[0.25,0.75]}]}`:                                                                 0.75,
		`{"model_name":"x","outputs":[{"name":"label","data":[0]},{"name":"probabilities","shape":[1,2],"data":[0.9,0.1]}]}`: 0.1,
	} {
		if got, err := late([]byte(answer)); err != nil || got != want || hold([]byte(answer)) != nil {
			t.Errorf("%s: %v, %v", answer, got, err)
		}
	}
	for _, answer := range []string{``, `{}`, `{"rows":[]}`, `{"outputs":[{"name":"probabilities","data":[1]}]}`, `{"outputs":[{"name":"probabilities","data":"x"}]}`} {
		if _, err := late([]byte(answer)); err == nil {
			t.Errorf("%q is an answer", answer)
		}
	}
	if hold([]byte(`{"error":"no"}`)) == nil {
		t.Error("an error is an answer")
	}
}

func TestFlags(t *testing.T) {
	c, err := flags([]string{"-quick", "-floors", "-only", "http"})
	if err != nil || c.rounds != 1 || c.duration != 500*time.Millisecond || !c.only.MatchString("http alone") {
		t.Fatalf("%+v, %v", c, err)
	}
	for _, args := range [][]string{{"-only", "("}, {"-rounds", "0", "-floors"}, {"-duration", "1ms", "-floors"}, {"-client", "x", "-floors"}, {"extra"},
		{"-binary", filepath.Join(t.TempDir(), "none")}} {
		if _, err := flags(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// TestRepeat: the bulk file holds the sample so many times.
func TestRepeat(t *testing.T) {
	to := filepath.Join(t.TempDir(), "bulk.parquet")
	from := "../../examples/flights/sample.parquet"
	one, err := rowsOf(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := repeat(t.Context(), from, to, 3); err != nil {
		t.Fatal(err)
	}
	if n, err := rowsOf(to); err != nil || n != 3*one {
		t.Fatalf("%d rows of %d: %v", n, 3*one, err)
	}
}

func TestResident(t *testing.T) {
	mib, err := resident(t.Context(), os.Getpid())
	if err != nil || mib < 1 || mib > 64<<10 {
		t.Fatalf("%v MiB: %v", mib, err)
	}
}
