package combine_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// number reads element e as a float64, and exactly as an integer if it is none of a float.
func number(c *schemas.Column, e int) (float64, *big.Int) {
	b, t := schemastest.Bytes(c, e), c.Field().Type
	switch t {
	case schemas.Float16:
		return schemas.Float16Value(binary.LittleEndian.Uint16(b)), nil
	case schemas.Float32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), nil
	case schemas.Float64:
		return math.Float64frombits(binary.LittleEndian.Uint64(b)), nil
	}
	i := new(big.Int)
	for k := len(b) - 1; k >= 0; k-- {
		i.Lsh(i, 8).Or(i, big.NewInt(int64(b[k])))
	}
	if signed := t >= schemas.Int8 && t <= schemas.Int64 || t == schemas.Timestamp; signed && b[len(b)-1] >= 0x80 {
		i.Sub(i, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	f, _ := new(big.Float).SetInt(i).Float64()
	return f, i
}

// bits writes x as an element of a float type.
func bits(t schemas.DType, x float64) []byte {
	if x != x {
		x = math.Float64frombits(0x7ff8 << 48)
	}
	switch t {
	case schemas.Float16:
		return binary.LittleEndian.AppendUint16(nil, schemas.Float16Bits(x))
	case schemas.Float32:
		return binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(x)))
	}
	return binary.LittleEndian.AppendUint64(nil, math.Float64bits(x))
}

// oracle is what element e of the answer should be, of the columns that take part; at least one does.
func oracle(kind string, to schemas.DType, cols []*schemas.Column, weights []int, e int) []byte {
	if len(cols) == 1 && cols[0].Field().Type == to {
		return schemastest.Bytes(cols[0], e)
	}
	var xs []float64
	sum, total, isNaN := math.Copysign(0, -1), 0.0, false
	for i, c := range cols {
		if kind == combine.MajorityVote || kind == combine.WeightedVote {
			break
		}
		x, _ := number(c, e)
		w := float64(weights[i])
		if kind != combine.WeightedMean || len(cols) == 1 {
			w = 1
		}
		xs, isNaN = append(xs, x), isNaN || x != x
		sum, total = sum+float64(w*x), total+w
	}
	switch kind {
	case combine.Mean, combine.WeightedMean:
		return bits(to, sum/total)
	case combine.Median:
		slices.Sort(xs)
		n := len(xs)
		if isNaN {
			return bits(to, math.NaN())
		}
		if n%2 == 1 {
			return bits(to, xs[n/2])
		}
		return bits(to, (xs[n/2-1]+xs[n/2])/2)
	case combine.Max:
		best := cols[0]
		if isNaN && to.Float() {
			return bits(to, math.NaN())
		}
		for _, c := range cols {
			x, i := number(c, e)
			y, j := number(best, e)
			if i != nil && i.Cmp(j) > 0 || i == nil && (x > y || x == y && !math.Signbit(x)) {
				best = c
			}
		}
		return schemastest.Bytes(best, e)
	}
	var winner []byte
	most := 0
	for _, c := range cols {
		label, votes := schemastest.Bytes(c, e), 0
		for k, o := range cols {
			if bytes.Equal(schemastest.Bytes(o, e), label) {
				if votes++; kind == combine.WeightedVote {
					votes += weights[k] - 1
				}
			}
		}
		if votes > most {
			winner, most = label, votes
		}
	}
	return winner
}

// few appends one of a few values, so that votes tie and numbers meet.
func few(c *schemas.Column, r *rand.Rand) {
	floats := []float64{0, math.Copysign(0, -1), 0.5, 0.1, -1, math.NaN(), math.Inf(1), math.Inf(-1)}
	x := floats[r.IntN(len(floats))]
	switch t := c.Field().Type; {
	case t.Variable():
		c.AppendString([]string{"", "late", "on time"}[r.IntN(3)])
	case t == schemas.Float16:
		schemas.Append(c, schemas.Float16Bits(x))
	case t == schemas.Float32:
		schemas.Append(c, float32(x))
	case t == schemas.Float64:
		schemas.Append(c, x)
	case t == schemas.Bool:
		c.AppendBool(r.IntN(2) == 0)
	case t.Size() == 1:
		schemas.Append(c, uint8(r.IntN(3)))
	case t.Size() == 2:
		schemas.Append(c, uint16(r.IntN(3)))
	case t.Size() == 4:
		schemas.Append(c, uint32(r.IntN(3)))
	default:
		schemas.Append(c, uint64(r.IntN(3)))
	}
}

// fill appends n random rows.
func fill(b *schemas.Batch, r *rand.Rand, n int, element func(*schemas.Column, *rand.Rand)) {
	for i := range b.Schema().Len() {
		c := b.Column(i)
		for range n {
			if c.Field().Nullable && r.IntN(3) == 0 {
				c.AppendNull()
				continue
			}
			for range c.Width() {
				element(c, r)
			}
			c.EndRow()
		}
	}
	b.Advance(n)
}

// Random ensembles answer as the oracle says, to the bit: every kind over every dtype, scalars and tensors, with nulls,
// missing members and ranges of rows, appended to what is there.
func TestAgainstOracle(t *testing.T) {
	batches, cells, kinds := 10_000, 0, map[string]int{}
	for seed := range uint64(batches) {
		r := rand.New(rand.NewPCG(seed, 5))
		kind := combine.Kinds[r.IntN(len(combine.Kinds)-1)] // TestConcat has the last
		members := make([]combine.Member, 1+r.IntN(6))
		var shape [][]int
		var types []schemas.DType
		for len(types) < 1+r.IntN(3) {
			if d := schemastest.DTypes()[r.IntN(len(schemastest.DTypes()))]; fits(kind, d) {
				types, shape = append(types, d), append(shape, [][]int{nil, {2}, {2, 3}}[r.IntN(3)])
			}
		}
		element := []func(*schemas.Column, *rand.Rand){few, schemastest.Element}[r.IntN(2)]
		rows := r.IntN(12)
		if r.IntN(100) == 0 {
			rows = 300 + r.IntN(300) // more than is summed at a time
		}
		present := make([]*schemas.Batch, len(members))
		for m := range members {
			var fs []schemas.Field
			for i, d := range types {
				fs = append(fs, schemas.Field{Name: string(rune('a' + i)), Type: d, Shape: shape[i], Nullable: r.IntN(2) == 0})
			}
			if m > 0 {
				r.Shuffle(len(fs), func(i, j int) { fs[i], fs[j] = fs[j], fs[i] }) // by name, not by place
			}
			members[m] = combine.Member{Name: "m" + strings.Repeat("x", m), Output: schemas.MustSchema(fs...)}
			if strings.HasPrefix(kind, "weighted") {
				members[m].Weight = 1 + r.IntN(4)
			}
			present[m] = schemas.NewBatch(members[m].Output)
			fill(present[m], r, rows, element)
		}
		for m := range present {
			if r.IntN(4) == 0 && m != int(seed)%len(members) {
				present[m] = nil
			}
		}
		p, err := combine.New(kind, members)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		kinds[kind]++
		from := r.IntN(rows + 1)
		to := from + r.IntN(rows-from+1)
		dst := schemas.NewBatch(p.Output())
		for range r.IntN(3) {
			if err := p.Combine(present, dst, from, to); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		before := dst.Rows()
		if err := p.Combine(present, dst, from, to); err != nil || dst.Rows() != before+to-from {
			t.Fatalf("seed %d: %v, %d rows", seed, err, dst.Rows())
		}
		cells += compare(t, seed, kind, members, present, dst, before, from, to)
	}
	if cells < 100_000 || len(kinds) != len(combine.Kinds)-1 {
		t.Errorf("only %d elements compared, of %v", cells, kinds)
	}
}

// compare checks rows [at, at+to-from) of the answer and returns the number of elements.
func compare(t *testing.T, seed uint64, kind string, members []combine.Member, present []*schemas.Batch, dst *schemas.Batch, at, from, to int) (n int) {
	t.Helper()
	divisor := 0 // weights are cut by it, which the bits of a sum may show
	for _, m := range members {
		divisor = int(new(big.Int).GCD(nil, nil, big.NewInt(int64(divisor)), big.NewInt(int64(m.Weight))).Int64())
	}
	for i := range dst.Schema().Len() {
		c := dst.Column(i)
		for row := from; row < to; row++ {
			var cols []*schemas.Column
			var weights []int
			for m, b := range present {
				if b == nil {
					continue
				}
				if v := b.Column(b.Schema().Index(c.Field().Name)); !v.IsNull(row) {
					cols, weights = append(cols, v), append(weights, members[m].Weight/max(divisor, 1))
				}
			}
			if c.IsNull(at+row-from) != (len(cols) == 0) {
				t.Fatalf("seed %d: %s of %s, row %d: null %v of %d values", seed, kind, c.Field(), row, len(cols) != 0, len(cols))
			}
			for e := range c.Width() {
				if len(cols) == 0 {
					break
				}
				want := oracle(kind, c.Field().Type, cols, weights, row*c.Width()+e)
				if got := schemastest.Bytes(c, (at+row-from)*c.Width()+e); !bytes.Equal(got, want) {
					t.Fatalf("seed %d: %s of %s, row %d, element %d: %x, want %x", seed, kind, c.Field(), row, e, got, want)
				}
				n++
			}
		}
	}
	return n
}

func fits(kind string, d schemas.DType) bool {
	switch kind {
	case combine.Mean, combine.WeightedMean, combine.Median:
		return d.Integer() || d.Float()
	case combine.Max:
		return !d.Variable()
	}
	return kind == combine.Concat || !d.Float()
}
