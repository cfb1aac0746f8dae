package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/connectors/memory"
	"github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/bulk"
	"github.com/leatstream/leat/pipeline/control"
	"github.com/leatstream/leat/pipeline/feedback"
	"github.com/leatstream/leat/schemas"
)

// watch turns control's updates into what a host follows.
func (a *app) watch(ctx context.Context, fn func(string, *pipeline.Revision)) error {
	return a.control.Watch(ctx, func(u control.Update) error {
		for i := range u.Active {
			fn(u.Active[i].Spec.Name, &u.Active[i])
			a.feedback.Follow(u.Active[i].Spec.Name, u.Active[i].Spec.Feedback != nil)
			a.announce(ctx, &u.Active[i])
		}
		for _, name := range u.Deleted {
			fn(name, nil)
			a.feedback.Follow(name, false)
			a.client.Unregister(name)
		}
		if u.All {
			fn("", nil)
		}
		return nil
	})
}

// announce shows a pipeline to the tools of NATS.
func (a *app) announce(ctx context.Context, rev *pipeline.Revision) {
	if !a.primary() {
		return
	}
	name := rev.Spec.Name
	meta := map[string]string{"pipeline": name, "revision": rev.Revision, "inputs": rev.Signature.Inputs.String(), "outputs": rev.Signature.Outputs.String()}
	for _, m := range rev.Models {
		if !strings.HasPrefix(m.Node, pipeline.ShadowPath+"/") {
			meta["model"] = m.Name + "@" + strconv.Itoa(m.Version)
		}
	}
	err := a.client.Register(ctx, nats.Service{
		Name: name, Version: "1.0.0", Description: rev.Spec.Description, Group: group, Metadata: meta,
		Stats: func() nats.ServiceStats {
			s := a.host.Stats(name)
			return nats.ServiceStats{Requests: s.Requests, Errors: s.Errors, Processing: s.Processing, LastError: s.LastError}
		},
	})
	if err != nil && ctx.Err() == nil {
		a.log.Warn("the pipeline is not listed to NATS tools", "pipeline", name, "error", err)
	}
}

// group is the queue group that answers requests.
const group = "primary"

// online opens the doors at which requests arrive: NATS, this process's own gateway, and Kafka where there is one.
func (a *app) online(ctx context.Context, name string) ([]pipeline.Binding, error) {
	far, err := a.client.Serve(ctx, name, group)
	if err != nil {
		return nil, err
	}
	near, err := a.broker.Serve(ctx, name, group)
	if err != nil {
		return nil, errors.Join(err, far.Close(ctx))
	}
	bs := []pipeline.Binding{
		{Via: "nats", Source: far, Responder: a.client},
		{Via: "http", Source: near, Responder: a.broker, Trusted: true},
	}
	if a.kafka != nil {
		src, err := a.kafka.Serve(ctx, name, group)
		if err != nil {
			return nil, errors.Join(err, far.Close(ctx), near.Close(ctx))
		}
		bs = append(bs, pipeline.Binding{Via: "kafka", Source: src, Responder: a.kafka, StoresAnswers: true})
	}
	return bs, nil
}

// exists asks this process first, which knows the pipelines that it serves without a question to anybody.
func (a *app) exists(ctx context.Context, pipeline string) error {
	if _, ok := a.host.Active(pipeline); ok {
		return nil
	}
	_, err := a.control.Pipeline(ctx, pipeline)
	return err
}

// feedbackDoor opens the door of feedback that is sent, not stored.
func (a *app) feedbackDoor(ctx context.Context) (feedback.Door, error) {
	src, err := a.client.ServeFeedback(ctx, "feedback")
	return feedback.Door{Via: "nats", Source: src, Responder: a.client, Trusted: true}, err
}

// feedbackTopic opens the durable topic of a pipeline's feedback.
func (a *app) feedbackTopic(ctx context.Context, pipeline string) (feedback.Door, error) {
	src, err := a.kafka.ServeFeedback(ctx, pipeline)
	return feedback.Door{Via: "kafka", Source: src, Pipeline: pipeline}, err
}

// entityOf is how feedback on a pipeline finds decisions by what they are about.
func (a *app) entityOf(pipeline string) (column string, within time.Duration) {
	rev, ok := a.host.Active(pipeline)
	if !ok || rev.Spec.Feedback == nil {
		return "", 0
	}
	return rev.Spec.Feedback.Entity, time.Duration(rev.Spec.Feedback.Within)
}

// topic opens the durable input of a pipeline. Where both ends are on Kafka it may be exactly once.
func (a *app) topic(ctx context.Context, s *pipeline.Spec) (b pipeline.Binding, err error) {
	b = pipeline.Binding{Via: "topic", Durable: true}
	if s.Output != nil {
		out, _, name, err := a.topics.pick(s.Output.Topic)
		if err == nil {
			err = out.EnsureTopic(ctx, name, 0)
		}
		if err != nil {
			return b, err
		}
		b.Output, b.OutputTo = out, name
	}
	if s.Input.Stream != "" {
		b.Source, err = a.client.SubscribeStream(ctx, s.Input.Stream, s.Input.Subject, s.Name)
		return b, err
	}
	in, scheme, name, err := a.topics.pick(s.Input.Topic)
	if err == nil {
		err = in.EnsureTopic(ctx, name, 0)
	}
	if err != nil {
		return b, err
	}
	if scheme == schemas.TransportKafka {
		b.Via, b.Transactor = "kafka", a.kafka
	}
	b.Source, err = in.Subscribe(ctx, name, s.Name)
	return b, err
}

// doors asks a pipeline of this process in memory, any other over NATS.
type doors struct {
	near    *memory.Broker
	far     *nats.Client
	control *control.Control
}

func (d doors) Request(ctx context.Context, m *schemas.Message) (*schemas.Message, error) {
	if d.near.Serves(m.Topic) {
		return d.near.Request(ctx, m)
	}
	r, err := d.far.Request(ctx, m)
	if schemas.KindOf(err) != schemas.NotFound || err == nil {
		return r, err
	}
	if _, cerr := d.control.Pipeline(ctx, m.Topic); cerr != nil {
		return nil, cerr // it does not exist; the catalogue says what was probably meant
	}
	return nil, schemas.Errorf(schemas.Unavailable, "gateway", "pipeline %s exists, but no process serves it now", m.Topic)
}

// pins gives jobs the host's pipelines.
type pins struct{ host *pipeline.Host }

func (p pins) Active(name string) (*pipeline.Revision, bool) { return p.host.Active(name) }

func (p pins) BanditStates(name string) map[string]uint64 { return p.host.BanditStates(name) }

func (p pins) Pin(ctx context.Context, rev *pipeline.Revision, states map[string]uint64) (bulk.Pinned, error) {
	return p.host.Pin(ctx, rev, states)
}

func (p pins) PinShadow(ctx context.Context, rev *pipeline.Revision, shadow string) (bulk.Pinned, error) {
	return p.host.PinShadow(ctx, rev, shadow)
}
