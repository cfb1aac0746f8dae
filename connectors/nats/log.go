package nats

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// OpenLog creates the log, or checks that what exists is the same kind. The size of an existing log is raised or
// lowered to MaxBytes, as long as it holds less than that.
func (c *Client) OpenLog(ctx context.Context, lc schemas.LogConfig) (schemas.Log, error) {
	const op = "nats.OpenLog"
	if err := checkToken(op, "log", lc.Name); err != nil {
		return nil, err
	}
	if err := checkSubject(op, lc.Prefix); err != nil {
		return nil, err
	}
	if lc.MaxBytes <= 0 {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "max_bytes", "log %s has no bound: a full disk stops everything", lc.Name)
	}
	want := c.base(lc.Name, lc.Prefix+".>")
	want.MaxBytes = lc.MaxBytes
	if lc.Replicas > 0 {
		want.Replicas = lc.Replicas
	}
	if lc.DiscardOld {
		want.Discard = jetstream.DiscardOld
	}
	if lc.Once {
		want.MaxMsgsPerSubject, want.DiscardNewPerSubject = 1, true
		if lc.DiscardOld {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "discard_old", "log %s: what is inserted once is never dropped", lc.Name)
		}
	}
	info, err := c.ensureStream(ctx, op, want, func(have *jetstream.StreamConfig) error {
		switch {
		case have.Discard != want.Discard:
			return differs(op, lc.Name, "discard", have.Discard, want.Discard)
		case have.DiscardNewPerSubject != want.DiscardNewPerSubject || have.MaxMsgsPerSubject != want.MaxMsgsPerSubject:
			return differs(op, lc.Name, "once", have.DiscardNewPerSubject, lc.Once)
		}
		return sameSubjects(op, have, want.Subjects)
	})
	if err != nil {
		return nil, err
	}
	if info.Config.MaxBytes != lc.MaxBytes && info.State.Bytes < uint64(lc.MaxBytes) {
		if err := c.resize(ctx, op, info, lc.MaxBytes); err != nil {
			return nil, err
		}
	}
	return &log{c: c, name: lc.Name, prefix: lc.Prefix + ".", max: lc.MaxBytes}, nil
}

func (c *Client) resize(ctx context.Context, op string, info *jetstream.StreamInfo, size int64) error {
	ctx, cancel := c.call(ctx)
	defer cancel()
	if more := size - info.Config.MaxBytes; more > 0 {
		if err := c.reserve(ctx, "more room for stream "+info.Config.Name, more); err != nil {
			return err
		}
	}
	cfg := info.Config
	cfg.MaxBytes = size
	_, err := c.js.UpdateStream(ctx, cfg)
	return classify(op, "size of stream "+cfg.Name, err)
}

// DropLog deletes the log and all it holds. A log that is not there is no error.
func (c *Client) DropLog(ctx context.Context, name string) error {
	ctx, cancel := c.call(ctx)
	defer cancel()
	err := c.js.DeleteStream(ctx, name)
	if apiCode(err) == codeStreamNotFound {
		return nil
	}
	return classify("nats.DropLog", "log "+name, err)
}

type log struct {
	c      *Client
	name   string
	prefix string // with the dot
	max    int64
}

// retryPause is how long an append waits before it repeats after an unknown outcome.
const retryPause = 20 * time.Millisecond

func (l *log) Append(ctx context.Context, subject, id string, payload []byte) (uint64, error) {
	const op = "nats.Log.Append"
	m := nats.Msg{Subject: l.prefix + subject, Data: payload}
	if id != "" {
		m.Header = nats.Header{jetstream.MsgIDHeader: {id}}
	}
	if err := l.admit(op, subject, &m); err != nil {
		return 0, err
	}
	ack, err := l.publish(ctx, op, &m)
	return ack.Sequence, err
}

func (l *log) admit(op, subject string, m *nats.Msg) error {
	if err := checkSubject(op, subject); err != nil {
		return err
	}
	if n, limit := len(m.Data)+headerSize(m.Header), l.c.MaxPayload(); n > limit {
		return oversize(op, n, limit)
	}
	return nil
}

// publish sends the same bytes until an answer comes or ctx ends: no answer means that the outcome is unknown, and the
// id (or the expectation of an insert) makes the repeat harmless.
func (l *log) publish(ctx context.Context, op string, m *nats.Msg) (pubAck, error) {
	for {
		ack, err := l.c.publishOnce(ctx, m)
		switch {
		case err == nil:
			return ack, nil
		case apiCode(err) == codeStreamNotFound || !passing(err):
			return ack, classify(op, l.name, err)
		}
		if m.Header == nil && !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, nats.ErrConnectionReconnecting) {
			return ack, schemas.Errorf(schemas.Unavailable, op, "%s: outcome unknown, and no id to repeat it with: %w", l.name, err)
		}
		if sleep(ctx, retryPause) != nil || l.c.closing.Err() != nil {
			return ack, schemas.Errorf(schemas.Unavailable, op, "%s: not acknowledged in time: %w", l.name, err)
		}
	}
}

func (l *log) Insert(ctx context.Context, subject string, payload []byte) (uint64, bool, error) {
	const op = "nats.Log.Insert"
	m := nats.Msg{Subject: l.prefix + subject, Data: payload, Header: nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}}}
	if err := l.admit(op, subject, &m); err != nil {
		return 0, false, err
	}
	ack, err := l.publish(ctx, op, &m)
	if apiCode(err) != codeWrongLastSequence {
		// 10077 included: with the expectation set it can only mean that the log is full.
		return ack.Sequence, false, err
	}
	e, err := l.Last(ctx, subject)
	if err != nil {
		return 0, true, err
	}
	return e.Sequence, true, nil
}

func (l *log) Last(ctx context.Context, subject string) (*schemas.Entry, error) {
	const op = "nats.Log.Last"
	if err := checkSubject(op, subject); err != nil {
		return nil, err
	}
	ctx, cancel := l.c.call(ctx)
	defer cancel()
	m, err := l.c.directGet(ctx, l.name, `{"last_by_subj":"`+l.prefix+subject+`"}`)
	if err != nil {
		return nil, classify(op, l.name+" "+subject, err)
	}
	return l.entry(m.Subject, m.Sequence, m.Time, m.Header, m.Data), nil
}

func (l *log) entry(subject string, seq uint64, t time.Time, h nats.Header, data []byte) *schemas.Entry {
	return &schemas.Entry{
		Sequence: seq, Subject: strings.TrimPrefix(subject, l.prefix), Time: t, Header: schemas.Header(h), Payload: data,
	}
}

func (l *log) SequenceAt(ctx context.Context, t time.Time) (uint64, error) {
	return l.c.sequenceAt(ctx, l.name, "", t)
}

func (l *log) Stats(ctx context.Context) (schemas.LogStats, error) {
	i, err := l.c.streamInfo(ctx, "nats.Log.Stats", l.name)
	if err != nil {
		return schemas.LogStats{}, err
	}
	s := i.State
	return schemas.LogStats{
		First: s.FirstSeq, Last: s.LastSeq, Messages: s.Msgs, Bytes: s.Bytes, MaxBytes: uint64(max(i.Config.MaxBytes, 0)), Subjects: s.NumSubjects,
	}, nil
}

func (c *Client) streamInfo(ctx context.Context, op, name string) (*jetstream.StreamInfo, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, classify(op, "stream "+name, err)
	}
	return s.CachedInfo(), nil
}

func (l *log) Purge(ctx context.Context, before uint64) error {
	const op = "nats.Log.Purge"
	if before <= 1 {
		return nil // the server reads 0 as "everything"
	}
	ctx, cancel := l.c.call(ctx)
	defer cancel()
	s, err := l.c.js.Stream(ctx, l.name)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSequence(before))
	}
	return classify(op, l.name, err)
}
