package lineage

import (
	"bytes"
	"context"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// kept is a log that keeps what is appended.
type kept struct {
	schemas.Log
	entries []schemas.Message
}

func (k *kept) Append(_ context.Context, subject, id string, payload []byte) (uint64, error) {
	k.entries = append(k.entries, schemas.Message{Key: subject, ID: id, Payload: bytes.Clone(payload)})
	return uint64(len(k.entries)), nil
}

// shelf is a catalogue.
type shelf struct {
	known map[schemas.SchemaID]*schemas.Schema
	err   error
}

func (s *shelf) Put(_ context.Context, sc *schemas.Schema) error {
	if s.err == nil {
		s.known[sc.ID()] = sc
	}
	return s.err
}

func (s *shelf) Lookup(_ context.Context, id schemas.SchemaID) (*schemas.Schema, error) {
	return s.known[id], nil
}

// What is handed out is what would be appended: the same bytes under the same names, cut in the same places.
func TestMessagesAreWhatAppendStores(t *testing.T) {
	in, out := schemas.NewBatch(floats("x", 13)), schemas.NewBatch(floats("p", 3))
	rnd := rand.New(rand.NewPCG(1, 2))
	fillRandom(in, 20000, rnd)
	fillRandom(out, 20000, rnd)
	for _, c := range []struct {
		run, topic string
		rows       int
		cut        bool
	}{{"", "leat.lineage", 1, false}, {"", "leat.lineage", 20000, true}, {"job1", "leat.lineage-jobs", 20000, true}, {"job1", "leat.lineage-jobs", 0, false}} {
		online, jobs, cat := &kept{}, &kept{}, &shelf{known: map[schemas.SchemaID]*schemas.Schema{}}
		s := NewStream(Logs{Online: online, Jobs: jobs}, cat, Default(), nil, nil)
		var recs Records
		ctx := *testContext()
		ctx.Run = c.run
		for i := range c.rows {
			row := Row{RequestID: "q", Row: int32(i), Status: StatusOK, InputDigest: InputDigest(in, i, i+1)}
			if err := recs.Add(&ctx, &row, in, i, out, i); err != nil {
				t.Fatal(err)
			}
		}
		cat.err = schemas.Errorf(schemas.Unavailable, "test", "no catalogue")
		if ms, err := s.Messages(t.Context(), &recs); c.rows > 0 && (schemas.KindOf(err) != schemas.Unavailable || ms != nil) {
			t.Fatalf("schemas that readers cannot find: %d messages, %v", len(ms), err)
		}
		cat.err = nil
		ms, err := s.Messages(t.Context(), &recs)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []schemas.SchemaID{EnvelopeSchema.ID(), ContextSchema.ID(), RequestSchema.ID(), in.Schema().ID(), out.Schema().ID()} {
			if c.rows > 0 && cat.known[id] == nil {
				t.Errorf("schema %s is not in the catalogue", id)
			}
		}
		again, err := s.Messages(t.Context(), &recs)
		if err != nil || !reflect.DeepEqual(again, ms) {
			t.Fatalf("another call gives other messages: %v", err)
		}
		if _, err := s.Append(t.Context(), &recs); err != nil {
			t.Fatal(err)
		}
		want := append(online.entries, jobs.entries...)
		if (len(want) > 1) != c.cut || len(ms) != len(want) {
			t.Fatalf("%d messages handed out, %d appended", len(ms), len(want))
		}
		for i := range want {
			want[i].Topic = c.topic
		}
		if len(want) > 0 && !reflect.DeepEqual(ms, want) {
			t.Fatal("handed out is not what is appended")
		}
	}
}
