package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/schemas"
)

// streaming publishes the demo's departures at its rate and watches the scores come.
type streaming struct {
	d *demo

	mu   sync.Mutex
	sent map[string]time.Time // by event id, until its score was seen
	seen int
	late int
	hist *hdrhistogram.Histogram
	done chan struct{} // closed when every score was seen
}

// streamPatience is how long the last scores may take after the last event.
const streamPatience = 20 * time.Second

func (s *streaming) run(ctx context.Context) error {
	s.hist = hdrhistogram.New(1, int64(time.Minute), 3)
	s.done = make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := make(chan error, 1)
	go func() { watch <- s.watch(ctx) }()
	live := make(chan struct{})
	go func() {
		defer close(live)
		s.live(ctx)
	}()
	if err := s.publish(ctx); err != nil {
		return err
	}
	limit := time.NewTimer(streamPatience)
	defer limit.Stop()
	select {
	case <-s.done:
	case <-limit.C:
	case err := <-watch:
		if err != nil && ctx.Err() == nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	cancel()
	<-live
	return nil
}

// publish sends the first events of the sample, each at its turn, over one request whose body goes on as they come.
func (s *streaming) publish(ctx context.Context) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(s.feed(ctx, w)) }()
	resp, err := s.d.c.send(ctx, http.MethodPost, "/v1/topics/"+demoIn+"/messages", nil, http.Header{"Content-Type": {"application/x-ndjson"}}, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var p connectors.PublishReply
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		return err
	}
	if p.Published != s.d.events {
		return fmt.Errorf("%d of %d events were stored", p.Published, s.d.events)
	}
	return nil
}

// feed writes events as lines, at most rate a second, in ticks of 5 ms.
func (s *streaming) feed(ctx context.Context, w io.Writer) error {
	in, err := files.Open(ctx, filepath.Join(s.d.examples, "sample.parquet"), files.Options{BatchRows: 1024})
	if err != nil {
		return err
	}
	defer in.Close()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	out := bufio.NewWriterSize(w, 64<<10)
	for n := 0; n < s.d.events; {
		rec, err := in.Next(ctx)
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the sample has only %d departures: give --events", n)
		}
		if err != nil {
			return err
		}
		for row := 0; row < int(rec.NumRows()) && n < s.d.events; row++ {
			for float64(n) >= time.Since(start).Seconds()*float64(s.d.rate) {
				if err := out.Flush(); err != nil {
					return err
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if err := s.event(out, rec, row); err != nil {
				return err
			}
			n++
		}
		rec.Release()
	}
	return out.Flush()
}

// event writes one departure, with all its columns: the model takes those that it knows.
func (s *streaming) event(w io.Writer, rec arrow.Record, row int) error {
	cells := map[string]any{}
	for i, f := range rec.Schema().Fields() {
		if c := rec.Column(i); c.IsValid(row) {
			cells[f.Name] = c.GetOneForMarshal(row)
		}
	}
	value, err := json.Marshal(map[string]any{"rows": []any{cells}})
	if err != nil {
		return err
	}
	id, key := fmt.Sprint(cells["flight_id"]), fmt.Sprint(cells["tailnum"])
	l := connectors.TopicLine{Key: key, ID: id, Value: value}
	if at, err := time.Parse("2006-01-02 15:04:05Z", fmt.Sprint(cells["event_time"])); err == nil {
		l.Headers = schemas.Header{schemas.HeaderEventTime: {schemas.FormatTime(at)}}
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.sent[id] = time.Now()
	s.mu.Unlock()
	_, err = w.Write(append(b, '\n'))
	return err
}

// watch follows the output topic. A score's latency is from the event's handing over to the score's storing.
func (s *streaming) watch(ctx context.Context) error {
	r, err := s.d.c.send(ctx, http.MethodGet, "/v1/topics/"+demoOut+"/messages", url.Values{"follow": {"true"}}, nil, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	dec := json.NewDecoder(r.Body)
	for {
		var l connectors.TopicLine
		if err := dec.Decode(&l); err != nil {
			return err
		}
		var answer struct {
			Rows []struct {
				Label int `json:"label"`
			} `json:"rows"`
		}
		if err := json.Unmarshal(l.Value, &answer); err != nil || len(answer.Rows) != 1 {
			return fmt.Errorf("output %d/%d cannot be read: %w", l.Partition, l.Sequence, err)
		}
		if s.note(&l, answer.Rows[0].Label) {
			close(s.done)
			return nil
		}
	}
}

// note counts one score and reports whether it was the last. A repeat of a score counts once.
func (s *streaming) note(l *connectors.TopicLine, label int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := l.Headers.Get(schemas.HeaderRequestID)
	at, ok := s.sent[id]
	if !ok {
		return false
	}
	delete(s.sent, id)
	s.seen++
	s.late += label
	_ = s.hist.RecordValue(max(l.Time.Sub(at).Microseconds(), 1)) // beyond a minute: not a latency that matters here
	return s.seen == s.d.events
}

// live writes a line that is renewed on a terminal, and one every two seconds elsewhere.
func (s *streaming) live(ctx context.Context) {
	every := 2 * time.Second
	term := isTerminal(s.d.e.out)
	if term {
		every = 200 * time.Millisecond
	}
	t := time.NewTicker(every)
	defer t.Stop()
	start, before, last := time.Now(), 0, time.Now()
	for ended := false; !ended; {
		select {
		case <-t.C:
		case <-ctx.Done():
			ended = true
		}
		s.mu.Lock()
		now := time.Now()
		rate := float64(s.seen-before) / now.Sub(last).Seconds()
		if ended {
			rate = float64(s.seen) / now.Sub(start).Seconds()
		}
		before, last = s.seen, now
		line := fmt.Sprintf("   %7s events  %6.0f events/s  p50 %5.1f ms  p99 %5.1f ms  late %4.1f %%", count(uint64(s.seen)), rate,
			float64(s.hist.ValueAtQuantile(50))/1000, float64(s.hist.ValueAtQuantile(99))/1000, 100*float64(s.late)/float64(max(s.seen, 1)))
		s.mu.Unlock()
		switch {
		case term && !ended:
			s.d.say("\r%s", line)
		case term:
			s.d.say("\r%s\n", line)
		default:
			s.d.say("%s\n", line)
		}
	}
}

// indent copies lines with a margin.
func indent(w io.Writer, r io.Reader) {
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		fmt.Fprintf(w, "     %s\n", sc.Text())
	}
}

// parquetRows counts a file's rows.
func parquetRows(ctx context.Context, path string) (int64, error) {
	r, err := files.Open(ctx, path, files.Options{})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	n, ok := r.TotalRows()
	if !ok {
		return 0, fmt.Errorf("%s does not say how many rows it has", path)
	}
	return n, nil
}
