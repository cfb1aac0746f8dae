package combine_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/leatstream/leat/pipeline/route/combine"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/schemas/schemastest"
)

func schema(fields ...schemas.Field) *schemas.Schema { return schemas.MustSchema(fields...) }

func field(name string, t schemas.DType, shape ...int) schemas.Field {
	return schemas.Field{Name: name, Type: t, Shape: shape}
}

func classifier(features ...string) *schemas.Schema {
	p := field("probabilities", schemas.Float32, 2)
	p.Features = features
	return schema(field("label", schemas.Int64), p)
}

// member reads "name", "name:3" (its weight) or "name!" (required).
func member(spec string, out *schemas.Schema) combine.Member {
	m := combine.Member{Output: out}
	spec, m.Required = strings.CutSuffix(spec, "!")
	name, weight, _ := strings.Cut(spec, ":")
	for _, d := range strings.TrimPrefix(weight, "-") {
		m.Weight = 10*m.Weight + int(d-'0')
	}
	if strings.HasPrefix(weight, "-") {
		m.Weight = -m.Weight
	}
	m.Name = name
	return m
}

// check compares an error with the faults that are wanted, one a line.
func check(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want\n%s", want)
	}
	var fs document.Faults
	if schemas.KindOf(err) != schemas.Invalid || !errors.As(err, &fs) {
		t.Errorf("%T of kind %v, want faults that are invalid", err, schemas.KindOf(err))
	}
	if got := err.Error(); got != strings.TrimSpace(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestFaults(t *testing.T) {
	c, long := classifier(), strings.Repeat("x", 250)
	type ms = []combine.Member
	for _, x := range []struct {
		name, kind string
		members    ms
		want       string
	}{
		{"no kind", "", ms{member("a", c)}, `combine: missing; want one of mean, weighted_mean, median, majority_vote, weighted_vote, max, concat`},
		{"unknown kind", "weighted-mean", ms{member("a", c)}, `combine: unknown rule "weighted-mean"; did you mean "weighted_mean"?`},
		{"no members", "mean", nil, `members: 0 of them: want 1 to 64`},
		{"too many", "mean", make(ms, 65), `members: 65 of them: want 1 to 64`},
		{"members", "concat", ms{member("a", c), member("A", c), member("a", nil)}, `
members[1].name: member name "A": want a lower-case letter, then up to 62 of a-z, 0-9 and '-'
members[2].name: "a" is the name of members[0] already
members[2]: member a answers no columns`},
		{"weights", "weighted_mean", ms{member("a:1", c), member("b", c), member("c:-1", c), member("d:1000001", c)}, `
members[1].weight: missing; weighted_mean wants a positive integer of every member; only proportions count
members[2].weight: -1: want a positive integer, at most 1000000; only proportions count
members[3].weight: 1000001: want a positive integer, at most 1000000; only proportions count`},
		{"weights of a mean", "mean", ms{member("a:1", c), member("b", c)}, `members[0].weight: mean counts every member alike; write combine: weighted_mean, or take the weight away`},
		{"weights of a vote", "majority_vote", ms{member("a:1", c), member("b", c)}, `
members[0].weight: majority_vote counts every member alike; write combine: weighted_vote, or take the weight away
combine: column probabilities float32[2]: majority_vote: a float32 is no label: two members rarely give the same bits; use mean, or leave the column out`},
		{"weights of a median", "median", ms{member("a:1", c), member("b", c)}, `members[0].weight: median knows no weights; take it away`},
		{"a misspelt column", "mean", ms{member("a", c), member("b", schema(field("label", schemas.Int64), field("probabilites", schemas.Float32, 2)))},
			`members[1]: member b: no column probabilities float32[2], which member a answers; did you mean its "probabilites"?; it answers label int64, probabilites float32[2]; rename, add or drop columns in a transform`},
		{"a column too many and one too few", "max", ms{member("a", c), member("b", schema(field("label", schemas.Int64), field("score", schemas.Float32)))}, `
members[1]: member b: no column probabilities float32[2], which member a answers; it answers label int64, score float32; rename, add or drop columns in a transform
members[1]: member b: column score float32, which member a does not answer; it answers label int64, probabilities float32[2]; rename, add or drop columns in a transform`},
		{"dtype and shape", "mean", ms{member("a", c), member("b", schema(field("label", schemas.Int32), field("probabilities", schemas.Float32, 3))), member("c", schema(field("probabilities", schemas.Float32), field("label", schemas.Int64)))}, `
members[1]: member b: column label is int32, but member a answers int64; cast it in a transform of either
members[1]: member b: column probabilities is float32[3], but member a answers float32[2]; cast it in a transform of either
members[2]: member c: column probabilities is float32, but member a answers float32[2]; cast it in a transform of either`},
		{"swapped classes", "mean", ms{member("a", classifier()), member("b", classifier("on_time", "late")), member("c", classifier("late", "on_time"))},
			`members[2]: member c: the elements of column probabilities are late, on_time, but in member b on_time, late; bring them into one order`},
		{"a vote on floats", "majority_vote", ms{member("a", c), member("b", c)}, `combine: column probabilities float32[2]: majority_vote: a float32 is no label: two members rarely give the same bits; use mean, or leave the column out`},
		{"a mean of labels", "median", ms{member("a", schema(field("b", schemas.Bool), field("s", schemas.String), field("t", schemas.Timestamp)))}, `
combine: column b bool: median: a bool has none; vote on it, take max (true if any is), or cast it to a number in a transform
combine: column s string: median: a string has none; vote on it, or leave the column out
combine: column t timestamp: median: a timestamp has none; take max (the latest), or cast it to a number in a transform`},
		{"a maximum of text", "max", ms{member("a", schema(field("s", schemas.Binary)))}, `combine: column s binary: max: a binary has none; vote on it, or leave the column out`},
		{"names that meet", "concat", ms{member("a", schema(field("b_c", schemas.Bool))), member("a-b", schema(field("c", schemas.Bool)))}, `members[1]: member a-b: column name "a_b_c" comes of member a too; rename the column in a transform`},
		{"names too long", "concat", ms{member("abcdefgh", schema(field(long, schemas.Bool)))},
			`members[0]: member abcdefgh: column name "abcdefgh_` + long[:68] + `..." has 259 bytes: at most 256; rename the column in a transform`},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.name == "too many" {
				for i := range x.members {
					x.members[i] = member("m"+strings.Repeat("x", i%60)+string(rune('a'+i/60)), c)
				}
			}
			_, err := combine.New(x.kind, x.members)
			check(t, err, x.want)
		})
	}
}

func TestTooManyColumns(t *testing.T) {
	var fs []schemas.Field
	for i := range schemas.MaxColumns {
		fs = append(fs, field("c"+strings.Repeat("x", i%200)+string(rune('a'+i/200)), schemas.Bool))
	}
	s := schema(fs...)
	_, err := combine.New(combine.Concat, []combine.Member{member("a", s), member("b", s)})
	check(t, err, "members: 8192 columns together: at most 4096; drop some in a transform")
}

// A rule for each column: labels by vote, probabilities by mean, the rest left out.
func TestColumns(t *testing.T) {
	a := schema(field("label", schemas.String), field("probabilities", schemas.Float32, 2), field("note", schemas.String))
	b := schema(field("probabilities", schemas.Float32, 2), field("label", schemas.String))
	p, err := combine.NewColumns([]combine.Column{{Name: "probabilities", Kind: "weighted_mean"}, {Name: "label", Kind: "majority_vote"}},
		[]combine.Member{member("a:9", a), member("b:1", b), member("c:1", b)})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Output().String(); got != "probabilities float32[2], label string" {
		t.Fatal(got)
	}
	present := []*schemas.Batch{schemas.NewBatch(a), schemas.NewBatch(b), schemas.NewBatch(b)}
	for i, v := range present {
		s := v.Schema()
		for _, x := range []float32{0.5 * float32(i), 1} {
			schemas.Append(v.Column(s.Index("probabilities")), x)
		}
		v.Column(s.Index("probabilities")).EndRow()
		put(v.Column(s.Index("label")), []string{"late", "on time", "on time"}[i])
		if i == 0 {
			put(v.Column(2), "left out")
		}
		v.Advance(1)
	}
	dst := schemas.NewBatch(p.Output())
	if err := p.Combine(present, dst, 0, 1); err != nil {
		t.Fatal(err)
	}
	if v := schemas.Values[float32](dst.Column(0)); v[0] != 1.5/11 || v[1] != 1 {
		t.Errorf("probabilities %v", v)
	}
	if l := take(dst.Column(1), 0); l != "on time" {
		t.Errorf("label %q", l) // majority_vote counts alike, beside a column that weighs
	}

	_, err = combine.NewColumns(nil, []combine.Member{member("a", a)})
	check(t, err, `combine: no columns; name the columns of the answer and their rules, or one rule for all`)
	_, err = combine.NewColumns([]combine.Column{{"label", "concat"}, {"label", "max"}, {"x", "men"}, {"", "max"}}, []combine.Member{member("a:1", a)})
	check(t, err, `
combine.label: concat puts whole members side by side; write combine: concat, or choose another rule for the column
combine.label: named twice
combine.x: unknown rule "men"; did you mean "mean"?
combine: a rule without a column's name
members[0].weight: max knows no weights; take it away`)
	_, err = combine.NewColumns([]combine.Column{{"lable", "majority_vote"}, {"note", "majority_vote"}, {"label", "max"}}, []combine.Member{member("a", a), member("b", b)})
	check(t, err, `
members[0]: member a: no column "lable"; did you mean "label"?
members[1]: member b: no column "lable"; did you mean "label"?
members[1]: member b: no column "note"; it answers probabilities float32[2], label string
combine.label: column label string: max: a string has none; vote on it, or leave the column out`)
}

// Elements of different columns get one name only by the two members together.
func TestElementsOfOneName(t *testing.T) {
	x, y := field("x", schemas.Float32, 2), field("y", schemas.Float32, 2)
	px, py := x, y
	px.Features, py.Features = []string{"p", "q"}, []string{"p", "q"}
	_, err := combine.New("mean", []combine.Member{member("a", schema(px, y)), member("b", schema(x, py))})
	check(t, err, `combine: the answer's columns: y: feature "p" is named twice (in x before)`)
}

// The answer is nullable if any member's column is; features are those of whoever names them.
func TestOutput(t *testing.T) {
	null := field("x", schemas.Float32)
	null.Nullable = true
	for _, m := range [][]combine.Member{
		{member("a!", schema(null)), member("b!", schema(field("x", schemas.Float32)))},
		{member("a", schema(field("x", schemas.Float32))), member("b", schema(null))},
	} {
		p, err := combine.New("mean", m)
		if err != nil || p.Output().String() != "x float32?" {
			t.Errorf("%v, %v", p.Output(), err)
		}
	}
	p, err := combine.New("max", []combine.Member{member("a", classifier()), member("b", classifier("on_time", "late"))})
	if err != nil || strings.Join(p.Output().Field(1).Features, " ") != "on_time late" {
		t.Errorf("%v, %v", p.Output().Field(1).Features, err)
	}
}

func TestConcat(t *testing.T) {
	s := schemastest.Everything()
	p, err := combine.New("concat", []combine.Member{member("big-model", s), member("b!", classifier("p0", "p1"))})
	if err != nil {
		t.Fatal(err)
	}
	out := p.Output()
	if out.Len() != s.Len()+2 || out.Field(0).Name != "big_model_"+s.Field(0).Name || !out.Field(0).Nullable {
		t.Fatal(out)
	}
	if f := out.Field(s.Len() + 1); f.String() != "b_probabilities float32[2]" || strings.Join(f.Features, " ") != "b_p0 b_p1" {
		t.Error(f, f.Features)
	}
	r := rand.New(rand.NewPCG(7, 7))
	a, b, dst := schemas.NewBatch(s), schemas.NewBatch(classifier()), schemas.NewBatch(out)
	schemastest.Fill(a, r, 20)
	schemastest.Fill(b, r, 20)
	for _, x := range []struct{ from, to int }{{3, 3}, {3, 11}, {0, 20}} {
		if err := p.Combine([]*schemas.Batch{a, b}, dst, x.from, x.to); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Combine([]*schemas.Batch{nil, b}, dst, 0, 20); err != nil {
		t.Fatal(err)
	}
	want := schemas.NewBatch(out)
	for i := range out.Len() {
		src := b.Column(max(i-s.Len(), 0))
		if i < s.Len() {
			src = a.Column(i)
		}
		want.Column(i).AppendColumn(src, 3, 11)
		want.Column(i).AppendColumn(src, 0, 20)
		for row := range 20 {
			if i < s.Len() {
				want.Column(i).AppendNull()
			} else {
				want.Column(i).AppendColumn(src, row, row+1)
			}
		}
	}
	want.Advance(48)
	if d := schemastest.Diff(dst, want); d != "" {
		t.Error(d)
	}
}

// What only a broken executor can hand over is an error, and what cannot be answered too; the batch is as it was.
func TestCombineErrors(t *testing.T) {
	c := classifier()
	p, err := combine.NewColumns([]combine.Column{{"label", "max"}}, []combine.Member{member("a!", c), member("b", c), member("c", c)})
	if err != nil {
		t.Fatal(err)
	}
	b := schemas.NewBatch(c)
	schemastest.Fill(b, rand.New(rand.NewPCG(1, 1)), 3)
	other := schemas.NewBatch(schema(field("label", schemas.Int64)))
	dst := schemas.NewBatch(p.Output())
	type bs = []*schemas.Batch
	for _, x := range []struct {
		present  bs
		dst      *schemas.Batch
		from, to int
		kind     schemas.Kind
		want     string
	}{
		{bs{nil, b, b}, dst, 0, 3, schemas.Unavailable, "member a, which is required, did not answer"},
		{bs{b, b}, dst, 0, 3, schemas.Internal, "2 answers of 3 members, rows 0 to 3"},
		{bs{b, b, b}, dst, 2, 1, schemas.Internal, "3 answers of 3 members, rows 2 to 1"},
		{bs{b, b, b}, dst, -1, 1, schemas.Internal, "3 answers of 3 members, rows -1 to 1"},
		{bs{b, nil, b}, dst, 0, 4, schemas.Internal, "member a answered 3 rows of 4"},
		{bs{b, other, nil}, dst, 0, 0, schemas.Internal, "member b answered label int64, not label int64, probabilities float32[2]"},
		{bs{b, nil, nil}, b, 0, 0, schemas.Internal, "the answer's batch is of another schema: label int64, probabilities float32[2], not label int64"},
	} {
		err := p.Combine(x.present, x.dst, x.from, x.to)
		if err == nil || schemas.KindOf(err) != x.kind || err.Error() != x.want {
			t.Errorf("%v, want %v", err, x.want)
		}
	}
	q, err := combine.New("concat", []combine.Member{member("a", c), member("b", c)})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Combine(bs{nil, nil}, schemas.NewBatch(q.Output()), 0, 0); err == nil || schemas.KindOf(err) != schemas.Unavailable {
		t.Errorf("nobody answered: %v", err)
	}
	if dst.Rows() != 0 || b.Rows() != 3 {
		t.Error("something was appended")
	}
}

// Text that would pass a column's bound is refused before it is copied, and what the call appended is dropped.
func TestTooMuchText(t *testing.T) {
	combine.LowerMaxText(t, 10)
	nullable := schema(schemas.Field{Name: "x", Type: schemas.String, Nullable: true})
	s := schema(field("n", schemas.Int64), field("x", schemas.String))
	full := func(text string) *schemas.Batch {
		b := schemas.NewBatch(s)
		for range 3 {
			put(b.Column(0), 1)
			put(b.Column(1), text)
		}
		b.Advance(3)
		return b
	}
	vote := combine.MajorityVote
	if p, err := combine.New(vote, []combine.Member{member("a", nullable), member("b", nullable)}); err != nil {
		t.Fatal(err)
	} else {
		b := schemas.NewBatch(nullable)
		put(b.Column(0), nil)
		put(b.Column(0), "more than ten bytes")
		b.Advance(2)
		dst := schemas.NewBatch(p.Output())
		if err := p.Combine([]*schemas.Batch{b, b}, dst, 0, 2); schemas.KindOf(err) != schemas.Invalid || dst.Column(0).Rows() != 0 {
			t.Error(err)
		}
	}
	for _, kind := range []string{vote, "concat"} {
		p, err := combine.New(kind, []combine.Member{member("a", s), member("b", s), member("c", s)})
		if err != nil {
			t.Fatal(err)
		}
		for _, present := range [][]*schemas.Batch{{full("four"), full("four"), full("long as can be")}, {full("four"), nil, nil}} {
			dst := schemas.NewBatch(p.Output())
			if err := p.Combine(present, dst, 0, 2); err != nil && kind != "concat" {
				t.Fatal(err)
			}
			rows := dst.Rows()
			err := p.Combine(present, dst, 0, 3)
			if schemas.KindOf(err) != schemas.Invalid || !strings.HasSuffix(err.Error(), "x: more than 2 GiB of text in one batch; send fewer rows") {
				t.Errorf("%s: %v", kind, err)
			}
			dst.Advance(0) // panics if a column is ragged
			if dst.Rows() != rows {
				t.Errorf("%s: %d rows, not %d", kind, dst.Rows(), rows)
			}
		}
	}
}

// A plan is used by many at once.
func TestConcurrent(t *testing.T) {
	c := classifier()
	p, err := combine.New("mean", []combine.Member{member("a", c), member("b", c)})
	if err != nil {
		t.Fatal(err)
	}
	b := schemas.NewBatch(c)
	schemastest.Fill(b, rand.New(rand.NewPCG(1, 1)), 100)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dst := schemas.NewBatch(p.Output())
			for range 50 {
				if err := p.Combine([]*schemas.Batch{b, b}, dst, 0, 100); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
