package onnx

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
)

// Bounds of a probe.
const (
	probeRows   = 1024
	probeTarget = 2 * time.Second // estimated time of the largest run; a slower model is probed, and served, with fewer rows
	probeTime   = 5 * time.Second // estimated time of all runs; a slower model is tried at fewer places
)

// probeSizes are the batch sizes that are compared with the largest: those of SEMANTICS 6, and sizes around the widths of
// vectors and of the blocks that matrix products are cut into.
var probeSizes = []int{1, 2, 3, 7, 8, 64, 1024, 4, 5, 6, 9, 12, 15, 16, 17, 31, 32, 33, 63, 65, 127, 128, 129, 255, 256, 511, 1000}

// Probe loads the package, runs it on synthetic rows at many batch sizes, and compares each row's bits with those it had
// in the largest batch.
func (l *Loader) Probe(ctx context.Context, p scorers.Package) (scorers.Probed, error) {
	s, o, err := l.open(ctx, "onnx.Probe", p)
	if err != nil {
		return scorers.Probed{}, err
	}
	defer s.Close()
	pr := scorers.Probed{Signature: o.sig, Runtime: RuntimeName, Notes: o.notes()}
	if o.fixed > 0 {
		return l.probeFixed(ctx, s, o, pr)
	}
	rows, share, err := s.affordable(ctx, o)
	if err != nil {
		return pr, err
	}
	if rows < maxPiece {
		pr.MaxBatch = rows
		pr.Notes = append(pr.Notes, fmt.Sprintf("probed and served with at most %d rows a run", rows))
	}
	c := &comparison{s: s, in: synthetic(o.sig.Inputs, o.file, o.level, rows), rows: rows, share: share}
	if c.whole, err = c.score(ctx, 0, rows, rows); err != nil {
		return pr, err
	}
	return c.classify(ctx, pr)
}

// notes says what an operator should know of the file.
func (o *opened) notes() []string {
	var ns []string
	if z := o.file.Metadata[onnxfile.ZipMapMark]; z != "" {
		ns = append(ns, "ZipMap removed: "+z)
	}
	if o.file.Ops[":StringNormalizer"] {
		ns = append(ns, "needs the system locale en_US.UTF-8 (StringNormalizer)")
	}
	if o.failed != nil {
		ns = append(ns, fmt.Sprintf("probed on %s only, because on others: %v", o.level, o.failed))
	}
	for i := range o.out {
		if o.out[i].fixed != nil {
			ns = append(ns, o.out[i].field.Name+" is a constant and is given to every row")
		}
	}
	return ns
}

// probeFixed checks that a model of a fixed size gives a row the same bits in each place of the batch, as far as padding
// moves rows about: a row that rides in a full batch, or first before copies of itself.
func (l *Loader) probeFixed(ctx context.Context, s *scorer, o *opened, pr scorers.Probed) (scorers.Probed, error) {
	pr.MaxBatch = o.fixed
	pr.Notes = append(pr.Notes, fmt.Sprintf("takes exactly %s a run; what is left over is padded", rowWord(o.fixed)))
	c := &comparison{s: s, in: synthetic(o.sig.Inputs, o.file, o.level, o.fixed), rows: o.fixed}
	var err error
	if c.whole, err = c.score(ctx, 0, o.fixed, o.fixed); err != nil {
		return pr, err
	}
	worst := 0.0
	for n := 1; n < o.fixed; n = n*2 + 1 {
		for _, from := range []int{0, o.fixed - n} {
			d, err := c.compare(ctx, from, from+n, o.fixed)
			if err != nil {
				return pr, err
			}
			worst = max(worst, d)
		}
	}
	return worse(pr, worst), nil
}

func worse(pr scorers.Probed, difference float64) scorers.Probed {
	pr.Class = scorers.BatchInvariant
	if difference > 0 {
		pr.Class, pr.Tolerance = scorers.BatchVariant, difference
	}
	return pr
}

// affordable returns the rows of the largest run, fewer than probeRows if the model is slow or its rows are large, and the
// share of them that each size can be tried on.
func (s *scorer) affordable(ctx context.Context, o *opened) (rows int, share float64, err error) {
	rows = min(s.piece, probeRows)
	c := &comparison{s: s, in: synthetic(o.sig.Inputs, o.file, o.level, min(rows, 8)), rows: min(rows, 8)}
	if _, err := c.score(ctx, 0, c.rows, c.rows); err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if _, err := c.score(ctx, 0, c.rows, c.rows); err != nil {
		return 0, 0, err
	}
	perRow := max(time.Since(start)/time.Duration(c.rows), 1)
	rows = min(rows, max(int(probeTarget/perRow), 2))
	all := perRow * time.Duration(rows*len(probeSizes))
	return rows, min(1, float64(probeTime)/float64(all)), nil
}

// comparison scores the same rows in batches of different sizes.
type comparison struct {
	s     *scorer
	in    *schemas.Batch
	rows  int
	share float64        // of the rows that each size is tried on
	whole *schemas.Batch // the answers of one run over all rows
}

// score runs rows [from, to) in one run of so many rows, padded.
func (c *comparison) score(ctx context.Context, from, to, rows int) (*schemas.Batch, error) {
	if err := c.s.slots.Acquire(ctx); err != nil {
		return nil, err
	}
	defer c.s.slots.Release()
	out := schemas.NewBatch(c.s.sig.Outputs)
	if err := c.s.run(c.in, out, from, to, rows); err != nil {
		return nil, err
	}
	out.Advance(to - from)
	return out, nil
}

// compare returns the largest relative difference of any element of rows [from, to) from the whole run; 0: equal bits.
func (c *comparison) compare(ctx context.Context, from, to, rows int) (float64, error) {
	got, err := c.score(ctx, from, to, rows)
	if err != nil {
		return 0, err
	}
	worst := 0.0
	for i := range c.s.out {
		worst = max(worst, difference(got.Column(i), c.whole.Column(i), from))
	}
	return worst, nil
}

// classify tries every size.
func (c *comparison) classify(ctx context.Context, pr scorers.Probed) (scorers.Probed, error) {
	lone, others := 0.0, 0.0
	for _, n := range probeSizes {
		if n > c.rows {
			continue
		}
		d, err := c.windows(ctx, n, n)
		if err != nil {
			return pr, err
		}
		if n == 1 {
			lone = d
		} else {
			others = max(others, d)
		}
	}
	if others > 0 || lone == 0 {
		return worse(pr, max(lone, others)), nil
	}
	padded, err := c.windows(ctx, 1, 2)
	if err != nil {
		return pr, err
	}
	if padded > 0 {
		return worse(pr, max(lone, padded)), nil
	}
	pr.Class = scorers.InvariantPadded
	return pr, nil
}

// windows compares batches of n rows, padded to rows, at places that cover all rows, or an even share of them: a lone row
// of a linear classifier differs in one row of ten or fewer, where the last bit survives the sigmoid.
func (c *comparison) windows(ctx context.Context, n, rows int) (float64, error) {
	places := max(int(math.Ceil(c.share*float64(c.rows)/float64(n))), min(4, c.rows/n))
	worst := 0.0
	for w := range places {
		from := (c.rows - n) * w / max(places-1, 1)
		d, err := c.compare(ctx, from, from+n, rows)
		if err != nil {
			return 0, err
		}
		worst = max(worst, d)
	}
	return worst, nil
}

// difference compares all rows of got with as many of whole from a row on: |a-b| / max(|a|, |b|), 1 for strings and bools.
func difference(got, whole *schemas.Column, from int) float64 {
	f := got.Field()
	w := f.Width()
	if f.Type == schemas.String {
		for e := range got.Rows() * w {
			if !bytes.Equal(got.Text(e), whole.Text(from*w+e)) {
				return 1
			}
		}
		return 0
	}
	size := f.Type.Size()
	a := got.Data()
	b := whole.Data()[from*w*size:][:len(a)]
	if bytes.Equal(a, b) {
		return 0
	}
	worst := 0.0
	for at := 0; at < len(a); at += size {
		x, y := a[at:at+size], b[at:at+size]
		if bytes.Equal(x, y) {
			continue
		}
		worst = max(worst, relative(number(f.Type, x), number(f.Type, y)))
	}
	return worst
}

// relative is never 0: its arguments have different bits.
func relative(x, y float64) float64 {
	scale := max(math.Abs(x), math.Abs(y))
	switch d := math.Abs(x - y); {
	case math.IsNaN(x) != math.IsNaN(y) || math.IsInf(scale, 0):
		return 1
	case d == 0 || math.IsNaN(d):
		return math.SmallestNonzeroFloat64 // 0 and -0, or two NaN
	default:
		return d / scale
	}
}

// number reads an element. Integers past 2^53 lose digits, which a relative difference can bear.
func number(t schemas.DType, b []byte) float64 {
	var le [8]byte
	copy(le[:], b)
	u := binary.LittleEndian.Uint64(le[:])
	switch t {
	case schemas.Float64:
		return math.Float64frombits(u)
	case schemas.Float32:
		return float64(math.Float32frombits(uint32(u)))
	case schemas.Float16:
		return halfValue(uint16(u))
	case schemas.Int8:
		return float64(int8(u))
	case schemas.Int16:
		return float64(int16(u))
	case schemas.Int32:
		return float64(int32(u))
	case schemas.Int64:
		return float64(int64(u))
	}
	return float64(u)
}

// halfValue returns the value of float16 bits.
func halfValue(h uint16) float64 {
	exp, man := int(h>>10&0x1f), float64(h&0x3ff)
	v := math.Ldexp(man, -24)
	switch {
	case exp == 31 && man != 0:
		v = math.NaN()
	case exp == 31:
		v = math.Inf(1)
	case exp > 0:
		v = math.Ldexp(man+1024, exp-25)
	}
	if h&0x8000 != 0 {
		v = -v
	}
	return v
}
