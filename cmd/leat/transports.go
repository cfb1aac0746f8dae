package main

import (
	"cmp"
	"context"
	"slices"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/pipeline/bulk"
	"github.com/leatstream/leat/schemas"
)

// transports is where topics live: a reference is NAME, on the server's own transport, or nats:NAME or kafka:NAME. It is
// one connectors.Transport over all of them. Connectors see plain names only; whoever asked sees what he wrote.
type transports struct {
	usual string // transport of a plain name
	by    map[string]connectors.Transport
}

// pick returns the transport of a topic reference, with its name, and the topic's name there.
func (t *transports) pick(ref string) (tr connectors.Transport, scheme, name string, err error) {
	r, err := schemas.ParseTopicRef(ref)
	if err != nil {
		return nil, "", "", err
	}
	scheme = cmp.Or(r.Transport, t.usual)
	if tr = t.by[scheme]; tr == nil {
		return nil, "", "", schemas.FieldErrorf(schemas.Invalid, "topics", "topic", "%s: this server knows no Kafka: start it with --kafka HOST:PORT, or set kafka.bootstrap", ref)
	}
	return tr, scheme, r.Name, nil
}

// same reports whether two references name one topic.
func (t *transports) same(a, b string) bool {
	_, aScheme, aName, aErr := t.pick(a)
	_, bScheme, bName, bErr := t.pick(b)
	return aErr == nil && bErr == nil && aScheme == bScheme && aName == bName
}

// ref is how a topic of a transport is written.
func (t *transports) ref(scheme, name string) string {
	if scheme == t.usual {
		return name
	}
	return scheme + ":" + name
}

func (t *transports) EnsureTopic(ctx context.Context, ref string, partitions int) error {
	tr, _, name, err := t.pick(ref)
	if err != nil {
		return err
	}
	return tr.EnsureTopic(ctx, name, partitions)
}

func (t *transports) Topic(ctx context.Context, ref string) (connectors.TopicInfo, error) {
	tr, _, name, err := t.pick(ref)
	if err != nil {
		return connectors.TopicInfo{}, err
	}
	i, err := tr.Topic(ctx, name)
	i.Name = ref
	return i, err
}

// ListTopics lists the topics of all transports, those of plain names first.
func (t *transports) ListTopics(ctx context.Context) ([]connectors.TopicInfo, error) {
	var all []connectors.TopicInfo
	for _, scheme := range t.schemes() {
		infos, err := t.by[scheme].ListTopics(ctx)
		if err != nil {
			return nil, err
		}
		for _, i := range infos {
			i.Name = t.ref(scheme, i.Name)
			all = append(all, i)
		}
	}
	return all, nil
}

func (t *transports) schemes() []string {
	out := []string{t.usual}
	for _, s := range []string{schemas.TransportNATS, schemas.TransportKafka} {
		if s != t.usual && t.by[s] != nil {
			out = append(out, s)
		}
	}
	return out
}

func (t *transports) DeleteTopic(ctx context.Context, ref string) error {
	tr, _, name, err := t.pick(ref)
	if err != nil {
		return err
	}
	return tr.DeleteTopic(ctx, name)
}

func (t *transports) Subscribe(ctx context.Context, ref, group string) (connectors.Source, error) {
	tr, _, name, err := t.pick(ref)
	if err != nil {
		return nil, err
	}
	return tr.Subscribe(ctx, name, group)
}

// Publish stores messages transport by transport. What one call holds is almost always of one.
func (t *transports) Publish(ctx context.Context, msgs []schemas.Message) ([]schemas.Position, error) {
	at := make([]schemas.Position, 0, len(msgs))
	for len(msgs) > 0 {
		tr, scheme, _, err := t.pick(msgs[0].Topic)
		if err != nil {
			return nil, err
		}
		var part []schemas.Message
		for _, m := range msgs {
			_, other, name, err := t.pick(m.Topic)
			if err != nil {
				return nil, err
			}
			if other != scheme {
				break
			}
			m.Topic = name
			part = append(part, m)
		}
		pos, err := tr.Publish(ctx, part)
		if err != nil {
			return nil, err
		}
		at, msgs = append(at, pos...), msgs[len(part):]
	}
	return at, nil
}

func (t *transports) Spans(ctx context.Context, ref string, start connectors.Start) ([]connectors.Span, error) {
	tr, _, name, err := t.pick(ref)
	if err != nil {
		return nil, err
	}
	spans, err := tr.Spans(ctx, name, start)
	for i := range spans {
		spans[i].Topic = ref
	}
	return spans, err
}

func (t *transports) Open(ctx context.Context, s connectors.Span) (connectors.Source, error) {
	tr, _, name, err := t.pick(s.Topic)
	if err != nil {
		return nil, err
	}
	s.Topic = name
	return tr.Open(ctx, s)
}

// OpenLedger opens a ledger on a topic of a transport that has them: Kafka.
func (t *transports) OpenLedger(ctx context.Context, ref, name string) (bulk.Ledger, error) {
	tr, _, topic, err := t.pick(ref)
	if err != nil {
		return nil, err
	}
	k, ok := tr.(*kafka.Client)
	if !ok {
		return nil, schemas.ErrUnsupported
	}
	l, err := k.OpenLedger(ctx, topic, name)
	if err != nil {
		return nil, err
	}
	return ledger{l, t}, nil
}

// DropLedger removes what a ledger keeps beside its messages.
func (t *transports) DropLedger(ctx context.Context, ref, name string) error {
	tr, _, topic, err := t.pick(ref)
	if err != nil {
		return err
	}
	if k, ok := tr.(*kafka.Client); ok {
		return k.DropLedger(ctx, topic, name)
	}
	return nil
}

// ledger takes messages by the references of their topics.
type ledger struct {
	*kafka.Ledger
	t *transports
}

// Write implements bulk.Ledger.
func (l ledger) Write(ctx context.Context, msgs []schemas.Message, n int64, text string) error {
	plain := slices.Clone(msgs)
	for i := range plain {
		var err error
		if _, _, plain[i].Topic, err = l.t.pick(plain[i].Topic); err != nil {
			return err
		}
	}
	return l.Ledger.Write(ctx, plain, n, text)
}

var (
	_ connectors.Transport = (*transports)(nil)
	_ bulk.Ledgers         = (*transports)(nil)
)
