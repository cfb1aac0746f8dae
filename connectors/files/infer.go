package files

import (
	"strconv"

	"github.com/leatstream/leat/schemas"
)

// guess settles the columns of a text file: by what the caller wants, else by the first rows.
type guess struct {
	want  *schemas.Schema
	asked map[string]bool // nil: all columns
	given []string        // Options.Columns
	names []string        // in order of first appearance
	later bool            // columns may come that the first rows have not
	seen  map[string]*evidence
}

// evidence is what the first rows say of a column.
type evidence struct {
	ints, floats, bools, times, texts, nested, lists int // lists: flat ones of numbers; other arrays are nested
	arrays                                           int // of whatever there is in them
	width                                            int // of its lists; -1: they differ
}

func newGuess(want *schemas.Schema, columns []string) *guess {
	g := &guess{want: want, given: columns, seen: map[string]*evidence{}}
	if columns != nil {
		g.asked = map[string]bool{}
		for _, c := range columns {
			g.asked[c] = true
		}
	}
	return g
}

func (g *guess) column(name string) *evidence {
	e := g.seen[name]
	if e == nil {
		e = &evidence{}
		g.seen[name] = e
		g.names = append(g.names, name)
	}
	return e
}

// text counts a CSV cell.
func (g *guess) text(name, s string, null bool) {
	e := g.column(name)
	if null {
		return
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if s == strconv.FormatInt(n, 10) {
			e.ints++
		} else {
			e.texts++ // a code such as 00123
		}
		return
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		e.floats++
		return
	}
	switch s {
	case "true", "false", "True", "False", "TRUE", "FALSE":
		e.bools++
		return
	}
	if _, ok := parseTime(s); ok {
		e.times++
		return
	}
	e.texts++
}

// fields returns the columns to read and the names of those that cannot be.
func (g *guess) fields(path string) (fs []schemas.Field, skipped []string, err error) {
	const op = "files.Open"
	have := map[string]bool{}
	for _, n := range g.names {
		if g.asked != nil && !g.asked[n] {
			continue
		}
		f, known := g.wanted(n)
		if !known {
			var ok bool
			if f, ok = g.seen[n].field(n); !ok {
				if g.asked != nil {
					return nil, nil, schemas.FieldErrorf(schemas.Invalid, op, n, "%s: a column of nested values cannot be read", path)
				}
				skipped = append(skipped, n)
				continue
			}
		}
		have[n] = true
		fs = append(fs, f)
	}
	// A nullable member that no sampled object has may still come later.
	if g.want != nil && g.later {
		for _, f := range g.want.Fields() {
			if f.Nullable && !f.Tensor() && !have[f.Name] && (g.asked == nil || g.asked[f.Name]) {
				have[f.Name] = true
				fs = append(fs, f)
			}
		}
	}
	if err := missing(path, g.given, have); err != nil {
		return nil, nil, err
	}
	if len(fs) == 0 {
		return nil, nil, schemas.Errorf(schemas.Invalid, op, "%s: no rows with columns that can be read", path)
	}
	return fs, skipped, nil
}

// wanted returns the field that the caller's schema has for a column.
func (g *guess) wanted(name string) (schemas.Field, bool) {
	if g.want == nil {
		return schemas.Field{}, false
	}
	if i := g.want.Index(name); i >= 0 {
		f := *g.want.Field(i)
		// A CSV cell, or a bare JSON value, is one element. JSON nulls leave open what comes later.
		if e := g.seen[name]; f.Tensor() && e.arrays == 0 && (!g.later || e.bare() > 0) {
			return schemas.Field{Name: name, Type: f.Type, Nullable: true}, true
		}
		return f, true
	}
	for _, f := range g.want.Fields() {
		for _, n := range f.Features {
			if n == name {
				return schemas.Field{Name: name, Type: f.Type, Nullable: f.Nullable}, true
			}
		}
	}
	return schemas.Field{}, false
}

// bare counts the values that are no null, list or object.
func (e *evidence) bare() int { return e.ints + e.floats + e.bools + e.times + e.texts }

func (e *evidence) field(name string) (schemas.Field, bool) {
	f := schemas.Field{Name: name, Nullable: true, Type: schemas.String}
	numbers, all := e.ints+e.floats, e.bare()
	switch {
	case e.nested > 0 || e.lists > 0 && (all > 0 || e.width < 1):
		return f, false
	case e.lists > 0:
		f.Type, f.Shape = schemas.Float64, []int{e.width}
	case all == 0:
	case e.ints == all:
		f.Type = schemas.Int64
	case numbers == all:
		f.Type = schemas.Float64
	case e.bools == all:
		f.Type = schemas.Bool
	case e.times == all:
		f.Type = schemas.Timestamp
	}
	return f, true
}
