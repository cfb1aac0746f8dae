package lineage

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Refusals are written as lines of JSON, many a message, all under one subject: a caller who invents pipeline names must
// not make subjects. Lines are a Refusal, or {"time", "suppressed": {kind: count}} for those that were only counted.

const (
	refusalSubject = "refused"
	// refusalQueue bounds what waits for the writer: some seconds at the rate at which it writes.
	refusalQueue = 1024
	// refusalPrincipals bounds the callers whose rate is kept apart; the rest share one allowance.
	refusalPrincipals = 1024
	refusalBatch      = 256
	refusalEvery      = 100 * time.Millisecond // at most one message in
	refusalText       = 512                    // longest text that is kept of one field
)

// refusals is the bounded way from Refuse to the stream.
type refusals struct {
	log     schemas.Log
	logger  *slog.Logger
	metrics *Metrics
	rate    float64
	burst   float64
	queue   chan Refusal

	suppressed [schemas.Unavailable + 1]atomic.Int64 // by kind, since the last message

	mu struct {
		sync.Mutex
		buckets map[string]*bucket
		rest    bucket
	}
}

// bucket is a principal's allowance.
type bucket struct {
	tokens float64
	at     time.Time
}

func (r *refusals) init(log schemas.Log, c Config, m *Metrics, logger *slog.Logger) {
	r.log, r.logger, r.metrics = log, logger, m
	r.rate, r.burst = c.RefusalsPerSecond, float64(c.RefusalsBurst)
	r.queue = make(chan Refusal, refusalQueue)
	r.mu.buckets = map[string]*bucket{}
	r.mu.rest.tokens = r.burst
}

// Refuse keeps a refusal in LEAT_REJECTED, or counts it if its principal has used up its allowance or too many wait. It
// never blocks and never fails. Refusal.Time zero means now. Texts are cut at 512 bytes.
func (s *Stream) Refuse(f Refusal) { s.refusals.add(f) }

func (r *refusals) add(f Refusal) {
	if f.Time.IsZero() {
		f.Time = time.Now()
	}
	kind := schemas.ParseKind(f.Kind)
	r.metrics.refusals.WithLabelValues(kind.String()).Inc()
	if r.allow(f.Principal, f.Time) {
		for _, s := range [...]*string{&f.Pipeline, &f.Principal, &f.Via, &f.RequestID, &f.Error} {
			if len(*s) > refusalText {
				*s = (*s)[:refusalText]
			}
		}
		select {
		case r.queue <- f:
			return
		default:
		}
	}
	r.suppressed[kind].Add(1)
	r.metrics.suppressed.WithLabelValues(kind.String()).Inc()
}

// allow takes a token of the principal's bucket.
func (r *refusals) allow(principal string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.mu.buckets[principal]
	if b == nil {
		if len(r.mu.buckets) >= refusalPrincipals {
			r.forget(now)
		}
		if len(r.mu.buckets) < refusalPrincipals {
			b = &bucket{tokens: r.burst, at: now}
			r.mu.buckets[principal] = b
		} else {
			b = &r.mu.rest
		}
	}
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(r.burst, b.tokens+d.Seconds()*r.rate)
		b.at = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// forget drops principals whose allowance is whole again.
func (r *refusals) forget(now time.Time) {
	for p, b := range r.mu.buckets {
		if b.tokens+now.Sub(b.at).Seconds()*r.rate >= r.burst {
			delete(r.mu.buckets, p)
		}
	}
}

// run writes until ctx ends, then what is left.
func (r *refusals) run(ctx context.Context) {
	tick := time.NewTicker(refusalEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.write(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			r.write(last)
			cancel()
			return
		}
	}
}

// write appends what waits as one message. A refusal that cannot be written is counted as suppressed: nobody waits for
// it and nothing depends on it.
func (r *refusals) write(ctx context.Context) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	kinds := map[string]int64{}
	for n := 0; n < refusalBatch; n++ {
		select {
		case f := <-r.queue:
			if enc.Encode(f) == nil {
				kinds[schemas.ParseKind(f.Kind).String()]++
			}
			continue
		default:
		}
		break
	}
	rest := map[string]int64{}
	for k := range r.suppressed {
		if n := r.suppressed[k].Swap(0); n > 0 {
			rest[schemas.Kind(k).String()] = n
		}
	}
	if len(rest) > 0 {
		if err := enc.Encode(suppressedLine{Time: time.Now().UTC(), Suppressed: rest}); err != nil {
			r.logger.Error("lineage: refusals", "error", err)
		}
	}
	if buf.Len() == 0 {
		return
	}
	if _, err := r.log.Append(ctx, refusalSubject, "", buf.Bytes()); err != nil {
		r.logger.Warn("lineage: refusals were not kept", "error", err)
		for _, m := range [...]map[string]int64{kinds, rest} {
			for k, n := range m {
				r.suppressed[schemas.ParseKind(k)].Add(n)
			}
		}
		for k, n := range kinds {
			r.metrics.suppressed.WithLabelValues(k).Add(float64(n))
		}
	}
}

type suppressedLine struct {
	Time       time.Time        `json:"time"`
	Suppressed map[string]int64 `json:"suppressed"`
}
