package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/pipeline/control"
	"github.com/leatstream/leat/schemas"
)

// kafkaTopics has a line for each topic that is used: Leat's own, those of the pipelines of a server that answers, and those
// that were named.
func (d *doctor) kafkaTopics(ctx context.Context, c *kafka.Client, cfg *Config) []finding {
	names, err := c.OwnTopics(ctx)
	if err != nil {
		return []finding{{Status: "fail", Found: err.Error()}}
	}
	users := map[string]string{} // topic -> who uses it
	for _, ref := range d.topics {
		if name, ok := onKafka(ref, schemas.TransportKafka); ok {
			users[name] = "--topic"
		}
	}
	sure := d.topicsOfPipelines(ctx, cfg, users)
	for n := range users {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var all []finding
	for _, n := range names {
		s, err := c.Inspect(ctx, n)
		switch {
		case err == nil:
			f := finding{Status: "ok", Found: "topic " + s.String()}
			switch {
			case len(s.Fails) > 0:
				f.Status = "fail"
			case len(s.Differs) > 0:
				f.Status = "warn"
			}
			f.Advice = strings.Join(append(s.Fails, s.Differs...), "; ")
			all = append(all, f)
		case schemas.KindOf(err) == schemas.NotFound && !sure && users[n] != "--topic":
		case schemas.KindOf(err) == schemas.NotFound:
			all = append(all, finding{Status: "warn", Found: fmt.Sprintf("topic %s (%s) is not there", n, users[n]),
				Advice: fmt.Sprintf("it is made when a pipeline needs it, with %d partitions: make it before if it should have others", cfg.Kafka.Partitions)})
		default:
			all = append(all, finding{Status: "fail", Found: fmt.Sprintf("topic %s: %v", n, err)})
		}
	}
	return all
}

// topicsOfPipelines adds what the pipelines of the server read and write on Kafka. Where plain names live the server's file
// says; without it sure is false, and those that are on this cluster are meant. A server that does not answer has its own line
// elsewhere.
func (d *doctor) topicsOfPipelines(ctx context.Context, cfg *Config, users map[string]string) (sure bool) {
	usual := cfg.Transport
	if d.config == "" {
		usual = schemas.TransportKafka
	}
	api, err := d.e.dial()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var r control.PipelineList
	if api.call(ctx, http.MethodGet, "/v1/pipelines?limit=1000", nil, nil, &r) != nil {
		return false
	}
	for _, p := range r.Pipelines {
		for _, ref := range []string{p.Input, p.Output} {
			if name, ok := onKafka(ref, usual); ok && users[name] == "" {
				users[name] = "of pipeline " + p.Name
			}
		}
	}
	return d.config != ""
}

// onKafka returns the name of a topic that a reference says is on Kafka; usual is where one is that does not say.
func onKafka(ref, usual string) (string, bool) {
	r, err := schemas.ParseTopicRef(ref)
	if ref == "" || err != nil || cmp.Or(r.Transport, usual) != schemas.TransportKafka {
		return "", false
	}
	return r.Name, true
}
