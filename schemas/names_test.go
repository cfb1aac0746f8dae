package schemas_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name      string
		ok, topic bool
	}{
		{"a", true, true}, {"flight-delay", true, true}, {"a1-", true, true}, {strings.Repeat("a", 63), true, true},
		{"", false, false}, {strings.Repeat("a", 64), false, false}, {"1a", false, false}, {"-a", false, false}, {"A", false, false},
		{"a_b", false, false}, {"a b", false, false}, {"a/b", false, false}, {"é", false, false}, {"a\x00", false, false},
		{"a.b", false, true}, {"flights.departures", false, true}, {"a..b", false, false}, {".a", false, false}, {"a.", false, false},
		{strings.Repeat("a.", 100) + "a", false, false}, {"a.*", false, false}, {"a.>", false, false},
	} {
		if err := schemas.CheckName("model", c.name); (err == nil) != c.ok {
			t.Errorf("CheckName(%q) = %v", c.name, err)
		} else if err != nil && schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("CheckName(%q): kind %v", c.name, schemas.KindOf(err))
		}
		if err := schemas.CheckTopic(c.name); (err == nil) != c.topic {
			t.Errorf("CheckTopic(%q) = %v", c.name, err)
		}
	}
}

func TestModelRef(t *testing.T) {
	for in, want := range map[string]string{"fraud": "fraud@champion", "fraud@3": "fraud@3", "fraud@next": "fraud@next",
		"fraud@0": "", "fraud@-1": "", "fraud@03": "", "fraud@": "", "@3": "", "fraud@3a": "", "fraud@a@b": "",
		"fraud@99999999999999999999": "", "Fraud@1": ""} {
		r, err := schemas.ParseModelRef(in)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q was taken as %v", in, r)
		case want != "" && (err != nil || r.String() != want):
			t.Errorf("%q: %v, %v, want %s", in, r, err, want)
		}
	}
}

func TestPositions(t *testing.T) {
	for _, p := range []schemas.Position{{}, {Stream: "LEAT_T_a", Partition: 7, Sequence: 1<<64 - 1}, {Stream: "a/b", Sequence: 1}} {
		got, err := schemas.ParsePosition(p.String())
		if err != nil || got != p {
			t.Errorf("%q: %v, %v", p.String(), got, err)
		}
	}
	for _, s := range []string{"a", "a/1", "/1/1", "a/-1/1", "a/1/-1", "a/x/1", "a/1/1/", "a/99999999999/1", "a/1/99999999999999999999999"} {
		if p, err := schemas.ParsePosition(s); err == nil {
			t.Errorf("%q was taken as %+v", s, p)
		}
	}
}

func TestDeadline(t *testing.T) {
	now := time.Date(2013, 7, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return schemas.FormatTime(now.Add(d)) }
	for _, c := range []struct {
		name, deadline, timeout string
		want                    time.Duration
		ok, bad                 bool
	}{
		{name: "neither"},
		{name: "deadline", deadline: at(time.Second), want: time.Second, ok: true},
		{name: "timeout", timeout: "250ms", want: 250 * time.Millisecond, ok: true},
		{name: "the earlier is the timeout", deadline: at(time.Second), timeout: "250ms", want: 250 * time.Millisecond, ok: true},
		{name: "the earlier is the deadline", deadline: at(time.Millisecond), timeout: "250ms", want: time.Millisecond, ok: true},
		{name: "past", deadline: at(-time.Hour), want: -time.Hour, ok: true},
		{name: "no time", deadline: "soon", bad: true},
		{name: "no duration", timeout: "250", bad: true},
		{name: "not positive", timeout: "0s", bad: true},
		{name: "negative", timeout: "-1s", bad: true},
	} {
		h := schemas.Header{}
		if c.deadline != "" {
			h.Set(schemas.HeaderDeadline, c.deadline)
		}
		if c.timeout != "" {
			h.Set(schemas.HeaderTimeout, c.timeout)
		}
		d, ok, err := schemas.Deadline(h, now)
		if c.bad {
			var e *schemas.Error
			if !errors.As(err, &e) || e.Kind != schemas.Invalid || e.Field == "" {
				t.Errorf("%s: %v, want Invalid with the header's name", c.name, err)
			}
			continue
		}
		if err != nil || ok != c.ok || ok && !d.Equal(now.Add(c.want)) {
			t.Errorf("%s: %v %v %v", c.name, d, ok, err)
		}
	}
}

// The id is a contract with every stored record: these are fixed for ever.
func TestSchemaIDGolden(t *testing.T) {
	for _, c := range []struct {
		fields        []schemas.Field
		canonical, id string
	}{
		{nil, `[]`, "4f53cda18c2baa0c0354bb5f9a3ecbe5"},
		{[]schemas.Field{{Name: "dep_delay", Type: schemas.Float32}},
			`[{"name":"dep_delay","nullable":false,"shape":[],"type":"float32"}]`, "714e35465568af0694797b88dee44e08"},
		{[]schemas.Field{{Name: "x", Type: schemas.Float32, Shape: []int{2, 3}, Nullable: true}, {Name: "q\"\\ü", Type: schemas.Timestamp}},
			`[{"name":"x","nullable":true,"shape":[2,3],"type":"float32"},{"name":"q\"\\ü","nullable":false,"shape":[],"type":"timestamp"}]`, "0799df9da86895beb5f44e14060a3e73"},
	} {
		s := schemas.MustSchema(c.fields...)
		if string(s.Canonical()) != c.canonical {
			t.Errorf("canonical form\n%s, want\n%s", s.Canonical(), c.canonical)
		}
		if s.ID().String() != c.id {
			t.Errorf("id of %s is %s, want %s", c.canonical, s.ID(), c.id)
		}
		if id, err := schemas.ParseSchemaID(s.ID().String()); err != nil || id != s.ID() {
			t.Errorf("%s: %v %v", s.ID(), id, err)
		}
		back := new(schemas.Schema)
		if err := json.Unmarshal(s.Canonical(), back); err != nil || back.ID() != s.ID() {
			t.Errorf("the canonical form of %s reads back as %v, %v", s, back, err)
		}
	}
	for _, s := range []string{"", "xyz", strings.Repeat("g", 32), strings.Repeat("a", 33)} {
		if _, err := schemas.ParseSchemaID(s); err == nil {
			t.Errorf("id %q was taken", s)
		}
	}
}

func TestSchemaIdentity(t *testing.T) {
	a := schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}}
	b := a
	b.Features = []string{"u", "v"}
	if schemas.MustSchema(a).ID() != schemas.MustSchema(b).ID() {
		t.Error("feature names are part of the id")
	}
	empty := schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{}}
	if s := schemas.MustSchema(empty); s.Field(0).Tensor() {
		t.Error("a shape without dimensions is a tensor")
	}
	shape := []int{2}
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float32, Shape: shape})
	shape[0] = 3
	if s.Field(0).Width() != 2 {
		t.Error("a schema changed with its caller's slice")
	}
}

func TestSchemaFaults(t *testing.T) {
	many := make([]schemas.Field, schemas.MaxColumns+1)
	for i := range many {
		many[i] = schemas.Field{Name: fmt.Sprint("c", i), Type: schemas.Int8}
	}
	f32 := schemas.Float32
	for name, fs := range map[string][]schemas.Field{
		"too many":               many,
		"no name":                {{Type: f32}},
		"long name":              {{Name: strings.Repeat("x", 257), Type: f32}},
		"control character":      {{Name: "a\nb", Type: f32}},
		"not UTF-8":              {{Name: "a\xff", Type: f32}},
		"twice":                  {{Name: "a", Type: f32}, {Name: "a", Type: f32}},
		"no dtype":               {{Name: "a"}},
		"dtype out of range":     {{Name: "a", Type: 200}},
		"zero dimension":         {{Name: "a", Type: f32, Shape: []int{0}}},
		"negative dimension":     {{Name: "a", Type: f32, Shape: []int{-1}}},
		"overflowing product":    {{Name: "a", Type: f32, Shape: []int{1 << 20, 1 << 20, 1 << 24}}},
		"features do not fit":    {{Name: "a", Type: f32, Shape: []int{2}, Features: []string{"x"}}},
		"feature twice":          {{Name: "a", Type: f32, Shape: []int{2}, Features: []string{"x", "x"}}},
		"feature of two":         {{Name: "a", Type: f32, Shape: []int{1}, Features: []string{"x"}}, {Name: "b", Type: f32, Shape: []int{1}, Features: []string{"x"}}},
		"feature is a column":    {{Name: "a", Type: f32, Shape: []int{1}, Features: []string{"b"}}, {Name: "b", Type: f32}},
		"feature without a name": {{Name: "a", Type: f32, Shape: []int{1}, Features: []string{""}}},
	} {
		if _, err := schemas.NewSchema(fs); schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	e := schemas.FieldErrorf(schemas.Invalid, "op", "rows[3].x", "want a number: %w", cause)
	wrapped := fmt.Errorf("reading: %w", e)
	got := schemas.AsError("other", wrapped)
	if got.Kind != schemas.Invalid || got.Field != "rows[3].x" || !errors.Is(got, cause) || !strings.Contains(got.Err.Error(), "reading: ") {
		t.Errorf("a wrapped error became %+v", got)
	}
	if schemas.AsError("op", nil) != nil {
		t.Error("nil is no error")
	}
	for err, want := range map[error]schemas.Kind{
		cause: schemas.Internal, context.DeadlineExceeded: schemas.Expired, context.Canceled: schemas.Unavailable, e: schemas.Invalid,
	} {
		if got := schemas.KindOf(err); got != want {
			t.Errorf("KindOf(%v) = %v, want %v", err, got, want)
		}
	}
	for k := schemas.Internal; k <= schemas.Unavailable; k++ {
		if schemas.ParseKind(k.String()) != k {
			t.Errorf("%v does not read back", k)
		}
	}
	if got := (&schemas.Error{Kind: schemas.Internal, ID: "42", Err: errors.New("/secret/path")}).Public(); strings.Contains(got, "secret") || !strings.Contains(got, "42") {
		t.Errorf("an internal error shows %q", got)
	}
}

func TestParseTopicRef(t *testing.T) {
	for _, c := range []struct {
		in, transport, name string
		ok                  bool
	}{
		{"flights.departures", "", "flights.departures", true},
		{"nats:flights", "nats", "flights", true},
		{"kafka:Orders_v2", "kafka", "Orders_v2", true},
		{"kafka:flights.departures", "kafka", "flights.departures", true},
		{"Orders_v2", "", "", false},
		{"nats:Orders_v2", "", "", false},
		{"kafka:", "", "", false},
		{"kafka:..", "", "", false},
		{"kafka:a b", "", "", false},
		{"kafka:a:b", "", "", false},
		{"rabbit:a", "", "", false},
		{"", "", "", false},
	} {
		r, err := schemas.ParseTopicRef(c.in)
		if (err == nil) != c.ok || c.ok && (r.Transport != c.transport || r.Name != c.name) {
			t.Errorf("ParseTopicRef(%q) = %+v, %v", c.in, r, err)
		}
		if err != nil && schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("ParseTopicRef(%q): kind %v", c.in, schemas.KindOf(err))
		}
	}
}
