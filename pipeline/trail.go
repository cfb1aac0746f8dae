package pipeline

import (
	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// Trail is where the rows of one piece of a job have been in a route of several nodes. It belongs to one goroutine.
type Trail struct {
	visitor
	t trace
}

// Failed says why a row of the piece has no answer, nil if it has one.
func (t *Trail) Failed(row int) *schemas.Error { return t.t.failed[row] }

// Record adds the records of a row of the piece: that of the route with row inRow of in and row outRow of out, and those of
// the nodes that it came by. row is the envelope of all. The input of a shadow lies with its parent. Errors as of lineage.Records.Add.
func (t *Trail) Record(recs *lineage.Records, row *lineage.Row, of int, in *schemas.Batch, inRow int, out *schemas.Batch, outRow int) error {
	t.recs = recs
	if t.rev.route.nodes[0].role == lineage.RoleShadow {
		in = nil
	}
	return t.record(row, of, t.t.failed[of], in, inRow, out, outRow)
}

// Free gives the memory back.
func (t *Trail) Free() { t.t.reset() }

// asker is the owner of a job's rows: each is a request of its own, with its own name.
func asker(principal string, id func(row int) string) func(row int) *item {
	return func(row int) *item { return &item{by: principal, id: id(row), d: &connectors.Delivery{}, from: row} }
}
