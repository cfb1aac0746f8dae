package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/schemas"
)

// The model that scores, and its inputs: a row may hold no other name.
const model = "flight-boost"

var columns = strings.Fields("dep_delay sched_dep_minute sched_clock_minutes day_of_week distance temp humid wind_speed precip pressure visib plane_age seats")

// readSamples returns rows of the example as bodies of requests.
func readSamples(ctx context.Context) ([][]byte, error) {
	r, err := files.Open(ctx, root+"/examples/flights/sample.parquet", files.Options{BatchRows: 500})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	rec, err := r.Next(ctx)
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	b, err := rec.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var rows []map[string]json.RawMessage
	if err := json.Unmarshal(b, &rows); err != nil {
		return nil, err
	}
	out := make([][]byte, len(rows))
	for i, row := range rows {
		one := map[string]json.RawMessage{}
		for _, c := range columns {
			one[c] = row[c]
		}
		if out[i], err = json.Marshal(map[string]any{"rows": []any{one}}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// keys of each topic; pause is between two events of one producer and between two requests of one caller.
const (
	keys  = 40
	pause = 8 * time.Millisecond
)

// impatience is how long our own clients wait for a broker before they look for another: times of recovery are to be the
// product's, not theirs.
const impatience = 2 * time.Second

// producer writes events to one topic until its context ends. It never gives one up.
type producer struct {
	mu    sync.Mutex
	sent  int
	acked map[string]bool
	err   error
}

// stored returns the ids of the events that are acknowledged.
func (p *producer) stored() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.acked))
}

// run returns when everything is acknowledged, or over has ended.
func (p *producer) run(over, until context.Context, brokers []string, topic string, samples [][]byte, seed uint64) {
	k, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.UnknownTopicRetries(-1), kgo.MetadataMaxAge(time.Second), // partitions that are added are used soon
		kgo.ProduceRequestTimeout(impatience), kgo.RequestTimeoutOverhead(impatience))
	if err != nil {
		p.err = err
		return
	}
	defer k.Close()
	r := rand.New(rand.NewPCG(seed, 1))
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for until.Err() == nil {
		p.mu.Lock()
		id := fmt.Sprintf("%s-%d", topic, p.sent)
		p.sent++
		p.mu.Unlock()
		k.Produce(over, &kgo.Record{
			Key: fmt.Appendf(nil, "key-%d", r.IntN(keys)), Value: samples[r.IntN(len(samples))],
			Headers: []kgo.RecordHeader{{Key: "Leat-Request-Id", Value: []byte(id)}},
		}, func(_ *kgo.Record, err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if err != nil {
				p.err = err
			} else {
				p.acked[id] = true
			}
		})
		select {
		case <-tick.C:
		case <-until.Done():
		}
	}
	if err := k.Flush(over); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = err
	}
}

// callers ask one way, and remember what they were told.
type callers struct {
	way     string
	mu      sync.Mutex
	asked   int
	replies []reply
	latest  time.Time      // when the latest request was asked that was answered
	first   chan struct{}  // closed by the next reply
	refused map[string]int // by kind
	v       *verdict       // of what callers themselves can see
	slowest time.Duration  // of answers that were errors
}

// The deadline of a request, and by how much its answer may be later on a busy machine.
const (
	deadline = 2 * time.Second
	slack    = 3 * time.Second
)

// clear are the kinds that tell a caller what to do: come again. Over Kafka, who asks while no server is there is told
// that nobody serves the pipeline.
var clear = []string{"unavailable", "expired", "overloaded", "not_found"}

// asker asks for one row; kind is that of an answer that is an error.
type asker func(ctx context.Context, id string, body []byte) (o outcome, kind string, err error)

// run asks until the context ends. next returns how to ask, nil for never again, and what ends with a server that is
// asked directly: what a dying server leaves unanswered is nobody's fault.
func (c *callers) run(until context.Context, name string, next func(context.Context) (asker, context.Context), samples [][]byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	for i := 0; ; i++ {
		ask, life := next(until)
		if ask == nil {
			return
		}
		id := fmt.Sprintf("rq-%s-%s-%d", c.way, name, i)
		ctx, cancel := context.WithTimeout(life, deadline+slack)
		start := time.Now()
		got, kind, err := ask(ctx, id, samples[r.IntN(len(samples))])
		took := time.Since(start)
		late := ctx.Err() != nil
		cancel()
		c.mu.Lock()
		c.asked++
		switch {
		case err == nil && kind == "":
			c.replies = append(c.replies, reply{id, got})
			if start.After(c.latest) {
				c.latest = start
			}
			close(c.first)
			c.first = make(chan struct{})
		case life.Err() != nil:
		case err != nil:
			c.v.fault(ruleClear, "%s after %v, late %v: %v", id, took, late, err)
		case !slices.Contains(clear, kind):
			c.v.fault(ruleClear, "%s after %v: kind %q", id, took, kind)
		default:
			c.refused[kind]++
			c.slowest = max(c.slowest, took)
		}
		c.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-until.Done():
			return
		}
	}
}

// answered waits until a request was answered that was asked after a time.
func (c *callers) answered(ctx context.Context, after time.Time) error {
	for {
		c.mu.Lock()
		latest, next := c.latest, c.first
		c.mu.Unlock()
		if latest.After(after) {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// overHTTP asks the gateway of the server that is in a seat.
func overHTTP(seat *seat, client *http.Client) func(context.Context) (asker, context.Context) {
	return func(until context.Context) (asker, context.Context) {
		l := seat.wait(until)
		if l == nil {
			return nil, nil
		}
		return func(ctx context.Context, id string, body []byte) (outcome, string, error) {
			return askHTTP(ctx, client, l.HTTP, id, body)
		}, l.over
	}
}

func askHTTP(ctx context.Context, client *http.Client, url, id string, body []byte) (o outcome, kind string, _ error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/pipelines/"+model+"/score", bytes.NewReader(body))
	if err != nil {
		return o, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Leat-Request-Id", id)
	req.Header.Set("Leat-Timeout", deadline.String())
	resp, err := client.Do(req)
	if err != nil {
		return o, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return o, "", err
	}
	if resp.StatusCode != http.StatusOK {
		if kind = resp.Header.Get("Leat-Error-Kind"); kind == "" {
			return o, "", fmt.Errorf("status %d without a kind: %s", resp.StatusCode, b)
		}
		return o, kind, nil
	}
	o, err = oneRow(b)
	return o, "", err
}

// overKafka asks whichever server takes the request from its topic.
func overKafka(c *kafka.Client) func(context.Context) (asker, context.Context) {
	return func(until context.Context) (asker, context.Context) {
		if until.Err() != nil {
			return nil, nil
		}
		return func(ctx context.Context, id string, body []byte) (outcome, string, error) {
			ctx, cancel := context.WithTimeout(ctx, deadline)
			defer cancel()
			r, err := c.Request(ctx, &schemas.Message{Topic: model, Payload: body, Header: schemas.Header{
				schemas.HeaderContentType: {"application/json"}, schemas.HeaderRequestID: {id},
			}})
			if err != nil {
				return outcome{}, schemas.KindOf(err).String(), nil
			}
			if kind := r.Header.Get(schemas.HeaderErrorKind); kind != "" {
				return outcome{}, kind, nil
			}
			o, err := oneRow(r.Payload)
			return o, "", err
		}, context.WithoutCancel(until)
	}
}

func oneRow(b []byte) (outcome, error) {
	var v struct{ Rows []outcome }
	if err := json.Unmarshal(b, &v); err != nil || len(v.Rows) != 1 {
		return outcome{}, fmt.Errorf("answer %s: %w", b, err)
	}
	return v.Rows[0], nil
}
