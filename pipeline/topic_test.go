package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

var errOutside = errors.New("out of order today")

// score reads the answer of an output message.
func score(t testing.TB, m schemas.Message) float64 {
	t.Helper()
	var a answer
	if err := json.Unmarshal(m.Payload, &a); err != nil || len(a.Rows) == 0 {
		t.Fatalf("output %s: %v", m.Payload, err)
	}
	return a.Rows[0].Score
}

// checkOutputs checks that every event was answered, once after folding by id, in order for each key.
func checkOutputs(t testing.TB, ms []schemas.Message, events []schemas.Message, factor float64) {
	t.Helper()
	want := map[string]float64{}
	order := map[string][]string{}
	for _, e := range events {
		var b struct{ Rows []struct{ X float64 } }
		if err := json.Unmarshal(e.Payload, &b); err != nil {
			t.Fatal(err)
		}
		id := e.Header.Get(schemas.HeaderRequestID)
		want[id] = factor * b.Rows[0].X
		order[e.Key] = append(order[e.Key], id)
	}
	seen := map[string]bool{}
	next := map[string]int{}
	for _, m := range ms {
		id := m.Header.Get(schemas.HeaderRequestID)
		if seen[id] {
			continue
		}
		seen[id] = true
		if w, ok := want[id]; !ok || score(t, m) != w {
			t.Fatalf("%s is answered %v, want %v", id, score(t, m), w)
		}
		if i := next[m.Key]; order[m.Key][i] != id {
			t.Fatalf("key %s: %s came where %s was due", m.Key, id, order[m.Key][i])
		}
		next[m.Key]++
	}
	if len(seen) != len(events) {
		t.Fatalf("%d of %d events are answered", len(seen), len(events))
	}
}

func numbered(topic string, from, n, keys int) []schemas.Message {
	es := make([]schemas.Message, n)
	for i := range es {
		es[i] = event(topic, fmt.Sprintf("key-%d", (from+i)%keys), fmt.Sprintf("event-%d", from+i), body(float64(from+i)))
	}
	return es
}

// Whatever fails on the way, and however runs overtake each other, every event is answered and each key keeps its order.
func TestTopicSurvivesFaultsInOrder(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	var runs, appends, publishes atomic.Int64
	p.model.onRun(func(in *schemas.Batch) error {
		switch n := runs.Add(1); {
		case n%5 == 1:
			return schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside)
		case n%2 == 0: // an odd run overtakes it
			for before := runs.Load(); runs.Load() == before && rand.IntN(1e6) > 0; {
			}
		}
		return nil
	})
	p.log.set(func([]byte) error {
		if appends.Add(1)%3 == 1 {
			return schemas.Errorf(schemas.Unavailable, "test", "%w: %w", schemas.ErrFull, errOutside)
		}
		return nil
	})
	p.out.set(func(context.Context, []schemas.Message) error {
		if publishes.Add(1)%3 == 1 {
			return schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside)
		}
		return nil
	})
	p.serve("sums", topics("in", "out"))
	es := numbered("in", 0, 2000, 7)
	for at := 0; at < len(es); at += 100 {
		p.publish(es[at : at+100]...)
	}
	ms := p.outputs("out", len(es))
	p.settled("in", "sums")
	checkOutputs(t, ms, es, 1)
	rs := p.records(lineage.Query{Pipeline: "sums"})
	if len(rs) != len(es) {
		t.Fatalf("%d records of %d events", len(rs), len(es))
	}
	for _, r := range rs {
		if r.Status != lineage.StatusOK || r.From.IsZero() || r.Via != "topic" {
			t.Fatalf("record %+v", r)
		}
	}
	p.stop()
}

// After a death between the append and the output, events are answered from their records and never scored again, in the
// name of the version that scored them.
func TestRecordedEventsAreNeverScoredAgain(t *testing.T) {
	w := newWorld(t)
	p := w.startToDie()
	published := make(chan struct{}, 1000)
	p.out.set(func(ctx context.Context, ms []schemas.Message) error { // recorded, and never published
		published <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	rev := p.serve("sums", topics("in", "out"))
	es := numbered("in", 0, 300, 5)
	es[10] = event("in", "key-0", "event-10", textBody(10, "bad"))
	p.publish(es...)
	<-published
	p.kill()

	p = w.start()
	recorded := map[string]bool{}
	for _, r := range p.records(lineage.Query{Pipeline: "sums"}) {
		recorded[r.RequestID] = true
	}
	if len(recorded) == 0 {
		t.Fatal("nothing was recorded before the death")
	}
	p.apply(revision(p.model, "sums", "sums", 7, topics("in", "out"))) // another version by now
	ms := p.outputs("out", len(es)-1)
	p.settled("in", "sums")
	answered := map[string]bool{}
	for _, m := range ms {
		id, by, factor := m.Header.Get(schemas.HeaderRequestID), "sums@7", 7.0
		if recorded[id] {
			by, factor = "sums@1", 1
			if m.Header.Get(schemas.HeaderRevision) != rev.Revision || !strings.Contains(string(m.Payload), `"version":"1"`) {
				t.Fatalf("a recorded answer of sums@1 goes out as %v: %s", m.Header, m.Payload)
			}
		}
		var x float64
		if _, err := fmt.Sscanf(id, "event-%f", &x); err != nil {
			t.Fatal(err)
		}
		if m.Header.Get(schemas.HeaderModel) != by || score(t, m) != factor*x {
			t.Fatalf("%s, recorded %v: %v %s", id, recorded[id], m.Header, m.Payload)
		}
		if n := p.model.timesScored(x); recorded[id] && n != 0 {
			t.Errorf("%s is recorded and was scored again", id)
		}
		answered[id] = true
	}
	if len(answered) != len(es)-1 {
		t.Errorf("%d of %d events are answered", len(answered), len(es)-1)
	}
	if d := p.dead(1); len(d) != 1 || !strings.Contains(d[0].Header.Get("Leat-Error"), "bad cannot be scored") {
		t.Fatalf("%d dead letters: %v", len(d), d)
	}
	if n := len(p.records(lineage.Query{Pipeline: "sums", All: true})); n != len(es) {
		t.Errorf("%d records, want %d", n, len(es))
	}
	p.stop()
}

// A death before anything was appended costs a second scoring, and nothing else.
func TestUnrecordedEventsAreScoredAgain(t *testing.T) {
	w := newWorld(t)
	p := w.startToDie()
	p.log.set(func([]byte) error { return schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside) })
	p.serve("sums", topics("in", "out"))
	es := numbered("in", 0, 100, 5)
	p.publish(es...)
	w.eventually("an append has failed", func() bool { return p.log.calls.Load() > 1 })
	p.kill()
	p = w.start()
	p.serve("sums", topics("in", "out"))
	checkOutputs(t, p.outputs("out", len(es)), es, 1)
	p.settled("in", "sums")
	p.stop()
}

func TestCheckpointFollows(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums", topics("in", "out"))
	p.publish(numbered("in", 0, 100, 5)...)
	p.outputs("out", 100)
	p.settled("in", "sums")
	w.eventually("the checkpoint is saved", func() bool {
		c, err := p.wal.Checkpoint(t.Context(), "sums")
		st, serr := p.logs.Online.Stats(t.Context())
		return err == nil && serr == nil && c == st.Last+1
	})
	left := 0
	w.must(p.wal.Recover(t.Context(), "sums", 0, func(*lineage.Record) bool { left++; return true }))
	from, err := p.wal.Checkpoint(t.Context(), "sums")
	w.must(err)
	after := 0
	w.must(p.wal.Recover(t.Context(), "sums", from, func(*lineage.Record) bool { after++; return true }))
	if left != 100 || after != 0 {
		t.Errorf("%d records in all, %d behind the checkpoint", left, after)
	}
	p.stop()
}

// Bad rows of an event go to the dead letters with it; its good rows are answered, and recorded under their own numbers,
// also when the answer comes from the record.
func TestPartlyBadEvent(t *testing.T) {
	payload := []byte(`{"rows":[{"x":1,"text":"t"},{"x":"no","text":"t"},{"x":3,"text":"t"},{"x":4,"text":"nul"},{"x":5,"text":"t"}]}`)
	w := newWorld(t)
	p := w.startToDie()
	hold := make(chan struct{})
	p.out.set(func(ctx context.Context, _ []schemas.Message) error {
		close(hold)
		<-ctx.Done()
		return ctx.Err()
	})
	p.serve("sums", topics("in", "out"))
	pos := p.publish(event("in", "k", "partly", payload))
	<-hold
	p.kill()

	p = w.start()
	p.serve("sums", topics("in", "out"))
	ms := p.outputs("out", 1)
	p.settled("in", "sums")
	if runs := p.model.runs(); len(runs) != 0 {
		t.Errorf("scored again: %v", runs)
	}
	var a struct {
		Rows   []*struct{ Score float64 }
		Errors []struct {
			Row   int
			Field string
		}
	}
	if err := json.Unmarshal(ms[0].Payload, &a); err != nil {
		t.Fatal(err)
	}
	if len(a.Rows) != 5 || a.Rows[0].Score != 1 || a.Rows[1] != nil || a.Rows[2].Score != 3 || a.Rows[3] != nil || a.Rows[4].Score != 5 ||
		len(a.Errors) != 2 || a.Errors[0].Row != 1 || a.Errors[1].Row != 3 || a.Errors[1].Field != "rows[3].text" {
		t.Errorf("answer %s", ms[0].Payload)
	}
	var rows []int32
	for _, r := range p.records(lineage.Query{Pipeline: "sums"}) {
		rows = append(rows, r.Row.Row)
		if want := []float64{1, 0, 3, 0, 5}[r.Row.Row]; schemas.Values[float64](r.Input.Column(0))[r.InputRow] != want || schemas.Values[float64](r.Output.Column(0))[r.OutputRow] != want {
			t.Errorf("row %d is recorded with another input or output", r.Row.Row)
		}
	}
	if fmt.Sprint(rows) != "[0 2 4]" {
		t.Errorf("recorded rows %v", rows)
	}
	if d := p.dead(1); len(d) != 1 || d[0].Header.Get(schemas.HeaderSource) != pos[0].String() {
		t.Errorf("dead letters: %+v", d)
	}
	p.stop()
}

// What can never be answered goes to the dead letters, each for itself, and what is behind it goes on.
func TestDeadLetters(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	var refused atomic.Int64
	p.serve("sums", topics("in", "out"))
	p.out.set(func(_ context.Context, ms []schemas.Message) error {
		for _, m := range ms {
			if m.Header.Get(schemas.HeaderRequestID) == "too-large" { // as the transport would say
				refused.Add(1)
				return schemas.Errorf(schemas.Invalid, "test", "a message of 2 MB: at most 1 MB")
			}
		}
		return nil
	})
	p.publish(
		event("in", "k", "first", body(1)),
		event("in", "k", "json", []byte(`{"rows":`)),
		event("in", "k", "bad", textBody(2, "bad")),
		event("in", "k", "too-large", body(3)),
		event("in", "k", "nul", textBody(4, "nul")),
		event("in", "k", "long", textBody(5, "long")),
		event("in", "k", "last", body(6)),
	)
	ms := p.outputs("out", 2)
	p.settled("in", "sums")
	if len(ms) != 2 || score(t, ms[0]) != 1 || score(t, ms[1]) != 6 {
		t.Errorf("%d outputs", len(ms))
	}
	why := map[string]string{}
	for _, d := range p.dead(5) {
		why[d.Header.Get(schemas.HeaderRequestID)] = d.Header.Get("Leat-Error")
	}
	for id, want := range map[string]string{"json": "", "bad": "bad cannot be scored", "too-large": "2 MB", "nul": "nul cannot be scored", "long": "can be recorded"} {
		if got, ok := why[id]; !ok || !strings.Contains(got, want) {
			t.Errorf("%s: %q, %v; want %q", id, got, ok, want)
		}
	}
	if len(why) != 5 {
		t.Errorf("dead letters %v", why)
	}
	p.stop()
}

// The output of one pipeline is the input of another: its headers say who made it, not who shall score it.
func TestPipelinesInARow(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.apply(revision(p.model, "second", "second", 3, topics("middle", "end")))
	e := event("middle", "k", "e", body(2))
	e.Header.Set(schemas.HeaderModel, "first@2")
	p.publish(e)
	if m := p.outputs("end", 1)[0]; score(t, m) != 6 || m.Header.Get(schemas.HeaderModel) != "second@3" {
		t.Errorf("%v: %s", m.Header, m.Payload)
	}
	p.stop()
}

func TestTopicsChange(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums", topics("in", "out"))
	p.publish(numbered("in", 0, 10, 2)...)
	p.outputs("out", 10)
	p.apply(revision(p.model, "sums", "sums", 2, topics("in", "elsewhere")))
	p.publish(numbered("in", 10, 10, 2)...)
	checkOutputs(t, p.outputs("elsewhere", 10), numbered("in", 10, 10, 2), 2)
	p.apply(revision(p.model, "sums", "sums", 3, topics("other", "elsewhere")))
	p.publish(numbered("other", 100, 10, 2)...)
	p.outputs("elsewhere", 20)
	p.apply(revision(p.model, "sums", "sums", 4)) // no topic any more
	p.publish(numbered("other", 200, 10, 2)...)
	p.ask("sums", body(1)).wants(t, 4)
	p.apply(revision(p.model, "sums", "sums", 5, topics("other", ""))) // recorded only
	p.appended("sums", 41)
	if n := len(p.records(lineage.Query{Pipeline: "sums", Model: "sums@5"})); n != 10 {
		t.Errorf("%d records of what had come meanwhile", n)
	}
	p.settled("other", "sums")
	if n := len(p.topicOf("out")) + len(p.topicOf("elsewhere")); n != 30 {
		t.Errorf("%d outputs, want 30", n)
	}
	p.stop()
}

// A pipeline whose output cannot be written stops when it is told to, and what it had in hand comes round again.
func TestStopsWhileItsOutputFails(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	tried := make(chan struct{}, 100)
	p.out.set(func(context.Context, []schemas.Message) error {
		select {
		case tried <- struct{}{}:
		default:
		}
		return schemas.Errorf(schemas.Unavailable, "test", "%w", errOutside)
	})
	rev := p.serve("sums", topics("in", "out"))
	es := numbered("in", 0, 20, 2)
	p.publish(es...)
	<-tried
	p.change(rev.Spec.Name, nil)
	w.eventually("it is gone", func() bool { return len(p.model.open()) == 0 })
	p.out.set(func(context.Context, []schemas.Message) error { return nil })
	p.serve("sums", topics("in", "out"))
	checkOutputs(t, p.outputs("out", len(es)), es, 1)
	p.settled("in", "sums")
	if n := len(p.records(lineage.Query{Pipeline: "sums", All: true})); n != len(es) {
		t.Errorf("%d records of %d events: what is recorded is never scored again", n, len(es))
	}
	p.stop()
}

func asyncTopics(s *pipeline.Spec) {
	async(s)
	topics("in", "out")(s)
}

// Async is about callers: an output is seen after its record all the same.
func TestAsyncTopic(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums", asyncTopics)
	es := numbered("in", 0, 100, 3)
	p.publish(es...)
	checkOutputs(t, p.outputs("out", len(es)), es, 1)
	p.settled("in", "sums")
	if n := len(p.records(lineage.Query{Pipeline: "sums"})); n != len(es) {
		t.Errorf("%d records", n)
	}
	p.stop()
}
