package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// Deciding alone, in this process: nanoseconds for a row, and no allocation.

// decision is one kind of deciding. make returns a function that decides for n rows.
type decision struct {
	name   string
	budget float64 // nanoseconds a row; 0: shown only
	make   func() (func(n int), error)
}

var decisions = []decision{
	{"split", 150, decideSplit},
	{"switch", 150, decideSwitch},
	{"epsilon-greedy", 300, func() (func(int), error) { return decideBandit(route.EpsilonGreedy) }},
	{"ucb1", 300, func() (func(int), error) { return decideBandit(route.UCB1) }},
	{"thompson", 0, func() (func(int), error) { return decideBandit(route.Thompson) }},
	{"linucb", 0, func() (func(int), error) { return decideBandit(route.LinUCB) }},
	{"lin-thompson", 0, func() (func(int), error) { return decideBandit(route.LinThompson) }},
}

// decide measures one. "budget" is what it may take, or, without a budget, what it takes.
func (d decision) decide(context.Context, *lab) (numbers, error) {
	run, err := d.make()
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	const rows = 1024
	if n := testing.AllocsPerRun(10, func() { run(rows) }); n > 0 {
		return nil, fmt.Errorf("bench: deciding by %s allocates %v times for %d rows", d.name, n, rows)
	}
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			run(rows)
		}
	})
	out := numbers{"row": float64(r.T.Nanoseconds()) / float64(r.N) / rows}
	if out["budget"] = d.budget; d.budget == 0 {
		out["budget"] = out["row"]
	}
	return out, nil
}

// decideSplit chooses between two arms by a key of eight digits.
func decideSplit() (func(int), error) {
	s, err := route.NewSplit("bench", []string{"a", "b"}, []int{9000, 1000})
	if err != nil {
		return nil, err
	}
	var key [16]byte
	sink := 0
	return func(n int) {
		for i := range n {
			sink += s.ArmOf(s.Seed(strconv.AppendInt(key[:0], int64(10_000_000+i), 10)))
		}
	}, nil
}

// decideSwitch chooses between three cases by two conditions: a comparison, and one of a text.
func decideSwitch() (func(int), error) {
	in := schemas.MustSchema(schemas.Field{Name: "amount", Type: schemas.Float64}, schemas.Field{Name: "country", Type: schemas.String})
	var when []*expr.Program
	for _, src := range []string{`input.amount > 900.0`, `input.country == "NL"`} {
		p, err := expr.Compile(src, expr.Env{Input: in})
		if err != nil {
			return nil, err
		}
		when = append(when, p)
	}
	b := schemas.NewBatch(in)
	for i := range 1024 {
		schemas.Append(b.Column(0), float64(i*7919%1000))
		b.Column(0).EndRow()
		b.Column(1).AppendText([]byte([]string{"NL", "DE", "FR", "BE"}[i%4]))
		b.Column(1).EndRow()
		b.Advance(1)
	}
	holds := make([]bool, b.Rows())
	arms := make([]int32, b.Rows())
	return func(n int) {
		for i := range arms {
			arms[i] = int32(len(when))
		}
		for c, p := range when {
			p.Bools(b, nil, 0, n, holds)
			for i, h := range holds[:n] {
				if h && int(arms[i]) == len(when) {
					arms[i] = int32(c)
				}
			}
		}
	}, nil
}

// decideBandit chooses between three arms, after 1,000 rewards; a contextual one by five columns.
func decideBandit(policy route.Policy) (func(int), error) {
	const arms, columns = 3, 5
	b := route.DefaultBandit(policy)
	for i := range arms {
		b.Arms = append(b.Arms, "arm-"+strconv.Itoa(i))
	}
	linear := policy == route.LinUCB || policy == route.LinThompson
	for i := 0; linear && i < columns; i++ {
		b.Context = append(b.Context, "c"+strconv.Itoa(i))
	}
	p, err := route.NewPlan(b)
	if err != nil {
		return nil, err
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	f := route.NewFold(p)
	context := make([]float64, len(b.Context))
	for i := range 1000 {
		for c := range context {
			context[c] = rnd.Float64()
		}
		r := route.Reward{Position: uint64(i + 1), Arm: b.Arms[rnd.IntN(arms)], Context: context, Value: float64(rnd.IntN(2))}
		binary.LittleEndian.PutUint64(r.DecisionID[:], rnd.Uint64())
		if _, err := f.Apply(r); err != nil {
			return nil, err
		}
	}
	s, seed := f.State(), uint64(0)
	return func(n int) {
		for range n {
			seed += 0x9e3779b97f4a7c15
			if _, err := route.Decide(p, seed, context, s); err != nil {
				panic(err) // the plan, state and context are ours
			}
		}
	}, nil
}
