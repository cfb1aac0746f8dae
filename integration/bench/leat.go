package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/apache/arrow/go/v15/parquet"
	"github.com/apache/arrow/go/v15/parquet/compress"
	"github.com/apache/arrow/go/v15/parquet/file"
	"github.com/apache/arrow/go/v15/parquet/pqarrow"
	"github.com/cespare/xxhash/v2"
	"github.com/leatstream/leat/integration/floors"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The product's samples.

// watched runs f, beside a CPU profile of the server the first time that this sample runs.
func (s *leatSide) watched(ctx context.Context, l *lab, name string, f func() (numbers, error)) (numbers, error) {
	if s.pprof == "" || s.profiled[name] {
		return f()
	}
	s.profiled[name] = true
	path := l.c.profile + "." + strings.ReplaceAll(name, "/", "-") + ".pprof"
	done := s.profile(ctx, path, l.c.duration)
	n, err := f()
	return n, errors.Join(err, <-done)
}

func leatNATS(ctx context.Context, l *lab, setting, n int) (numbers, error) {
	s, err := l.leat(ctx, setting)
	if err != nil {
		return nil, err
	}
	return s.watched(ctx, l, "nats/"+settings[setting]+"/"+strconv.Itoa(n), func() (numbers, error) {
		return l.over(ctx, s.client, scoreSubject, n)
	})
}

func leatPipelined(ctx context.Context, l *lab) (numbers, error) {
	s, err := l.leat(ctx, unsynced)
	if err != nil {
		return nil, err
	}
	lp := l.c.loop(64)
	lp.Answer = hold
	return of(s.client.Pipelined(ctx, scoreSubject, l.native, lp))
}

func leatRequests(ctx context.Context, l *lab) (numbers, error) {
	s, err := l.leat(ctx, unsynced)
	if err != nil {
		return nil, err
	}
	lp := l.c.loop(64)
	lp.Answer = hold
	return of(s.client.Requests(ctx, scoreSubject, l.native, lp))
}

func leatHTTP(ctx context.Context, l *lab, setting, n int) (numbers, error) {
	s, err := l.leat(ctx, setting)
	if err != nil {
		return nil, err
	}
	lp := l.c.loop(n)
	lp.Answer = hold
	return s.watched(ctx, l, "http/"+settings[setting]+"/"+strconv.Itoa(n), func() (numbers, error) {
		return of(s.gateway.Run(ctx, "/v2/models/"+boosted+"/infer", l.oip, lp))
	})
}

// partitions is how many a topic has unless its maker says otherwise.
const partitions = 8

// topicStream is the JetStream stream of a topic.
func topicStream(topic string) string { return "LEAT_T_" + strings.ReplaceAll(topic, ".", "_") }

// leatTopics fills a topic, then applies a pipeline that scores it into another from its beginning. The rate is taken
// between the times at which the server stored the first and the last output, so that no reader shares the cores.
func leatTopics(ctx context.Context, l *lab, setting int) (numbers, error) {
	s, err := l.leat(ctx, setting)
	if err != nil {
		return nil, err
	}
	name := "bench-" + settings[setting] + "-" + strconv.Itoa(l.round)
	in, out := name+".in", name+".out"
	for _, t := range []string{in, out} {
		if err := s.cli(ctx, "topics", "create", t, "--partitions", strconv.Itoa(partitions)); err != nil {
			return nil, err
		}
	}
	js, err := jetstream.New(s.client.Conn(), jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	n := l.messages(setting) / 3 // of what the floor has, since the product is measured to its end
	if err := floors.Fill(ctx, js, n, func(i int) *nats.Msg {
		key := l.rows.Keys[i%l.rows.N]
		return &nats.Msg{Subject: "leat.topic." + in + "." + strconv.FormatUint(xxhash.Sum64String(key)%partitions, 10),
			Header: nats.Header{"Leat-Key": {key}}, Data: l.native[i%l.rows.N]}
	}); err != nil {
		return nil, err
	}
	spec := fmt.Sprintf("apiVersion: leat/v1\nkind: Pipeline\nname: %s\ninput: {topic: %s}\noutput: {topic: %s}\nlineage: strict\nroute: {model: %s@champion}\n",
		name, in, out, boosted)
	measured, err := s.watched(ctx, l, "topics/"+settings[setting], func() (numbers, error) {
		if err := s.apply(ctx, s.dir, name, spec); err != nil {
			return nil, err
		}
		rate, err := outputs(ctx, js, topicStream(out), n)
		return numbers{"rate": rate}, err
	})
	// The store reserves room for each topic: a round leaves none behind.
	return measured, errors.Join(err, s.cli(ctx, "pipelines", "delete", name), s.cli(ctx, "topics", "delete", in), s.cli(ctx, "topics", "delete", out))
}

// outputs waits until the stream holds n messages and returns how many a second were stored.
func outputs(ctx context.Context, js jetstream.JetStream, stream string, n int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var have uint64
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("bench: %s holds %d of %d outputs: %w", stream, have, n, ctx.Err())
		}
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return 0, fmt.Errorf("bench: %s: %w", stream, err)
		}
		st := s.CachedInfo().State
		if have = st.Msgs; have < uint64(n) {
			continue
		}
		if have > uint64(n) {
			return 0, fmt.Errorf("bench: %s holds %d outputs of %d inputs", stream, have, n)
		}
		return float64(n) / st.LastTime.Sub(st.FirstTime).Seconds(), nil
	}
}

// leatBulk scores a Parquet file into another.
func leatBulk(ctx context.Context, l *lab) (numbers, error) {
	s, err := l.leat(ctx, synced)
	if err != nil {
		return nil, err
	}
	const copies = 10
	want := int64(l.sample.N) * copies
	if l.bulk == "" {
		path := filepath.Join(l.dir, "bulk.parquet")
		if err := repeat(ctx, filepath.Join(l.c.example, "sample.parquet"), path, copies); err != nil {
			return nil, err
		}
		l.bulk = path
	}
	return s.job(ctx, l, "bulk", l.bulk, want)
}

// job runs one job from start to end and divides its rows by the time that the command took.
func (s *leatSide) job(ctx context.Context, l *lab, name, from string, want int64) (numbers, error) {
	to := filepath.Join(l.dir, "scored-"+strconv.Itoa(l.round)+".parquet")
	return s.watched(ctx, l, name, func() (numbers, error) {
		start := time.Now()
		if err := s.cli(ctx, "job", "run", "--pipeline", boosted, "--from", from, "--to", to); err != nil {
			return nil, err
		}
		took := time.Since(start)
		got, err := rowsOf(to)
		if err == nil && got != want {
			err = fmt.Errorf("bench: the job wrote %d rows of %d", got, want)
		}
		return numbers{"rate": float64(want) / took.Seconds(), "seconds": took.Seconds()}, errors.Join(err, os.Remove(to))
	})
}

// rowsOf counts the rows of a Parquet file.
func rowsOf(path string) (int64, error) {
	f, err := file.OpenParquetFile(path, false)
	if err != nil {
		return 0, fmt.Errorf("bench: %w", err)
	}
	return f.NumRows(), f.Close()
}

// repeat writes a Parquet file that holds another so many times, in row groups of about 100,000.
func repeat(ctx context.Context, from, to string, copies int) (err error) {
	f, err := file.OpenParquetFile(from, false)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return fmt.Errorf("bench: %s: %w", from, err)
	}
	t, err := r.ReadTable(ctx)
	if err != nil {
		return fmt.Errorf("bench: %s: %w", from, err)
	}
	defer t.Release()
	out, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Zstd))
	w, err := pqarrow.NewFileWriter(t.Schema(), out, props, pqarrow.DefaultWriterProps())
	if err != nil {
		return errors.Join(fmt.Errorf("bench: %s: %w", to, err), out.Close())
	}
	for range copies {
		if err := w.WriteTable(t, t.NumRows()); err != nil {
			return errors.Join(fmt.Errorf("bench: %s: %w", to, err), w.Close())
		}
	}
	return w.Close() // closes the file too
}

// leatMemory scores ten thousand rows and then up to a million on a fresh server, one row a request, and takes the
// resident size after each.
func leatMemory(ctx context.Context, l *lab) (numbers, error) {
	s, err := l.startLeat(ctx, "leat-memory", unsynced)
	if err != nil {
		return nil, err
	}
	defer s.close()
	first, all := int64(10_000), int64(1_000_000)
	if l.c.quick {
		first, all = 1_000, 20_000
	}
	out := numbers{}
	for _, part := range []struct {
		key   string
		count int64
	}{{"before", first}, {"after", all - first}} {
		lp := l.c.loop(64)
		lp.Warmup, lp.Duration, lp.Requests, lp.Answer = 0, 5*time.Minute, part.count, hold
		r, err := s.client.Callers(ctx, scoreSubject, l.native, lp)
		if err != nil {
			return nil, err
		}
		if err := r.Err(); err != nil {
			return nil, err
		}
		if r.Answers != part.count {
			return nil, fmt.Errorf("bench: %d of %d scores within 5 minutes", r.Answers, part.count)
		}
		if out[part.key], err = settled(ctx, s.cmd.Process.Pid); err != nil {
			return nil, err
		}
	}
	return out, nil
}
