package files

import (
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/parquet/compress"

	"github.com/leatstream/leat/schemas"
)

func floatSchema(n int) *schemas.Schema {
	fs := make([]schemas.Field, n)
	for i := range fs {
		fs[i] = schemas.Field{Name: fmt.Sprintf("f%02d", i), Type: schemas.Float32}
	}
	return schemas.MustSchema(fs...)
}

func floats(s *schemas.Schema, rows int) arrow.Record {
	b := schemas.NewBatch(s)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range s.Len() {
		for range rows {
			schemas.Append(b.Column(i), rng.Float32())
			b.Column(i).EndRow()
		}
	}
	b.Advance(rows)
	rec, _ := b.Record(nil)
	return rec
}

const benchRows = 500_000

func benchFile(b *testing.B, format Format, rows int) string {
	path := filepath.Join(b.TempDir(), "bench."+string(format))
	s := floatSchema(13)
	w, err := Create(path, s.Arrow(), WriterOptions{})
	if err != nil {
		b.Fatal(err)
	}
	rec := floats(s, rows)
	for at := int64(0); at < int64(rows); at += DefaultBatchRows {
		part := rec.NewSlice(at, min(at+DefaultBatchRows, int64(rows)))
		if err := w.Write(part); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		b.Fatal(err)
	}
	return path
}

func benchRead(b *testing.B, format Format, rows int, o Options) {
	path := benchFile(b, format, rows)
	b.ReportAllocs()
	for b.Loop() {
		r, err := Open(b.Context(), path, o)
		if err != nil {
			b.Fatal(err)
		}
		n := int64(0)
		for {
			rec, err := r.Next(b.Context())
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			n += rec.NumRows()
			rec.Release()
		}
		r.Close()
		if n != int64(rows) {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkReadParquet(b *testing.B) { benchRead(b, Parquet, benchRows, Options{}) }
func BenchmarkReadParquet3(b *testing.B) {
	benchRead(b, Parquet, benchRows, Options{Columns: []string{"f00", "f05", "f12"}})
}
func BenchmarkReadArrowFile(b *testing.B)   { benchRead(b, Arrow, benchRows, Options{}) }
func BenchmarkReadArrowStream(b *testing.B) { benchRead(b, Stream, benchRows, Options{}) }
func BenchmarkReadCSV(b *testing.B)         { benchRead(b, CSV, 50_000, Options{Want: floatSchema(13)}) }
func BenchmarkReadNDJSON(b *testing.B)      { benchRead(b, NDJSON, 50_000, Options{Want: floatSchema(13)}) }

// BenchmarkWriteParquet writes the 13 inputs and a score, with each codec.
func BenchmarkWriteParquet(b *testing.B) {
	s := floatSchema(14)
	rec := floats(s, benchRows)
	for _, codec := range []compress.Compression{compress.Codecs.Uncompressed, compress.Codecs.Snappy, compress.Codecs.Zstd} {
		b.Run(codec.String(), func(b *testing.B) {
			old := parquetCodec
			parquetCodec = codec
			defer func() { parquetCodec = old }()
			b.ReportAllocs()
			for b.Loop() {
				w, err := Create(filepath.Join(b.TempDir(), "w.parquet"), s.Arrow(), WriterOptions{})
				if err != nil {
					b.Fatal(err)
				}
				for at := int64(0); at < benchRows; at += DefaultBatchRows {
					part := rec.NewSlice(at, min(at+DefaultBatchRows, benchRows))
					if err := w.Write(part); err != nil {
						b.Fatal(err)
					}
					part.Release()
				}
				if err := w.Commit(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(benchRows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
