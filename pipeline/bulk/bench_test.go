package bulk

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

// BenchmarkParquetToParquet measures everything but the model: 13 float columns into a packed tensor, one score out, all
// recorded in the lineage. The figure is ns a row of wall time on all cores, with the server in the same process.
func BenchmarkParquetToParquet(b *testing.B) {
	const n = 1 << 19
	w := newWorld(b)
	w.config.ChunkRows, w.config.Parallel = Default().ChunkRows, Default().Parallel
	w.config.QueueBytes, w.config.ResultBytes = 64<<20, 256<<20
	w.lin.JobsMaxBytes = 4 << 30
	w.features = 13
	p := w.start("x")
	src := w.writeFeatures("in.parquet", n, 13)
	for b.Loop() {
		dst := filepath.Join(w.dir, fmt.Sprintf("out-%d.parquet", time.Now().UnixNano()))
		v := p.job(RunRequest{From: src, To: dst})
		v = p.wait(v.ID, ended)
		if v.Status != Done || v.Scored != n {
			b.Fatalf("%+v", v)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/row")
}

func (w *world) writeFeatures(name string, rows, features int) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	fs := make([]schemas.Field, features)
	for i := range fs {
		fs[i] = schemas.Field{Name: fmt.Sprint("f", i), Type: schemas.Float32}
	}
	b := schemas.NewBatch(schemas.MustSchema(fs...))
	for i := range rows {
		for c := range fs {
			schemas.Append(b.Column(c), float32(i*31+c*7%1000)/3)
			b.Column(c).EndRow()
		}
	}
	b.Advance(rows)
	out, err := diskFiles{}.Create(path, b.Schema().Arrow())
	if err == nil {
		if err = writeBatch(out, b); err == nil {
			err = out.Commit()
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return path
}

// summed is the model of the benchmark: a packed tensor in, a float out.
func summed(features int) schemas.Signature {
	names := make([]string, features)
	for i := range names {
		names[i] = fmt.Sprint("f", i)
	}
	return schemas.Signature{
		Inputs:  schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{features}, Features: names}),
		Outputs: schemas.MustSchema(schemas.Field{Name: "probability", Type: schemas.Float32}),
	}
}

func sum(in, out *schemas.Batch) {
	x := schemas.Values[float32](in.Column(0))
	k := in.Column(0).Width()
	for i := range in.Rows() {
		s := float32(0)
		for _, v := range x[i*k : (i+1)*k] {
			s += v
		}
		schemas.Append(out.Column(0), s)
		out.Column(0).EndRow()
	}
	out.Advance(in.Rows())
}
