package bulk

import (
	"context"
	"encoding/json"

	"github.com/leatstream/leat/schemas"
)

// ledgerSink stores a chunk's rows, its bad rows and the job's counters as one. A coordinator that takes over fences the
// one before it and goes on with the chunk that the counters say: nothing is looked for, and nothing is written again.
type ledgerSink struct {
	messages
	s       *Service
	ledger  Ledger
	count   Counters // of what the topic holds
	chunk   []schemas.Message
	rejects bool // the topic of bad rows is there
}

// ledgerName is what the job's progress is kept under, and nobody else's.
func (j *Job) ledgerName() string { return "job." + j.ID }

func (s *Service) openLedgerSink(ctx context.Context, m messages, l Ledger) (sink, error) {
	t := &ledgerSink{messages: m, s: s, ledger: l}
	switch n, text := l.Progress(); {
	case n >= 0:
		if err := json.Unmarshal([]byte(text), &t.count); err != nil || t.count.Written != n {
			return nil, schemas.Errorf(schemas.Internal, "bulk.openSink", "topic %s: the job's progress %d says %.100q", m.topic, n, text)
		}
	case m.job.Ledger:
		return nil, schemas.FieldErrorf(schemas.Invalid, "bulk.openSink", "to",
			"topic %s does not tell any more how far the job was: it was made again, or the job stood still for longer than the brokers keep offsets (offsets.retention.minutes); start a new job, to a new topic", m.topic)
	default: // nothing yet: say so, so that nothing where there should be something is noticed
		text, err := t.text()
		if err == nil {
			err = l.Write(ctx, nil, 0, text)
		}
		if err != nil {
			return nil, err
		}
	}
	if m.job.Ledger {
		return t, nil
	}
	_, err := s.store.update(ctx, m.job.ID, func(j *Job) error {
		j.Ledger = true
		return nil
	})
	return t, err
}

// text writes the counters.
func (t *ledgerSink) text() (string, error) {
	c := t.count
	c.Rate = 0 // of an attempt
	b, err := json.Marshal(&c)
	if err != nil {
		return "", schemas.Errorf(schemas.Internal, "bulk.sink", "%w", err)
	}
	return string(b), nil
}

func (t *ledgerSink) write(ctx context.Context, sp span, r *rows) error {
	for i := range r.at {
		m, err := t.scored(sp, r, i)
		if err != nil {
			return err
		}
		t.chunk = append(t.chunk, m)
	}
	if len(r.bad) == 0 {
		return nil
	}
	if !t.rejects {
		ctx, cancel := context.WithTimeout(ctx, sinkPatience)
		defer cancel()
		if err := t.s.deps.Topics.EnsureTopic(ctx, t.topic+rejectedTopic, 0); err != nil {
			return err
		}
		t.rejects = true
	}
	bads, err := t.rejected(sp, r.bad)
	t.chunk = append(t.chunk, bads...)
	return err
}

func (t *ledgerSink) end(ctx context.Context, c Counters) error {
	ctx, cancel := context.WithTimeout(ctx, sinkPatience)
	defer cancel()
	t.count = c
	text, err := t.text()
	if err != nil {
		return err
	}
	if err := t.ledger.Write(ctx, t.chunk, c.Written, text); err != nil {
		return err
	}
	clear(t.chunk)
	t.chunk = t.chunk[:0]
	return nil
}

func (t *ledgerSink) at() map[int32]uint64         { return nil }
func (t *ledgerSink) counters() Counters           { return t.count }
func (t *ledgerSink) commit(context.Context) error { return nil }
func (t *ledgerSink) abort()                       {}
