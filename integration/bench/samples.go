package main

import (
	"context"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/leatstream/leat/integration/bench/load"
	"github.com/leatstream/leat/integration/floors"
)

// scoreSubject is where the product answers over NATS.
const scoreSubject = "leat.score." + boosted

// numbers are what one run of a sample gave: "p50" and "p99" in microseconds, "rate" a second.
type numbers map[string]float64

// sample is one side of a comparison. Its numbers become the measures name:key.
type sample struct {
	name    string
	product bool // needs the binary
	once    bool // in the last round alone
	run     func(ctx context.Context, l *lab) (numbers, error)
}

// samples in the order in which a round runs them: a floor, then the product beside it.
func samples() []sample {
	var s []sample
	add := func(name string, run func(ctx context.Context, l *lab) (numbers, error)) {
		s = append(s, sample{name: name, run: run})
	}
	leat := func(name string, run func(ctx context.Context, l *lab) (numbers, error)) {
		s = append(s, sample{name: name, product: true, run: run})
	}
	add("fsync", fsync)
	add("onnx/1", onnxOne)
	for _, n := range []int{1, 64, 256} {
		at := "/" + strconv.Itoa(n)
		add("echo"+at, func(ctx context.Context, l *lab) (numbers, error) { return echo(ctx, l, n) })
		if n == 64 {
			add("natspy"+at, func(ctx context.Context, l *lab) (numbers, error) { return natsPy(ctx, l, n) })
		}
		for setting, name := range settings {
			if n == 1 {
				add("append/"+name, func(ctx context.Context, l *lab) (numbers, error) { return appends(ctx, l, setting) })
			}
			leat("leat/nats/"+name+at, func(ctx context.Context, l *lab) (numbers, error) { return leatNATS(ctx, l, setting, n) })
		}
	}
	add("echo/requests/64", echoRequests)
	leat("leat/requests/unsynced/64", leatRequests)
	add("echo/pipelined/64", echoPipelined)
	leat("leat/pipelined/unsynced/64", leatPipelined)
	for _, n := range []int{1, 64} {
		at := "/" + strconv.Itoa(n)
		add("httpecho"+at, func(ctx context.Context, l *lab) (numbers, error) { return httpEcho(ctx, l, n) })
		leat("leat/http/unsynced"+at, func(ctx context.Context, l *lab) (numbers, error) { return leatHTTP(ctx, l, unsynced, n) })
		add("fastapi"+at, func(ctx context.Context, l *lab) (numbers, error) { return fastAPI(ctx, l, n) })
		leat("leat/http/synced"+at, func(ctx context.Context, l *lab) (numbers, error) { return leatHTTP(ctx, l, synced, n) })
	}
	for setting, name := range settings {
		add("topics/"+name, func(ctx context.Context, l *lab) (numbers, error) { return topics(ctx, l, setting) })
		leat("leat/topics/"+name, func(ctx context.Context, l *lab) (numbers, error) { return leatTopics(ctx, l, setting) })
	}
	add("onnx/bulk", onnxBulk)
	leat("leat/bulk", leatBulk)
	for _, n := range []int{1, 64, 256} {
		at := "/" + strconv.Itoa(n)
		add("kafka/echo"+at, func(ctx context.Context, l *lab) (numbers, error) { return kafkaEcho(ctx, l, n) })
		if n == 1 {
			add("kafka/append", kafkaAppend)
		}
		leat("leat/kafka"+at, func(ctx context.Context, l *lab) (numbers, error) { return leatKafka(ctx, l, n) })
	}
	for _, f := range []struct {
		name string
		run  func(t *floors.KafkaTopics, ctx context.Context, d time.Duration) (float64, error)
	}{{"loop", (*floors.KafkaTopics).Loop}, {"parallel", (*floors.KafkaTopics).Copy}, {"fetch", (*floors.KafkaTopics).Fetch}} {
		add("kafka/topics/"+f.name, func(ctx context.Context, l *lab) (numbers, error) { return kafkaTopics(ctx, l, f.run) })
	}
	for _, delivery := range []string{"at_least_once", "exactly_once"} {
		leat("leat/kafka/topics/"+delivery, func(ctx context.Context, l *lab) (numbers, error) { return leatKafkaTopics(ctx, l, delivery) })
	}
	leat("leat/kafka/replay", leatReplay)
	for _, n := range []int{1, 64} {
		at := "/" + strconv.Itoa(n)
		for _, name := range []string{"single", "shadow", "split", "ensemble"} {
			leat("leat/route/"+name+at, func(ctx context.Context, l *lab) (numbers, error) { return leatRoute(ctx, l, name, n) })
		}
	}
	for _, name := range []string{"single", "split", "keyed", "cascade"} {
		leat("leat/route/"+name+"/rows", func(ctx context.Context, l *lab) (numbers, error) { return leatRouteBulk(ctx, l, name) })
	}
	for _, d := range decisions {
		add("decide/"+d.name, d.decide)
	}
	s = append(s, sample{name: "leat/memory", product: true, once: true, run: leatMemory})
	return s
}

// loop is one run with n requests in flight.
func (c *config) loop(n int) load.Loop {
	return load.Loop{InFlight: n, Warmup: c.duration / 5, Duration: c.duration}
}

func micro(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// of turns a run of a client into numbers; a failed answer fails the sample.
func of(r *load.Result, err error) (numbers, error) {
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return nil, err
	}
	return numbers{"rate": r.Rate(), "p50": micro(r.Quantile(50)), "p99": micro(r.Quantile(99))}, nil
}

func ofLatency(h *hdrhistogram.Histogram, err error) (numbers, error) {
	if err != nil {
		return nil, err
	}
	return numbers{"p50": micro(time.Duration(h.ValueAtQuantile(50))), "p99": micro(time.Duration(h.ValueAtQuantile(99)))}, nil
}

func echo(ctx context.Context, l *lab, n int) (numbers, error) {
	e, err := l.theEcho(ctx)
	if err != nil {
		return nil, err
	}
	if l.c.client == "requests" {
		return of(e.Requests(ctx, l.native, l.c.loop(n)))
	}
	return of(e.Run(ctx, l.native, l.c.loop(n)))
}

// over asks a scorer over NATS; every answer must hold a probability.
func (l *lab) over(ctx context.Context, c *load.NATSClient, subject string, n int) (numbers, error) {
	lp := l.c.loop(n)
	lp.Answer = hold
	if l.c.client == "requests" {
		return of(c.Requests(ctx, subject, l.native, lp))
	}
	return of(c.Callers(ctx, subject, l.native, lp))
}

func echoPipelined(ctx context.Context, l *lab) (numbers, error) {
	e, err := l.theEcho(ctx)
	if err != nil {
		return nil, err
	}
	return of(e.Pipelined(ctx, l.native, l.c.loop(64)))
}

func echoRequests(ctx context.Context, l *lab) (numbers, error) {
	e, err := l.theEcho(ctx)
	if err != nil {
		return nil, err
	}
	return of(e.Requests(ctx, l.native, l.c.loop(64)))
}

func natsPy(ctx context.Context, l *lab, n int) (numbers, error) {
	c, err := l.theNATSPy(ctx)
	if err != nil {
		return nil, err
	}
	return l.over(ctx, c, peerSubject, n)
}

func appends(ctx context.Context, l *lab, setting int) (numbers, error) {
	a, err := l.theAppend(ctx, setting)
	if err != nil {
		return nil, err
	}
	return ofLatency(a.Run(ctx, l.c.duration/5, l.c.duration/2))
}

// fsync is the disk as it is in this round: what the synced floors are scaled by.
func fsync(_ context.Context, l *lab) (numbers, error) {
	const syncs = 300
	d, err := floors.Fsync(l.dir, syncs)
	return numbers{"p50": micro(d)}, err
}

func onnxOne(_ context.Context, l *lab) (numbers, error) {
	o, err := l.theONNX()
	if err != nil {
		return nil, err
	}
	return ofLatency(o.One(l.c.duration/5, l.c.duration/2))
}

// onnxBulk finds the best batch size in the first round and keeps to it.
func onnxBulk(_ context.Context, l *lab) (numbers, error) {
	o, err := l.theONNX()
	if err != nil {
		return nil, err
	}
	if l.batch == 0 {
		if l.batch, _, err = o.BestBatch(threads(), l.c.duration/5); err != nil {
			return nil, err
		}
	}
	rate, err := o.Bulk(l.batch, threads(), l.c.duration)
	return numbers{"rate": rate, "batch": float64(l.batch)}, err
}

func httpEcho(ctx context.Context, l *lab, n int) (numbers, error) {
	e, err := l.theHTTPEcho(ctx)
	if err != nil {
		return nil, err
	}
	return of(e.Run(ctx, l.oip, l.c.loop(n)))
}

func fastAPI(ctx context.Context, l *lab, n int) (numbers, error) {
	c, err := l.theFastAPI(ctx)
	if err != nil {
		return nil, err
	}
	lp := l.c.loop(n)
	lp.Answer = hold
	return of(c.Run(ctx, load.InferPath, l.oip, lp))
}

func topics(ctx context.Context, l *lab, setting int) (numbers, error) {
	t, err := l.theTopics(ctx, setting)
	if err != nil {
		return nil, err
	}
	rate, err := t.Run(ctx, l.c.duration)
	if err == nil {
		err = t.Empty(ctx)
	}
	return numbers{"rate": rate}, err
}
