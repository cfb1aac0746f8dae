package kafka

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// leave makes a transaction as brokers leave it that have lost its markers: records in "out" and an offset, both open,
// under an id whose last transaction is complete. The broker must not verify partitions.
func leave(t *testing.T, ctx context.Context, l *Ledger, n int64, value string, committed bool) {
	t.Helper()
	s := l.session
	must(t, l.persist(ctx, func() error {
		_, err := l.coord.ask(ctx, &addpartitionstotxn.Request{
			TransactionalID: l.coord.key, ProducerID: s.id, ProducerEpoch: s.epoch,
			Topics: []addpartitionstotxn.RequestTopic{{Name: l.c.name("else"), Partitions: []int32{0}}},
		}, func(m protocol.Message) int16 {
			return m.(*addpartitionstotxn.Response).Results[0].Results[0].ErrorCode
		})
		return err
	}))
	w := newTxnWrite([]record{{topic: l.c.name("out"), value: []byte(value)}}, 1<<20)
	must(t, w.send(ctx, l.c, l.coord.key, s))
	must(t, l.commit(ctx, s, generation{id: -1}, n, noteText+value))
	must(t, l.end(ctx, s, committed))
	s.committed, s.ended = committed, time.Now().Add(-time.Hour)
}

// TestLeftOpen: brokers complete a transaction without its markers. What was decided holds all the same: its records are
// seen, or are not, its offset counts, or does not, and what comes later changes nothing of that.
func TestLeftOpen(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	b := broker.Start(t, 1, broker.Properties("transaction.partition.verification.enable=false"))
	for _, c := range []struct {
		name      string
		committed bool
		again     bool // the next writer is another one
		dies      int  // at so many beginnings the next writer dies
		want      []string
		progress  int64
	}{
		{"committed", true, true, 0, []string{"first", "left", "last"}, 2},
		{"aborted", false, true, 0, []string{"first", "last"}, 1},
		{"committed, the next ones die", true, true, 3, []string{"first", "left", "last"}, 2},
		{"aborted, the next ones die", false, true, 3, []string{"first", "last"}, 1},
		{"committed, in one session", true, false, 0, []string{"first", "left", "last"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := dialConfig(t, testConfig(b))
			for _, topic := range []string{"out", "else"} {
				must(t, cl.EnsureTopic(ctx, topic, 1))
			}
			l, err := cl.OpenLedger(ctx, "out", "w")
			must(t, err)
			must(t, l.Write(ctx, []schemas.Message{{Topic: "out", Payload: []byte("first")}}, 1, ""))
			leave(t, ctx, l, 2, "left", c.committed)
			if _, err := l.group.places(ctx, l.in, []int32{0}); !errors.Is(err, kafka.UnstableOffsetCommit) {
				t.Fatalf("nothing is left open: %v", err)
			}
			if c.again {
				for range c.dies {
					must(t, cl.ledger("out", "w").begin(ctx))
				}
				l, err = cl.OpenLedger(ctx, "out", "w")
				must(t, err)
				if n, _ := l.Progress(); n != c.progress {
					t.Errorf("progress %d, want %d", n, c.progress)
				}
			}
			// This one is aborted, and must not take what was left with it.
			var refused *connectors.RefusedError
			err = l.Write(ctx, []schemas.Message{{Topic: "out", Payload: []byte("dropped")}, {Topic: "else", Payload: make([]byte, 2<<20)}}, 3, "")
			if !errors.As(err, &refused) {
				t.Fatalf("2 MiB were written: %v", err)
			}
			if !c.again { // the writer does not know of the offset that was committed beside it
				l.at = 2
			}
			must(t, l.Write(ctx, []schemas.Message{{Topic: "out", Payload: []byte("last")}}, 4, ""))
			if n, _ := l.Progress(); n != 4 {
				t.Errorf("progress %d", n)
			}
			var got []string
			for _, r := range franz(t, ctx, cl, cl.name("out"), len(c.want)) {
				got = append(got, string(r.Value))
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("a reader sees %q, want %q", got, c.want)
			}
		})
	}
}

// FuzzTransactions: no answer of a broker does more than fail.
func FuzzTransactions(f *testing.F) {
	w := requestWriter{}
	w.tags()
	w.int32(0)
	w.uvarint(2)
	w.compact("t")
	w.uvarint(2)
	w.int32(3)
	w.int16(0)
	w.uvarint(0)
	w.uvarint(3)
	for id := range int64(2) {
		w.int64(id)
		w.int32(1)
		w.int32(2)
		w.int64(3)
		w.int32(4)
		w.int64(5)
		w.tags()
	}
	for range 3 {
		w.tags()
	}
	producers := w.b
	w = requestWriter{}
	w.tags()
	w.int32(0)
	w.uvarint(2)
	w.int16(0)
	w.compact("id")
	w.compact("CompleteCommit")
	w.b = append(w.b, make([]byte, 30)...)
	transaction := w.b
	open, err := parseProducers(producers, 1)
	if err != nil || len(*open) != 1 || (*open)[0].Name != "t" || (*open)[0].Partitions[0] != 3 {
		f.Fatal(open, err)
	}
	if state, err := parseTransaction(transaction); err != nil || !state.committed() {
		f.Fatal(state, err)
	}
	f.Add(producers)
	f.Add(transaction)
	f.Fuzz(func(t *testing.T, b []byte) {
		parseProducers(b, 1)
		parseTransaction(b)
	})
}
