package cells

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
)

// one puts a cell into a column of the type and prints what is there, or why it is not.
func one(typ schemas.DType, c Cell) string {
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: typ})
	b := schemas.NewBatch(s)
	p := PlanOf(s)
	r := p.Row()
	defer p.Free(r)
	r.Set(p.Target("x"), c)
	if err := r.AppendTo(b); err != nil {
		return err.Error()
	}
	b.Advance(1)
	return strings.TrimSuffix(strings.TrimPrefix(string(jsonrow.AppendObject(nil, b, 0)), `{"x":`), "}")
}

func TestConversions(t *testing.T) {
	for _, c := range []struct {
		typ  schemas.DType
		cell Cell
		want string
	}{
		{schemas.Int8, Int(-128), "-128"},
		{schemas.Int8, Int(128), "x: 128 is out of the range of int8"},
		{schemas.Int8, Float(127), "127"},
		{schemas.Int8, Float(1.5), "x: want an integer of int8, got 1.5"},
		{schemas.Int8, Float(math.NaN()), "x: want an integer of int8, got NaN"},
		{schemas.Int8, Float(math.Inf(1)), "x: +Inf is out of the range of int8"},
		{schemas.Int8, Bool(true), "1"},
		{schemas.Int8, String("1"), "x: text cannot be a value of int8"},
		{schemas.Int16, Uint(32768), "x: 32768 is out of the range of int16"},
		{schemas.Int32, Int(math.MinInt32), "-2147483648"},
		{schemas.Int64, Int(math.MinInt64), "-9223372036854775808"},
		{schemas.Int64, Uint(1 << 63), "x: 9223372036854775808 is out of the range of int64"},
		{schemas.Int64, Float(1 << 63), "x: 9.223372036854776e+18 is out of the range of int64"},
		{schemas.Int64, Float(-1 << 63), "-9223372036854775808"},
		{schemas.Uint8, Int(-1), "x: -1 is out of the range of uint8"},
		{schemas.Uint16, Int(65535), "65535"},
		{schemas.Uint32, Uint(1 << 32), "x: 4294967296 is out of the range of uint32"},
		{schemas.Uint64, Uint(math.MaxUint64), "18446744073709551615"},
		{schemas.Uint64, Int(-1), "x: -1 is out of the range of uint64"},
		{schemas.Uint64, Float(1 << 63), "9223372036854775808"},
		{schemas.Uint64, Float(1 << 64), "x: 1.8446744073709552e+19 is out of the range of uint64"},
		{schemas.Uint64, Float(-0.5), "x: want an integer of uint64, got -0.5"},
		{schemas.Uint64, Time(1), "x: a timestamp cannot be a value of uint64"},
		{schemas.Float16, Float(65519), "65500"},
		{schemas.Float16, Float(65520), "x: 65520 is out of the range of float16"},
		{schemas.Float16, Float(math.Inf(-1)), `"-Infinity"`},
		{schemas.Float32, Float(1e39), "x: 1e+39 is out of the range of float32"},
		{schemas.Float32, Float(math.NaN()), `"NaN"`},
		{schemas.Float32, Int(16777217), "16777216"}, // the nearest, as a JSON number
		{schemas.Float32, Int(1<<60 + 1<<36 + 1), "1152921600000000000"},
		{schemas.Float32, Uint(math.MaxUint64), "18446744000000000000"},
		{schemas.Float32, Bool(false), "0"},
		{schemas.Float64, Int(1<<53 + 1), "9007199254740992"},
		{schemas.Float64, Bytes([]byte("1")), "x: bytes cannot be a value of float64"},
		{schemas.Bool, Bool(true), "true"},
		{schemas.Bool, Int(1), "x: an integer cannot be a value of bool"},
		{schemas.String, String("a"), `"a"`},
		{schemas.String, Text(nil), `""`},
		{schemas.String, Bytes([]byte("b")), `"b"`},
		{schemas.String, Bytes([]byte{0xff}), "x: not UTF-8"},
		{schemas.String, Int(1), "x: an integer cannot be a value of string"},
		{schemas.Binary, String("a"), `"YQ=="`},
		{schemas.Binary, Bytes([]byte{0xff}), `"/w=="`},
		{schemas.Timestamp, Time(-1), `"1969-12-31T23:59:59.999999999Z"`},
		{schemas.Timestamp, Int(1), `"1970-01-01T00:00:00.000000001Z"`},
		{schemas.Timestamp, Uint(1 << 63), "x: 9223372036854775808 is out of the range of timestamp"},
		{schemas.Timestamp, String("2026-01-01T01:00:00+01:00"), `"2026-01-01T00:00:00Z"`},
		{schemas.Timestamp, Float(1), "x: a float cannot be a value of timestamp"},
		{schemas.Int64, Null, "x: null, but the column is not nullable"},
		{schemas.Int64, Absent, "x: missing"},
	} {
		if got := one(c.typ, c.cell); got != c.want {
			t.Errorf("%+v as %s: %s, want %s", c.cell, c.typ, got, c.want)
		}
	}
	if _, ok := Scaled(math.MaxInt64/1000+1, 1000); ok {
		t.Error("a time beyond the range was scaled")
	}
	if c, ok := Scaled(-1, 1e6); !ok || c != Time(-1e6) {
		t.Error(c, ok)
	}
}

var packed = schemas.MustSchema(
	schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}, Features: []string{"u", "v"}, Nullable: true},
	schemas.Field{Name: "w", Type: schemas.Int8, Shape: []int{2}, Features: []string{"w0", "w1"}},
	schemas.Field{Name: "s", Type: schemas.String, Shape: []int{2}, Features: []string{"s0", "s1"}, Nullable: true},
	schemas.Field{Name: "m", Type: schemas.Int32, Shape: []int{3}, Nullable: true},
	schemas.Field{Name: "n", Type: schemas.Float64, Shape: []int{1}, Nullable: true})

func TestTensors(t *testing.T) {
	p := PlanOf(packed)
	for _, c := range []struct {
		set  func(r *Row, at func(string) int)
		want string
	}{
		{func(r *Row, at func(string) int) {}, `w0: missing`},
		{func(r *Row, at func(string) int) { r.Set(at("w1"), Int(1)) }, `w0: missing`},
		{func(r *Row, at func(string) int) { r.Set(at("w0"), Int(1)); r.Set(at("w1"), Null) }, `w1: null, but the column is not nullable`},
		{func(r *Row, at func(string) int) {
			r.Set(at("w0"), Int(1))
			r.Set(at("w1"), Int(2))
			r.Set(at("v"), Int(3))
			r.Set(at("s0"), String("a"))
			r.Set(at("n"), Int(4))
		}, `{"x":["NaN",3],"w":[1,2],"s":["a",""],"m":null,"n":[4]}`},
		{func(r *Row, at func(string) int) { r.Set(at("w"), Int(1)) }, `w: an integer cannot be the tensor w int8[2]`},
		{func(r *Row, at func(string) int) { r.Open(at("w")); r.Add(at("w"), Int(1)) }, `w: 1 elements for the tensor w int8[2]`},
		{func(r *Row, at func(string) int) {
			for _, n := range []string{"w", "m", "x", "n"} {
				r.Open(at(n))
			}
			// They grow in turn, so that each moves behind the others.
			for i := range 3 {
				for _, n := range []string{"w", "m", "x", "n"} {
					if ok := r.Add(at(n), Int(int64(i))); ok != (i < r.plan.Targets[at(n)].Field.Width()) {
						panic(n)
					}
				}
			}
		}, `{"x":[0,1],"w":[0,1],"s":null,"m":[0,1,2],"n":[0]}`},
		{func(r *Row, at func(string) int) {
			r.Open(at("w"))
			r.Add(at("w"), Int(1))
			r.Add(at("w"), Int(2))
			r.Open(at("m"))
			r.Add(at("m"), Null)
			r.Add(at("m"), Null)
			r.Add(at("m"), Null)
		}, `m: element 0: null, but int32 has no value for a missing element`},
		{func(r *Row, at func(string) int) { r.Set(at("x"), Null); r.Set(at("u"), Int(1)) }, `x: tensor x is given both as a whole and by its features`},
	} {
		b := schemas.NewBatch(packed)
		r := p.Row()
		c.set(r, p.Target)
		got := ""
		if err := r.AppendTo(b); err != nil {
			got = err.Error()
			b.Rollback()
		} else {
			b.Advance(1)
			got = string(jsonrow.AppendObject(nil, b, 0))
		}
		p.Free(r)
		if got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "a.b.c", Type: schemas.Bool}, schemas.Field{Name: "d", Type: schemas.Bool})
	p := PlanOf(s)
	if p.Target("a.b.c") != 0 || p.Target("d") != 1 || p.Target("a") != -1 || !p.Inside("a") || !p.Inside("a.b") || p.Inside("d") || p.Inside("a.b.c") {
		t.Error("names are not told apart")
	}
	if p.Names() != "a.b.c, d" {
		t.Error(p.Names())
	}
}

// What is kept for foreign schemas is bounded, and made once for each.
func TestPerSchema(t *testing.T) {
	var c PerSchema[*int]
	var ss []*schemas.Schema
	for i := range 3 * maxPerSchema {
		ss = append(ss, schemas.MustSchema(schemas.Field{Name: fmt.Sprint("x", i), Type: schemas.Bool}))
	}
	var mu sync.Mutex
	made := map[*schemas.Schema]int{}
	build := func(s *schemas.Schema) *int {
		mu.Lock()
		defer mu.Unlock()
		made[s]++
		return new(int)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				for _, s := range ss[:maxPerSchema] {
					c.For(s, build)
				}
			}
		})
	}
	wg.Wait()
	for s, n := range made {
		if n != 1 {
			t.Errorf("%s: made %d times", s, n)
		}
	}
	for _, s := range ss {
		c.For(s, build)
	}
	if n := len(*c.made.Load()); n != maxPerSchema {
		t.Errorf("%d are kept", n)
	}
}
