package onnx_test

import (
	"context"
	"fmt"
	"io/fs"
	"testing"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
	"github.com/leatstream/leat/scorers/scorertest"
)

var benchRows = []int{1, 64, 256, 1024}

// BenchmarkScore and BenchmarkBare are read side by side: the same model and rows, through a scorer and through the binding
// alone with tensors made beforehand.
func BenchmarkScore(b *testing.B) {
	for _, name := range []string{"flight-boost", "flight-delay", "linear", "mlp"} {
		s, _ := load(b, pkg(b, name))
		for _, n := range benchRows {
			in := scorertest.Rows(s.Signature().Inputs, n)
			out := schemas.NewBatch(s.Signature().Outputs)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					out.Reset()
					if err := s.Score(context.Background(), in, out); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n)/1e3, "us/row")
			})
		}
	}
}

func BenchmarkBare(b *testing.B) {
	for _, name := range []string{"flight-boost", "flight-delay", "linear", "mlp"} {
		p, probed := prepared(b, pkg(b, name))
		for _, n := range benchRows {
			run := bare(b, must(fs.ReadFile(p.Files, p.Manifest.File)), probed.Signature, n)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := run(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n)/1e3, "us/row")
			})
		}
	}
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
