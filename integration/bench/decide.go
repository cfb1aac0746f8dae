package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/pipeline/route"
	"github.com/leatstream/leat/pipeline/route/expr"
	"github.com/leatstream/leat/schemas"
)

// Deciding alone, and finding features by a key, in this process: nanoseconds for a row, and no allocation.

// decision is one kind of deciding. make returns a function that decides for n rows.
type decision struct {
	name   string
	budget float64 // nanoseconds a row; 0: shown only
	make   func(l *lab) (func(n int), error)
}

var decisions = []decision{
	{"split", 150, decideSplit},
	{"switch", 150, decideSwitch},
	{"epsilon-greedy", 300, func(*lab) (func(int), error) { return decideBandit(route.EpsilonGreedy) }},
	{"ucb1", 300, func(*lab) (func(int), error) { return decideBandit(route.UCB1) }},
	{"thompson", 0, func(*lab) (func(int), error) { return decideBandit(route.Thompson) }},
	{"linucb", 0, func(*lab) (func(int), error) { return decideBandit(route.LinUCB) }},
	{"lin-thompson", 0, func(*lab) (func(int), error) { return decideBandit(route.LinThompson) }},
	{"lookup", 300, findFeatures},
}

// decide measures one: the least of some tries, since what else runs on the machine only adds. "budget" is what it may take, or, without a budget, what it takes.
func (d decision) decide(_ context.Context, l *lab) (numbers, error) {
	run, err := d.make(l)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	const rows, tries = 1024, 20
	if n := testing.AllocsPerRun(10, func() { run(rows) }); n > 0 {
		return nil, fmt.Errorf("bench: deciding by %s allocates %v times for %d rows", d.name, n, rows)
	}
	out := numbers{"row": math.Inf(1)}
	for range tries {
		n, start := 0, time.Now()
		for ; time.Since(start) < l.c.duration/tries; n++ {
			run(rows)
		}
		out["row"] = min(out["row"], float64(time.Since(start).Nanoseconds())/float64(n)/rows)
	}
	if out["budget"] = d.budget; d.budget == 0 {
		out["budget"] = out["row"]
	}
	return out, nil
}

// decideSplit chooses between two arms by a key of eight digits.
func decideSplit(*lab) (func(int), error) {
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
func decideSwitch(*lab) (func(int), error) {
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

// features is a source of so many keys.
type features int

// Follow is that of lookup.Follower.
func (n features) Follow(ctx context.Context, _ lookup.Source, each func(*schemas.Change), all func(uint64)) error {
	for i := range int(n) {
		each(&schemas.Change{Key: "customer-" + strconv.Itoa(i), Value: []byte(`{"tier":"gold","limit":` + strconv.Itoa(i) + `.5}`), Version: uint64(i + 1), Time: time.Unix(1, 0)})
	}
	all(0)
	<-ctx.Done()
	return ctx.Err()
}

// findFeatures finds keys among 200,000, far from each other, and appends a text and a number of each, 64 at a time.
func findFeatures(l *lab) (func(int), error) {
	const keys, batch = 200_000, 64
	ts, err := lookup.New(lookup.Default(), features(keys), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	cols := []lookup.Column{{Name: "tier", Type: schemas.String}, {Name: "limit", Type: schemas.Float64}}
	t, err := ts.Open(context.Background(), lookup.Source{Transport: schemas.TransportNATS, Name: "customers"}, cols)
	if err != nil {
		return nil, err
	}
	l.later(t.Close)
	var asked [4096][]byte
	for i := range asked {
		asked[i] = []byte("customer-" + strconv.Itoa(i*7919%keys))
	}
	out := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "tier", Type: schemas.String, Nullable: true}, schemas.Field{Name: "limit", Type: schemas.Float64, Nullable: true}))
	rows, next := make([]*lookup.Row, 0, batch), 0
	return func(n int) {
		for range n / batch {
			out.Reset()
			rows = rows[:0]
			for range batch {
				rows = append(rows, t.Find(asked[next%len(asked)]))
				next++
			}
			t.Append(out, rows)
			out.Advance(batch)
		}
	}, nil
}
