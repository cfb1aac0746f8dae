package lineage

import (
	"slices"

	"github.com/leatstream/leat/schemas"
)

// parquetJoined is parquetSchema with what was said of a record.
var parquetJoined = schemas.MustSchema(append(slices.Clone(parquetSchema.Fields()),
	schemas.Field{Name: "label_number", Type: schemas.Float64, Nullable: true}, schemas.Field{Name: "label_text", Type: schemas.String, Nullable: true},
	schemas.Field{Name: "label_bool", Type: schemas.Bool, Nullable: true}, schemas.Field{Name: "reward", Type: schemas.Float64, Nullable: true},
	schemas.Field{Name: "comment", Type: schemas.String, Nullable: true}, number("feedback", schemas.Int32),
)...)

// appendOutcome fills the columns of what was said, from column i on.
func appendOutcome(b *schemas.Batch, i int, fs []*Feedback) {
	o := OutcomeOf(fs)
	if o == nil {
		o = &Outcome{}
	}
	switch l := o.Label.(type) {
	case float64:
		put(b, i, l)
	case string:
		putString(b, i+1, l)
	case bool:
		b.Column(i + 2).AppendBool(l)
		b.Column(i + 2).EndRow()
	}
	if o.Reward != nil {
		put(b, i+3, *o.Reward)
	}
	if o.Comment != "" {
		putString(b, i+4, o.Comment)
	}
	for c := i; c < i+5; c++ {
		if col := b.Column(c); col.Rows() == b.Rows() {
			col.AppendNull()
		}
	}
	put(b, i+5, int32(o.Count))
}

// addFeedback adds a row for what was said: all of it under said, its place where records have theirs, and nothing in the
// columns that are about a record, so that who looks for a pipeline or a status finds records alone.
func (p *parquetWriter) addFeedback(f *Feedback) error {
	b, at := p.head, p.head.Schema().Index
	putString(b, at("position"), f.Position.String())
	put(b, at("sequence"), f.Position.Sequence)
	put(b, at("index"), int32(f.Index))
	putTime(b, at("appended"), f.Appended)
	superseded := b.Column(at("superseded"))
	superseded.AppendBool(f.Superseded)
	superseded.EndRow()
	for i, field := range b.Schema().Fields() {
		switch c := b.Column(i); {
		case c.Rows() > b.Rows():
		case field.Nullable:
			c.AppendNull()
		case field.Type == schemas.String:
			putString(b, i, "")
		default:
			c.AppendFixed(make([]byte, field.Type.Size()), 1)
		}
	}
	b.Advance(1)
	p.one.Reset()
	appendFeedbackRow(p.one, f)
	p.sides[0].append(nil, 0)
	p.sides[1].append(nil, 0)
	p.sides[2].append(p.one, 0)
	return p.added()
}
