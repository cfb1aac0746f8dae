package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/spf13/cobra"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
)

// publishFlags are the flags of leat topics publish.
type publishFlags struct {
	key, id, eventTime, format string
	rate                       float64
	limit                      int
}

func topicsPublish(e *env) *cobra.Command {
	var f publishFlags
	cmd := &cobra.Command{
		Use: "publish NAME FILE|-", Short: "Store each row of a file as an event", Args: cobra.ExactArgs(2),
		Long: `Store each row of a file (Parquet, CSV, NDJSON, JSON, Arrow) as one event
{"rows":[{...}]} with all its columns, in the file's order. The command ends when
the last event is acknowledged.

--key names the column whose value picks the partition: events of one key stay in
order. --id names a column of unique ids: it makes a repeat harmless, since the
transport folds repeats for two minutes and readers for ever.`,
		Example: `  leat topics publish flights.departures examples/flights/sample.parquet --key tailnum --id flight_id --event-time event_time
  leat topics publish flights.departures sample.parquet --rate 500 --limit 10000
  cat events.ndjson | leat topics publish clicks - --key user`,
		ValidArgsFunction: e.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.rate < 0 || f.limit < 0 {
				return errors.New("--rate and --limit want 0 for no bound, or more")
			}
			return failed(e.publish(cmd.Context(), args[0], args[1], &f))
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.key, "key", "", "column that holds the key")
	fs.StringVar(&f.id, "id", "", "column that holds a unique id, which becomes the request id of its record")
	fs.StringVar(&f.eventTime, "event-time", "", "column that holds the time of the event; it is recorded and passed on")
	fs.StringVar(&f.format, "format", "", "parquet, csv, ndjson, json, arrow or arrows (default: by the file's ending; of -: by its first bytes)")
	fs.Float64Var(&f.rate, "rate", 0, "events per second at most (default: as fast as they are acknowledged)")
	fs.IntVar(&f.limit, "limit", 0, "only so many of the first rows (default: all)")
	return cmd
}

// published is what leat topics publish prints.
type published struct {
	Topic   string  `json:"topic"`
	Events  int     `json:"events"`
	Seconds float64 `json:"seconds"`
}

// A request carries so many events at most, and waits no longer for more when --rate spreads them.
const (
	publishRows = 1000
	publishWait = 200 * time.Millisecond
)

func (e *env) publish(ctx context.Context, topic, path string, f *publishFlags) error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	var info connectors.TopicInfo // says no topic before a long file is read
	if err := c.call(ctx, http.MethodGet, "/v1/topics/"+url.PathEscape(topic), nil, nil, &info); err != nil {
		return err
	}
	o := files.Options{BatchRows: publishRows}
	if err := e.openOptions(path, f.format, &o); err != nil {
		return err
	}
	r, err := files.Open(ctx, path, o)
	if err != nil {
		return err
	}
	defer r.Close()
	ev, err := newEvents(r.Schema(), f)
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("%s: %w", path, err)}
	}
	total, _ := r.TotalRows()
	if f.limit > 0 && (total == 0 || total > int64(f.limit)) {
		total = int64(f.limit)
	}
	p := &publisher{c: c, topic: topic, rate: f.rate, limit: f.limit, began: time.Now()}
	if isTerminal(e.err) {
		b := newBar(e.err, total, "published")
		p.seen = func(n int) { b.add(int64(n)) }
		defer b.end()
	}
	if err := p.all(ctx, r, ev); err != nil {
		if p.sent > 0 {
			return fmt.Errorf("%s are stored, then: %w", plural(p.sent, "event"), err)
		}
		return err
	}
	out := published{topic, p.sent, time.Since(p.began).Seconds()}
	return e.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s stored in %s in %s (%s/s)\n", plural(out.Events, "event"), topic, time.Since(p.began).Round(time.Millisecond), count(uint64(float64(out.Events)/out.Seconds)))
	})
}

// publisher stores lines in requests of bounded size, one after the other.
type publisher struct {
	c     *client
	topic string
	rate  float64
	limit int
	seen  func(n int) // nil: nobody looks
	began time.Time
	sent  int

	body    bytes.Buffer
	pending int
	first   time.Time // when the oldest pending line could go
}

func (p *publisher) all(ctx context.Context, r files.Reader, ev *events) error {
	for {
		rec, err := r.Next(ctx)
		if err == io.EOF {
			return p.flush(ctx)
		}
		if err != nil {
			return errors.Join(err, p.flush(ctx))
		}
		done, err := p.record(ctx, rec, ev)
		rec.Release()
		if done || err != nil {
			return err
		}
	}
}

// record stores a record's rows; done says that the limit is reached.
func (p *publisher) record(ctx context.Context, rec arrow.Record, ev *events) (done bool, err error) {
	if err := ev.take(rec); err != nil {
		return false, err
	}
	for i := range int(rec.NumRows()) {
		if p.limit > 0 && p.sent+p.pending == p.limit {
			return true, p.flush(ctx)
		}
		if err := p.pace(ctx); err != nil {
			return false, err
		}
		if err := ev.line(&p.body, i); err != nil {
			return false, err
		}
		if p.pending++; p.pending == 1 {
			p.first = time.Now()
		}
		if p.pending >= publishRows || p.body.Len() >= maxChunk || p.rate > 0 && time.Since(p.first) >= publishWait {
			if err := p.flush(ctx); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// pace waits until the next event is due, and sends what is pending rather than hold it back.
func (p *publisher) pace(ctx context.Context) error {
	if p.rate <= 0 {
		return nil
	}
	due := p.began.Add(time.Duration(float64(p.sent+p.pending) / p.rate * float64(time.Second)))
	if wait := time.Until(due); wait > 0 {
		if wait > publishWait {
			if err := p.flush(ctx); err != nil {
				return err
			}
		}
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), p.flush(context.WithoutCancel(ctx)))
		}
	}
	return nil
}

func (p *publisher) flush(ctx context.Context) error {
	if p.pending == 0 {
		return nil
	}
	r, err := p.c.send(ctx, http.MethodPost, "/v1/topics/"+url.PathEscape(p.topic)+"/messages", nil,
		http.Header{"Content-Type": {"application/x-ndjson"}}, bytes.NewReader(p.body.Bytes()))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	var reply connectors.PublishReply
	if err := decode(r.Body, &reply); err != nil {
		return err
	}
	if reply.Published != p.pending {
		return fmt.Errorf("the server stored %d of %d events", reply.Published, p.pending)
	}
	p.sent += p.pending
	if p.seen != nil {
		p.seen(p.pending)
	}
	p.pending = 0
	p.body.Reset()
	return nil
}

// events turns rows of a file into lines.
type events struct {
	projection     *schemas.Projection
	batch          *schemas.Batch
	key, id, times int // columns; -1: none
	buf            []byte
}

func newEvents(s *arrow.Schema, f *publishFlags) (*events, error) {
	var fields []schemas.Field
	for _, af := range s.Fields() {
		field := schemas.Field{Name: af.Name, Nullable: true}
		t := af.Type
		if l, ok := t.(*arrow.FixedSizeListType); ok {
			field.Shape = []int{int(l.Len())}
			t = l.Elem()
		}
		var err error
		if field.Type, err = dtypeOf(t); err != nil {
			return nil, fmt.Errorf("column %s: %w", af.Name, err)
		}
		fields = append(fields, field)
	}
	schema, err := schemas.NewSchema(fields)
	if err != nil {
		return nil, err
	}
	ev := &events{batch: schemas.NewBatch(schema)}
	if ev.projection, err = schemas.NewProjection(s, schema); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		flag, name string
		to         *int
	}{{"key", f.key, &ev.key}, {"id", f.id, &ev.id}, {"event-time", f.eventTime, &ev.times}} {
		*c.to = -1
		if c.name == "" {
			continue
		}
		if *c.to = schema.Index(c.name); *c.to < 0 {
			return nil, fmt.Errorf("--%s %s: no such column; the columns are %s", c.flag, c.name, schema)
		}
		if schema.Field(*c.to).Tensor() {
			return nil, fmt.Errorf("--%s %s: want a column of single values", c.flag, c.name)
		}
	}
	if ev.times >= 0 && schema.Field(ev.times).Type != schemas.Timestamp {
		return nil, fmt.Errorf("--event-time %s: it holds %s, want timestamps", f.eventTime, schema.Field(ev.times).Type)
	}
	return ev, nil
}

// dtypeOf returns the type of a column as files gives them.
func dtypeOf(t arrow.DataType) (schemas.DType, error) {
	for d := schemas.Bool; d.Valid(); d++ {
		if arrow.TypeEqual(d.Arrow(), t) {
			return d, nil
		}
	}
	return 0, fmt.Errorf("type %s cannot be published", t)
}

func (ev *events) take(rec arrow.Record) error {
	ev.batch.Reset()
	return ev.projection.AppendRecord(ev.batch, rec, 0, int(rec.NumRows()))
}

// line writes row i as the API takes it.
func (ev *events) line(w *bytes.Buffer, i int) error {
	var err error
	if ev.buf, err = jsonrow.Rows().EncodeRows(ev.buf[:0], schemas.Header{}, ev.batch, i, i+1, nil); err != nil {
		return err
	}
	l := connectors.TopicLine{Key: ev.value(ev.key, i), ID: ev.value(ev.id, i), Value: ev.buf}
	if at := ev.value(ev.times, i); at != "" {
		l.Headers = schemas.Header{schemas.HeaderEventTime: {at}}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(l)
}

// value is a column's text, "" for none and for null.
func (ev *events) value(column, i int) string {
	if column < 0 || ev.batch.Column(column).IsNull(i) {
		return ""
	}
	return text(ev.batch.Column(column), i, 0)
}
