package combine

import (
	"slices"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// Stack is how the answers of an ensemble's members become the inputs of a further model (stacking). It is immutable
// and safe for concurrent use.
//
// The model names its inputs by
//
//	<member>_<column>      a member's column; dashes of the member's name are underscores (Qualified)
//	<member>_<feature>     an element of a member's tensor by its name, if elements have names
//	<member>_<column>_<i>  element i of a member's tensor, from 0, in row-major order
//
// or by the same without <member>_ where one member alone has it, or by a column of the request, or a feature of one of
// its tensors. Earlier lines go first, and members before the request, as in a sequence the latest step does. A plain
// name that several members have is a fault, also if the request has it: nothing is guessed. A packed tensor whose
// elements have names (Field.Features) is filled from a column of its own name with the same elements, or else by them.
//
// Types are cast as by schemas.Projection: numbers if the value is kept exactly, floats may be rounded.
type Stack struct {
	members []Member
	request *schemas.Schema
	model   *schemas.Schema
	work    *schemas.Schema // what the model takes, in the types of its sources
	src     []source        // of work's columns
	project *schemas.Projection

	straight []straight // nil: all goes through project
}

// source is a column, or one element of it, of a member or of the request.
type source struct {
	member  int // -1: the request
	column  int
	element int // -1: the whole column
}

// NewStack plans to feed a model from members and the request, or, without members, from the request alone. The error is Invalid and holds all faults
// (document.Faults), with paths relative to the ensemble: an input that nobody gives, one that several do, one whose type
// cannot be cast, and one that may be null (a member that is not Required, a nullable column) where the model takes none.
// A null of the request is no fault: it fails its row.
func NewStack(members []Member, request, model *schemas.Schema) (*Stack, error) {
	const op = "combine.NewStack"
	b := stackBuilder{members: slices.Clone(members), request: request, names: map[string][]found{}}
	b.faults = append(b.faults, checkMembers(b.members, 0)...)
	for i := range b.members {
		if b.members[i].Weight != 0 {
			b.fault(at(i)+".weight", "the model weighs its inputs itself; take the weight away")
		}
	}
	if len(b.faults) > 0 {
		return nil, b.faults.Err(op)
	}
	b.nameAll()
	for i := range model.Len() {
		b.input(model.Field(i))
	}
	if len(b.faults) > 0 {
		return nil, b.faults.Err(op)
	}
	s := &Stack{members: b.members, request: request, model: model, src: b.src}
	var err error
	if s.work, err = schemas.NewSchema(b.fields); err != nil {
		return nil, err
	}
	if s.project, err = schemas.NewProjection(s.work.Arrow(), model); err != nil {
		e := schemas.AsError(op, err)
		b.fault(modelPath, "input %s: %v; cast it in a transform of the member", quote(e.Field), e.Err)
		return nil, b.faults.Err(op)
	}
	s.straight = s.direct()
	return s, nil
}

// Work returns the schema of the batch that Append works in.
func (s *Stack) Work() *schemas.Schema { return s.work }

// Reads returns the columns of the request that the model takes, in the order of the request.
func (s *Stack) Reads() []string {
	var names []string
	for i := range s.requestLen() {
		if slices.ContainsFunc(s.src, func(o source) bool { return o.member < 0 && o.column == i }) {
			names = append(names, s.request.Field(i).Name)
		}
	}
	return names
}

func (s *Stack) requestLen() int {
	if s.request == nil {
		return 0
	}
	return s.request.Len()
}

// Append appends the model's inputs for the rows [from, to) to dst, those that fit, and one RowError to bad for each of
// the others, in order: its Row is counted as in the members' batches, its Field is the input's name alone. present is as for Combine; request holds the rows
// that the members saw, and is not looked at if it is nil and the model takes nothing of it. work is of the schema Work;
// what is in it is dropped, and its memory reused: keep it and Append allocates nothing, or a few views a
// call where it cannot cast directly (text to be cast, nulls, a value that does not fit).
//
// The error is Unavailable if nobody answered or a required member did not, and Internal if batches are not of the
// schemas that were planned for; then nothing is appended.
func (s *Stack) Append(present []*schemas.Batch, request, work, dst *schemas.Batch, from, to int, bad []schemas.RowError) ([]schemas.RowError, error) {
	const op = "combine.Stack.Append"
	if err := checkPresent(op, s.members, present, from, to); err != nil {
		return bad, err
	}
	if work.Schema() != s.work && work.Schema().ID() != s.work.ID() {
		return bad, schemas.Errorf(schemas.Internal, op, "the working batch is of another schema: %s, not %s", brief(work.Schema()), brief(s.work))
	}
	if dst.Schema() != s.model && dst.Schema().ID() != s.model.ID() {
		return bad, schemas.Errorf(schemas.Internal, op, "the model's batch is of another schema: %s, not %s", brief(dst.Schema()), brief(s.model))
	}
	for _, src := range s.src {
		if b := request; src.member < 0 && (b == nil || b.Rows() < to || b.Schema() != s.request && b.Schema().ID() != s.request.ID()) {
			return bad, schemas.Errorf(schemas.Internal, op, "the request's batch is missing, too short or of another schema")
		}
	}
	work.Reset()
	if s.appendDirect(present, request, dst, from, to) {
		return bad, nil
	}
	for i, src := range s.src {
		b := request
		if src.member >= 0 {
			b = present[src.member]
		}
		if !src.append(work.Column(i), b, from, to) {
			work.Rollback()
			return bad, schemas.FieldErrorf(schemas.Invalid, op, s.work.Field(i).Name, "more than 2 GiB of text in one batch; send fewer rows")
		}
	}
	work.Advance(to - from)
	rec, err := work.Record(nil)
	if err != nil {
		return bad, schemas.AsError(op, err)
	}
	defer rec.Release()
	first := len(bad)
	bad = s.project.AppendGood(dst, rec, 0, to-from, bad)
	for i := first; i < len(bad); i++ {
		e := bad[i].Err
		_, e.Field, _ = strings.Cut(e.Field, ".") // "rows[3].score": the row is of our record, and told by Row
		bad[i].Row += from
	}
	return bad, nil
}

// append copies one source; b is nil if the member did not answer.
func (s source) append(dst *schemas.Column, b *schemas.Batch, from, to int) bool {
	if b == nil {
		appendNulls(dst, to-from)
		return true
	}
	c := b.Column(s.column)
	if s.element < 0 {
		return appendRows(dst, c, from, to)
	}
	w, size := c.Width(), c.Field().Type.Size()
	for row := from; row < to; row++ {
		e := row*w + s.element
		switch {
		case c.IsNull(row):
			dst.AppendNull()
		case size > 0:
			dst.AppendFixed(c.Data()[e*size:(e+1)*size], 1)
		case len(c.Text(e)) > maxText-len(dst.Data()):
			return false
		default:
			dst.AppendText(c.Text(e))
			dst.EndRow()
		}
	}
	return true
}
