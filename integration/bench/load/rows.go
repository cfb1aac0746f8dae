package load

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"
)

// Features are the columns of the boosted model's one tensor, in its order.
var Features = []string{"dep_delay", "sched_dep_minute", "sched_clock_minutes", "day_of_week", "distance", "temp",
	"humid", "wind_speed", "precip", "pressure", "visib", "plane_age", "seats"}

// Rows are departures as the model reads them: row-major [N,13], NaN where the sample has a null.
type Rows struct {
	N      int
	Values []float32
	Keys   []string // tail number, "" if unknown
}

// Row returns one row's values.
func (r *Rows) Row(i int) []float32 { n := len(Features); return r.Values[i*n : (i+1)*n] }

// ReadRows reads the sample of examples/flights.
func ReadRows(ctx context.Context, path string) (*Rows, error) {
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer func() { _ = f.Close() }()
	pr, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("load: %s: %w", path, err)
	}
	t, err := pr.ReadTable(ctx)
	if err != nil {
		return nil, fmt.Errorf("load: %s: %w", path, err)
	}
	defer t.Release()
	rows := &Rows{N: int(t.NumRows()), Values: make([]float32, int(t.NumRows())*len(Features)), Keys: make([]string, t.NumRows())}
	for j, name := range Features {
		if err := column(t, name, func(a arrow.Array, i, row int) bool {
			c, ok := a.(*array.Float32)
			if ok {
				v := float32(math.NaN())
				if !c.IsNull(i) {
					v = c.Value(i)
				}
				rows.Values[row*len(Features)+j] = v
			}
			return ok
		}); err != nil {
			return nil, fmt.Errorf("load: %s: %w", path, err)
		}
	}
	err = column(t, "tailnum", func(a arrow.Array, i, row int) bool {
		c, ok := a.(*array.String)
		if ok && !c.IsNull(i) {
			rows.Keys[row] = c.Value(i)
		}
		return ok
	})
	if err != nil {
		return nil, fmt.Errorf("load: %s: %w", path, err)
	}
	return rows, nil
}

// column calls set for each value of a named column until it says that the type is not the one expected.
func column(t arrow.Table, name string, set func(a arrow.Array, i, row int) bool) error {
	at := t.Schema().FieldIndices(name)
	if len(at) != 1 {
		return fmt.Errorf("no column %q", name)
	}
	row := 0
	for _, a := range t.Column(at[0]).Data().Chunks() {
		for i := range a.Len() {
			if !set(a, i, row) {
				return fmt.Errorf("column %q has type %s", name, a.DataType())
			}
			row++
		}
	}
	return nil
}

// Complete returns up to most rows without a null, spread over the whole sample.
func (r *Rows) Complete(most int) *Rows {
	var whole []int
	for i := range r.N {
		ok := true
		for _, v := range r.Row(i) {
			ok = ok && v == v
		}
		if ok {
			whole = append(whole, i)
		}
	}
	most = min(most, len(whole))
	out := &Rows{N: most}
	for k := range most {
		i := whole[k*len(whole)/most]
		out.Values = append(out.Values, r.Row(i)...)
		out.Keys = append(out.Keys, r.Keys[i])
	}
	return out
}

// Native returns one request in native JSON for each row.
func (r *Rows) Native() [][]byte {
	out := make([][]byte, r.N)
	for i := range out {
		b := []byte(`{"rows":[{`)
		for j, v := range r.Row(i) {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendQuote(b, Features[j])
			b = append(b, ':')
			b = strconv.AppendFloat(b, float64(v), 'g', -1, 32)
		}
		out[i] = append(b, `}]}`...)
	}
	return out
}

// OIP returns one Open Inference Protocol request for each row.
func (r *Rows) OIP() [][]byte {
	out := make([][]byte, r.N)
	for i := range out {
		b := []byte(`{"inputs":[{"name":"features","shape":[1,13],"datatype":"FP32","data":[`)
		for j, v := range r.Row(i) {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendFloat(b, float64(v), 'g', -1, 32)
		}
		out[i] = append(b, `]}]}`...)
	}
	return out
}
