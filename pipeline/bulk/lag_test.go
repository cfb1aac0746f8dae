package bulk

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

// While a job reads a topic, its view says of each partition what is left, in messages and in event time, and of the
// whole the rows that are left.
func TestLag(t *testing.T) {
	for _, on := range []string{"nats", "kafka"} {
		for _, stated := range []bool{true, false} { // Leat-Event-Time, or when a message was stored
			t.Run(fmt.Sprint(on, "/", stated), func(t *testing.T) {
				w := newWorld(t)
				if on == "kafka" {
					w.onKafka()
				}
				p := w.start("x")
				lagged(t, w, p, stated)
			})
		}
	}
}

func lagged(t *testing.T, w *world, p *process, stated bool) {
	const n = 2000
	if err := p.topics.EnsureTopic(t.Context(), "flights", 3); err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	msgs := make([]schemas.Message, n)
	for i := range msgs {
		msgs[i] = schemas.Message{Topic: "flights", Key: fmt.Sprint("key-", i%16), ID: fmt.Sprint("m-", i),
			Payload: fmt.Appendf(nil, `{"rows":[{"a":%d,"b":2,"c":3,"name":"x"}]}`, i)}
		if stated {
			msgs[i].Header = schemas.Header{schemas.HeaderEventTime: {schemas.FormatTime(start.Add(time.Duration(i) * time.Second))}}
		}
	}
	if _, err := p.topics.Publish(t.Context(), msgs); err != nil {
		t.Fatal(err)
	}
	type stored struct {
		seq  uint64
		time time.Time
	}
	of := map[int32][]stored{}
	for _, d := range w.stored(p, "flights") {
		if stated == d.Time.Equal(eventTime(d)) {
			t.Fatalf("event at %s, stored at %s", eventTime(d), d.Time)
		}
		of[d.From.Partition] = append(of[d.From.Partition], stored{d.From.Sequence, eventTime(d)})
	}
	v := p.job(RunRequest{From: "topic:flights", To: filepath.Join(w.dir, "out.ndjson"), Throttle: 4000})
	if v.EventLag == 0 && stated || v.RowsLeft < n || len(v.Partitions) != len(of) || !v.EventTime.IsZero() {
		t.Fatalf("before it begins: %+v", v)
	}
	looks := 0
	check := func(v *View) {
		most, done := 0.0, 0
		var passed time.Time
		for _, pv := range v.Partitions {
			ms := of[pv.Partition]
			end := ms[len(ms)-1]
			if pv.First > ms[0].seq || pv.Last != end.seq || !pv.EventEnd.Equal(end.time) || pv.Left != int64(pv.Last+1-pv.Next) {
				t.Errorf("partition of %d to %d, %s: %+v", ms[0].seq, end.seq, end.time, pv)
			}
			var last time.Time
			for _, m := range ms {
				if m.seq < pv.Next {
					last = m.time
					done++
				}
			}
			if !last.Equal(pv.EventTime) {
				t.Errorf("partition %d at %d: done up to %s, says %s", pv.Partition, pv.Next, last, pv.EventTime)
			}
			if last.IsZero() {
				last = ms[0].time
			} else if last.After(passed) {
				passed = last
			}
			if lag := end.time.Sub(last).Seconds(); pv.EventLag != lag {
				t.Errorf("partition %d at %d: %v s behind, says %v", pv.Partition, pv.Next, lag, pv.EventLag)
			}
			most = max(most, pv.EventLag)
		}
		if v.EventLag != most || !v.EventTime.Equal(passed) || int64(done) != v.Rows {
			t.Errorf("%d rows done, up to %s, %v s behind: %+v", done, passed, most, v)
		}
		// A sequence of a Kafka partition is a row; NATS numbers the messages of all partitions together.
		if left := n - v.Rows; w.kafka != nil && v.RowsLeft != left || v.RowsLeft < left*8/10 || v.RowsLeft > left*12/10 {
			t.Errorf("%d rows left, says %d", left, v.RowsLeft)
		}
	}
	p.wait(v.ID, func(v *View) bool {
		if v.Passed > 0 {
			looks++
			check(v)
		}
		return v.Ended
	})
	if v = p.done(v.ID); v.EventLag != 0 || v.RowsLeft != 0 || v.EventTime.IsZero() {
		t.Fatalf("at the end: %+v", v)
	}
	if looks < 3 {
		t.Fatalf("looked %d times only", looks)
	}
	if l, err := p.List(t.Context(), &ListRequest{}); err != nil || len(l.Jobs) != 1 || l.Jobs[0].Partitions != nil {
		t.Fatalf("listed: %+v %v", l, err)
	}
}
