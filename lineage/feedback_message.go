package lineage

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/wire"
)

// A message of feedback has the form of all messages of the lineage (encode.go), with one frame of FeedbackSchema.

var (
	feedbackFormat = wire.FormatOf(FeedbackSchema)
	feedbackSize   = sizesOf(FeedbackSchema)
)

// FeedbackAppender makes feedback durable. Safe for concurrent use.
type FeedbackAppender interface {
	// AppendFeedback completes each (see Feedback.Complete) and appends all, of any pipelines, those of one pipeline in
	// their order. It returns when the log has acknowledged all of them, and says for each why it was not kept: Invalid,
	// naming the field; Unavailable, wrapping schemas.ErrFull when the log is full, else it may be there and may be said
	// again. Errors are nil if all are kept. What it completes is written to fs (Received too, where it is zero).
	AppendFeedback(ctx context.Context, fs []Feedback) []error
}

var _ FeedbackAppender = (*Stream)(nil)

// AppendFeedback implements FeedbackAppender. One message of the log holds as much feedback of a pipeline as fits.
func (s *Stream) AppendFeedback(ctx context.Context, fs []Feedback) []error {
	var errs []error
	fail := func(i int, err error) {
		if errs == nil {
			errs = make([]error, len(fs))
		}
		errs[i] = err
	}
	byPipeline := map[string][]int{}
	var order []string
	for i := range fs {
		if err := fs[i].Complete(); err != nil {
			fail(i, err)
			continue
		}
		if fs[i].Received.IsZero() {
			fs[i].Received = time.Now()
		}
		p := fs[i].Pipeline
		if byPipeline[p] == nil {
			order = append(order, p)
		}
		byPipeline[p] = append(byPipeline[p], i)
	}
	if len(order) > 0 {
		if err := s.ensureOne(ctx, FeedbackSchema); err != nil {
			for _, p := range order {
				for _, i := range byPipeline[p] {
					fail(i, err)
				}
			}
			return errs
		}
	}
	for _, p := range order {
		rest := byPipeline[p]
		var failed error
		for len(rest) > 0 {
			n := len(rest)
			if failed == nil { // what follows one that failed would come before it when that is said again
				n, failed = s.appendFeedback(ctx, p, fs, rest)
			}
			for _, i := range rest[:n] {
				if failed != nil {
					fail(i, failed)
				}
			}
			rest = rest[n:]
		}
	}
	return errs
}

// appendFeedback appends one message, of the first n of those named.
func (s *Stream) appendFeedback(ctx context.Context, pipeline string, fs []Feedback, which []int) (n int, err error) {
	b := schemas.NewBatch(FeedbackSchema)
	size := feedbackSize.overhead
	for _, i := range which {
		more := feedbackBytes(&fs[i])
		if size+more > MaxMessage {
			break
		}
		size += more
		appendFeedbackRow(b, &fs[i])
		n++
	}
	var id [16]byte
	rand.Read(id[:]) // never fails
	_, err = s.append(ctx, &s.online, pipeline, "feedback-"+hex.EncodeToString(id[:]), appendFrame(nil, feedbackFormat, b, 0, n))
	return n, err
}

func feedbackBytes(f *Feedback) int {
	n := feedbackSize.fixed + len(f.ID) + len(f.Pipeline) + len(f.RequestID) + len(f.Entity) + len(f.Node) + len(f.Comment) + len(f.Principal) + len(f.Via)
	if l, ok := f.Label.(string); ok {
		n += len(l)
	}
	return n
}

func appendFeedbackRow(b *schemas.Batch, f *Feedback) {
	putString(b, fbID, f.ID)
	putString(b, fbPipeline, f.Pipeline)
	putString(b, fbRequest, f.RequestID)
	putString(b, fbEntity, f.Entity)
	putString(b, fbNode, f.Node)
	putString(b, fbPrincipal, f.Principal)
	putString(b, fbVia, f.Via)
	put(b, fbRow, f.Row)
	number, text, truth := b.Column(fbNumber), b.Column(fbText), b.Column(fbBool)
	switch l := f.Label.(type) {
	case float64:
		put(b, fbNumber, l)
	case string:
		putString(b, fbText, l)
	case bool:
		truth.AppendBool(l)
		truth.EndRow()
	}
	at := b.Rows()
	for _, c := range [...]*schemas.Column{number, text, truth} {
		if c.Rows() == at {
			c.AppendNull()
		}
	}
	if f.Reward != nil {
		put(b, fbReward, *f.Reward)
	} else {
		b.Column(fbReward).AppendNull()
	}
	if f.Comment != "" {
		putString(b, fbComment, f.Comment)
	} else {
		b.Column(fbComment).AppendNull()
	}
	putTime(b, fbEvent, f.EventTime)
	put(b, fbReceived, f.Received.UnixNano())
	b.Advance(1)
}

// isFeedback tells a message of feedback from one of records.
func isFeedback(msg []byte) bool {
	id := FeedbackSchema.ID()
	return len(msg) >= frameHeader && bytes.Equal(msg[4:frameHeader], id[:])
}

// decodeFeedback reads a message of feedback into b, which it empties. As of decoder, every byte is taken for hostile.
func decodeFeedback(msg []byte, b *schemas.Batch) error {
	b.Reset()
	if size := binary.LittleEndian.Uint32(msg); uint64(size) != uint64(len(msg)-4) {
		return corrupt("feedback: frame of %d bytes, %d are there: want one frame and nothing behind", size, len(msg)-4)
	}
	if _, err := wire.AppendRows(b, msg[frameHeader:]); err != nil {
		return corrupt("feedback: %w", err)
	}
	return nil
}

// feedbackAt returns row i of a message; it shares nothing with b.
func feedbackAt(b *schemas.Batch, i int) *Feedback {
	text := func(c int) string { return string(b.Column(c).Text(i)) }
	f := &Feedback{
		ID: text(fbID), Pipeline: text(fbPipeline), RequestID: text(fbRequest), Row: schemas.Values[int32](b.Column(fbRow))[i],
		Entity: text(fbEntity), Node: text(fbNode), Comment: text(fbComment), Principal: text(fbPrincipal), Via: text(fbVia),
		EventTime: timeAt(b.Column(fbEvent), i), Received: timeAt(b.Column(fbReceived), i), Index: i,
	}
	switch {
	case !b.Column(fbNumber).IsNull(i):
		f.Label = schemas.Values[float64](b.Column(fbNumber))[i]
	case !b.Column(fbText).IsNull(i):
		f.Label = text(fbText)
	case !b.Column(fbBool).IsNull(i):
		f.Label = b.Column(fbBool).Data()[i] != 0
	}
	if !b.Column(fbReward).IsNull(i) {
		r := schemas.Values[float64](b.Column(fbReward))[i]
		f.Reward = &r
	}
	return f
}
