package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How much load there is. Callers and publishers pause after each answer, so that the cores are not theirs alone.
const (
	callersNATS, callersHTTP = 4, 4
	publishers, keysOfEach   = 4, 3
	partitions               = 8
	patience                 = 5 * time.Second // for one answer; a killed server ends the wait by itself
	pause                    = 2 * time.Millisecond
)

// load runs callers, publishers and jobs until stop.
type load struct {
	stage   *stage
	e       *evidence
	samples samples
	seed    uint64
	dir     string  // of the jobs' files
	rate    float64 // of the jobs
	group   sync.WaitGroup
	stop    context.CancelFunc
	done    context.Context // ends when no more is asked
}

func startLoad(ctx context.Context, st *stage, e *evidence, seed uint64, dir string, rate float64) (*load, error) {
	l := &load{stage: st, e: e, seed: seed, dir: dir, rate: rate}
	var err error
	if l.samples, err = readSamples(ctx, l.jobFile()); err != nil {
		return nil, err
	}
	l.done, l.stop = context.WithCancel(ctx)
	for i := range callersNATS {
		l.group.Go(func() { l.caller("n"+strconv.Itoa(i), "nats", askNATS, 1+uint64(i)) })
	}
	for i := range callersHTTP {
		l.group.Go(func() { l.caller("h"+strconv.Itoa(i), "http", askHTTP, 101+uint64(i)) })
	}
	for i := range publishers {
		via, do := "nats", publishNATS
		if i%2 == 1 {
			via, do = "http", publishHTTP
		}
		l.group.Go(func() { l.publisher(i, via, do) })
	}
	l.group.Go(l.jobs)
	return l, nil
}

// errRefused is an answer that is an error: its record may or may not exist.
type errRefused string

func (e errRefused) Error() string { return string(e) }

// ask sends one request and returns the rows of its answer.
type ask func(ctx context.Context, l *life, pipeline, id string, body []byte) ([]outcome, error)

// caller asks again and again, each request under an id of its own. What got no answer is asked again under its id in
// the next life, or given up; now and then a request that was answered is asked once more.
func (l *load) caller(name, via string, do ask, n uint64) {
	r := rand.New(rand.NewPCG(l.seed, n))
	for i := 0; ; i++ {
		pipeline := models[r.IntN(len(models))]
		id, is := "rq-"+name+"-"+strconv.Itoa(i), pick(r, 4)
		body := l.samples.body(pipeline, is)
		for more := true; more; {
			lf := l.stage.wait(l.done)
			if lf == nil {
				return
			}
			l.e.count(&l.e.asked)
			ctx, cancel := context.WithTimeout(lf.over, patience)
			rows, err := do(ctx, lf, pipeline, id, body)
			cancel()
			var refused errRefused
			switch {
			case err == nil:
				l.e.replied(reply{id, pipeline, via, is, rows})
				more = r.IntN(20) == 0
			case errors.As(err, &refused):
				l.e.refuse(string(refused))
				more = r.IntN(2) == 0
			default: // no answer
				more = r.IntN(3) > 0
			}
			if more {
				l.e.count(&l.e.repeats)
			}
			rest(l.done, pause)
		}
	}
}

// rest waits a little.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func askNATS(ctx context.Context, l *life, pipeline, id string, body []byte) ([]outcome, error) {
	m := &nats.Msg{Subject: "leat.score." + pipeline, Data: body, Header: nats.Header{"Leat-Request-Id": {id}, "Leat-Timeout": {patience.String()}}}
	a, err := l.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return nil, err
	}
	if k := a.Header.Get("Leat-Error-Kind"); k != "" {
		return nil, errRefused(k)
	}
	if got := a.Header.Get("Leat-Request-Id"); got != id {
		return nil, fmt.Errorf("asked as %s, answered as %s", id, got)
	}
	return rowsOf(a.Data)
}

func askHTTP(ctx context.Context, l *life, pipeline, id string, body []byte) ([]outcome, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.HTTP+"/v1/pipelines/"+pipeline+"/score", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Leat-Request-Id", id)
	resp, err := l.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errRefused(resp.Header.Get("Leat-Error-Kind"))
	}
	return rowsOf(b)
}

func rowsOf(b []byte) ([]outcome, error) {
	var v struct{ Rows []outcome }
	err := json.Unmarshal(b, &v)
	return v.Rows, err
}

// publish stores one event and returns when that is acknowledged.
type publish func(ctx context.Context, l *life, v *event, body []byte) error

func publishNATS(ctx context.Context, l *life, v *event, body []byte) error {
	p := strconv.FormatUint(xxhash.Sum64String(v.key)%partitions, 10)
	_, err := l.js.PublishMsg(ctx, &nats.Msg{
		Subject: "leat.topic." + inputs + "." + p, Data: body,
		Header: nats.Header{"Leat-Key": {v.key}, "Leat-Request-Id": {v.id}},
	}, jetstream.WithMsgID(v.id))
	return err
}

func publishHTTP(ctx context.Context, l *life, v *event, body []byte) error {
	line, err := json.Marshal(map[string]any{"key": v.key, "id": v.id, "value": json.RawMessage(body)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.HTTP+"/v1/topics/"+inputs+"/messages", bytes.NewReader(line))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := l.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var stored struct{ Published int }
	if err := json.NewDecoder(resp.Body).Decode(&stored); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || stored.Published != 1 {
		return fmt.Errorf("status %d, %d published", resp.StatusCode, stored.Published)
	}
	return nil
}

// publisher stores events, in order for each of its keys. What was not acknowledged is sent again under its id in the
// next life, or given up.
func (l *load) publisher(n int, via string, do publish) {
	r := rand.New(rand.NewPCG(l.seed, 1001+uint64(n)))
	for i := 0; ; i++ {
		key := fmt.Sprintf("key-%d-%d", n, r.IntN(keysOfEach))
		v := event{id: fmt.Sprintf("ev-%d-%d", n, i), key: key, n: i, sample: pick(r, 2), bad: r.IntN(50) == 0}
		body := l.samples.body(boost, v.sample)
		if v.bad {
			body = []byte(`{"rows":[{"dep_delay":"late"}]}`)
		}
		for more := true; more; {
			lf := l.stage.wait(l.done)
			if lf == nil {
				return
			}
			ctx, cancel := context.WithTimeout(lf.over, patience)
			err := do(ctx, lf, &v, body)
			cancel()
			if more = err != nil && r.IntN(4) > 0; err == nil {
				l.e.stored(v, via)
			} else if !more {
				l.e.count(&l.e.unsure)
			}
			rest(l.done, pause)
		}
	}
}
