package jsonrow

import (
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// An event holds what its producer knows, not what one model takes.
func TestEventsMayHoldMore(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float64}, schemas.Field{Name: "y", Type: schemas.Int64})
	for _, body := range []string{
		`{"rows":[{"id":"a","x":1.5,"nested":{"x":[1,{"y":2}]},"y":7,"tail":null}]}`,
		`{"columns":{"id":["a"],"x":[1.5],"nested":[{"x":[1]}],"y":[7]}}`,
	} {
		b := schemas.NewBatch(s)
		m := &schemas.Message{Payload: []byte(body)}
		n, bad, _, err := Codec{}.AppendGood(b, m, nil)
		if err != nil || n != 1 || len(bad) != 0 {
			t.Fatalf("%s: %d rows, bad %v, %v", body, n, bad, err)
		}
		if x, y := schemas.Values[float64](b.Column(0))[0], schemas.Values[int64](b.Column(1))[0]; x != 1.5 || y != 7 {
			t.Fatalf("%s: x %v, y %v", body, x, y)
		}
		if _, _, err := (Codec{}).AppendRows(schemas.NewBatch(s), m); schemas.KindOf(err) != schemas.Invalid {
			t.Fatalf("%s as a request: %v", body, err)
		}
	}
}

// A producer that knows nothing of us writes one object for one row.
func TestBareEvents(t *testing.T) {
	s := schemas.MustSchema(schemas.Field{Name: "x", Type: schemas.Float64}, schemas.Field{Name: "id", Type: schemas.String, Nullable: true},
		schemas.Field{Name: "rows", Type: schemas.Int64, Shape: []int{2}, Nullable: true})
	for _, c := range []struct {
		body string
		rows int
		want string // the error, of the message or of its only row; "" for none
	}{
		{`{"x":1.5}`, 1, ""},
		{` {"id":"a","x":1.5,"rows":[1,2]} `, 1, ""},
		{`{"id":"a","parameters":{"deep":[1]},"x":2,"columns":"none"}`, 1, ""},
		{`{"columns":["a","b"],"x":2}`, 1, ""}, // a list of names is no table
		{`{"rows":[{"x":1},{"x":2}]}`, 2, ""},
		{`{"id":"a","rows":[]}`, 0, ""},
		{`{"rows":[1,2],"x":1}`, 0, `unknown name "x"`}, // first, and an array: a table
		{`{"columns":{"x":[1,2,3]}}`, 3, ""},
		{`{}`, 0, "rows[0].x: missing"},
		{`{"id":"a"}`, 0, "rows[0].x: missing"},
		{`{"x":"fast"}`, 0, `rows[0].x: want a number of float64`},
		{`{"x":1,"x":2}`, 0, "rows[0].x: given twice"},
		{`{"x":1} {"x":2}`, 0, "want the end of the document"},
		{`{"x":1`, 0, "JSON ends at byte 6"},
		{`{"x":1e999}`, 0, "rows[0].x: 1e999 is out of the range of float64"},
		{`[{"x":1}]`, 0, "want an object, got an array"},
		{`5`, 0, "want an object, got a number"},
	} {
		b := schemas.NewBatch(s)
		m := &schemas.Message{Payload: []byte(c.body)}
		n, bad, enc, err := Codec{}.AppendGood(b, m, nil)
		if len(bad) > 0 {
			err = bad[0].Err
		}
		switch {
		case n != c.rows || b.Rows() != c.rows:
			t.Errorf("%s: %d rows, the batch has %d, want %d (%v)", c.body, n, b.Rows(), c.rows, err)
		case c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.body, err, c.want)
		case err == nil && n == 1:
			out, err := enc.EncodeRows(nil, schemas.Header{}, b, 0, 1, nil)
			if err != nil || !strings.HasPrefix(string(out), `{"rows":[{"x":`) {
				t.Errorf("%s: answered %s, %v", c.body, out, err)
			}
		}
	}
	// A request is not described so: a misspelt "rows" must not become a row.
	if _, _, err := (Codec{}).AppendRows(schemas.NewBatch(s), &schemas.Message{Payload: []byte(`{"x":1.5}`)}); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("as a request: %v", err)
	}
}
