package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/initproducerid"

	"github.com/leatstream/leat/schemas"
)

// again does what helps after a lane's batch was not stored, and puts it back among the ready.
func (p *producer) again(l *lane, err error) {
	const op = "kafka.produce"
	c, b := p.c, l.batch
	var refuse error
	switch {
	case isTooMuch(err) && len(b.entries) > 1:
		p.halve(l)
		return
	case isTooMuch(err):
		refuse = p.tooMuch(l, err)
	case errors.Is(err, kafka.OutOfOrderSequenceNumber), errors.Is(err, kafka.UnknownProducerId):
		// The broker does not know what this client wrote last: it lost it, or let go of it after a day. What is to be
		// written now was not: begin anew.
		c.log.Warn("begin a new sequence", "topic", l.topic, "partition", l.partition, "error", err)
		b.renew(b.who.id, b.who.epoch+1)
	case errors.Is(err, kafka.InvalidProducerEpoch), errors.Is(err, kafka.InvalidProducerIDMapping), errors.Is(err, kafka.ProducerFenced):
		id, ierr := p.newID(c.closing, op)
		if ierr != nil {
			refuse = ierr
		} else {
			b.renew(id, 0)
		}
	case !passing(err):
		refuse = classify(op, "topic "+c.user(l.topic), err)
	default:
		refuse = p.pause(l, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if refuse != nil {
		l.refused(refuse)
	} else if l.abandoned() {
		l.forget()
	}
	l.busy = false
	p.list(l)
	p.sendReady()
}

// pause waits a little and finds the leader.
func (p *producer) pause(l *lane, err error) error {
	const op = "kafka.produce"
	c := p.c
	if l.batch.tries > 1 && sleep(c.closing, min(retryPause<<min(l.batch.tries, 6), time.Second/4)) != nil {
		return errClosed(op)
	}
	t, merr := c.meta.relook(c.closing, l.topic)
	if l.missing.believe(first(merr, err)) {
		return noTopic(op, c.user(l.topic))
	}
	switch {
	case c.closing.Err() != nil:
		return errClosed(op)
	case merr != nil && !passing(merr):
		return classify(op, "topic "+c.user(l.topic), merr)
	case merr != nil: // no broker answers: who waits decides for how long
		return nil
	case int(l.partition) >= len(t.leaders):
		return noPartition(op, c.user(l.topic), l.partition, len(t.leaders))
	}
	p.mu.Lock()
	l.leader = t.leaders[l.partition]
	p.mu.Unlock()
	if l.leader < 0 {
		l.batch.tries = max(l.batch.tries, 2) // nobody to ask before the cluster has chosen
	}
	return nil
}

// abandoned reports whether nobody waits for the batch. The lock is held.
func (l *lane) abandoned() bool {
	return l.batch != nil && !slices.ContainsFunc(l.batch.entries, func(e entry) bool { return !e.call.gone })
}

// forget gives the batch up. If it may be stored, what follows is written under the next epoch: should a request with it
// still be on its way, the broker refuses that one, and it cannot come after what follows. The lock is held.
func (l *lane) forget() {
	if l.batch.unsure {
		l.batch.renew(l.batch.who.id, l.batch.who.epoch+1)
	}
	l.who = l.batch.who
	l.batch = nil
}

// renew makes the batch the first of a new sequence. Epochs of an id that takes part in no transaction are the
// client's to count (KIP-360). After 32,767 they begin anew; the broker then refuses, and a new id is asked for.
func (b *batch) renew(id int64, epoch int16) {
	epoch = max(epoch, 0)
	b.who = producerID{id: id, epoch: epoch}
	b.raw = nil
}

// notStored reports whether err says for certain that this try stored nothing.
func notStored(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case kafka.RequestTimedOut, kafka.NotEnoughReplicasAfterAppend, kafka.NetworkException, kafka.Unknown, kafka.DuplicateSequenceNumber, kafka.KafkaStorageError:
		return false
	}
	return true
}

// isTooMuch reports whether a smaller batch may be taken where this one was not.
func isTooMuch(err error) bool {
	return errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge) || errors.Is(err, kafka.InvalidMessageSize) ||
		errors.Is(err, kafka.InvalidRecord) || errors.Is(err, kafka.InvalidTimestamp)
}

// halve sends the first half of a refused batch; the rest goes back to the head of the queue. Nothing of it is stored.
func (p *producer) halve(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := l.batch
	n := len(b.entries) / 2
	l.queue = append(slices.Clone(b.entries[n:]), l.queue...)
	l.batch = &batch{entries: b.entries[:n:n], who: b.who}
	l.busy = false
	p.list(l)
	p.sendReady()
}

// tooMuch is the error of a lone record that the broker does not take.
func (p *producer) tooMuch(l *lane, err error) error {
	const op = "kafka.produce"
	if errors.Is(err, kafka.InvalidRecord) || errors.Is(err, kafka.InvalidTimestamp) {
		return classify(op, "topic "+p.c.user(l.topic), err)
	}
	limit, lerr := p.c.maxMessage(p.c.closing, l.topic)
	if lerr != nil {
		return schemas.Errorf(schemas.Invalid, op, "message of %d bytes with its headers: topic %s takes less", len(l.batch.raw), p.c.user(l.topic))
	}
	return oversize(op, p.c.user(l.topic), len(l.batch.raw), limit)
}

// oversize is the error of a message beyond the limit of its topic.
func oversize(op, topic string, size, limit int) error {
	return schemas.Errorf(schemas.Invalid, op, "message of %d bytes with its headers: topic %s takes at most %d", size, topic, limit)
}

// identify makes sure that there is a producer id.
func (p *producer) identify(ctx context.Context, op string) error {
	p.mu.Lock()
	id := p.mu.id
	p.mu.Unlock()
	if id >= 0 {
		return nil
	}
	select {
	case p.idLook <- struct{}{}:
		defer func() { <-p.idLook }()
	case <-ctx.Done():
		return p.c.late(ctx, op, "publish", nil)
	}
	p.mu.Lock()
	id = p.mu.id
	p.mu.Unlock()
	if id >= 0 {
		return nil
	}
	id, err := p.newID(ctx, op)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.mu.id = id
	p.mu.Unlock()
	return nil
}

// newID asks until a broker gives an id.
func (p *producer) newID(ctx context.Context, op string) (int64, error) {
	for tries := 0; ; tries++ {
		r, err := p.c.ask(ctx, anyBroker, &initproducerid.Request{ProducerID: -1, ProducerEpoch: -1})
		if err == nil {
			a := r.(*initproducerid.Response)
			if err = codeError(a.ErrorCode); err == nil {
				return a.ProducerID, nil
			}
		}
		if errors.Is(err, kafka.ClusterAuthorizationFailed) {
			return 0, schemas.Errorf(schemas.Denied, op, "no right to write, as the broker has it: allow Write on the topics, or IdempotentWrite on the cluster")
		}
		if err := p.c.again(ctx, op, "producer id", tries, err); err != nil {
			return 0, err
		}
	}
}
