package bulk

import (
	"context"
	"errors"
	"io"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/schemas"
)

// carrier reads the carried columns of the source's file again, in step with the sink.
type carrier struct {
	reader FileReader
	proj   *schemas.Projection
	schema *schemas.Schema
	rows   *rows // of the newest record
	bad    []int64
}

// carryAll as the only carried column means all.
const carryAll = "all"

func (s *Service) openCarrier(ctx context.Context, j *Job) (*carrier, error) {
	from, err := parseFrom(j.From)
	if err != nil {
		return nil, err
	}
	c := &carrier{}
	o := FileOptions{BatchRows: j.ChunkRows, OnRowError: func(row int64, _ *schemas.Error) error {
		c.bad = append(c.bad, row)
		return nil
	}}
	if !(len(j.Carry) == 1 && j.Carry[0] == carryAll) {
		o.Columns = j.Carry
	}
	if c.reader, err = s.deps.Files.Open(ctx, from.name, o); err != nil {
		return nil, err
	}
	if c.schema, err = carriedSchema(c.reader.Schema()); err == nil {
		c.proj, err = schemas.NewProjection(c.reader.Schema(), c.schema)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	c.rows = newRows(c.schema)
	return c, nil
}

// carriedSchema takes a file's columns as they are, all nullable: what the model does not read may be missing.
func carriedSchema(as *arrow.Schema) (*schemas.Schema, error) {
	s, err := schemas.SchemaFromArrow(as)
	if err != nil {
		return nil, err
	}
	fs := append([]schemas.Field(nil), s.Fields()...)
	for i := range fs {
		fs[i].Nullable = true
	}
	return schemas.NewSchema(fs)
}

// append adds the carried columns of the rows at these places to dst, from column col on. A row that cannot be carried
// is null in all of them.
func (c *carrier) append(ctx context.Context, dst *schemas.Batch, col int, at []ref) error {
	for i := 0; i < len(at); {
		if err := c.reach(ctx, at[i]); err != nil {
			return err
		}
		from, _ := c.rows.before(at[i])
		if from == len(c.rows.at) || c.rows.at[from] != at[i] {
			for k := range c.schema.Len() {
				dst.Column(col + k).AppendNull()
			}
			i++
			continue
		}
		n := 1 // rows that follow each other in both
		for i+n < len(at) && from+n < len(c.rows.at) && at[i+n] == c.rows.at[from+n] {
			n++
		}
		for k := range c.schema.Len() {
			dst.Column(col+k).AppendColumn(c.rows.in.Column(k), from, from+n)
		}
		i += n
	}
	return nil
}

// reach reads on until the record that covers a row is there.
func (c *carrier) reach(ctx context.Context, at ref) error {
	for uint64(c.reader.Position()) <= at.Unit {
		first := uint64(c.reader.Position())
		c.rows.reset()
		c.bad = c.bad[:0]
		rec, err := c.reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return schemas.FieldErrorf(schemas.Invalid, "bulk.carry", "from", "the source was changed while the job ran: start a new job")
		}
		if err != nil {
			return err
		}
		faults := c.proj.AppendGood(c.rows.in, rec, 0, int(rec.NumRows()), nil)
		rec.Release()
		k, b := 0, 0
		for row := first; row < uint64(c.reader.Position()); row++ {
			if b < len(c.bad) && uint64(c.bad[b]) == row {
				b++
				continue
			}
			if len(faults) > 0 && faults[0].Row == k {
				faults = faults[1:]
			} else {
				c.rows.at = append(c.rows.at, ref{Unit: row})
			}
			k++
		}
	}
	return nil
}

func (c *carrier) close() { _ = c.reader.Close() } // it was only read
