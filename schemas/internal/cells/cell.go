package cells

import (
	"math"
	"unsafe"
)

// kind is what a cell holds.
type kind uint8

const (
	absent kind = iota
	null
	integer  // bits: an int64
	unsigned // bits: a uint64
	float    // bits: a float64
	boolean
	text // bits: its length
	binary
	instant // bits: an int64 of nanoseconds
	list    // bits: index in Row.lists
)

// Cell is one value as its format has it. The zero Cell is absent.
type Cell struct {
	bits uint64
	data *byte
	kind kind
}

// The values of cells.
var (
	Absent = Cell{}
	Null   = Cell{kind: null}
)

// Int is a signed integer.
func Int(v int64) Cell { return Cell{kind: integer, bits: uint64(v)} }

// Uint is an unsigned integer.
func Uint(v uint64) Cell { return Cell{kind: unsigned, bits: v} }

// Float is a number of any float type: float64 holds all of their values.
func Float(v float64) Cell { return Cell{kind: float, bits: math.Float64bits(v)} }

// Bool is true or false.
func Bool(v bool) Cell {
	if v {
		return Cell{kind: boolean, bits: 1}
	}
	return Cell{kind: boolean}
}

// Time is a point in time, in nanoseconds since the Unix epoch.
func Time(ns int64) Cell { return Cell{kind: instant, bits: uint64(ns)} }

// Text is a string, which is checked to be UTF-8 when it goes into a column of text. It aliases v.
func Text(v []byte) Cell { return Cell{kind: text, bits: uint64(len(v)), data: unsafe.SliceData(v)} }

// String is Text of a string.
func String(v string) Cell {
	return Cell{kind: text, bits: uint64(len(v)), data: unsafe.StringData(v)}
}

// Bytes is binary. It aliases v.
func Bytes(v []byte) Cell {
	return Cell{kind: binary, bits: uint64(len(v)), data: unsafe.SliceData(v)}
}

// Given reports whether the cell is not absent.
func (c Cell) Given() bool { return c.kind != absent }

// AsTime returns the nanoseconds of a Time.
func (c Cell) AsTime() (ns int64, ok bool) { return int64(c.bits), c.kind == instant }

func (c Cell) bytes() []byte { return unsafe.Slice(c.data, int(c.bits)) }

// what names the value in error lines.
func (c Cell) what() string {
	switch c.kind {
	case null:
		return "null"
	case integer, unsigned:
		return "an integer"
	case float:
		return "a float"
	case boolean:
		return "a boolean"
	case text:
		return "text"
	case binary:
		return "bytes"
	case instant:
		return "a timestamp"
	case list:
		return "an array"
	}
	return "nothing"
}
