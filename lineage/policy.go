package lineage

import (
	"crypto/sha256"
	"encoding/json"
	"math"
	"slices"

	"github.com/leatstream/leat/schemas"
)

// Policy keeps columns out of the record. A masked column is stored as a salted digest under its own name; a dropped one
// is not stored, and one salted digest of all dropped values of the row is, under DroppedColumn. A name may also be a
// feature of a packed tensor: then the element is stored as NaN (zero for integers and bools), and the digest of a masked
// one in a column of the feature's name. A Policy is immutable and safe for concurrent use.
//
// A cell is: the column's or feature's name and its dtype's name, each as length (u32 little-endian) and bytes; one byte
// 0 for null, else 1 and the elements as InputDigest writes them. The digest of a masked cell is SHA-256(salt, cell),
// that of the dropped cells SHA-256(salt, cells in the order of the schema). The salt is in the record (Record.Salt), so
// whoever holds a value can prove that it was the one.
//
// The request's input digest covers withheld columns too: it is the identity of the request. Whoever knows all other
// columns of a row can therefore test guesses of a withheld value against it.
type Policy struct {
	mask, drop []string
	text       string // what the context frame says
}

// DroppedColumn holds the salted digest of the dropped columns of a row.
const DroppedColumn = "leat.dropped"

// blankSuffix names the blanked element of a packed tensor; its digest has the plain name.
const blankSuffix = ".withheld"

// digestWidth is the size of a digest: a uint8[32] tensor.
const digestWidth = sha256.Size

// NewPolicy checks that every name is a column, or a feature of a packed tensor, of one of the schemas, and that none
// comes twice. Invalid names the field ("record.mask[1]"). Without schemas the names are not looked up. No names at all
// give a nil Policy: everything is stored.
func NewPolicy(mask, drop []string, known ...*schemas.Schema) (*Policy, error) {
	const op = "lineage.NewPolicy"
	if len(mask)+len(drop) == 0 {
		return nil, nil
	}
	seen := map[string]bool{}
	check := func(what string, names []string) error {
		for i, n := range names {
			field := "record." + what + "[" + itoa(i) + "]"
			if seen[n] {
				return schemas.FieldErrorf(schemas.Invalid, op, field, "column %q is named twice", clip(n))
			}
			seen[n] = true
			if len(known) > 0 && !slices.ContainsFunc(known, func(s *schemas.Schema) bool { return holds(s, n) }) {
				return schemas.FieldErrorf(schemas.Invalid, op, field, "no input or output column %q", clip(n))
			}
		}
		return nil
	}
	if err := check("mask", mask); err != nil {
		return nil, err
	}
	if err := check("drop", drop); err != nil {
		return nil, err
	}
	p := &Policy{mask: slices.Clone(mask), drop: slices.Clone(drop)}
	for _, s := range known {
		if s == nil {
			continue
		}
		if _, err := p.plan(s); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(policyText{p.mask, p.drop})
	if err != nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "%w", err)
	}
	p.text = string(b)
	return p, nil
}

// policyText is how the context frame names what was withheld.
type policyText struct {
	Mask []string `json:"mask,omitempty"`
	Drop []string `json:"drop,omitempty"`
}

func holds(s *schemas.Schema, name string) bool {
	if s == nil {
		return false
	}
	return s.Index(name) >= 0 || slices.ContainsFunc(s.Fields(), func(f schemas.Field) bool { return slices.Contains(f.Features, name) })
}

// plan says how rows of one schema are stored under a policy.
type plan struct {
	stored  *schemas.Schema
	copies  []int  // source column of each of the first stored columns; -1: a masked column's digest
	masked  []int  // source column whose digest stored column i is, where copies[i] is -1
	blanks  []cell // elements of packed tensors that are blanked
	dropped []int  // source columns that are not stored
	extra   []cell // masked elements; their digests follow the columns of copies
	digest  bool   // the last column is DroppedColumn
}

// cell is one element of a packed tensor.
type cell struct {
	column, element int
	name            string
	drop            bool
}

// plan returns nil if the policy leaves rows of the schema as they are.
func (p *Policy) plan(s *schemas.Schema) (*plan, error) {
	if p == nil {
		return nil, nil
	}
	pl := &plan{}
	var fields []schemas.Field
	digestField := func(name string) schemas.Field {
		return schemas.Field{Name: name, Type: schemas.Uint8, Shape: []int{digestWidth}}
	}
	for i, f := range s.Fields() {
		switch {
		case slices.Contains(p.drop, f.Name):
			pl.dropped = append(pl.dropped, i)
			continue
		case slices.Contains(p.mask, f.Name):
			fields = append(fields, digestField(f.Name))
			pl.copies = append(pl.copies, -1)
			pl.masked = append(pl.masked, i)
			continue
		}
		f.Features = slices.Clone(f.Features)
		pl.copies = append(pl.copies, i)
		pl.masked = append(pl.masked, -1)
		for e, n := range f.Features {
			drop := slices.Contains(p.drop, n)
			if drop || slices.Contains(p.mask, n) {
				if f.Type.Variable() {
					return nil, schemas.FieldErrorf(schemas.Invalid, "lineage.NewPolicy", "record", "%q is an element of the %s tensor %q: withhold the whole column", clip(n), f.Type, f.Name)
				}
				pl.blanks = append(pl.blanks, cell{column: i, element: e, name: n, drop: drop})
				f.Features[e] = n + blankSuffix
			}
		}
		fields = append(fields, f)
	}
	pl.digest = len(pl.dropped) > 0
	for _, c := range pl.blanks {
		if c.drop {
			pl.digest = true
			continue
		}
		fields = append(fields, digestField(c.name))
		pl.extra = append(pl.extra, c)
	}
	if pl.digest {
		fields = append(fields, digestField(DroppedColumn))
	}
	if len(pl.blanks) == 0 && !pl.digest && !slices.Contains(pl.copies, -1) {
		return nil, nil
	}
	var err error
	if pl.stored, err = schemas.NewSchema(fields); err != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, "lineage.NewPolicy", "record", "the stored form has no valid schema: %w", err)
	}
	return pl, nil
}

// Stored returns the schema under which rows of s are recorded: s itself if the policy leaves them as they are. A
// reader's describe function answers for its id.
func (p *Policy) Stored(s *schemas.Schema) (*schemas.Schema, error) {
	pl, err := p.plan(s)
	if err != nil || pl == nil {
		return s, err
	}
	return pl.stored, nil
}

// append stores rows [from, to) of src in dst; buf is scratch and is returned for reuse.
func (pl *plan) append(dst, src *schemas.Batch, from, to int, salt *[16]byte, buf []byte) []byte {
	for i, c := range pl.copies {
		d := dst.Column(i)
		if c >= 0 {
			d.AppendColumn(src.Column(c), from, to)
			continue
		}
		col := src.Column(pl.masked[i])
		for r := from; r < to; r++ {
			buf = appendCell(append(buf[:0], salt[:]...), col, r)
			sum := sha256.Sum256(buf)
			d.AppendFixed(sum[:], 1)
		}
	}
	for _, c := range pl.blanks {
		blank(dst.Column(slices.Index(pl.copies, c.column)), c.element, to-from)
	}
	at := len(pl.copies)
	for _, c := range pl.extra {
		for r := from; r < to; r++ {
			buf = appendElement(append(buf[:0], salt[:]...), src.Column(c.column), c, r)
			sum := sha256.Sum256(buf)
			dst.Column(at).AppendFixed(sum[:], 1)
		}
		at++
	}
	for r := from; pl.digest && r < to; r++ {
		buf = append(buf[:0], salt[:]...)
		next := 0
		for _, c := range pl.blanks {
			for ; next < len(pl.dropped) && pl.dropped[next] < c.column; next++ {
				buf = appendCell(buf, src.Column(pl.dropped[next]), r)
			}
			if c.drop {
				buf = appendElement(buf, src.Column(c.column), c, r)
			}
		}
		for ; next < len(pl.dropped); next++ {
			buf = appendCell(buf, src.Column(pl.dropped[next]), r)
		}
		sum := sha256.Sum256(buf)
		dst.Column(at).AppendFixed(sum[:], 1)
	}
	dst.Advance(to - from)
	return buf
}

func appendCell(s []byte, c *schemas.Column, row int) []byte {
	s = appendPart(s, c.Field().Name)
	s = appendPart(s, c.Field().Type.String())
	if c.IsNull(row) {
		return append(s, 0)
	}
	return appendValues(append(s, 1), c, row, row+1)
}

// appendElement is appendCell for one named element of a packed tensor of a fixed-size dtype.
func appendElement(s []byte, c *schemas.Column, e cell, row int) []byte {
	s = appendPart(s, e.name)
	s = appendPart(s, c.Field().Type.String())
	if c.IsNull(row) {
		return append(s, 0)
	}
	s = append(s, 1)
	at := row*c.Width() + e.element
	size := c.Field().Type.Size()
	return append(s, c.Data()[at*size:(at+1)*size]...)
}

// blank overwrites one element in the last n rows of c, which were appended and not yet counted.
func blank(c *schemas.Column, element, n int) {
	w, size := c.Width(), c.Field().Type.Size()
	for r := c.Rows() - n; r < c.Rows(); r++ {
		at := r*w + element
		switch c.Field().Type {
		case schemas.Float16:
			schemas.Values[uint16](c)[at] = 0x7e00
		case schemas.Float32:
			schemas.Values[float32](c)[at] = float32(math.NaN())
		case schemas.Float64:
			schemas.Values[float64](c)[at] = math.NaN()
		default:
			clear(c.Data()[at*size : (at+1)*size])
		}
	}
}
