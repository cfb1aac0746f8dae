package combine_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// Numbers next to those that begin or end the range of a type, one by one, of every type into every type.
func TestStackDirectEdges(t *testing.T) {
	var edges []float64
	for _, k := range []int{0, 7, 8, 11, 15, 16, 24, 31, 32, 53, 63, 64, 127, 128} {
		for _, x := range []float64{math.Ldexp(1, k), math.Ldexp(-1, k)} {
			edges = append(edges, x, math.Nextafter(x, 0), math.Nextafter(x, 2*x), x-1, x+1, x/2+0.5)
		}
	}
	fits := 0
	for _, from := range schemastest.DTypes() {
		for _, to := range schemastest.DTypes() {
			if !(from.Integer() || from.Float()) || !(to.Integer() || to.Float()) {
				continue
			}
			b := schemas.NewBatch(schema(field("x", from)))
			for _, x := range edges {
				c := b.Column(0)
				switch i := int64(x); {
				case from.Float():
					put(c, x)
				case from == schemas.Uint64:
					put(c, uint64(i)+1)
				case from == schemas.Int64:
					put(c, int(i)+1)
				case from.Size() == 4:
					put(c, int(int32(i)))
				default:
					put(c, int(i)) // cut to its size
				}
			}
			b.Advance(len(edges))
			model := schema(field("x", to))
			s, err := combine.NewStack([]combine.Member{member("a!", b.Schema())}, nil, model)
			if err != nil {
				t.Fatal(err)
			}
			slow, _ := s.Projected()
			work, got, want := schemas.NewBatch(s.Work()), schemas.NewBatch(model), schemas.NewBatch(model)
			for i := range edges {
				bad1, err1 := s.Append([]*schemas.Batch{b}, nil, work, got, i, i+1, nil)
				bad2, err2 := slow.Append([]*schemas.Batch{b}, nil, work, want, i, i+1, nil)
				if err1 != nil || err2 != nil || len(bad1) != len(bad2) {
					x, _ := number(b.Column(0), i)
					t.Errorf("%v from %s to %s: %v %v, %v %v", x, from, to, err1, err2, bad1, bad2)
				}
			}
			if d := schemastest.Diff(got, want); d != "" {
				t.Errorf("%s to %s: %s", from, to, d)
			}
			fits += got.Rows()
		}
	}
	if fits < 5000 {
		t.Errorf("only %d numbers fit", fits)
	}
}

// The direct way makes the same rows and the same errors as the Projection: numbers of every type into every type, whole
// tensors, elements of them, and packed.
func TestStackDirect(t *testing.T) {
	var numbers []schemas.DType
	for _, d := range schemastest.DTypes() {
		if !d.Variable() && d != schemas.Timestamp {
			numbers = append(numbers, d)
		}
	}
	taken, rows := 0, 0
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 11))
		from, to := numbers[r.IntN(len(numbers))], numbers[1+r.IntN(len(numbers)-1)]
		out := schema(field("x", from), field("v", from, 3), field("t", schemas.Timestamp), field("s", schemas.String))
		if r.IntN(4) == 0 {
			out = schema(null(field("x", from)), field("v", from, 3), field("t", schemas.Timestamp), field("s", schemas.String))
		}
		nullable := out.Field(0).Nullable
		x, p := field("a_x", to), named(field("p", to, 3), "v_2", "x", "w")
		x.Nullable, p.Nullable = nullable, nullable
		if nullable && !to.Float() {
			p.Features[1] = "v_1"
		}
		model := schema(x, field("v", to, 3), field("v_0", to), field("t", schemas.Timestamp), p, field("a_s", schemas.String))
		req := schemas.NewBatch(schema(field("w", from)))
		s, err := combine.NewStack([]combine.Member{member("a!", out)}, req.Schema(), model)
		if err != nil {
			t.Fatal(err)
		}
		slow, direct := s.Projected()
		if !direct {
			t.Fatalf("seed %d: %s to %s is not direct", seed, from, to)
		}
		n := r.IntN(8)
		if r.IntN(50) == 0 {
			n = 600 // more than is cast at a time
		}
		b := schemas.NewBatch(out)
		element := []func(*schemas.Column, *rand.Rand){few, schemastest.Element}[r.IntN(2)]
		fill(b, r, n, element)
		fill(req, r, n, element)
		present := []*schemas.Batch{b}
		at := r.IntN(n + 1)
		work, got, want := schemas.NewBatch(s.Work()), schemas.NewBatch(model), schemas.NewBatch(model)
		fill(got, r, 2, few)
		want.AppendRange(got, 0, 2)
		bad1, err1 := s.Append(present, req, work, got, at, n, nil)
		if work.Rows() == 0 && n > at {
			taken++
		}
		bad2, err2 := slow.Append(present, req, work, want, at, n, nil)
		if err1 != nil || err2 != nil || len(bad1) != len(bad2) {
			t.Fatalf("seed %d: %v %v, %v %v", seed, err1, err2, bad1, bad2)
		}
		if d := schemastest.Diff(got, want); d != "" {
			t.Fatalf("seed %d: %s to %s: %s", seed, from, to, d)
		}
		rows += got.Rows()
	}
	if taken < 1500 || rows < 20_000 {
		t.Errorf("only %d batches went the direct way, %d rows", taken, rows)
	}
}

// Nothing is allocated the direct way, and the other way what a call allocates does not grow with its rows.
func TestStackAllocations(t *testing.T) {
	count := func(rows int, projected bool) float64 {
		s, present, req, work, dst := stacked(t, rows)
		if projected {
			s, _ = s.Projected()
		}
		return testing.AllocsPerRun(20, func() {
			dst.Reset()
			if _, err := s.Append(present, req, work, dst, 0, rows, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
	if n := count(1000, false); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if one, many := count(1, true), count(1000, true); one != many {
		t.Errorf("%v allocations for one row, %v for 1000", one, many)
	}
}

func BenchmarkStack(b *testing.B) {
	for _, rows := range []int{1, benchRows} {
		for _, way := range []string{"direct", "projected"} {
			b.Run(fmt.Sprintf("%s/rows=%d", way, rows), func(b *testing.B) {
				s, present, req, work, dst := stacked(b, rows)
				if way == "projected" {
					s, _ = s.Projected()
				}
				b.ReportAllocs()
				for b.Loop() {
					dst.Reset()
					if _, err := s.Append(present, req, work, dst, 0, rows, nil); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
			})
		}
	}
}

// stacked is a stack of three members' probabilities and ten of the request's columns, packed.
func stacked(tb testing.TB, rows int) (s *combine.Stack, present []*schemas.Batch, req, work, dst *schemas.Batch) {
	tb.Helper()
	f := field("features", schemas.Float32, 16)
	var ms []combine.Member
	var in []schemas.Field
	for i := range 3 {
		m := combine.Member{Name: fmt.Sprintf("m%d", i), Required: true, Output: classifier()}
		f.Features = append(f.Features, m.Name+"_label", m.Name+"_probabilities_1")
		b := schemas.NewBatch(m.Output)
		fill(b, rand.New(rand.NewPCG(uint64(i), 3)), rows, plain)
		ms, present = append(ms, m), append(present, b)
	}
	for i := range 10 {
		in = append(in, field(fmt.Sprintf("x%d", i), schemas.Float32))
		f.Features = append(f.Features, in[i].Name)
	}
	req = schemas.NewBatch(schema(in...))
	fill(req, rand.New(rand.NewPCG(9, 3)), rows, plain)
	s, err := combine.NewStack(ms, req.Schema(), schema(f))
	if err != nil {
		tb.Fatal(err)
	}
	return s, present, req, schemas.NewBatch(s.Work()), schemas.NewBatch(schema(f))
}
