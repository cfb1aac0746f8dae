package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strconv"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// sinkPatience bounds one call to the transport of a topic sink. After it the job says what it waits for, and tries again.
const sinkPatience = 30 * time.Second

// openTopicSink opens a sink that stores a chunk and the progress as one, if the topic's transport can do that; else one
// that looks what is there.
func (s *Service) openTopicSink(ctx context.Context, j *Job, topic string) (sink, error) {
	patient, cancel := context.WithTimeout(ctx, sinkPatience)
	defer cancel()
	if err := s.deps.Topics.EnsureTopic(patient, topic, 0); err != nil {
		return nil, err
	}
	m := messages{job: j, topic: topic, encoder: s.deps.Encoder}
	l, err := s.deps.Ledgers.OpenLedger(patient, topic, j.ledgerName())
	if errors.Is(err, schemas.ErrUnsupported) {
		return s.openStoredSink(ctx, m)
	}
	if err != nil {
		return nil, err
	}
	return s.openLedgerSink(patient, m, l)
}

// messages makes the messages of a job's rows: one a row, with the source's key and an id that follows from the job and
// the row's place alone.
type messages struct {
	job     *Job
	topic   string
	encoder schemas.Encoder
	answer  schemas.Answer
	buf     []byte
}

// rejectedTopic takes the bad rows of a job that writes a topic.
const rejectedTopic = ".rejected"

// headerRow names a row of the job, as Leat-Job names the job: partition/unit.sub of the source.
const headerRow = "Leat-Row"

func rowName(sp span, at ref) string {
	return strconv.Itoa(int(sp.Partition)) + "/" + at.String()
}

// scored makes the message of row i.
func (t *messages) scored(sp span, r *rows, i int) (schemas.Message, error) {
	h := schemas.Header{}
	b, err := t.encoder.EncodeRows(t.buf[:0], h, r.in, i, i+1, &t.answer)
	if err != nil {
		return schemas.Message{}, err
	}
	t.buf = b
	m := t.message(t.topic, sp, r.at[i], h, append([]byte(nil), b...))
	if len(r.origins) > 0 {
		o := &r.origins[i]
		m.Key = o.key
		if o.request != "" {
			m.Header[schemas.HeaderRequestID] = []string{o.request}
		}
		if o.event != 0 {
			m.Header[schemas.HeaderEventTime] = []string{schemas.FormatTime(unixNano(o.event))}
		}
	}
	return m, nil
}

// rejected makes the messages of bad rows, as JSON, for the topic beside the sink's.
func (t *messages) rejected(sp span, bads []bad) ([]schemas.Message, error) {
	msgs := make([]schemas.Message, len(bads))
	for i := range bads {
		b := &bads[i]
		payload, err := json.Marshal(rejectedRow{sp.Partition, b.at.Unit, b.at.Sub, b.skipped, b.kind, b.reason})
		if err != nil {
			return nil, schemas.Errorf(schemas.Internal, "bulk.reject", "%w", err)
		}
		msgs[i] = t.message(t.topic+rejectedTopic, sp, b.at, schemas.Header{schemas.HeaderContentType: {"application/json"}}, payload)
	}
	return msgs, nil
}

// rejectedRow is a message of the rejected topic.
type rejectedRow struct {
	Partition int32  `json:"partition"`
	Row       uint64 `json:"row"`
	Part      int32  `json:"part"`
	Skipped   bool   `json:"skipped"`
	Kind      string `json:"kind"`
	Reason    string `json:"reason"`
}

func (t *messages) message(topic string, sp span, at ref, h schemas.Header, payload []byte) schemas.Message {
	from := schemas.Position{Stream: sp.Stream, Partition: sp.Partition, Sequence: at.Unit}
	if t.job.Ends.Ranges == nil {
		from.Sequence++ // rows of files count from 0, positions from 1
	}
	name := rowName(sp, at)
	h[schemas.HeaderJob] = []string{t.job.ID}
	h[schemas.HeaderRevision] = []string{t.job.Revision}
	h[schemas.HeaderSource] = []string{from.String()}
	h[headerRow] = []string{name}
	return schemas.Message{Topic: topic, ID: t.job.ID + "/" + name, Header: h, Payload: payload}
}

// storedSink publishes to a topic whose transport has no transactions. A coordinator that takes over reads what the topic
// holds behind the place that the job stored last, and publishes what is missing there.
type storedSink struct {
	messages
	s      *Service
	stored map[int32]uint64 // place of each partition that at returns while there is not empty
	ends   map[int32]uint64
	there  map[string]bool // rows that lie behind the stored place already and were not passed yet
}

func (s *Service) openStoredSink(ctx context.Context, m messages) (sink, error) {
	j := m.job
	t := &storedSink{messages: m, s: s, stored: j.SinkAt, ends: maps.Clone(j.SinkAt), there: map[string]bool{}}
	spans, err := s.deps.Replayer.Spans(ctx, m.topic, connectors.Start{})
	if err != nil {
		return nil, err
	}
	if t.ends == nil { // the first attempt: what was there before is not of this job
		t.ends = map[int32]uint64{}
		for _, sp := range spans {
			t.ends[sp.Partition] = sp.Last
		}
		_, err := s.store.update(ctx, j.ID, func(j *Job) error {
			j.SinkAt = t.ends
			return nil
		})
		return t, err
	}
	for _, sp := range spans {
		sp.First = max(sp.First, t.ends[sp.Partition]+1)
		if err := t.recall(ctx, sp); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// recall notes the job's messages in a span.
func (t *storedSink) recall(ctx context.Context, sp connectors.Span) error {
	if sp.Last < sp.First {
		return nil
	}
	src, err := t.s.deps.Replayer.Open(ctx, sp)
	if err != nil {
		return err
	}
	defer src.Close(context.WithoutCancel(ctx))
	for {
		ds, err := src.Receive(ctx, 1024)
		if errors.Is(err, schemas.ErrDrained) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, d := range ds {
			if d.Header.Get(schemas.HeaderJob) == t.job.ID {
				t.there[d.Header.Get(headerRow)] = true
				t.ends[d.From.Partition] = d.From.Sequence
			}
		}
	}
}

func (t *storedSink) write(ctx context.Context, sp span, r *rows) error {
	msgs := make([]schemas.Message, 0, len(r.at))
	for i, at := range r.at {
		if name := rowName(sp, at); t.there[name] {
			delete(t.there, name)
			continue
		}
		m, err := t.scored(sp, r, i)
		if err != nil {
			return err
		}
		msgs = append(msgs, m)
	}
	if err := t.publish(ctx, msgs); err != nil {
		return err
	}
	return t.reject(ctx, sp, r.bad)
}

func (t *storedSink) publish(ctx context.Context, msgs []schemas.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	at, err := t.s.deps.Publisher.Publish(ctx, msgs)
	if err != nil {
		return err
	}
	for _, p := range at {
		if p.Sequence > t.ends[p.Partition] {
			t.ends[p.Partition] = p.Sequence
		}
	}
	return nil
}

func (t *storedSink) reject(ctx context.Context, sp span, bads []bad) error {
	if len(bads) == 0 {
		return nil
	}
	if err := t.s.deps.Topics.EnsureTopic(ctx, t.topic+rejectedTopic, 0); err != nil {
		return err
	}
	msgs, err := t.rejected(sp, bads)
	if err != nil {
		return err
	}
	_, err = t.s.deps.Publisher.Publish(ctx, msgs)
	return err
}

// at moves on when everything that was found behind the stored place is passed: until then the rows that are still to
// be passed must be found again after the next crash.
func (t *storedSink) at() map[int32]uint64 {
	if len(t.there) == 0 {
		t.stored = maps.Clone(t.ends)
	}
	return t.stored
}

func (t *storedSink) counters() Counters                  { return t.job.Counters }
func (t *storedSink) end(context.Context, Counters) error { return nil }
func (t *storedSink) commit(context.Context) error        { return nil }
func (t *storedSink) abort()                              {}
