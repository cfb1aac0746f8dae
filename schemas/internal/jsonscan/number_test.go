package jsonscan

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// Numbers are what strconv makes of them, at their own type: random decimals, and decimals near the half-way points
// between two float32.
func TestFloatsAgainstStrconv(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s Scanner
	check := func(in string) {
		t.Helper()
		s.Reset([]byte(in))
		w64, err64 := strconv.ParseFloat(in, 64)
		if got, ok := s.Float64(); ok != (err64 == nil) || ok && math.Float64bits(got) != math.Float64bits(w64) {
			t.Fatalf("float64 %s: %v, want %v", in, got, w64)
		}
		s.Reset([]byte(in))
		w32, err32 := strconv.ParseFloat(in, 32)
		if got, ok := s.Float32(); ok != (err32 == nil) || ok && math.Float32bits(got) != math.Float32bits(float32(w32)) {
			t.Fatalf("float32 %s: %v, want %v", in, got, float32(w32))
		}
	}
	for range 40_000 {
		check(fmt.Sprintf("%de%d", r.Int64N(1<<r.IntN(60)+1), r.IntN(60)-30))
		check(strconv.FormatFloat(math.Float64frombits(r.Uint64()&^(0x7ff<<52)|uint64(1023-140+r.IntN(280))<<52), 'g', 1+r.IntN(20), 64))
		f := math.Float32frombits(r.Uint32() & 0x7f7fffff)
		half := (float64(f) + float64(math.Nextafter32(f, math.MaxFloat32))) / 2
		check(strconv.FormatFloat(half, 'g', -1, 64))
		check(strconv.FormatFloat(half, 'g', 10+r.IntN(8), 64))
		check(strconv.FormatFloat(math.Nextafter(half, 0), 'g', -1, 64))
		check(strconv.FormatFloat(float64(r.IntN(2000)-1000)/8, 'f', -1, 64))
	}
}
