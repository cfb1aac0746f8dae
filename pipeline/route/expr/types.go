package expr

import (
	"strconv"

	"github.com/google/cel-go/cel"
	"github.com/leatstream/leat/schemas"
)

// kind is CEL's type of one element.
type kind uint8

const (
	kNull kind = iota
	kBool
	kInt
	kUint
	kDouble
	kString
	kBytes
	kTime     // nanoseconds since the Unix epoch
	kDuration // nanoseconds
)

// class is how a kind lies in memory.
type class uint8

const (
	cBool  class = iota // []bool
	cInt                // []int64
	cUint               // []uint64
	cFloat              // []float64
	cText               // []string
)

var kinds = [...]struct {
	name  string
	class class
	dtype schemas.DType // what a result of the kind is; 0: no column holds it
	cel   *cel.Type
}{
	kNull:     {"null", cBool, 0, cel.NullType},
	kBool:     {"bool", cBool, schemas.Bool, cel.BoolType},
	kInt:      {"int", cInt, schemas.Int64, cel.IntType},
	kUint:     {"uint", cUint, schemas.Uint64, cel.UintType},
	kDouble:   {"double", cFloat, schemas.Float64, cel.DoubleType},
	kString:   {"string", cText, schemas.String, cel.StringType},
	kBytes:    {"bytes", cText, schemas.Binary, cel.BytesType},
	kTime:     {"timestamp", cInt, schemas.Timestamp, cel.TimestampType},
	kDuration: {"duration", cInt, 0, cel.DurationType},
}

func (k kind) String() string       { return kinds[k].name }
func (k kind) class() class         { return kinds[k].class }
func (k kind) cel() *cel.Type       { return kinds[k].cel }
func (k kind) number() bool         { return k == kInt || k == kUint || k == kDouble }
func (k kind) dtype() schemas.DType { return kinds[k].dtype }

// kindOf is the kind that a column's elements have.
func kindOf(d schemas.DType) kind {
	switch {
	case d == schemas.Bool:
		return kBool
	case d >= schemas.Int8 && d <= schemas.Int64:
		return kInt
	case d >= schemas.Uint8 && d <= schemas.Uint64:
		return kUint
	case d.Float():
		return kDouble
	case d == schemas.String:
		return kString
	case d == schemas.Binary:
		return kBytes
	}
	return kTime
}

// typ is the type of a value: a scalar, or a list of w elements in every row.
type typ struct {
	kind kind
	list bool
	w    int // elements in a row; 1 for a scalar
}

func scalar(k kind) typ        { return typ{kind: k, w: 1} }
func listOf(k kind, w int) typ { return typ{kind: k, list: true, w: w} }

func (t typ) String() string {
	if t.list {
		return "list(" + t.kind.String() + ")[" + strconv.Itoa(t.w) + "]"
	}
	return t.kind.String()
}

// side is the schema behind a variable, nil if there is no such variable.
func (e *Env) side(name string) *schemas.Schema {
	switch name {
	case e.input():
		return e.Input
	case "output":
		return e.Output
	}
	return nil
}

// input is the variable whose columns are those of Input.
func (e *Env) input() string {
	if e.Name == "" {
		return "input"
	}
	return e.Name
}

// place is where a name of a schema is found: a column, or one element of a packed tensor.
type place struct {
	column  int
	element int // -1: the whole column
	field   *schemas.Field
}

// find looks a name up among the columns, then among the features of packed tensors.
func find(s *schemas.Schema, name string) (place, bool) {
	if i := s.Index(name); i >= 0 {
		return place{i, -1, s.Field(i)}, true
	}
	for i := range s.Fields() {
		f := s.Field(i)
		for e, n := range f.Features {
			if n == name {
				return place{i, e, f}, true
			}
		}
	}
	return place{}, false
}

// columnNames returns what may follow "input.".
func columnNames(s *schemas.Schema) []string {
	var names []string
	for i := range s.Fields() {
		f := s.Field(i)
		names = append(names, f.Name)
		names = append(names, f.Features...)
	}
	return names
}
