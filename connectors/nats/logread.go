package nats

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// Read goes through the log with an ordered consumer: one that the library makes anew, at the right place, when a
// message is missing or the server was away.
func (l *log) Read(ctx context.Context, from uint64, subjects []string, follow bool, fn func(e *schemas.Entry) bool) error {
	const op = "nats.Log.Read"
	info, err := l.c.streamInfo(ctx, op, l.name)
	if err != nil {
		return err
	}
	from = max(from, 1)
	end := info.State.LastSeq
	if !follow && (info.State.Msgs == 0 || from > end) {
		return nil
	}
	filters := make([]string, len(subjects))
	for i, s := range subjects {
		if err := checkSubject(op, s); err != nil {
			return err
		}
		filters[i] = l.prefix + s
	}
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: filters, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from}
	return l.c.readOrdered(ctx, op, l.name, cfg, end, follow, func(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
		return fn(l.entry(m.Subject(), meta.Sequence.Stream, meta.Timestamp, m.Headers(), m.Data()))
	})
}

// readOrdered calls fn for what the consumer gives, up to sequence end, or for ever with follow.
func (c *Client) readOrdered(ctx context.Context, op, stream string, cfg jetstream.OrderedConsumerConfig, end uint64, follow bool,
	fn func(jetstream.Msg, *jetstream.MsgMetadata) bool) error {
	call, cancel := c.call(ctx)
	defer cancel()
	cfg.InactiveThreshold = orderedIdle
	cons, err := c.jsd.OrderedConsumer(call, stream, cfg)
	if err != nil {
		return classify(op, stream, err)
	}
	defer c.dropOrdered(ctx, stream, cons)
	if info := cons.CachedInfo(); !follow && info != nil && info.NumPending == 0 {
		return nil
	}
	it, err := cons.Messages(jetstream.PullMaxMessagesWithBytesLimit(4096, c.cfg.PullBytes))
	if err != nil {
		return classify(op, stream, err)
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, jetstream.ErrNoHeartbeat):
			continue // the consumer is being made anew
		default:
			return classify(op, stream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return schemas.Errorf(schemas.Internal, op, "%s: %w", stream, err)
		}
		if !follow && meta.Sequence.Stream > end {
			return nil
		}
		if !fn(m, meta) {
			return nil
		}
		if !follow && (meta.NumPending == 0 || meta.Sequence.Stream >= end) {
			return nil
		}
	}
}

// orderedIdle is how long the server keeps the consumer of a reader that is gone without a word.
const orderedIdle = 30 * time.Second

// dropOrdered deletes the consumer of a read that has ended: the library leaves it to the server, which has room for so
// many.
func (c *Client) dropOrdered(ctx context.Context, stream string, cons jetstream.Consumer) {
	info := cons.CachedInfo()
	if info == nil {
		return
	}
	call, cancel := c.call(context.WithoutCancel(ctx))
	defer cancel()
	if err := c.jsd.DeleteConsumer(call, stream, info.Name); err != nil {
		c.log.Debug("a reader's consumer is left to the server", "stream", stream, "error", err)
	}
}

// stored is a message read by direct get.
type stored struct {
	Subject  string
	Sequence uint64
	Time     time.Time
	Header   nats.Header
	Data     []byte
}

// directGet asks the stream for one message. NotFound if there is none.
func (c *Client) directGet(ctx context.Context, stream, request string) (*stored, error) {
	r, err := c.core.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream, []byte(request))
	if err != nil {
		return nil, err
	}
	switch r.Header.Get("Status") {
	case "":
	case "404":
		return nil, jetstream.ErrMsgNotFound
	default:
		return nil, schemas.Errorf(schemas.Internal, "nats.directGet", "stream %s: %s %s", stream, r.Header.Get("Status"), r.Header.Get("Description"))
	}
	seq, err := strconv.ParseUint(r.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return nil, err
	}
	t, err := time.Parse(time.RFC3339Nano, r.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return nil, err
	}
	m := &stored{Subject: r.Header.Get(jetstream.SubjectHeader), Sequence: seq, Time: t, Header: r.Header, Data: r.Data}
	for _, k := range []string{jetstream.SequenceHeader, jetstream.TimeStampHeaer, jetstream.SubjectHeader, jetstream.StreamHeader} {
		delete(m.Header, k)
	}
	return m, nil
}

// sequenceAt returns the first sequence stored at or after t, one past the last if there is none. subject, if not
// empty, selects.
func (c *Client) sequenceAt(ctx context.Context, stream, subject string, t time.Time) (uint64, error) {
	const op = "nats.sequenceAt"
	ctx, cancel := c.call(ctx)
	defer cancel()
	if subject == "" {
		subject = ">"
	}
	// The end comes first: what is stored between the two looks is behind it, and is not stepped over.
	i, err := c.streamInfo(ctx, op, stream)
	if err != nil {
		return 0, err
	}
	// next_by_subj takes a time: the server finds the block by its index.
	req := `{"next_by_subj":"` + subject + `","start_time":"` + t.UTC().Format(time.RFC3339Nano) + `"}`
	m, err := c.directGet(ctx, stream, req)
	switch {
	case err == nil:
		return m.Sequence, nil
	case !errors.Is(err, jetstream.ErrMsgNotFound):
		return 0, classify(op, stream, err)
	}
	return i.State.LastSeq + 1, nil
}
