package pipeline

import (
	"slices"
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// The rows of one event: which of them are scored, and which are left out because they cannot be.

// goodRows returns the rows of an event that are not bad: n of them. bad is in order of rows.
func goodRows(n int, bad []schemas.RowError) []int32 {
	rows := make([]int32, 0, n)
	for row := 0; len(rows) < n; row++ {
		if len(bad) > 0 && bad[0].Row == row {
			bad = bad[1:]
			continue
		}
		rows = append(rows, int32(row))
	}
	return rows
}

// remove leaves row i of the item out, which is the last item of b: the row is bad.
func (it *item) remove(b *schemas.Batch, i int, err *schemas.Error) {
	if it.rows == nil {
		it.rows = goodRows(it.to-it.from, nil)
	}
	row := int(it.rows[i])
	it.rows = slices.Delete(it.rows, i, i+1)
	at, _ := slices.BinarySearchFunc(it.bad, row, func(e schemas.RowError, row int) int { return e.Row - row })
	it.bad = slices.Insert(it.bad, at, schemas.RowError{Row: row, Err: err})
	rest := schemas.NewBatch(b.Schema())
	rest.AppendRange(b, it.from+i+1, it.to)
	b.Truncate(it.from + i)
	b.AppendRange(rest, 0, rest.Rows())
	it.to--
}

// check asks the scorer whether it would refuse one of the item's rows, which are the last ones of b: merged with rows of
// other callers it would refuse those too. A request fails as a whole, an event loses the bad rows.
func (it *item) check(b *schemas.Batch, c scorers.RowChecker) error {
	if c == nil || c.CheckRows(b, it.from, it.to) == nil {
		return nil
	}
	for i := 0; it.from+i < it.to; {
		err := c.CheckRows(b, it.from+i, it.from+i+1)
		if err == nil {
			i++
			continue
		}
		e := *schemas.AsError("pipeline.admit", err)
		e.Field = rowName(it.row(i)) + afterRow(e.Field)
		if !it.byRow || it.to-it.from == 1 {
			return &e
		}
		it.remove(b, i, &e)
	}
	return nil
}

// eventRows returns the rows of the event that are scored.
func (it *item) eventRows() []int32 {
	if it.rows != nil {
		return it.rows
	}
	return goodRows(it.to-it.from, nil)
}

// row returns the row in the request of the item's row i.
func (it *item) row(i int) int {
	if it.rows == nil {
		return i
	}
	return int(it.rows[i])
}

// afterRow returns ".column" of "rows[3].column".
func afterRow(field string) string {
	if i := strings.IndexByte(field, ']'); i >= 0 && strings.HasPrefix(field, "rows[") {
		return field[i+1:]
	}
	return ""
}
