package lineagetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// everything has each dtype as a nullable scalar and as a tensor.
func everything() *schemas.Schema {
	var fs []schemas.Field
	for d := schemas.Bool; d.Valid(); d++ {
		fs = append(fs, schemas.Field{Name: "s_" + d.String(), Type: d, Nullable: true},
			schemas.Field{Name: "t_" + d.String(), Type: d, Shape: []int{3}, Nullable: true})
	}
	return schemas.MustSchema(fs...)
}

func floats(name string, n int) *schemas.Schema {
	var fs []schemas.Field
	for i := range n {
		fs = append(fs, schemas.Field{Name: fmt.Sprint(name, i), Type: schemas.Float32})
	}
	return schemas.MustSchema(fs...)
}

// random returns n rows of any values and nulls.
func random(s *schemas.Schema, n int, seed uint64) *schemas.Batch {
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := schemas.NewBatch(s)
	for range n {
		for i := range s.Len() {
			c := b.Column(i)
			if c.Field().Nullable && rnd.IntN(4) == 0 {
				c.AppendNull()
				continue
			}
			for range c.Width() {
				switch t := c.Field().Type; {
				case t == schemas.Bool:
					c.AppendBool(rnd.IntN(2) == 0)
				case t.Variable():
					c.AppendString(strings.Repeat("ü", rnd.IntN(6)))
				case t.Size() == 1:
					schemas.Append(c, uint8(rnd.Uint32()))
				case t.Size() == 2:
					schemas.Append(c, uint16(rnd.Uint32()))
				case t.Size() == 4:
					schemas.Append(c, rnd.Uint32())
				default:
					schemas.Append(c, rnd.Uint64())
				}
			}
			c.EndRow()
		}
		b.Advance(1)
	}
	return b
}

func contextOf(pipeline, run string) *lineage.Context {
	return &lineage.Context{
		Principal: "alice", Via: "nats", Pipeline: pipeline, Revision: "r1", Node: "route", Role: lineage.RolePrimary,
		Model: pipeline, Version: 2, Digest: "d1", Run: run, Runtime: "onnxruntime 1.27.0", CPU: "avx2",
	}
}

var received = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// rowOf is the first row of a request whose input is rows [from, to) of b.
func rowOf(id string, b *schemas.Batch, from, to int) *lineage.Row {
	return &lineage.Row{
		RequestID: id, Attempt: 1, InputDigest: lineage.InputDigest(b, from, to), Status: lineage.StatusOK, Propensity: 1,
		BatchSize: int32(to - from), Queue: time.Microsecond, Score: time.Millisecond, Received: received, Scored: received.Add(time.Millisecond),
	}
}

// add puts one request with rows [from, to) of in and out into recs.
func add(t testing.TB, recs *lineage.Records, c *lineage.Context, row *lineage.Row, in *schemas.Batch, from, to int, out *schemas.Batch) {
	t.Helper()
	if err := recs.AddRange(c, row, in, from, to, out, from); err != nil {
		t.Fatal(err)
	}
}

// same reports whether two rows hold the same.
func same(a *schemas.Batch, i int, b *schemas.Batch, j int) bool {
	return a != nil && b != nil && a.Schema().ID() == b.Schema().ID() && lineage.InputDigest(a, i, i+1) == lineage.InputDigest(b, j, j+1)
}
