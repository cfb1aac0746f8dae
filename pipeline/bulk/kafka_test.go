package bulk

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// onKafka puts the world's topics on the brokers that the tests share, apart from other tests by a prefix.
func (w *world) onKafka() {
	w.t.Helper()
	c := kafka.Default()
	c.Bootstrap = broker.Shared(w.t).Addrs()
	c.Prefix = fmt.Sprintf("bulk-%d.", time.Now().UnixNano())
	c.Partitions = 3
	w.kafka = &c
}

// Of a topic, the partitions that are named are read, each from its own sequence on, and no others.
func TestStartOfEachPartition(t *testing.T) {
	for _, on := range []string{"nats", "kafka"} {
		t.Run(on, func(t *testing.T) {
			w := newWorld(t)
			if on == "kafka" {
				w.onKafka()
			}
			p := w.start("x")
			w.publish(p, "flights", 4, events(800, 1))
			// by partition, in order
			all := map[int32][]uint64{}
			for _, d := range w.stored(p, "flights") {
				all[d.From.Partition] = append(all[d.From.Partition], d.From.Sequence)
			}
			if len(all) < 3 || len(all[0]) < 20 || len(all[2]) < 20 || len(all[3]) < 20 {
				t.Fatalf("%d partitions, with %d, %d and %d events", len(all), len(all[0]), len(all[2]), len(all[3]))
			}
			at0, at2 := all[0][len(all[0])/2], all[2][3]
			beyond := all[3][len(all[3])-1] + 1
			want := map[string]bool{}
			for _, seq := range all[0][len(all[0])/2:] {
				want[fmt.Sprint(0, "/", seq)] = true
			}
			for _, seq := range all[2][3:] {
				want[fmt.Sprint(2, "/", seq)] = true
			}
			dst := filepath.Join(w.dir, "out.ndjson")
			v := p.done(p.job(RunRequest{From: fmt.Sprintf("topic:flights@2:%d,0:%d,3:%d", at2, at0, beyond), To: dst}).ID)
			if v.Rows != int64(len(want)) || v.Exit != 0 {
				t.Fatalf("%d rows, want %d: %+v", v.Rows, len(want), v)
			}
			b := w.read(dst)
			part, seq := schemas.Values[int64](b.Column(b.Schema().Index("partition"))), schemas.Values[int64](b.Column(b.Schema().Index("sequence")))
			for i := range b.Rows() {
				k := fmt.Sprint(part[i], "/", seq[i])
				if !want[k] {
					t.Fatalf("%s is in the file, wrongly or twice", k)
				}
				delete(want, k)
			}
			_, err := p.RunJob(t.Context(), &RunRequest{Pipeline: "sums", From: "topic:flights@0:1,4:1", To: dst, Overwrite: true})
			if e := schemas.AsError("", err); err == nil || e.Kind != schemas.Invalid || e.Field != "from" || !strings.Contains(err.Error(), "no partition 4: it has 4") {
				t.Fatalf("a partition that is not there: %v", err)
			}
		})
	}
}
