package onnx_test

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"testing"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
	"github.com/leatstream/leat/scorers/scorertest"
)

var benchRows = []int{1, 64, 256, 1024}

// BenchmarkScore times a score and a run of the binding alone, with tensors made beforehand, in turn on the same rows, so
// that both meet the same noise. It reports the medians of both and their ratio.
func BenchmarkScore(b *testing.B) {
	for _, name := range []string{"flight-boost", "flight-delay", "linear", "mlp"} {
		p, probed := prepared(b, pkg(b, name))
		s, _ := load(b, pkg(b, name))
		for _, n := range benchRows {
			in := scorertest.Rows(s.Signature().Inputs, n)
			out := schemas.NewBatch(s.Signature().Outputs)
			run := bare(b, must(fs.ReadFile(p.Files, p.Manifest.File)), probed.Signature, n)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				var scores, bares []time.Duration
				for b.Loop() {
					out.Reset()
					start := time.Now()
					if err := s.Score(context.Background(), in, out); err != nil {
						b.Fatal(err)
					}
					middle := time.Now()
					if err := run(); err != nil {
						b.Fatal(err)
					}
					scores, bares = append(scores, middle.Sub(start)), append(bares, time.Since(middle))
				}
				score, bare := median(scores), median(bares)
				b.ReportMetric(0, "ns/op") // the sum of both says nothing
				b.ReportMetric(score, "score-us")
				b.ReportMetric(bare, "bare-us")
				b.ReportMetric(score/bare, "ratio")
				b.ReportMetric(score/float64(n), "us/row")
			})
		}
	}
}

// median returns the middle of the durations in microseconds.
func median(ds []time.Duration) float64 {
	slices.Sort(ds)
	return float64(ds[len(ds)/2].Nanoseconds()) / 1e3
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// bare returns a run of the binding with tensors that are made once; strings are filled anew, as any caller must.
func bare(b *testing.B, model []byte, sig schemas.Signature, n int) func() error {
	in := scorertest.Rows(sig.Inputs, n)
	file := must(onnxfile.Parse(model))
	o := must(ort.NewSessionOptions())
	defer o.Destroy()
	must(0, o.SetIntraOpNumThreads(1))
	must(0, o.SetInterOpNumThreads(1))
	var names, outNames []string
	var ins, outs []ort.Value
	texts := map[*ort.StringTensor][]string{}
	for i, v := range file.Inputs {
		names = append(names, v.Name)
		c := in.Column(i)
		shape := ort.NewShape(int64(n), int64(c.Width()))
		if v.Elem != onnxfile.String {
			ins = append(ins, must(ort.NewCustomDataTensor(shape, c.Data(), ort.TensorElementDataType(v.Elem))))
			continue
		}
		t := must(ort.NewStringTensor(shape))
		for r := range n {
			texts[t] = append(texts[t], string(c.Text(r)))
		}
		ins = append(ins, t)
	}
	for i, v := range file.Outputs {
		outNames = append(outNames, v.Name)
		f := sig.Outputs.Field(i)
		shape := ort.NewShape(int64(n))
		if len(v.Dims) == 2 {
			shape = ort.NewShape(int64(n), int64(f.Width()))
		}
		outs = append(outs, must(ort.NewCustomDataTensor(shape, make([]byte, n*f.Width()*f.Type.Size()), ort.TensorElementDataType(v.Elem))))
	}
	s := must(ort.NewDynamicAdvancedSessionWithONNXData(model, names, outNames, o))
	b.Cleanup(func() {
		must(0, s.Destroy())
		for _, v := range append(ins, outs...) {
			must(0, v.Destroy())
		}
	})
	return func() error {
		for t, ss := range texts {
			if err := t.SetContents(ss); err != nil {
				return err
			}
		}
		return s.Run(ins, outs)
	}
}

func BenchmarkLoad(b *testing.B) {
	p, probed := prepared(b, pkg(b, "flight-boost"))
	for b.Loop() {
		s, err := loader(b).Load(context.Background(), p, probed)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
