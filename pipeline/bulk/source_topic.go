package bulk

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
)

// topicSource reads the stored messages of one partition after another. A message that cannot be decoded is one bad row.
type topicSource struct {
	topic    string
	replayer connectors.Replayer
	codec    func(context.Context, *schemas.Message, *codec.Input) (schemas.Codec, error)
	input    *codec.Input // of messages that do not say how they are written
	max      int
	name     string // of the stream, in positions; known after the first message

	open connectors.Source
	from ref
}

func (s *Service) openTopicSource(j *Job, topic string, rev *pipeline.Revision) (source, error) {
	var in pipeline.Input
	if rev.Spec.Input != nil {
		in = *rev.Spec.Input
	}
	input, err := codec.ParseInput(in.Format, in.Columns)
	if err != nil {
		return nil, err
	}
	return &topicSource{topic: topic, replayer: s.deps.Replayer, codec: s.deps.Codec, input: input, max: j.ChunkRows}, nil
}

func (t *topicSource) seek(ctx context.Context, r Range, from ref) error {
	t.close(ctx)
	src, err := t.replayer.Open(ctx, connectors.Span{Topic: t.topic, Partition: r.Partition, First: max(r.First, from.Unit), Last: r.Last})
	if err != nil {
		return err
	}
	t.open, t.from = src, from
	return nil
}

func (t *topicSource) fill(ctx context.Context, r *rows) error {
	ds, err := t.open.Receive(ctx, t.max)
	if errors.Is(err, schemas.ErrDrained) {
		return io.EOF
	}
	if err != nil {
		return err
	}
	for _, d := range ds {
		if err := t.add(ctx, r, d); err != nil {
			return err
		}
	}
	return nil
}

// add decodes a message. Rows of it that belong to an earlier chunk are left out. Unavailable: its schema cannot be
// looked up now, which says nothing of the message.
func (t *topicSource) add(ctx context.Context, r *rows, d *connectors.Delivery) error {
	seq := d.From.Sequence
	if t.name == "" {
		t.name = d.From.Stream
	}
	when := eventNanos(eventTime(d))
	fresh := func(sub int) bool { return !(ref{seq, int32(sub)}).before(t.from) }
	before := r.in.Rows()
	good, faults, err := t.decode(ctx, r.in, &d.Message)
	if schemas.KindOf(err) == schemas.Unavailable && err != nil {
		return err
	}
	if err != nil {
		if fresh(0) {
			b := newBad(ref{Unit: seq}, err)
			b.when = when
			r.bad = append(r.bad, b)
		}
		return nil
	}
	o := origin{request: d.Header.Get(schemas.HeaderRequestID), key: d.Key, when: when}
	if t, ok := statedTime(d); ok {
		o.event = eventNanos(t)
	}
	stale := 0
	for sub, n := 0, good+len(faults); sub < n; sub++ {
		if len(faults) > 0 && faults[0].Row == sub {
			if fresh(sub) {
				b := newBad(ref{seq, int32(sub)}, faults[0].Err)
				b.when = when
				r.bad = append(r.bad, b)
			}
			faults = faults[1:]
			continue
		}
		if !fresh(sub) {
			stale++
			continue
		}
		o.row = int32(sub)
		r.at = append(r.at, ref{seq, int32(sub)})
		r.origins = append(r.origins, o)
	}
	if stale > 0 { // a chunk ended within this message: the first one after a seek
		rest := schemas.NewBatch(r.in.Schema())
		rest.AppendRange(r.in, before+stale, before+good)
		r.in.Truncate(before)
		r.in.AppendRange(rest, 0, rest.Rows())
	}
	return nil
}

func (t *topicSource) decode(ctx context.Context, in *schemas.Batch, m *schemas.Message) (good int, faults []schemas.RowError, err error) {
	c, err := t.codec(ctx, m, t.input)
	if err != nil {
		return 0, nil, err
	}
	if rc, ok := c.(schemas.RowCodec); ok {
		good, faults, _, err = rc.AppendGood(in, m, nil)
		return good, faults, err
	}
	good, _, err = c.AppendRows(in, m)
	return good, nil, err
}

func (t *topicSource) stream() string { return t.name }

func (t *topicSource) after(r ref) ref { return r.next() }

func (t *topicSource) close(ctx context.Context) {
	if t.open != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = t.open.Close(ctx) // it was only read
		t.open = nil
	}
}
