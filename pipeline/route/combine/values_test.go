package combine_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// answers is one column x of each member: one value a row, nil for null; a nil member did not answer.
type answers [][]any

// put appends one value, as Go has it: float16 as float64, timestamps as int64.
func put(c *schemas.Column, v any) {
	switch t := c.Field().Type; v := v.(type) {
	case nil:
		c.AppendNull()
		return
	case string:
		c.AppendString(v)
	case bool:
		c.AppendBool(v)
	case int:
		switch t.Size() {
		case 1:
			schemas.Append(c, int8(v))
		case 2:
			schemas.Append(c, int16(v))
		case 4:
			schemas.Append(c, int32(v))
		default:
			schemas.Append(c, int64(v))
		}
	case uint64:
		schemas.Append(c, v)
	case float64:
		switch t {
		case schemas.Float16:
			schemas.Append(c, schemas.Float16Bits(v))
		case schemas.Float32:
			schemas.Append(c, float32(v))
		default:
			schemas.Append(c, v)
		}
	}
	c.EndRow()
}

// take writes one value of the answer.
func take(c *schemas.Column, row int) string {
	if c.IsNull(row) {
		return "null"
	}
	switch t := c.Field().Type; {
	case t.Variable():
		return string(c.Text(row))
	case t == schemas.Bool:
		return fmt.Sprint(c.Data()[row] == 1)
	default:
		f, i := number(c, row)
		if i != nil {
			return i.String()
		}
		return fmt.Sprint(f)
	}
}

func TestRules(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name, kind string
		dtype      schemas.DType
		weights    []int
		members    answers
		want       string // rows
	}{
		{"mean", combine.Mean, schemas.Float64, nil, answers{{1.0, 0.25}, {2.0, 0.5}}, "1.5 0.375"},
		{"mean of integers", combine.Mean, schemas.Int64, nil, answers{{0, 1}, {1, 1}, {1, 1}}, "0.6666666666666666 1"},
		{"mean of the largest integers", combine.Mean, schemas.Uint64, nil, answers{{uint64(math.MaxUint64)}, {uint64(math.MaxUint64)}}, "1.8446744073709552e+19"},
		{"mean of int8 at its ends", combine.Mean, schemas.Int8, nil, answers{{127, -128}, {127, -128}, {127, -128}}, "127 -128"},
		{"mean of three equal float32", combine.Mean, schemas.Float32, nil, answers{{float64(float32(0.1))}, {float64(float32(0.1))}, {float64(float32(0.1))}}, fmt.Sprint(float64(float32(0.1)))},
		{"mean of large float32 does not overflow", combine.Mean, schemas.Float32, nil, answers{{math.MaxFloat32}, {math.MaxFloat32}}, fmt.Sprint(math.MaxFloat32)},
		{"mean of large float16 does not overflow", combine.Mean, schemas.Float16, nil, answers{{65504.0}, {65504.0}}, "65504"},
		{"a sum of float64 beyond its range", combine.Mean, schemas.Float64, nil, answers{{math.MaxFloat64}, {math.MaxFloat64}}, "+Inf"},
		{"summed in the order of the spec", combine.Mean, schemas.Float64, nil, answers{{1e16, 1.0}, {1.0, 1e16}, {-1e16, -1e16}}, "0 0"},
		{"summed in another order", combine.Mean, schemas.Float64, nil, answers{{1e16}, {-1e16}, {1.0}}, "0.3333333333333333"},
		{"mean without the null", combine.Mean, schemas.Float64, nil, answers{{1.0, nil, nil}, {3.0, 3.0, nil}}, "2 3 null"},
		{"mean without the missing", combine.Mean, schemas.Float64, nil, answers{{1.0}, nil, {3.0}}, "2"},
		{"NaN is a value", combine.Mean, schemas.Float64, nil, answers{{nan, nan}, {3.0, nil}}, "NaN NaN"},
		{"infinities that cancel", combine.Mean, schemas.Float32, nil, answers{{inf, inf}, {-inf, 1.0}}, "NaN +Inf"},
		{"negative zeros", combine.Mean, schemas.Float64, nil, answers{{math.Copysign(0, -1)}, {math.Copysign(0, -1)}}, "-0"},
		{"weighted mean", combine.WeightedMean, schemas.Float64, []int{3, 1}, answers{{1.0}, {5.0}}, "2"},
		{"weighted mean in parts per 10,000", combine.WeightedMean, schemas.Float64, []int{7500, 2500}, answers{{1.0}, {5.0}}, "2"},
		{"weights over those that answered", combine.WeightedMean, schemas.Float64, []int{50, 30, 20}, answers{{1.0, 1.0}, nil, {8.0, nil}}, "3 1"},
		{"alone, a value to the bit", combine.WeightedMean, schemas.Float64, []int{3, 7}, answers{{0.1}, {nil}}, "0.1"},
		{"alone, an integer to the unit", combine.WeightedMean, schemas.Int64, []int{999_999, 1}, answers{{5_532_138_955_411_115}, {nil}}, "5.532138955411115e+15"},
		{"median of odd", combine.Median, schemas.Float32, nil, answers{{3.0}, {1.0}, {2.0}}, "2"},
		{"median of even", combine.Median, schemas.Float32, nil, answers{{3.0}, {1.0}, {2.0}, {10.0}}, "2.5"},
		{"median of integers", combine.Median, schemas.Int32, nil, answers{{3, -5}, {4, 5}}, "3.5 0"},
		{"median without null and missing", combine.Median, schemas.Float64, nil, answers{{3.0, 3.0}, nil, {5.0, nil}, {nil, nil}}, "4 3"},
		{"median of NaN", combine.Median, schemas.Float64, nil, answers{{1.0}, {nan}, {2.0}}, "NaN"},
		{"median of infinities", combine.Median, schemas.Float64, nil, answers{{inf}, {-inf}, {2.0}}, "2"},
		{"majority", combine.MajorityVote, schemas.String, nil, answers{{"late"}, {"on time"}, {"on time"}}, "on time"},
		{"a tie goes to the earliest member", combine.MajorityVote, schemas.String, nil, answers{{"z"}, {"a"}, {"a"}, {"z"}}, "z"},
		{"a tie without the earliest's label", combine.MajorityVote, schemas.String, nil, answers{{"c"}, {"b"}, {"a"}, {"a"}, {"b"}}, "b"},
		{"all differ", combine.MajorityVote, schemas.Int64, nil, answers{{7}, {3}, {1}}, "7"},
		{"a tie where the first is missing", combine.MajorityVote, schemas.Int64, nil, answers{nil, {3}, {1}}, "3"},
		{"a null has no vote", combine.MajorityVote, schemas.Bool, nil, answers{{nil, nil}, {nil, nil}, {true, nil}}, "true null"},
		{"majority of bools", combine.MajorityVote, schemas.Bool, nil, answers{{true}, {false}, {false}}, "false"},
		{"empty text is a label", combine.MajorityVote, schemas.Binary, nil, answers{{"a"}, {""}, {""}}, ""},
		{"weighted vote", combine.WeightedVote, schemas.Uint8, []int{5, 3, 3}, answers{{1}, {2}, {2}}, "2"},
		{"weighted tie", combine.WeightedVote, schemas.Uint8, []int{6, 3, 3}, answers{{1}, {2}, {2}}, "1"},
		{"weighted vote without the missing", combine.WeightedVote, schemas.Uint8, []int{5, 3, 3}, answers{{1}, {2}, nil}, "1"},
		{"the greatest weights", combine.WeightedVote, schemas.Int16, []int{combine.MaxWeight, combine.MaxWeight - 1, 1, 1}, answers{{1}, {2}, {2}, {2}}, "2"},
		{"max", combine.Max, schemas.Float32, nil, answers{{0.25, -2.0}, {0.75, -3.0}}, "0.75 -2"},
		{"max of int64 beyond float64", combine.Max, schemas.Int64, nil, answers{{math.MaxInt64 - 1}, {math.MaxInt64}}, "9223372036854775807"},
		{"max of uint64", combine.Max, schemas.Uint64, nil, answers{{uint64(1)}, {uint64(math.MaxUint64)}}, "18446744073709551615"},
		{"max of bools: any", combine.Max, schemas.Bool, nil, answers{{false, false}, {true, false}}, "true false"},
		{"max of timestamps: the latest", combine.Max, schemas.Timestamp, nil, answers{{-5}, {1_700_000_000_000_000_000}}, "1700000000000000000"},
		{"max of NaN", combine.Max, schemas.Float16, nil, answers{{nan}, {2.0}}, "NaN"},
		{"max of zeros", combine.Max, schemas.Float64, nil, answers{{math.Copysign(0, -1)}, {0.0}}, "0"},
		{"max without null and missing", combine.Max, schemas.Float64, nil, answers{{nil, nil}, nil, {-2.0, nil}}, "-2 null"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := schemas.MustSchema(schemas.Field{Name: "x", Type: c.dtype, Nullable: true})
			members := make([]combine.Member, len(c.members))
			present := make([]*schemas.Batch, len(c.members))
			rows := 0
			for i, vs := range c.members {
				members[i] = combine.Member{Name: fmt.Sprintf("m%d", i), Output: s}
				if c.weights != nil {
					members[i].Weight = c.weights[i]
				}
				if vs == nil {
					continue
				}
				present[i] = schemas.NewBatch(s)
				for _, v := range vs {
					put(present[i].Column(0), v)
				}
				rows = len(vs)
				present[i].Advance(rows)
			}
			p, err := combine.New(c.kind, members)
			if err != nil {
				t.Fatal(err)
			}
			dst := schemas.NewBatch(p.Output())
			if err := p.Combine(present, dst, 0, rows); err != nil {
				t.Fatal(err)
			}
			var got []string
			for r := range dst.Rows() {
				got = append(got, take(dst.Column(0), r))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("%s, want %s", s, c.want)
			}
		})
	}
}

// What each rule makes of each dtype, "-" for refused: the table of the documentation.
func TestTypes(t *testing.T) {
	kinds := []string{combine.Mean, combine.Median, combine.MajorityVote, combine.Max, combine.Concat}
	want := map[schemas.DType]string{
		schemas.Bool:      "- - bool bool bool",
		schemas.Int8:      "float64 float64 int8 int8 int8",
		schemas.Int16:     "float64 float64 int16 int16 int16",
		schemas.Int32:     "float64 float64 int32 int32 int32",
		schemas.Int64:     "float64 float64 int64 int64 int64",
		schemas.Uint8:     "float64 float64 uint8 uint8 uint8",
		schemas.Uint16:    "float64 float64 uint16 uint16 uint16",
		schemas.Uint32:    "float64 float64 uint32 uint32 uint32",
		schemas.Uint64:    "float64 float64 uint64 uint64 uint64",
		schemas.Float16:   "float16 float16 - float16 float16",
		schemas.Float32:   "float32 float32 - float32 float32",
		schemas.Float64:   "float64 float64 - float64 float64",
		schemas.String:    "- - string - string",
		schemas.Binary:    "- - binary - binary",
		schemas.Timestamp: "- - timestamp timestamp timestamp",
	}
	for _, d := range schemastest.DTypes() {
		for _, shape := range [][]int{nil, {2, 3}} {
			s := schemas.MustSchema(schemas.Field{Name: "x", Type: d, Shape: shape})
			var got []string
			for _, k := range kinds {
				for _, k := range []string{k, "weighted_" + strings.TrimPrefix(k, "majority_")} {
					w := 0
					if strings.HasPrefix(k, "weighted") {
						if w = 2; !slices.Contains(combine.Kinds, k) {
							continue
						}
					}
					p, err := combine.New(k, []combine.Member{{Name: "a", Weight: w, Output: s}, {Name: "b", Weight: w, Output: s}})
					g := "-"
					if err == nil {
						f := p.Output().Field(0)
						g = f.Type.String()
						if !slices.Equal(f.Shape, shape) {
							t.Errorf("%s of %s: shape %v, not %v", k, d, f.Shape, shape)
						}
					}
					if w == 0 {
						got = append(got, g)
					} else if got[len(got)-1] != g {
						t.Errorf("%s of %s: %s, but without weights %s", k, d, g, got[len(got)-1])
					}
				}
			}
			if g := strings.Join(got, " "); g != want[d] {
				t.Errorf("%s: %s, want %s", d, g, want[d])
			}
		}
	}
}

// Only proportions of weights count, to the bit; equal ones are the mean.
func TestWeightsAreProportions(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float64})
	xs := []float64{0.1, 0.7, 1e-3}
	value := func(kind string, weights ...int) float64 {
		var ms []combine.Member
		var present []*schemas.Batch
		for i, w := range weights {
			ms = append(ms, combine.Member{Name: fmt.Sprintf("m%d", i), Weight: w, Output: s})
			b := schemas.NewBatch(s)
			put(b.Column(0), xs[i])
			b.Advance(1)
			present = append(present, b)
		}
		p, err := combine.New(kind, ms)
		if err != nil {
			t.Fatal(err)
		}
		dst := schemas.NewBatch(p.Output())
		if err := p.Combine(present, dst, 0, 1); err != nil {
			t.Fatal(err)
		}
		return schemas.Values[float64](dst.Column(0))[0]
	}
	if a, b := value(combine.WeightedMean, 6000, 3000, 1000), value(combine.WeightedMean, 6, 3, 1); a != b {
		t.Errorf("6000, 3000, 1000: %v, and 6, 3, 1: %v", a, b)
	}
	if a, b := value(combine.WeightedMean, 7, 7, 7), value(combine.Mean, 0, 0, 0); a != b {
		t.Errorf("equal weights %v, mean %v", a, b)
	}
}
