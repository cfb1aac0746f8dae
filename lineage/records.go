package lineage

import (
	"github.com/leatstream/leat/schemas"
)

// Records is what one append makes durable: rows of any pipelines, with copies of their inputs and outputs. It belongs
// to one goroutine at a time; Reset keeps its memory.
//
// (The columns of the envelope and the encoding live in envelope.go and encode.go.)
type Records struct {
	rows     []pending
	contexts []*Context
	data     []*schemas.Batch // one for each distinct schema, inputs and outputs alike
}

// pending is a row that waits to be encoded.
type pending struct {
	ctx         int32
	in, inRow   int32 // index into data and row there; -1: none
	out, outRow int32
	Row
}

// Len returns the number of rows.
func (r *Records) Len() int { return len(r.rows) }
