package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"
)

// day is what left on one day: the request, and what came to be known.
type day struct {
	date string
	body []byte // Arrow stream of the columns that the models read
	late []bool
}

// readDays reads the departures in the order of their events and takes some of each scheduled day, spread over it.
func readDays(o options) ([]day, error) {
	f, err := os.Open(filepath.Join(o.data, "sample.parquet"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := file.NewParquetReader(f)
	if err != nil {
		return nil, err
	}
	pr, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	table, err := pr.ReadTable(context.Background())
	if err != nil {
		return nil, err
	}
	defer table.Release()
	tr := array.NewTableReader(table, table.NumRows())
	defer tr.Release()
	if !tr.Next() {
		return nil, fmt.Errorf("no departures: %w", tr.Err())
	}
	all := tr.Record()
	ids, late := column[*array.String](all, "flight_id"), column[*array.Int64](all, "late")
	var days []day
	rowsOf := map[string][]int{}
	var dates []string
	for i := range ids.Len() {
		date := ids.Value(i)[:8]
		if rowsOf[date] == nil {
			dates = append(dates, date)
		}
		rowsOf[date] = append(rowsOf[date], i)
	}
	for _, date := range dates[:min(o.days, len(dates))] {
		rows := rowsOf[date]
		n := min(o.perDay, len(rows))
		d := day{date: date}
		b := newRows(all)
		for k := range n {
			i := rows[k*len(rows)/n]
			b.add(i)
			d.late = append(d.late, late.Value(i) == 1)
		}
		if d.body, err = b.encode(); err != nil {
			return nil, err
		}
		days = append(days, d)
	}
	return days, nil
}

func column[T arrow.Array](r arrow.Record, name string) T {
	return r.Column(r.Schema().FieldIndices(name)[0]).(T)
}

// notAsked are the columns that no model may see, or none reads.
var notAsked = map[string]bool{"flight_id": true, "event_time": true, "tailnum": true, "late": true}

// rows are departures to be asked about.
type rows struct {
	from   arrow.Record
	of     []int // columns of from
	schema *arrow.Schema
	to     *array.RecordBuilder
}

func newRows(from arrow.Record) *rows {
	r := &rows{from: from}
	var fields []arrow.Field
	for i, f := range from.Schema().Fields() {
		if !notAsked[f.Name] {
			fields, r.of = append(fields, f), append(r.of, i)
		}
	}
	r.schema = arrow.NewSchema(fields, nil)
	r.to = array.NewRecordBuilder(memory.DefaultAllocator, r.schema)
	return r
}

func (r *rows) add(i int) {
	for k, c := range r.of {
		switch from := r.from.Column(c).(type) {
		case *array.String:
			r.to.Field(k).(*array.StringBuilder).Append(from.Value(i))
		case *array.Float32:
			if b := r.to.Field(k).(*array.Float32Builder); from.IsNull(i) {
				b.AppendNull()
			} else {
				b.Append(from.Value(i))
			}
		}
	}
}

func (r *rows) encode() ([]byte, error) {
	rec := r.to.NewRecord()
	defer rec.Release()
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(r.schema))
	if err := w.Write(rec); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// readLate reads each answer's probability of being late: the second of column probabilities.
func readLate(body []byte) ([]float64, error) {
	r, err := ipc.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the answer: %w", err)
	}
	defer r.Release()
	var p []float64
	for r.Next() {
		list, ok := r.Record().Column(r.Schema().FieldIndices("probabilities")[0]).(*array.FixedSizeList)
		if !ok {
			return nil, fmt.Errorf("the answer's probabilities are no tensor")
		}
		values := list.ListValues().(*array.Float32)
		for i := range list.Len() {
			from, _ := list.ValueOffsets(i)
			p = append(p, float64(values.Value(int(from)+1)))
		}
	}
	return p, r.Err()
}
