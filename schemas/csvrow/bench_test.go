package csvrow

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// flights is a line of 13 float32 columns with values as producers write them.
func flights() (*schemas.Schema, []byte) {
	fs := make([]schemas.Field, 13)
	for i := range fs {
		fs[i] = schemas.Field{Name: fmt.Sprintf("feature_%02d", i), Type: schemas.Float32}
	}
	return schemas.MustSchema(fs...), []byte("1400.5,7,12,0.25,-3.75,1013.2,8.05546,23,0,1.5e3,310,65.02,4\n")
}

func BenchmarkEvent(b *testing.B) {
	for _, lines := range []int{1, 256} {
		b.Run(fmt.Sprintf("lines=%d", lines), func(b *testing.B) {
			s, line := flights()
			m := &schemas.Message{Payload: []byte(strings.Repeat(string(line), lines))}
			dst, c := schemas.NewBatch(s), codec(b)
			b.ReportAllocs()
			for b.Loop() {
				dst.Reset()
				if n, bad, _, err := c.AppendGood(dst, m, nil); n != lines || len(bad) > 0 || err != nil {
					b.Fatal(n, bad, err)
				}
			}
		})
	}
}

func TestNoAllocation(t *testing.T) {
	s, line := flights()
	dst, c := schemas.NewBatch(s), codec(t)
	m := &schemas.Message{Payload: line}
	text := schemas.NewBatch(flight)
	quoted := &schemas.Message{Payload: []byte(`1.5,"180","a ""b""",` + "\r\n")}
	if got := testing.AllocsPerRun(200, func() {
		dst.Reset()
		text.Reset()
		if n, bad, _, err := c.AppendGood(dst, m, nil); n != 1 || len(bad) > 0 || err != nil {
			t.Fatal(n, bad, err)
		}
		if n, _, err := c.AppendRows(text, quoted); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}); got != 0 {
		t.Errorf("%v allocations to decode a line, want 0", got)
	}
}
