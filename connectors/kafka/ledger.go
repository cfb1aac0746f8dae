package kafka

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/deletegroups"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// Ledger writes to topics so that messages and how far their writer is are committed as one: each Write is one
// transaction. The progress is the offset, with its metadata, of a group without members that is named after the writer,
// on partition 0 of the topic that it was opened for.
//
// Whoever opens a ledger fences those who opened it before: they can store nothing more. What they did not complete is
// dropped, and what they did complete is in Progress. It is used by one goroutine at a time.
type Ledger struct {
	txnProducer
	topic    string // as the user names it
	at       int64  // progress that is committed, -1: none
	text     string // that goes with it
	tried    int64  // of a Write of unknown outcome, -1: none
	verified bool   // at was compared with the group's in this session
}

// ledgerPrefix begins the names of ledgers' groups and transactional ids, before the prefix of the configuration.
const ledgerPrefix = own + "ledger."

// ledgerGroup stands for all ledgers in metrics: they come and go.
const ledgerGroup = "ledgers"

// OpenLedger opens the ledger of a name. NotFound: there is no such topic.
func (c *Client) OpenLedger(ctx context.Context, topic, name string) (*Ledger, error) {
	const op = "kafka.OpenLedger"
	if _, err := c.partitions(ctx, op, topic); err != nil {
		return nil, err
	}
	l := c.ledger(topic, name)
	err := l.begin(ctx)
	if err == nil {
		err = l.persist(ctx, func() error {
			p, err := l.place(ctx)
			if err == nil {
				l.at, l.text = p.offset, p.text
			}
			return err
		})
	}
	if err != nil {
		if ctx.Err() != nil || c.closing.Err() != nil {
			return nil, c.late(ctx, op, "ledger of topic "+topic, err)
		}
		return nil, classify(op, "ledger of topic "+topic, err)
	}
	l.verified = true
	return l, nil
}

func (c *Client) ledger(topic, name string) *Ledger {
	key := c.name(ledgerPrefix + name)
	l := &Ledger{topic: topic, at: -1, tried: -1}
	l.c, l.coord, l.group, l.in = c, c.coordinator(kafka.CoordinatorKeyTypeTransaction, key), c.coordinator(kafka.CoordinatorKeyTypeConsumer, key), c.name(topic)
	return l
}

// Progress is what the last Write that took effect said; n is -1 if there was none, or if the cluster does not know of it
// any more: it forgets what nobody has written for offsets.retention.minutes, and what belongs to a deleted topic.
func (l *Ledger) Progress() (n int64, text string) { return l.at, l.text }

// Write stores messages, on any topics, in their order, and the progress: both or nothing. n grows from call to call;
// text is a few hundred bytes. It tries until it is done, the end of ctx, or what cannot pass. By error:
//   - wrapping connectors.ErrRevoked: somebody else opened the ledger, or the transaction took longer than 10 s. Open it
//     again, if it is still yours, and see how far it is.
//   - a *connectors.RefusedError (Invalid): a message can never be stored as it is. NotFound, Denied: as they say. Nothing
//     is stored.
//   - any other: the outcome may not be known. The same call may be repeated, or the ledger opened again.
func (l *Ledger) Write(ctx context.Context, msgs []schemas.Message, n int64, text string) error {
	const op = "kafka.Ledger.Write"
	if n <= l.at {
		return schemas.Errorf(schemas.Internal, op, "topic %s: progress %d after %d", l.topic, n, l.at)
	}
	recs, _, err := l.c.txnRecords(ctx, op, msgs)
	if err != nil {
		return err
	}
	w := newTxnWrite(recs, l.c.cfg.MaxBatchBytes)
	for tries := 0; ; tries++ {
		done, err := l.ready(ctx, op, n)
		if err == nil && !done {
			w.rewind()
			if err = l.attempt(ctx, w, n, text); err != nil {
				l.drop(err)
			}
		}
		if err == nil {
			l.at, l.text, l.tried = n, text, -1
			l.c.cfg.Metrics.transaction(l.topic, ledgerGroup, txnCommitted)
			return nil
		}
		if err := l.verdict(ctx, op, err); err != nil {
			return err
		}
		if sleep(ctx, min(retryPause<<min(tries, 4), time.Second/4)) != nil {
			return l.c.late(ctx, op, "transaction of topic "+l.topic, err)
		}
	}
}

// verdict is nil if another try helps, else what the caller gets.
func (l *Ledger) verdict(ctx context.Context, op string, err error) error {
	var refused *connectors.RefusedError
	what := "transaction of topic " + l.topic
	switch {
	case errors.Is(err, connectors.ErrRevoked), errors.As(err, &refused):
		return err
	case isFenced(err):
		return l.revoked(op)
	case ctx.Err() != nil || l.c.closing.Err() != nil:
		return l.c.late(ctx, op, what, err)
	case !passing(err) && !sessionLost(err):
		return classify(op, what, err)
	case errors.Is(err, kafka.UnknownTopicOrPartition): // for a moment, or for good
		if _, err := l.c.meta.fresh(ctx, op, l.c.name(l.topic)); schemas.KindOf(err) == schemas.NotFound && err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) revoked(op string) error {
	return schemas.Errorf(schemas.Unavailable, op, "topic %s: %w", l.topic, said{"another writer has taken over", connectors.ErrRevoked})
}

// ready begins a session if there is none, and makes sure that the progress is where this writer left it. done: it is
// where the call wants it, an earlier try took effect.
func (l *Ledger) ready(ctx context.Context, op string, n int64) (done bool, _ error) {
	if l.session == nil {
		l.verified = false
		if err := l.begin(ctx); err != nil {
			return false, err
		}
	}
	if l.verified {
		return false, nil
	}
	p, err := l.place(ctx)
	switch {
	case err != nil:
		return false, err
	case p.offset == l.at:
		l.verified = true
		return false, nil
	case l.tried >= 0 && p.offset == l.tried && l.tried == n:
		l.verified = true
		return true, nil
	}
	return false, l.revoked(op)
}

// attempt makes the transaction once.
func (l *Ledger) attempt(ctx context.Context, w *txnWrite, n int64, text string) error {
	return l.txnProducer.attempt(ctx, w, func(ctx context.Context, s *txnSession) error {
		return l.commit(ctx, s, generation{id: -1}, n, noteText+text)
	}, func() { l.tried = n })
}

// drop ends the session after a failure.
func (l *Ledger) drop(cause error) {
	outcome := txnAborted
	if isFenced(cause) {
		outcome = txnFenced
	}
	l.c.cfg.Metrics.transaction(l.topic, ledgerGroup, outcome)
	l.txnProducer.drop(cause)
}

// DropLedger removes what a ledger keeps in the cluster beside its messages, and fences its writer. The transactional id
// itself cannot be deleted: brokers forget it after transactional.id.expiration.ms. It is no error if there is none.
func (c *Client) DropLedger(ctx context.Context, topic, name string) error {
	const op = "kafka.DropLedger"
	l := c.ledger(topic, name)
	err := l.begin(ctx) // or somebody who is late would make the group again
	if err == nil {
		err = l.persist(ctx, func() error {
			_, err := l.group.ask(ctx, &deletegroups.Request{GroupIDs: []string{l.group.key}}, func(m protocol.Message) int16 {
				for _, r := range m.(*deletegroups.Response).Responses {
					if r.ErrorCode != 0 {
						return r.ErrorCode
					}
				}
				return 0
			})
			return err
		})
	}
	switch {
	case err == nil, errors.Is(err, kafka.GroupIdNotFound):
		return nil
	case ctx.Err() != nil || c.closing.Err() != nil:
		return c.late(ctx, op, "ledger of topic "+topic, err)
	}
	return classify(op, "ledger of topic "+topic, err)
}
