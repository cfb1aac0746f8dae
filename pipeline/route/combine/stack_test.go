package combine_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

func null(f schemas.Field) schemas.Field {
	f.Nullable = true
	return f
}

func named(f schemas.Field, features ...string) schemas.Field {
	f.Features = features
	return f
}

// The flights: a forest and a boosted model under a third, which also sees the request.
var (
	forest  = schema(field("label", schemas.Int64), named(field("probabilities", schemas.Float32, 2), "on_time", "late"))
	boosted = schema(field("label", schemas.Int64), field("score", schemas.Float64, 1), field("leaves", schemas.Int32, 2, 2))
	flight  = schema(field("distance", schemas.Int32), null(field("carrier", schemas.String)), field("score", schemas.Float32), named(field("weather", schemas.Float32, 2), "wind", "rain"))
)

func flights(t *testing.T) (f, b, req *schemas.Batch) {
	t.Helper()
	f, b, req = schemas.NewBatch(forest), schemas.NewBatch(boosted), schemas.NewBatch(flight)
	for i := range 3 {
		x := float32(i)
		put(f.Column(0), i%2)
		schemas.Append(f.Column(1), 1-x/4)
		schemas.Append(f.Column(1), x/4)
		f.Column(1).EndRow()
		put(b.Column(0), 1)
		put(b.Column(1), float64(x)/10)
		for k := range 4 {
			schemas.Append(b.Column(2), int32(10*i+k))
		}
		b.Column(2).EndRow()
		put(req.Column(0), 100*i)
		put(req.Column(1), []any{"AA", nil, "UA"}[i])
		put(req.Column(2), 9.0)
		schemas.Append(req.Column(3), x)
		schemas.Append(req.Column(3), -x)
		req.Column(3).EndRow()
	}
	f.Advance(3)
	b.Advance(3)
	req.Advance(3)
	return f, b, req
}

func members(specs ...string) []combine.Member {
	return []combine.Member{member(specs[0], forest), member(specs[1], boosted)}
}

// show writes a row of a batch.
func show(b *schemas.Batch, row int) string {
	var s []string
	for i := range b.Schema().Len() {
		c := b.Column(i)
		switch {
		case c.IsNull(row):
			s = append(s, "null")
		case c.Field().Type.Variable():
			s = append(s, string(c.Text(row)))
		default:
			for e := range c.Width() {
				x, _ := number(c, row*c.Width()+e)
				s = append(s, fmt.Sprintf("%.4g", x))
			}
		}
	}
	return strings.Join(s, " ")
}

func TestStack(t *testing.T) {
	for _, x := range []struct {
		name  string
		specs []string
		model *schemas.Schema
		rows  string // 1 and 2
	}{
		{"every name", []string{"forest!", "big-boost!"}, schema(
			field("forest_label", schemas.Float32),            // cast
			field("forest_probabilities", schemas.Float64, 2), // cast, whole
			field("probabilities_0", schemas.Float32),         // an element, where one member has it
			field("forest_probabilities_1", schemas.Float32),  // an element
			field("forest_late", schemas.Float32),             // an element by its name
			field("on_time", schemas.Float32),                 // and where one member has it
			field("big_boost_score", schemas.Float32),         // a tensor of one element is a number
			field("big_boost_leaves_3", schemas.Int64),        // row-major
			field("score", schemas.Float64),                   // a member's before the request's
			field("distance", schemas.Float32),                // the request's
			field("rain", schemas.Float32),
			null(field("carrier", schemas.String)),
		), "1 0.75 0.25 0.75 0.25 0.25 0.75 0.1 13 0.1 100 -1 null; 0 0.5 0.5 0.5 0.5 0.5 0.5 0.2 23 0.2 200 -2 UA"},
		{"a packed tensor by names", []string{"forest!", "boosted!"}, schema(
			named(field("features", schemas.Float32, 4), "late", "boosted_score", "wind", "boosted_label"),
		), "0.25 0.1 1 1; 0.5 0.2 2 1"},
		{"a packed tensor whole, and one of another order", []string{"forest!", "boosted!"}, schema(
			named(field("weather", schemas.Float32, 2), "wind", "rain"),
			named(field("probabilities", schemas.Float32, 2), "late", "on_time"),
		), "1 -1 0.25 0.75; 2 -2 0.5 0.5"},
		{"a tensor of one from a number", []string{"forest!", "boosted!"}, schema(field("forest_label", schemas.Int64, 1)), "1; 0"},
		{"the member is missing", []string{"forest!", "boosted"}, schema(null(field("score", schemas.Float32)), null(named(field("packed", schemas.Float32, 2), "late", "leaves_0"))),
			"null 0.25 NaN; null 0.5 NaN"},
		{"members alone", []string{"forest!", "boosted!"}, schema(field("late", schemas.Float16)), "0.25; 0.5"},
	} {
		t.Run(x.name, func(t *testing.T) {
			s, err := combine.NewStack(members(x.specs...), flight, x.model)
			if err != nil {
				t.Fatal(err)
			}
			f, b, req := flights(t)
			present := []*schemas.Batch{f, b}
			if !strings.HasSuffix(x.specs[1], "!") {
				present[1] = nil
			}
			work, dst := schemas.NewBatch(s.Work()), schemas.NewBatch(x.model)
			for range 2 { // what is in work is dropped, what is in dst stays
				bad, err := s.Append(present, req, work, dst, 1, 3, nil)
				if err != nil || len(bad) > 0 {
					t.Fatal(err, bad)
				}
			}
			if got := show(dst, 0) + "; " + show(dst, 1); got != x.rows || dst.Rows() != 4 || show(dst, 3) != show(dst, 1) {
				t.Errorf("%d rows: %s\nwant %s", dst.Rows(), got, x.rows)
			}
		})
	}
}

// A row that does not fit is told, by its place in the members' batches; the others go on.
func TestStackBadRows(t *testing.T) {
	model := schema(field("carrier", schemas.String), field("leaves_1", schemas.Int8), field("distance", schemas.Int8))
	s, err := combine.NewStack(members("forest!", "boosted!"), flight, model)
	if err != nil {
		t.Fatal(err)
	}
	f, b, req := flights(t)
	dst := schemas.NewBatch(model)
	bad, err := s.Append([]*schemas.Batch{f, b}, req, schemas.NewBatch(s.Work()), dst, 0, 3, make([]schemas.RowError, 1))
	if err != nil || len(bad) != 3 || dst.Rows() != 1 || show(dst, 0) != "AA 1 0" {
		t.Fatal(err, bad, dst.Rows())
	}
	for i, want := range []string{"carrier: null, but the column is not nullable", "distance: 200 cannot be a value of int8"} {
		if e := bad[i+1]; e.Row != i+1 || e.Err.Error() != want {
			t.Errorf("row %d: %v, want %s", e.Row, e.Err, want)
		}
	}
	bad, err = s.Append([]*schemas.Batch{f, b}, req, schemas.NewBatch(s.Work()), dst, 2, 3, nil)
	if err != nil || len(bad) != 1 || bad[0].Row != 2 || dst.Rows() != 1 {
		t.Error(err, bad)
	}
}

func TestStackFaults(t *testing.T) {
	one := func(f schemas.Field) *schemas.Schema { return schema(f) }
	both := []string{"forest!", "boosted!"}
	for _, x := range []struct {
		name    string
		members []combine.Member
		model   *schemas.Schema
		want    string
	}{
		{"nobody has it", members(both...), schema(field("forest_lat", schemas.Float32), field("boosted_leaves_4", schemas.Float32), field("zzzzzzzz", schemas.Float32)), `
combine.model: input forest_lat float32: neither a member nor the request has it; did you mean "forest_late"?
combine.model: input boosted_leaves_4 float32: neither a member nor the request has it; did you mean "boosted_leaves"?
combine.model: input zzzzzzzz float32: neither a member nor the request has it; there are forest_label, label, forest_probabilities, probabilities, forest_on_time, on_time, forest_late, late, boosted_label, boosted_score, score, boosted_leaves, leaves, distance, carrier, weather and 2 more`},
		{"several have it", members(both...), one(field("label", schemas.Int64)),
			`combine.model: input label int64: member forest and member boosted all have it; name the input "forest_label" or "boosted_label", or drop it from all but one in a transform`},
		{"a column here, an element there", []combine.Member{member("a!", schema(field("p_1", schemas.Float32))), member("b!", schema(field("p", schemas.Float32, 2)))}, one(field("p_1", schemas.Float32)),
			`combine.model: input p_1 float32: member a and member b all have it; name the input "a_p_1" or "b_p_1", or drop it from all but one in a transform`},
		{"elements by name and by number", []combine.Member{member("a!", schema(named(field("p", schemas.Float32, 2), "q_0", "q_1"))), member("b!", schema(field("q", schemas.Float32, 2)))}, schema(field("q_1", schemas.Float32), field("q_2", schemas.Float32), field("q_01", schemas.Float32), field("xxxxx_1", schemas.Float32)), `
combine.model: input q_1 float32: member a and member b all have it; name the input "a_q_1" or "b_q_1", or drop it from all but one in a transform
combine.model: input q_2 float32: neither a member nor the request has it; did you mean "q_0"?
combine.model: input q_01 float32: neither a member nor the request has it; did you mean "q_0"?
combine.model: input xxxxx_1 float32: neither a member nor the request has it; there are a_p, p, a_q_0, q_0, a_q_1, q_1, b_q, q, distance, carrier, score, weather, wind, rain`},
		{"names that meet", []combine.Member{member("a!", schema(field("b_c", schemas.Bool))), member("a-b!", schema(field("c", schemas.Bool)))}, one(field("a_b_c", schemas.Bool)),
			`combine.model: input a_b_c bool: member a and member a-b all have it by that name; rename the column in a transform of one`},
		{"a feature", members(both...), one(named(field("f", schemas.Float32, 3), "late", "windy", "label")), `
combine.model: input "windy" of f: neither a member nor the request has it; did you mean "wind"?
combine.model: input "label" of f: member forest and member boosted all have it; name the input "forest_label" or "boosted_label", or drop it from all but one in a transform`},
		{"a type that cannot be cast", members(both...), one(field("probabilities", schemas.Float32, 3)),
			`combine.model: input "probabilities": Arrow type fixed_size_list<item: float32>[2] cannot become probabilities float32[3]: 2 elements for 3; cast it in a transform of the member`},
		{"a member that may be missing", members("forest!", "boosted"), schema(field("score", schemas.Float32), named(field("f", schemas.Int64, 1), "boosted_label")), `
combine.model: input score float32 takes no null, but member boosted may be missing; make it required, or the quorum all members
combine.model: input "boosted_label" of f takes no null, but member boosted may be missing; make it required, or the quorum all members`},
		{"integers have no missing value", members("forest!", "boosted"), one(null(named(field("f", schemas.Int64, 1), "boosted_label"))),
			`combine.model: input "boosted_label" of f takes no null, but member boosted may be missing; make it required, or the quorum all members`},
		{"a column that may be null", []combine.Member{member("a!", schema(null(field("x", schemas.Float32))))}, one(field("a_x", schemas.Float32)),
			`combine.model: input a_x float32 takes no null, but column x of member a may be null; give it a default in a transform`},
		{"weights", members("forest:2", "boosted!"), one(field("distance", schemas.Int32)), `members[0].weight: the model weighs its inputs itself; take the weight away`},
		{"a name twice", members("a!", "a!"), one(field("distance", schemas.Int32)), `members[1].name: "a" is the name of members[0] already`},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, err := combine.NewStack(x.members, flight, x.model)
			check(t, err, x.want)
		})
	}
}

// A model that takes every column of every member under its qualified name is fed what concat answers, whatever the
// types; without a request.
func TestStackIsConcat(t *testing.T) {
	everything := schemastest.Everything()
	ms := []combine.Member{member("a!", everything), member("big-b", everything), member("c!", forest)}
	p, err := combine.New("concat", ms)
	if err != nil {
		t.Fatal(err)
	}
	s, err := combine.NewStack(ms, nil, p.Output())
	if err != nil {
		t.Fatal(err)
	}
	work, got, want := schemas.NewBatch(s.Work()), schemas.NewBatch(p.Output()), schemas.NewBatch(p.Output())
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 9))
		rows := r.IntN(20)
		present := make([]*schemas.Batch, 3)
		for i, m := range ms {
			if m.Required || r.IntN(3) > 0 {
				present[i] = schemas.NewBatch(m.Output)
				schemastest.Fill(present[i], r, rows)
			}
		}
		from := r.IntN(rows + 1)
		to := from + r.IntN(rows-from+1)
		if err := p.Combine(present, want, from, to); err != nil {
			t.Fatal(err)
		}
		bad, err := s.Append(present, nil, work, got, from, to, nil)
		if err != nil || len(bad) > 0 {
			t.Fatalf("seed %d: %v %v", seed, err, bad)
		}
		if d := schemastest.Diff(got, want); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
	}
}

func TestStackErrors(t *testing.T) {
	model := schema(field("distance", schemas.Int32), field("late", schemas.Float32), null(field("leaves_0", schemas.Float32)))
	s, err := combine.NewStack(members("forest!", "boosted"), flight, model)
	if err != nil {
		t.Fatal(err)
	}
	f, b, req := flights(t)
	work, dst := schemas.NewBatch(s.Work()), schemas.NewBatch(model)
	type bs = []*schemas.Batch
	for _, x := range []struct {
		present        bs
		req, work, dst *schemas.Batch
		to             int
		kind           schemas.Kind
		want           string
	}{
		{bs{nil, b}, req, work, dst, 3, schemas.Unavailable, "member forest, which is required, did not answer"},
		{bs{f, b}, req, work, dst, 4, schemas.Internal, "member forest answered 3 rows of 4"},
		{bs{f, b}, nil, work, dst, 3, schemas.Internal, "the request's batch is missing, too short or of another schema"},
		{bs{f, b}, f, work, dst, 3, schemas.Internal, "the request's batch is missing, too short or of another schema"},
		{bs{f, b}, req, f, dst, 3, schemas.Internal, "the working batch is of another schema: label int64, probabilities float32[2], not distance int32, late float32, leaves_0 int32?"},
		{bs{f, b}, req, work, f, 3, schemas.Internal, "the model's batch is of another schema: label int64, probabilities float32[2], not distance int32, late float32, leaves_0 float32?"},
	} {
		_, err := s.Append(x.present, x.req, x.work, x.dst, 0, x.to, nil)
		if err == nil || schemas.KindOf(err) != x.kind || err.Error() != x.want {
			t.Errorf("%v, want %v", err, x.want)
		}
	}
	if dst.Rows() != 0 || f.Rows() != 3 {
		t.Error("something was appended or dropped")
	}
}

// Text that would pass a column's bound, of whole columns and of elements.
func TestStackTooMuchText(t *testing.T) {
	combine.LowerMaxText(t, 10)
	out := schema(field("x", schemas.String), field("y", schemas.String, 2))
	for _, input := range []string{"a_x", "a_y_1"} {
		model := schema(field(input, schemas.String))
		s, err := combine.NewStack([]combine.Member{member("a!", out)}, nil, model)
		if err != nil {
			t.Fatal(err)
		}
		b := schemas.NewBatch(out)
		for range 3 {
			put(b.Column(0), "four")
			b.Column(1).AppendString("")
			b.Column(1).AppendString("four")
			b.Column(1).EndRow()
		}
		b.Advance(3)
		work, dst := schemas.NewBatch(s.Work()), schemas.NewBatch(model)
		for range 2 {
			_, err := s.Append([]*schemas.Batch{b}, nil, work, dst, 0, 3, nil)
			if schemas.KindOf(err) != schemas.Invalid || dst.Rows() != 0 {
				t.Errorf("%s: %v", input, err)
			}
		}
		if _, err := s.Append([]*schemas.Batch{b}, nil, work, dst, 1, 3, nil); err != nil || show(dst, 1) != "four" {
			t.Errorf("%s: %v", input, err)
		}
	}
}

// TestStackOfNobody: without members, a model takes the columns of the request: its packed tensor is filled from them.
func TestStackOfNobody(t *testing.T) {
	request := schemas.MustSchema(
		schemas.Field{Name: "a", Type: schemas.Float32}, schemas.Field{Name: "b", Type: schemas.Int64, Nullable: true})
	model := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}, Features: []string{"b", "a"}})
	s, err := combine.NewStack(nil, request, model)
	if err != nil {
		t.Fatal(err)
	}
	in, work, out := schemas.NewBatch(request), schemas.NewBatch(s.Work()), schemas.NewBatch(model)
	for _, b := range []int64{7, 1<<24 + 1} { // the second is no float32
		schemas.Append(in.Column(0), float32(0.5))
		schemas.Append(in.Column(1), b)
		in.Column(0).EndRow()
		in.Column(1).EndRow()
		in.Advance(1)
	}
	bad, err := s.Append(nil, in, work, out, 0, 2, nil)
	if err != nil || len(bad) != 1 || bad[0].Row != 1 || out.Rows() != 1 {
		t.Fatal(bad, err, out.Rows())
	}
	if got := schemas.Values[float32](out.Column(0)); got[0] != 7 || got[1] != 0.5 {
		t.Fatal(got)
	}
}

// TestStackReads: the request's columns that a model takes, be it as a whole or by one element, in the order of the request.
func TestStackReads(t *testing.T) {
	model := schema(field("rain", schemas.Float32), null(field("late", schemas.Float32)), field("distance", schemas.Int32))
	s, err := combine.NewStack(members("forest", "boosted"), flight, model)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.Reads(), " "); got != "distance weather" {
		t.Errorf("reads %q", got)
	}
	if s, err = combine.NewStack(members("forest", "boosted"), nil, schema(null(field("late", schemas.Float32)))); err != nil || len(s.Reads()) > 0 {
		t.Errorf("%v, %v", s.Reads(), err)
	}
}
