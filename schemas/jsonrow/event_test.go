package jsonrow

import (
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
