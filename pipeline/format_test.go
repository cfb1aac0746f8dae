package pipeline_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/schemas/confluent"
)

func written(format string, columns ...string) func(*pipeline.Spec) {
	return func(s *pipeline.Spec) {
		topics("in", "out")(s)
		s.Input.Format, s.Input.Columns = format, columns
	}
}

// Records without a header of ours are read as the pipeline says; one without a value ends in the dead letters.
func TestEventsAsCSV(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.serve("sums", written(codec.CSV, "text", "x"))
	p.publish(
		event("in", "k", "first", []byte("a,1.5")),
		event("in", "k", "empty", nil),
		event("in", "k", "short", []byte("a")),
		event("in", "k", "last", []byte("\"a,b\",2")),
	)
	ms := p.outputs("out", 2)
	p.settled("in", "sums")
	if len(ms) != 2 || score(t, ms[0]) != 1.5 || score(t, ms[1]) != 2 {
		t.Errorf("outputs %s", ms)
	}
	if d := p.dead(2); len(d) != 2 {
		t.Errorf("%d dead letters", len(d))
	}
	p.stop()
}

// A registry that cannot be reached says nothing of a record: it waits, and everything behind it, also through the end
// of the process.
func TestEventsWaitForTheirSchema(t *testing.T) {
	var up, asked atomic.Int64
	registry := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if up.Load() == 0 {
			http.Error(rw, "not now", http.StatusServiceUnavailable)
			return
		}
		rw.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		fmt.Fprint(rw, `{"schema":"{\"type\":\"record\",\"name\":\"Event\",\"fields\":[{\"name\":\"x\",\"type\":\"double\"},{\"name\":\"text\",\"type\":\"string\"}]}"}`)
	}))
	defer registry.Close()
	record := func(x float64) []byte { // magic, schema id, a double, a string of one byte
		b := binary.BigEndian.AppendUint32([]byte{0}, 7)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
		return append(b, 2, 't')
	}
	formats := func() *codec.Set {
		s, err := codec.New(codec.Config{Registry: confluent.Config{URL: registry.URL}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	w := newWorld(t)
	w.formats = formats()
	p := w.start()
	p.serve("sums", written(codec.Avro))
	var es []schemas.Message
	for i := range 20 {
		es = append(es, event("in", fmt.Sprint("k", i%3), fmt.Sprint("event-", i), record(float64(i))))
	}
	p.publish(es...)
	w.eventually("the registry was asked", func() bool { return asked.Load() > 0 })
	p.stop()
	if d := p.model.runs(); len(d) != 0 {
		t.Errorf("scored %v", d)
	}
	up.Store(1)
	w.formats = formats()
	p = w.start()
	p.serve("sums", written(codec.Avro))
	ms := p.outputs("out", len(es))
	p.settled("in", "sums")
	seen := map[string]int{}
	for _, m := range ms {
		seen[m.Header.Get(schemas.HeaderRequestID)]++
	}
	if len(ms) != len(es) || len(seen) != len(es) {
		t.Errorf("%d outputs of %d events", len(ms), len(seen))
	}
	if d := p.dead(0); len(d) != 0 {
		t.Errorf("dead letters: %v", d)
	}
	p.stop()
}
