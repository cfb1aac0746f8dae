package route

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/big"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
)

var update = flag.Bool("update", false, "write the golden vectors anew: every recorded decision changes with them")

func mustSplit(t testing.TB, salt string, arms []string, weights []int) *Split {
	t.Helper()
	s, err := NewSplit(salt, arms, weights)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// names returns n names of arms.
func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "arm-" + strconv.Itoa(i)
	}
	return out
}

// sizes are the keys of the distribution tests: 10^6, a fifth of it with -short.
func sizes() int {
	if testing.Short() {
		return 200_000
	}
	return 1_000_000
}

// TestExpo compares the fixed-point logarithm with a float's, at edges and at random places.
func TestExpo(t *testing.T) {
	us := []uint64{1, 2, 3, math.MaxUint64, math.MaxUint64 - 1, 1 << 63, 1<<63 - 1, 1<<63 + 1}
	for i := uint64(0); i < 256; i++ {
		edge := (256 + i) << 55
		us = append(us, edge, edge-1, edge+1, edge>>7, edge>>50)
	}
	for i := range uint64(20_000) {
		us = append(us, mix(i)>>(i%64))
	}
	worst := 0.0
	for _, u := range us {
		if u == 0 {
			continue
		}
		want := 64 - math.Log2(float64(u))
		if near := ^u + 1; near < 1<<40 { // 1 - near/2^64: math.Log2 would lose all digits
			want = float64(near) / (1 << 63) / 2 * math.Log2E
		}
		off := math.Abs(float64(expo(u))/(1<<logBits) - want)
		worst = max(worst, off)
		if off > 0x1p-33 {
			t.Fatalf("expo(%#x) is off by %g", u, off)
		}
	}
	t.Logf("off by at most 2^%.1f", math.Log2(worst))
	if expo(0) != 64<<logBits {
		t.Errorf("expo(0) = %d", expo(0))
	}
}

// TestLogTable computes the table by exact arithmetic: m^(2^52) as a big number tells 52 bits of log2(m).
func TestLogTable(t *testing.T) {
	for i := 0; i < 256; i += 15 {
		x := new(big.Float).SetPrec(400).SetInt64(int64(256 + i))
		x.Quo(x, big.NewFloat(256))
		var log uint64
		for bit := uint64(1) << 62; bit >= 1<<11; bit >>= 1 {
			x.Mul(x, x)
			if x.Cmp(big.NewFloat(2)) >= 0 {
				x.Quo(x, big.NewFloat(2))
				log |= bit
			}
		}
		got := logTable[i].log
		if off := int64(got - log); off < -(1<<11) || off > 1<<12 {
			t.Errorf("logTable[%d].log = %#x, want %#x", i, got, log)
		}
	}
}

var vectors = []struct {
	name    string
	weights []int
}{
	{"even two", []int{5000, 5000}},
	{"canary", []int{9000, 1000}},
	{"one percent", []int{9900, 100}},
	{"one in ten thousand", []int{9999, 1}},
	{"none and all", []int{0, 10000}},
	{"a zero between", []int{3000, 0, 7000}},
	{"three", []int{3333, 3333, 3334}},
	{"steep", []int{9000, 900, 90, 9, 1}},
	{"ten", []int{1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000}},
	{"rising", []int{100, 300, 500, 700, 900, 1100, 1300, 1500, 1700, 1900}},
	{"a hundred", slices.Repeat([]int{100}, 100)},
}

// keyOf returns the i-th key of one of three kinds: counters as text, counters as bytes, and long ones with a common beginning.
func keyOf(buf []byte, kind, i int) []byte {
	switch kind {
	case 0:
		return strconv.AppendInt(buf[:0], int64(i), 10)
	case 1:
		return binary.LittleEndian.AppendUint64(buf[:0], uint64(i))
	}
	return strconv.AppendInt(append(buf[:0], "https://customers.example.org/accounts/of/the/north/"...), int64(i), 10)
}

// TestSplitShares counts the arms of 10^6 keys for many weight vectors: each within 4 sigma of its share.
func TestSplitShares(t *testing.T) {
	n := sizes()
	var buf [128]byte
	for _, v := range vectors {
		for kind := range 3 {
			if len(v.weights) > 20 && kind > 0 {
				continue
			}
			s := mustSplit(t, "shares-"+v.name, names(len(v.weights)), v.weights)
			counts := make([]int, len(v.weights))
			for i := range n {
				counts[s.Arm(keyOf(buf[:], kind, i))]++
			}
			within(t, fmt.Sprintf("%s, keys of kind %d", v.name, kind), counts, v.weights, TenThousand)
		}
	}
}

// within reports counts that are more than 4 sigma from their weight of whole.
func within(t *testing.T, what string, counts, weights []int, whole int) {
	t.Helper()
	n := 0
	for _, c := range counts {
		n += c
	}
	for i, c := range counts {
		p := float64(weights[i]) / float64(whole)
		want, sigma := p*float64(n), math.Sqrt(p*(1-p)*float64(n))
		if math.Abs(float64(c)-want) > 4*sigma {
			t.Errorf("%s: arm %d has %d of %d, want %.0f +- %.0f (4 sigma)", what, i, c, n, want, 4*sigma)
		}
	}
}

// moves counts where keys go from one split to another: moves[from][to].
func moves(a, b *Split, arms, n int) [][]int {
	out := make([][]int, arms)
	for i := range out {
		out[i] = make([]int, arms)
	}
	var buf [32]byte
	for i := range n {
		k := keyOf(buf[:], 0, i)
		out[a.Arm(k)][b.Arm(k)]++
	}
	return out
}

// TestSplitMoves holds what the doc comment of Split says of a change of weights.
func TestSplitMoves(t *testing.T) {
	n := sizes()
	tests := []struct {
		name     string
		from, to []int
		onlyTo   int // the one arm that keys may move to, or -1
	}{
		{"canary from 10 to 20 percent", []int{9000, 1000}, []int{8000, 2000}, 1},
		{"canary from 0 to 1 percent", []int{10000, 0}, []int{9900, 100}, 1},
		{"canary back to 0", []int{8000, 2000}, []int{10000, 0}, 0},
		{"promoted", []int{8000, 2000}, []int{0, 10000}, 1},
		{"third arm added, in proportion", []int{8000, 2000, 0}, []int{6400, 1600, 2000}, 2},
		{"one of four raised, in proportion", []int{4000, 2000, 2000, 2000}, []int{3000, 1500, 1500, 4000}, 3},
		{"one of three pays for another", []int{8000, 1000, 1000}, []int{7000, 2000, 1000}, -1},
		{"all turned round", []int{5000, 3000, 1000, 1000}, []int{1000, 1000, 3000, 5000}, -1},
	}
	for _, tt := range tests {
		a := mustSplit(t, "moves", names(len(tt.from)), tt.from)
		b := mustSplit(t, "moves", names(len(tt.to)), tt.to)
		got := moves(a, b, len(tt.from), n)
		must, moved := 0.0, 0
		for i := range tt.from {
			must += math.Max(0, float64(tt.to[i]-tt.from[i])) / TenThousand
			for j := range tt.to {
				if i == j || got[i][j] == 0 {
					continue
				}
				moved += got[i][j]
				if tt.onlyTo >= 0 && j != tt.onlyTo {
					t.Errorf("%s: %d keys went from arm %d to %d", tt.name, got[i][j], i, j)
				}
				if tt.to[i]*tt.from[j] >= tt.from[i]*tt.to[j] { // arm i has not lost against arm j
					t.Errorf("%s: %d keys went from arm %d to arm %d, which did not gain against it", tt.name, got[i][j], i, j)
				}
			}
		}
		bound := 2 * must / (1 + must)
		if tt.onlyTo >= 0 {
			bound = must
		}
		sigma := math.Sqrt(bound * (1 - bound) * float64(n))
		t.Logf("%s: %.2f %% must move, %.2f %% moved", tt.name, 100*must, 100*float64(moved)/float64(n))
		if float64(moved) > bound*float64(n)+4*sigma {
			t.Errorf("%s: %d of %d keys moved, at most %.0f may", tt.name, moved, n, bound*float64(n))
		}
	}
}

// TestSplitOrder: neither the order of arms nor arms of weight 0 change what a key gets.
func TestSplitOrder(t *testing.T) {
	a := mustSplit(t, "s", []string{"stable", "canary", "third"}, []int{7000, 2000, 1000})
	b := mustSplit(t, "s", []string{"new", "third", "stable", "canary"}, []int{0, 1000, 7000, 2000})
	back := []int{-1, 2, 0, 1}
	var buf [32]byte
	for i := range 100_000 {
		k := keyOf(buf[:], 0, i)
		if x, y := a.Arm(k), back[b.Arm(k)]; x != y {
			t.Fatalf("key %s: arm %d in one order, %d in the other", k, x, y)
		}
	}
}

// TestSplitSalts: splits of two salts, and a split and a sample of one salt, are independent: each cell of the table is
// within 4 sigma of the product of its margins.
func TestSplitSalts(t *testing.T) {
	n := sizes()
	a := mustSplit(t, "first", names(2), []int{7000, 3000})
	b := mustSplit(t, "second", names(2), []int{7000, 3000})
	cells, sampled := make([]int, 4), make([]int, 4)
	var buf [32]byte
	for i := range n {
		k := keyOf(buf[:], 1, i)
		x := a.Arm(k)
		cells[2*x+b.Arm(k)]++
		in := 0
		if Sampled("first", k, 300_000) {
			in = 1
		}
		sampled[2*x+in]++
	}
	within(t, "two salts", cells, []int{4900, 2100, 2100, 900}, TenThousand)
	within(t, "a split and a sample", sampled, []int{4900, 2100, 2100, 900}, TenThousand)
}

func TestSampled(t *testing.T) {
	n := sizes()
	var buf [32]byte
	rates := []int{-1, 0, 1, 100, 1000, 250_000, 999_999, Million, 2 * Million}
	counts := make([]int, len(rates))
	for i := range n {
		k := keyOf(buf[:], 0, i)
		before := false
		for j, r := range rates {
			in := Sampled("shadow", k, r)
			if before && !in {
				t.Fatalf("key %s is sampled at a lower rate than %d, but not at it", k, r)
			}
			before = in
			if in {
				counts[j]++
			}
		}
	}
	for j, r := range rates {
		r = min(max(r, 0), Million)
		within(t, fmt.Sprint("rate ", r), []int{counts[j], n - counts[j]}, []int{r, Million - r}, Million)
	}
}

// TestSeed: any other row, node or request has another seed.
func TestSeed(t *testing.T) {
	seen := make(map[uint64]string)
	for request := range uint64(20) {
		for _, row := range []int{0, 1, 2, 255, 256, 65536, 1 << 30} {
			for _, path := range []string{"", "a", "b", "split", "split/a", "split/b/bandit-of-a-longer-name/than-others"} {
				seed := Seed(idOf(request), row, path)
				what := fmt.Sprintf("request %d, row %d, node %q", request, row, path)
				if other, ok := seen[seed]; ok {
					t.Errorf("%s has the seed of %s", what, other)
				}
				seen[seed] = what
			}
		}
	}
}

func TestNewSplitErrors(t *testing.T) {
	tests := []struct {
		arms    []string
		weights []int
		field   string
		says    string
	}{
		{nil, nil, "arms", "at least one arm"},
		{[]string{"a", "b"}, []int{10000}, "arms", "2 arms have 1 weights"},
		{[]string{"a", ""}, []int{5000, 5000}, "arms[1].name", "needs a name"},
		{[]string{"a", "b", "a"}, []int{5000, 2500, 2500}, "arms[2].name", `two arms are named "a"`},
		{[]string{"a", "b"}, []int{-1, 10001}, "arms[0].weight", "-1 is not between 0 and 10000"},
		{[]string{"a", "b"}, []int{0, 10001}, "arms[1].weight", "10001 is not between"},
		{[]string{"a", "b"}, []int{90, 10}, "arms", "add up to 100 parts per 10,000, they must add up to 10000"},
		{[]string{"a", "b"}, []int{0, 0}, "arms", "add up to 0"},
	}
	for _, tt := range tests {
		_, err := NewSplit("s", tt.arms, tt.weights)
		var e *schemas.Error
		if !errors.As(err, &e) || e.Kind != schemas.Invalid || e.Field != tt.field || !strings.Contains(e.Error(), tt.says) {
			t.Errorf("NewSplit(%q, %v) = %v, want field %s and %q", tt.arms, tt.weights, err, tt.field, tt.says)
		}
	}
}

// TestSplitGolden pins choices, samples and seeds for ever: testdata/split.txt was checked by an implementation in
// another language (testdata/split.py), and the executor's records rest on it.
func TestSplitGolden(t *testing.T) {
	const path = "testdata/split.txt"
	line := func(f []string) string {
		t.Helper()
		num := func(s string) int {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		switch f[0] {
		case "arm": // arm SALT NAME=WEIGHT,... KEY NAME
			var arms []string
			var weights []int
			for _, nw := range strings.Split(f[2], ",") {
				name, w, _ := strings.Cut(nw, "=")
				arms, weights = append(arms, name), append(weights, num(w))
			}
			s := mustSplit(t, f[1], arms, weights)
			if a, b := s.Arm([]byte(f[3])), s.ArmOf(s.SeedString(f[3])); a != b {
				t.Errorf("%q: arm %d, as a string %d", f, a, b)
			}
			return arms[s.Arm([]byte(f[3]))]
		case "sample": // sample SALT RATE KEY BOOL
			in := Sampled(f[1], []byte(f[3]), num(f[2]))
			if in != SampledString(f[1], f[3], num(f[2])) {
				t.Errorf("%q: sampled or not by bytes or string", f)
			}
			return strconv.FormatBool(in)
		case "seed": // seed BYTE ROW PATH SEED: the request key is 32 times the byte
			var key [32]byte
			for i := range key {
				key[i] = byte(num(f[1]))
			}
			return fmt.Sprintf("%016x", Seed(key, num(f[2]), f[3]))
		}
		t.Fatalf("%s: no such line: %q", path, f)
		return ""
	}
	if *update {
		var b strings.Builder
		b.WriteString("# Golden vectors of Split, Sampled and Seed; the last field is the answer. split.py checks them.\n")
		put := func(f ...string) { fmt.Fprintln(&b, strings.Join(f, " "), line(append(f, ""))) }
		for i := range 120 {
			w := []string{"stable=9000,canary=1000", "a=3333,b=3333,c=3334", "a=9000,b=900,c=90,d=10,e=0"}[i%3]
			put("arm", []string{"s", "flight-delay/ab", "x"}[i/40], w, strings.Repeat("k", i%40)+strconv.Itoa(i*i))
		}
		for i := range 40 {
			put("sample", "forest", []string{"1000", "250000", "999000"}[i%3], "N"+strconv.Itoa(i)+strings.Repeat("-tail", i%9))
		}
		for i := range 20 {
			put("seed", strconv.Itoa(i*13), strconv.Itoa(i*i*i), []string{"split", "split/stable/bandit", "a"}[i%3])
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); n++ {
		if strings.HasPrefix(sc.Text(), "#") {
			continue
		}
		fields := strings.Fields(sc.Text())
		if got, want := line(fields), fields[len(fields)-1]; got != want {
			t.Errorf("%s: got %s", sc.Text(), got)
		}
	}
	if n < 180 {
		t.Errorf("%s has %d lines, want at least 180", path, n)
	}
}

func TestSplitAllocates(t *testing.T) {
	s := mustSplit(t, "s", names(8), []int{3000, 1000, 1000, 1000, 1000, 1000, 1000, 1000})
	const text = "customer-81723-and-a-tail-of-some-length"
	key := []byte(text)
	var sink int
	if n := testing.AllocsPerRun(1000, func() {
		sink += s.Arm(key) + s.ArmOf(s.SeedString(text))
		if Sampled("shadow", key, 1000) || SampledString("shadow", text, 1000) {
			sink++
		}
		sink += int(Seed([32]byte{1}, sink, "split/stable/bandit"))
	}); n != 0 {
		t.Errorf("a decision allocates %v times", n)
	}
}
