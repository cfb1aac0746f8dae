package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Row is one figure as bench.json holds it. Value and Floor are medians over the rounds, in Unit; Ratio is Value / Floor.
type Row struct {
	Name   string    `json:"name"`
	Value  float64   `json:"value"`
	Unit   string    `json:"unit"`
	Floor  float64   `json:"floor"`
	Ratio  float64   `json:"ratio"`
	Target string    `json:"target,omitempty"` // "<= 1.4"; empty: shown only
	Met    bool      `json:"met"`
	Of     string    `json:"floor_is"`
	Values []float64 `json:"values"` // by round
	Floors []float64 `json:"floors"`
}

// Report is bench.json.
type Report struct {
	Machine  string               `json:"machine"`
	Cores    int                  `json:"cores"`
	Client   string               `json:"client"`
	Rounds   int                  `json:"rounds"`
	Figures  []Row                `json:"figures"`
	Measures map[string][]float64 `json:"measures"` // every number of every round; latencies in us
	Faults   []string             `json:"faults,omitempty"`
}

// median of a copy; NaN of nothing.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// row makes a figure's row, or says which number is missing.
func (f *figure) row(measures map[string][]float64) (Row, error) {
	values := measures[f.value]
	if len(values) == 0 {
		return Row{}, fmt.Errorf("%s: %s was not measured", f.name, f.value)
	}
	r := Row{Name: f.name, Unit: f.unit, Of: strings.Join(f.floor.measures, " + "), Values: values, Floors: make([]float64, len(values))}
	if f.floor.least {
		r.Of = "least of " + strings.Join(f.floor.measures, ", ")
	}
	for k, m := range f.floor.measures {
		part := measures[m]
		if len(part) != len(values) {
			return Row{}, fmt.Errorf("%s: %s was measured %d times, %s %d times", f.name, m, len(part), f.value, len(values))
		}
		for i, v := range part {
			switch {
			case k == 0 || f.floor.least && v < r.Floors[i]:
				r.Floors[i] = v
			case !f.floor.least:
				r.Floors[i] += v
			}
		}
	}
	r.Value, r.Floor = median(values), median(r.Floors)
	r.Ratio = r.Value / r.Floor
	switch f.bound {
	case atLeast:
		r.Target, r.Met = ">= "+number(f.target), r.Ratio >= f.target
	case atMost:
		r.Target, r.Met = "<= "+number(f.target), r.Ratio <= f.target
	case shown:
		r.Met = true
	}
	return r, nil
}

// table prints the figures for people.
func (r *Report) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "figure\tvalue\tfloor\tunit\tratio\ttarget\t\t")
	for _, f := range r.Figures {
		verdict := "met"
		switch {
		case f.Target == "":
			verdict = ""
		case !f.Met:
			verdict = "SHORT"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.2f\t%s\t%s\t\n", f.Name, number(f.Value), number(f.Floor), f.Unit, f.Ratio, f.Target, verdict)
	}
	return t.Flush()
}

// numbers prints every measure, for a run of floors alone.
func (r *Report) numbers(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	names := make([]string, 0, len(r.Measures))
	for name := range r.Measures {
		names = append(names, name)
	}
	slices.Sort(names)
	_, _ = fmt.Fprintln(t, "measure\tmedian\tleast\tmost\t")
	for _, name := range names {
		v := r.Measures[name]
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t\n", name, number(median(v)), number(slices.Min(v)), number(slices.Max(v)))
	}
	return t.Flush()
}

// write stores the report whole or not at all.
func (r *Report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if err := os.WriteFile(path+".tmp", append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
