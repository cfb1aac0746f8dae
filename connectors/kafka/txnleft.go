package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
)

// The coordinator ends a transaction by a marker in each of its partitions. Kafka 4.4 leaves out, for good, those that
// have no leader at that moment: it takes them for deleted, where earlier releases tried again. So it goes when the only
// broker is started again after a crash in the middle of commits. For the coordinator such a transaction is complete; in
// the partition it is open: readers of committed records stop there, the group's offset cannot be read, and the next
// marker of this producer decides about its records too, whatever was decided before.
//
// Hence whoever begins a session first asks how the last transaction ended, and keeps that: the coordinator forgets it as
// the session begins. What is open in the group, when its place is asked for, or in a topic, before records go there, is
// closed by a transaction that writes nothing and ends in the same way.

// lookAfter is how long after the end of a transaction the next one takes its partitions to be closed without a look. No
// broker starts in less.
const lookAfter = 250 * time.Millisecond

// These calls came with Kafka 3.0 (KIP-664). Where they are not spoken, or not allowed, nobody looks.
const (
	describeProducers    protocol.ApiKey = 61
	describeTransactions protocol.ApiKey = 65
)

const noTransactionalID = 105 // the answer about an id that is not, or no longer, known

// txnTimeoutCommitted instead of txnTimeout is how a beginning notes with the coordinator that the transaction before it
// was committed: in the one field that is kept, and told to whoever begins next.
const txnTimeoutCommitted = txnTimeout + time.Millisecond

// tells reports whether a broker tells of transactions. All do, or none.
func (c *Client) tells(ctx context.Context, broker int32) (bool, error) {
	switch c.telling.Load() {
	case 1:
		return true, nil
	case -1:
		return false, nil
	}
	v, err := c.versions(ctx, broker)
	if err != nil {
		return false, err
	}
	_, producers := v.calls[describeProducers]
	_, transactions := v.calls[describeTransactions]
	if !producers || !transactions {
		c.telling.Store(-1)
		return false, nil
	}
	c.telling.Store(1)
	return true, nil
}

// outcome reports whether the last transaction under the id was committed, as far as the coordinator tells. One that is
// going on is aborted by whoever begins a session.
func (x *txnProducer) outcome(ctx context.Context) (committed bool, _ error) {
	m, err := x.coord.do(ctx, func(ctx context.Context, node int32) (protocol.Message, error) {
		if ok, err := x.c.tells(ctx, node); !ok {
			return &transactionState{}, err
		}
		return x.c.trip(ctx, x.c.cfg.CallTimeout, &call{key: describeTransactions, broker: node, exchange: func(rw io.ReadWriter, _ int16) (protocol.Message, error) {
			w := newRequest(describeTransactions, 0, x.c.cfg.ClientID)
			w.tags()
			w.uvarint(2)
			w.compact(x.coord.key)
			w.tags()
			if _, err := rw.Write(w.done()); err != nil {
				return nil, err
			}
			b, err := readAnswer(rw)
			if err != nil {
				return nil, err
			}
			return parseTransaction(b)
		}})
	})
	if err != nil {
		if errors.Is(err, kafka.Error(noTransactionalID)) || errors.Is(err, kafka.TransactionalIDAuthorizationFailed) {
			err = nil
		}
		return false, err
	}
	return m.(*transactionState).committed(), nil
}

// transactionState is what a coordinator says of an id.
type transactionState struct {
	name    string
	timeout time.Duration
}

// ApiKey implements protocol.Message.
func (*transactionState) ApiKey() protocol.ApiKey { return describeTransactions }

func (s *transactionState) committed() bool {
	switch s.name {
	case "PrepareCommit", "CompleteCommit":
		return true
	case "Empty": // since the last beginning
		return s.timeout == txnTimeoutCommitted
	}
	return false
}

// parseTransaction returns the state of the one id that was asked about.
func parseTransaction(b []byte) (*transactionState, error) {
	r := answerReader{b: b}
	r.tags() // of the header
	r.int32()
	var s transactionState
	var failed error
	if r.compactCount(30) > 0 { // what follows the timeout is not needed
		failed = codeError(r.int16())
		r.compact()
		s.name = r.compact()
		s.timeout = time.Duration(r.int32()) * time.Millisecond
	}
	if r.bad {
		return nil, fmt.Errorf("describe transactions: %w", errCut)
	}
	return &s, failed
}

// mend closes what an earlier transaction of this producer has left open in topics, unless they were looked at lately.
func (x *txnProducer) mend(ctx context.Context, s *txnSession, topics []string) error {
	if time.Since(s.ended) > lookAfter {
		clear(s.looked)
		if !s.ended.IsZero() {
			if _, err := x.place(ctx); err != nil {
				return err
			}
		}
	}
	topics = slices.DeleteFunc(topics, func(t string) bool { return s.looked[t] })
	if len(topics) == 0 {
		return nil
	}
	left, err := x.open(ctx, s, topics)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		x.c.log.Warn("the brokers have ended a transaction and not closed it: it is closed now", "transaction", x.coord.key, "committed", s.committed, "partitions", places(left))
		if err := x.close(ctx, s, left); err != nil {
			return err
		}
	}
	for _, t := range topics {
		s.looked[t] = true
	}
	return nil
}

func places(in []addpartitionstotxn.RequestTopic) (out []string) {
	for _, t := range in {
		for _, p := range t.Partitions {
			out = append(out, t.Name+"/"+itoa(p))
		}
	}
	return out
}

// close makes a transaction that writes nothing and ends as the one before it did: its markers close what is open in the
// partitions, and in the group.
func (x *txnProducer) close(ctx context.Context, s *txnSession, in []addpartitionstotxn.RequestTopic) error {
	if _, err := x.add(ctx, s, in); err != nil {
		return err
	}
	return x.endBlank(ctx, s)
}

func (x *txnProducer) endBlank(ctx context.Context, s *txnSession) error {
	if err := x.persist(ctx, func() error { return x.end(ctx, s, s.committed) }); err != nil {
		return err
	}
	x.blank = nil
	s.ended = time.Now()
	return nil
}

// leftover reports whether something is open in topics or in the group, while a transaction has begun in which nothing is
// written.
func (x *txnProducer) leftover(ctx context.Context, s *txnSession, topics []string) (bool, error) {
	left, err := x.open(ctx, s, topics)
	if err != nil || len(left) > 0 {
		return len(left) > 0, err
	}
	unstable := false
	err = x.persist(ctx, func() error {
		_, err := x.group.places(ctx, x.in, []int32{x.p})
		if unstable = errors.Is(err, kafka.UnstableOffsetCommit); unstable {
			return nil
		}
		return err
	})
	return unstable, err
}

// open returns the partitions of topics in which a transaction of the session's producer is open.
func (x *txnProducer) open(ctx context.Context, s *txnSession, topics []string) (left []addpartitionstotxn.RequestTopic, _ error) {
	err := x.persist(ctx, func() (err error) {
		if left, err = x.openNow(ctx, s.id, topics); err != nil {
			for _, t := range topics {
				x.c.meta.forget(t) // another broker may lead
			}
		}
		return err
	})
	return left, err
}

func (x *txnProducer) openNow(ctx context.Context, producer int64, topics []string) (out []addpartitionstotxn.RequestTopic, _ error) {
	by := map[int32][]addpartitionstotxn.RequestTopic{} // by leader
	for _, topic := range topics {
		t, err := x.c.meta.topic(ctx, "kafka.Transact", topic)
		if err != nil {
			return nil, err
		}
		parts := map[int32][]int32{}
		for p, leader := range t.leaders {
			parts[leader] = append(parts[leader], int32(p))
		}
		for leader, ps := range parts {
			by[leader] = append(by[leader], addpartitionstotxn.RequestTopic{Name: topic, Partitions: ps})
		}
	}
	for leader, parts := range by {
		if leader < 0 {
			return nil, kafka.LeaderNotAvailable
		}
		if ok, err := x.c.tells(ctx, leader); !ok {
			return nil, err
		}
		m, err := x.c.trip(ctx, x.c.cfg.CallTimeout, &call{key: describeProducers, broker: leader, exchange: func(rw io.ReadWriter, _ int16) (protocol.Message, error) {
			if _, err := rw.Write(producersRequest(x.c.cfg.ClientID, parts)); err != nil {
				return nil, err
			}
			b, err := readAnswer(rw)
			if err != nil {
				return nil, err
			}
			return parseProducers(b, producer)
		}})
		if err != nil {
			return nil, err
		}
		out = append(out, *m.(*openIn)...)
	}
	return out, nil
}

func producersRequest(clientID string, parts []addpartitionstotxn.RequestTopic) []byte {
	w := newRequest(describeProducers, 0, clientID)
	w.tags()
	w.uvarint(uint64(len(parts)) + 1)
	for _, t := range parts {
		w.compact(t.Name)
		w.uvarint(uint64(len(t.Partitions)) + 1)
		for _, p := range t.Partitions {
			w.int32(p)
		}
		w.tags()
	}
	w.tags()
	return w.done()
}

// openIn is an answer about producers, as far as it is of interest.
type openIn []addpartitionstotxn.RequestTopic

// ApiKey implements protocol.Message.
func (*openIn) ApiKey() protocol.ApiKey { return describeProducers }

// parseProducers returns the partitions in which a transaction of the producer is open. Those that may not be asked about
// are left out.
func parseProducers(b []byte, producer int64) (*openIn, error) {
	r := answerReader{b: b}
	r.tags() // of the header
	r.int32()
	var out openIn
	var failed error
	for range r.compactCount(3) {
		topic := addpartitionstotxn.RequestTopic{Name: r.compact()}
		for range r.compactCount(9) {
			p := r.int32()
			if err := codeError(r.int16()); err != nil && !errors.Is(err, kafka.TopicAuthorizationFailed) {
				failed = err
			}
			r.compact()
			for range r.compactCount(37) {
				id := r.int64()
				r.take(4 + 4 + 8 + 4) // epoch, sequence, time, coordinator's epoch
				if start := r.int64(); id == producer && start >= 0 {
					topic.Partitions = append(topic.Partitions, p)
				}
				r.tags()
			}
			r.tags()
		}
		r.tags()
		if len(topic.Partitions) > 0 {
			out = append(out, topic)
		}
	}
	if r.bad {
		return nil, fmt.Errorf("describe producers: %w", errCut)
	}
	return &out, failed
}
