package memory

import (
	"context"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// deadTopic is the topic of a dead letter on its way into a transaction. No topic can be made under this name.
const deadTopic = "$dead"

// headerDeadTopic is where a dead letter on its way keeps the topic that it came from.
const headerDeadTopic = "Leat-Dead-Topic"

// DeadLetter implements connectors.Transactor. Dead letters have no limit here.
func (b *Broker) DeadLetter(d *connectors.Delivery, cause error) schemas.Message {
	m := deadLetter("memory.DeadLetter", d, cause)
	m.Header.Set(headerDeadTopic, m.Topic)
	m.Topic = deadTopic
	return m
}

// Transact implements connectors.Transactor. Its outcome is always known.
func (b *Broker) Transact(ctx context.Context, msgs []schemas.Message, accept []*connectors.Delivery) ([]schemas.Position, error) {
	const op = "memory.Transact"
	if err := ctx.Err(); err != nil {
		return nil, schemas.Errorf(schemas.Unavailable, op, "%w", err)
	}
	if len(accept) == 0 {
		return nil, schemas.Errorf(schemas.Internal, op, "no delivery to accept")
	}
	b.store.Lock()
	defer b.store.Unlock()
	hands, err := b.oldest(op, accept)
	if err != nil {
		return nil, err
	}
	if i, err := b.room(op, msgs); i >= 0 {
		return nil, &connectors.RefusedError{Index: i, Err: err}
	} else if err != nil {
		return nil, err
	}
	out := make([]schemas.Position, len(msgs))
	for i := range msgs {
		if msgs[i].Topic == deadTopic {
			m := msgs[i]
			m.Header = m.Header.Clone()
			m.Topic = m.Header.Get(headerDeadTopic)
			delete(m.Header, headerDeadTopic)
			b.store.dead = append(b.store.dead, m)
			out[i] = schemas.Position{Stream: deadTopic, Sequence: uint64(len(b.store.dead))}
			continue
		}
		t := b.store.topics[msgs[i].Topic]
		out[i] = t.add(&msgs[i], b.now())
		t.wake()
	}
	for _, h := range hands {
		h.done = true
	}
	accept[0].Settler.(*tenure).advance()
	return out, nil
}

// oldest finds what the deliveries stand for: the oldest of one tenure, none left out. The lock is held.
func (b *Broker) oldest(op string, ds []*connectors.Delivery) ([]*hand, error) {
	o, ok := ds[0].Settler.(*tenure)
	if !ok || o.m.b != b {
		return nil, schemas.Errorf(schemas.Internal, op, "%s is not of a topic of this broker", ds[0].From)
	}
	for _, d := range ds {
		if d.Settler != ds[0].Settler {
			return nil, schemas.Errorf(schemas.Internal, op, "%s (term %d) and %s (term %d) in one call: want one partition and one term", ds[0].From, ds[0].Term, d.From, d.Term)
		}
	}
	if o.over {
		return nil, schemas.Errorf(schemas.Unavailable, op, "%s/%d: term %d: %w", o.m.t.name, o.p, o.term, connectors.ErrRevoked)
	}
	open := o.m.g.parts[o.p].work
	for i, d := range ds {
		switch {
		case i < len(open) && o.stands(open[i], d):
		case i < len(open):
			return nil, schemas.Errorf(schemas.Internal, op, "%s is accepted where %s/%d/%d is the oldest that is not settled", d.From, o.m.t.name, o.p, o.m.t.parts[o.p][open[i].index].seq)
		default:
			return nil, settledAlready(op, d)
		}
	}
	return open[:len(ds)], nil
}
