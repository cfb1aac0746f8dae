package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
)

// tableScores keeps the first rows and prints them at the end.
type tableScores struct {
	e        *env
	limit    int
	all      bool
	expect   string
	in, out  *schemas.Batch
	expected []string
}

func newTableScores(e *env, s *scoring) *tableScores {
	return &tableScores{
		e: e, limit: s.flags.limit, all: s.flags.allColumns, expect: s.flags.expect,
		in: schemas.NewBatch(s.sig.Inputs), out: schemas.NewBatch(s.sig.Outputs),
	}
}

func (t *tableScores) rows(in, out *schemas.Batch, expected []string) error {
	n := in.Rows()
	if t.limit > 0 {
		n = min(n, t.limit-t.in.Rows())
	}
	t.in.AppendRange(in, 0, n)
	t.out.AppendRange(out, 0, n)
	if expected != nil {
		t.expected = append(t.expected, expected[:n]...)
	}
	return nil
}

func (t *tableScores) end(s *scoring, ev *evaluation) error {
	w := bufio.NewWriter(t.e.out)
	if s.rows == 1 {
		t.one(w)
	} else {
		t.many(w, s.rows)
	}
	fmt.Fprintf(w, "\n%s by %s in %s", plural(s.rows, "row"), s.model, s.took.Round(10*time.Microsecond))
	if s.requests > 1 {
		fmt.Fprintf(w, ", %s (%s rows/s)", plural(s.requests, "request"), count(uint64(float64(s.rows)/s.took.Seconds())))
	}
	fmt.Fprintf(w, "\nleat lineage get %s\n", s.last)
	if ev != nil {
		t.e.printEvaluation(w, ev)
	}
	return failed(w.Flush())
}

// plural writes a count with its noun.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(uint64(n)) + " " + what + "s"
}

// one prints a row as two lists side by side.
func (t *tableScores) one(w io.Writer) {
	in, out := cellsOf(t.in.Schema()), cellsOf(t.out.Schema())
	head := []string{"INPUT", "VALUE", "", "OUTPUT", "VALUE"}
	var rows [][]string
	for i := range max(len(in), len(out)) {
		r := make([]string, 5)
		if i < len(in) {
			r[0], r[1] = in[i].name, in[i].at(t.in, 0)
		}
		switch {
		case i < len(out):
			r[3], r[4] = out[i].name, out[i].at(t.out, 0)
		case i == len(out)+1 && t.expected != nil:
			r[3], r[4] = "expected "+t.expect, shownTruth(t.expected[0])
		}
		rows = append(rows, r)
	}
	grid(w, head, rows)
}

func shownTruth(s string) string {
	if s == nullTruth {
		return "-"
	}
	return s
}

// many prints a table: outputs, the truth, and as many inputs as fit.
func (t *tableScores) many(w io.Writer, total int) {
	n := t.in.Rows()
	column := func(head string, at func(i int) string) []string {
		c := make([]string, n+1)
		c[0] = head
		for i := range n {
			c[i+1] = at(i)
		}
		return c
	}
	var left, right [][]string
	left = append(left, column("ROW", strconv.Itoa))
	for _, c := range cellsOf(t.in.Schema()) {
		left = append(left, column(c.name, func(i int) string { return c.at(t.in, i) }))
	}
	for _, c := range cellsOf(t.out.Schema()) {
		right = append(right, column(c.name, func(i int) string { return c.at(t.out, i) }))
	}
	right[0][0] = "-> " + right[0][0]
	if t.expected != nil {
		right = append(right, column("expected", func(i int) string { return shownTruth(t.expected[i]) }))
	}
	hidden := 0
	if !t.all {
		room := terminalWidth(t.e.out)
		for _, c := range right {
			room -= widthOf(c) + 2
		}
		fit := 0
		for _, c := range left {
			if room -= widthOf(c) + 2; room < 0 && fit > 1 {
				break
			}
			fit++
		}
		hidden = len(left) - fit
		left = left[:fit]
	}
	cols := append(left, right...)
	rows := make([][]string, n)
	for i := range rows {
		for _, c := range cols {
			rows[i] = append(rows[i], c[i+1])
		}
	}
	var head []string
	for _, c := range cols {
		head = append(head, c[0])
	}
	grid(w, head, rows)
	var notes []string
	if n < total {
		notes = append(notes, fmt.Sprintf("%s of %s rows (--limit 0 prints all)", count(uint64(n)), count(uint64(total))))
	}
	if hidden > 0 {
		notes = append(notes, plural(hidden, "column")+" not shown (--all-columns)")
	}
	if len(notes) > 0 {
		fmt.Fprintln(w, "... "+strings.Join(notes, ", "))
	}
}

func widthOf(column []string) int {
	n := 0
	for _, s := range column {
		n = max(n, utf8.RuneCountInString(s))
	}
	return n
}

// printEvaluation writes the measures and the confusion table.
func (e *env) printEvaluation(w io.Writer, ev *evaluation) {
	fmt.Fprintf(w, "\n%s  %s against %s, %s", e.bold("Errors"), strings.Join(ev.Outputs, ", "), ev.Expect, plural(ev.Rows, "row"))
	if ev.Unknown > 0 {
		fmt.Fprintf(w, ", %s without truth left out", count(uint64(ev.Unknown)))
	}
	fmt.Fprintln(w)
	for _, m := range []struct {
		name  string
		value *float64
	}{{"AUC", ev.AUC}, {"log-loss", ev.LogLoss}, {"accuracy", ev.Accuracy}, {"RMSE", ev.RMSE}, {"MAE", ev.MAE}, {"R2", ev.R2}} {
		if m.value != nil {
			fmt.Fprintf(w, "  %-9s %s\n", m.name, strconv.FormatFloat(*m.value, 'f', 4, 64))
		}
	}
	if ev.Confusion == nil {
		return
	}
	head := []string{"  expected \\ predicted"}
	head = append(head, ev.Confusion.Classes...)
	var rows [][]string
	for i, c := range ev.Confusion.Classes {
		r := []string{"  " + c}
		for _, n := range ev.Confusion.Counts[i] {
			r = append(r, count(uint64(n)))
		}
		rows = append(rows, r)
	}
	fmt.Fprintln(w)
	grid(w, head, rows)
}

// jsonScores writes one JSON object as the answers come, so that a long file needs no memory.
type jsonScores struct {
	w     *bufio.Writer
	limit int
	n     int
}

func newJSONScores(w io.Writer, s *scoring) *jsonScores {
	return &jsonScores{w: bufio.NewWriterSize(w, 64<<10), limit: s.flags.limit}
}

func (j *jsonScores) rows(in, out *schemas.Batch, expected []string) error {
	var b []byte
	for i := range in.Rows() {
		if j.limit > 0 && j.n == j.limit {
			break
		}
		sep := ",\n"
		if j.n == 0 {
			sep = "{\"results\": [\n"
		}
		j.n++
		input, err := object(in, i)
		if err != nil {
			return err
		}
		output, err := object(out, i)
		if err != nil {
			return err
		}
		b = append(append(append(append(append(b, sep...), `  {"input": `...), input...), `, "output": `...), output...)
		if expected != nil {
			truth, err := json.Marshal(expected[i])
			if err != nil {
				return err
			}
			if expected[i] == nullTruth {
				truth = []byte("null")
			}
			b = append(append(b, `, "expected": `...), truth...)
		}
		b = append(b, '}')
	}
	_, err := j.w.Write(b)
	return err
}

// object writes one row as native JSON does.
func object(b *schemas.Batch, row int) ([]byte, error) {
	const open, shut = `{"rows":[`, `]}`
	doc, err := jsonrow.Rows().EncodeRows(nil, schemas.Header{}, b, row, row+1, nil)
	if err != nil {
		return nil, err
	}
	return doc[len(open) : len(doc)-len(shut)], nil
}

func (j *jsonScores) end(s *scoring, ev *evaluation) error {
	rest, err := json.Marshal(struct {
		Pipeline   string      `json:"pipeline"`
		Model      string      `json:"model"`
		Rows       int         `json:"rows"`
		Requests   int         `json:"requests"`
		RequestID  string      `json:"request_id"` // of the last request
		Seconds    float64     `json:"seconds"`
		Evaluation *evaluation `json:"evaluation,omitempty"`
	}{s.pipeline, s.model, s.rows, s.requests, s.last, s.took.Seconds(), ev})
	if err != nil {
		return failed(err)
	}
	fmt.Fprintf(j.w, "\n], %s\n", rest[1:])
	return failed(j.w.Flush())
}
