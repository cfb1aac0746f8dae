package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

func openLog(t testing.TB, c *Client, lc schemas.LogConfig) *log {
	t.Helper()
	l, err := c.OpenLog(within(t), lc)
	must(t, err)
	return l.(*log)
}

var testLogConfig = schemas.LogConfig{Name: "LEAT_TEST_LOG", Prefix: "leat.test-log", MaxBytes: 4 << 20}

func appended(t testing.TB, l schemas.Log, subject, id string, payload []byte) uint64 {
	t.Helper()
	seq, err := l.Append(within(t), subject, id, payload)
	must(t, err)
	return seq
}

func TestLog(t *testing.T) {
	ctx := within(t)
	c := open(t)
	l := openLog(t, c, testLogConfig)
	_, err := l.Last(ctx, "p")
	wantKind(t, err, schemas.NotFound)
	if st, err := l.Stats(ctx); err != nil || st != (schemas.LogStats{First: 1, MaxBytes: 4 << 20}) {
		t.Fatalf("empty: %+v, %v", st, err)
	}
	for i := range 10 {
		if seq := appended(t, l, fmt.Sprintf("p%d", i%2), fmt.Sprint("id", i), fmt.Append(nil, i)); seq != uint64(i+1) {
			t.Fatalf("append %d at %d", i, seq)
		}
	}
	if seq := appended(t, l, "p0", "id4", []byte("4")); seq != 5 {
		t.Fatalf("a repeat is at %d, want 5", seq)
	}
	read := func(from uint64, subjects ...string) (got []string) {
		t.Helper()
		must(t, l.Read(ctx, from, subjects, false, func(e *schemas.Entry) bool {
			got = append(got, fmt.Sprintf("%d:%s:%s:%s", e.Sequence, e.Subject, e.Payload, e.Header.Get(headerID)))
			return len(got) < 6
		}))
		return got
	}
	if got := read(8); !slices.Equal(got, []string{"8:p1:7:id7", "9:p0:8:id8", "10:p1:9:id9"}) {
		t.Fatal(got)
	}
	if got := read(0, "p1"); !slices.Equal(got, []string{"2:p1:1:id1", "4:p1:3:id3", "6:p1:5:id5", "8:p1:7:id7", "10:p1:9:id9"}) {
		t.Fatal(got)
	}
	if len(read(0)) != 6 || len(read(11)) != 0 || len(read(1000)) != 0 || len(read(0, "none")) != 0 {
		t.Fatal("other entries were read")
	}
	e, err := l.Last(ctx, "p0")
	must(t, err)
	if e.Sequence != 9 || string(e.Payload) != "8" || e.Subject != "p0" || time.Since(e.Time) > time.Minute {
		t.Fatalf("%+v", e)
	}
	for at, want := range map[time.Time]uint64{e.Time: 9, e.Time.Add(1): 10, {}: 1, time.Now().Add(time.Hour): 11} {
		if seq, err := l.SequenceAt(ctx, at); err != nil || seq != want {
			t.Fatalf("first at %v is %d, want %d, %v", at, seq, want, err)
		}
	}
	// Follow sees what is appended later.
	run, stop := context.WithCancel(ctx)
	seen, ended := make(chan uint64, 10), make(chan error, 1)
	go func() {
		ended <- l.Read(run, 12, nil, true, func(e *schemas.Entry) bool { seen <- e.Sequence; return true })
	}()
	appended(t, l, "p0", "", []byte("before what is wanted"))
	appended(t, l, "p0", "", []byte("late"))
	if s := <-seen; s != 12 {
		t.Fatal(s)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	must(t, l.Purge(ctx, 6))
	must(t, l.Purge(ctx, 3)) // gone already
	if st, err := l.Stats(ctx); err != nil || st.First != 6 || st.Last != 12 || st.Messages != 7 || st.Bytes == 0 || st.Bytes > 2000 {
		t.Fatalf("%+v, %v", st, err)
	}
	if got := read(0); got[0] != "6:p1:5:id5" {
		t.Fatal(got)
	}
	_, err = l.Append(ctx, "p", "", make([]byte, 2<<20))
	wantKind(t, err, schemas.Invalid, "at most 1048576")
	for _, subject := range []string{"", "p.*", "a b"} {
		_, err = l.Append(ctx, subject, "", nil)
		wantKind(t, err, schemas.Invalid)
	}
	if _, _, err := l.Insert(ctx, "p", nil); !errors.Is(err, schemas.ErrUnsupported) {
		t.Fatal(err)
	}
}

// TestLogFull: the new is refused, also by a client that did not fill the log, what is there stays, and a purge by
// anybody makes room for all.
func TestLogFull(t *testing.T) {
	ctx := within(t)
	c := open(t)
	l, other := openLog(t, c, testLogConfig), openLog(t, dialConfig(t, c.cfg), testLogConfig)
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		_, err = l.Append(ctx, "fill", "", make([]byte, 100<<10))
	}
	wantKind(t, err, schemas.Unavailable)
	if !errors.Is(err, schemas.ErrFull) || n != 41 {
		t.Fatalf("%d appends, then %v", n, err)
	}
	until(t, ctx, "the other client finds it full", func() error {
		if _, err := other.Append(ctx, "fill", "", make([]byte, 100<<10)); !errors.Is(err, schemas.ErrFull) {
			return fmt.Errorf("appended: %w", err)
		}
		return nil
	})
	st, err := l.Stats(ctx)
	if err != nil || st.First != 1 || st.Bytes < 4_000_000 || st.Bytes > 4<<20+500<<10 {
		t.Fatalf("%+v, %v", st, err)
	}
	must(t, other.Purge(ctx, st.Last/2))
	for _, x := range []*log{l, other} {
		until(t, ctx, "there is room again", func() error {
			_, err := x.Append(ctx, "fill", "", make([]byte, 100<<10))
			return err
		})
	}
	if st, err := l.Stats(ctx); err != nil || st.Bytes < 1_900_000 || st.Bytes > 2_800_000 {
		t.Fatalf("half purged: %+v, %v", st, err)
	}
	must(t, l.Purge(ctx, 1<<40))
	if st, err := l.Stats(ctx); err != nil || st.Messages != 0 || st.Bytes != 0 || st.First != st.Last+1 {
		t.Fatalf("all purged: %+v, %v", st, err)
	}
}

// TestLogKinds: another kind of log under the name is refused in one line, another size is not.
func TestLogKinds(t *testing.T) {
	ctx := within(t)
	c := open(t)
	openLog(t, c, testLogConfig)
	other := testLogConfig
	other.MaxBytes = 8 << 20
	openLog(t, c, other)
	other.DiscardOld = true
	_, err := c.OpenLog(ctx, other)
	wantKind(t, err, schemas.Invalid, "retention.bytes -1 there and 8388608 wanted")
	ring := schemas.LogConfig{Name: "LEAT_RING", Prefix: "leat.ring", MaxBytes: 2 << 20, DiscardOld: true}
	r := openLog(t, c, ring)
	ring.MaxBytes = 3 << 20
	openLog(t, c, ring)
	have, err := c.topicConfig(ctx, "test", r.in, "retention.bytes", "retention.ms", "segment.bytes", "message.timestamp.type")
	must(t, err)
	if fmt.Sprint(have) != "map[message.timestamp.type:LogAppendTime retention.bytes:3145728 retention.ms:-1 segment.bytes:1048576]" {
		t.Fatal(have)
	}
	ring.DiscardOld = false
	_, err = c.OpenLog(ctx, ring)
	wantKind(t, err, schemas.Invalid, "retention.bytes")
	// Topics that somebody else made.
	must(t, c.ensure(ctx, "test", "leat.wide", TopicSpec{Partitions: 2, Retention: -1}))
	_, err = c.OpenLog(ctx, schemas.LogConfig{Name: "LEAT_WIDE", Prefix: "leat.wide", MaxBytes: 1 << 20})
	wantKind(t, err, schemas.Invalid, "partitions 2 there and 1 wanted")
	must(t, c.ensure(ctx, "test", "leat.small", TopicSpec{Partitions: 1, Retention: -1, Settings: map[string]string{"max.message.bytes": "100000"}}))
	_, err = c.OpenLog(ctx, schemas.LogConfig{Name: "LEAT_SMALL", Prefix: "leat.small", MaxBytes: 1 << 20})
	wantKind(t, err, schemas.Invalid, "max.message.bytes")
	for _, lc := range []schemas.LogConfig{{Name: "LEAT_X", Prefix: "leat.x"}, {Name: "LEAT_X", Prefix: "leat.x", MaxBytes: 1 << 20, Once: true}, {Name: "LEAT_X", Prefix: "no name", MaxBytes: 1 << 20}} {
		_, err := c.OpenLog(ctx, lc)
		wantKind(t, err, schemas.Invalid)
	}
	for range 2 {
		must(t, c.DropLog(ctx, "LEAT_RING"))
	}
	if _, err := c.partitions(ctx, "test", "leat.ring"); schemas.KindOf(err) != schemas.NotFound {
		t.Fatalf("after DropLog: %v", err)
	}
	for name, want := range map[string]string{"LEAT_LINEAGE": "leat.lineage", "LEAT_LINEAGE_JOBS": "leat.lineage-jobs", "LEAT_REJECTED": "leat.rejected", "X": "x"} {
		if got := logTopic(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// TestLogRepeat: an append whose caller did not wait for its end goes on, and a repeat under its id waits for the same.
func TestLogRepeat(t *testing.T) {
	ctx := within(t)
	l := openLog(t, open(t), testLogConfig)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	first := []byte("first")
	for i := range 50 {
		id := fmt.Sprint("id", i)
		_, err := l.Append(gone, "p", id, first)
		if err == nil {
			continue // acknowledged that fast
		}
		if schemas.KindOf(err) != schemas.Unavailable || errors.Is(err, schemas.ErrFull) {
			t.Fatal(err)
		}
		copy(first, "again") // the caller's again
		if seq := appended(t, l, "p", id, []byte("repeat")); seq != uint64(i+1) {
			t.Fatalf("append %d at %d", i, seq)
		}
		copy(first, "first")
	}
	n := 0
	must(t, l.Read(ctx, 0, nil, false, func(e *schemas.Entry) bool {
		n++
		if string(e.Payload) != "first" && string(e.Payload) != "repeat" {
			t.Errorf("entry %d holds %s", e.Sequence, e.Payload)
		}
		return true
	}))
	if n != 50 {
		t.Fatalf("%d entries of 50 ids", n)
	}
	// Many at once, each id from four callers.
	var wg sync.WaitGroup
	seqs := make([][4]uint64, 200)
	for i := range seqs {
		for j := range 4 {
			wg.Go(func() {
				seq, err := l.Append(ctx, "p", fmt.Sprint("many", i), fmt.Append(nil, i))
				if err != nil {
					t.Error(err)
				}
				seqs[i][j] = seq
			})
		}
	}
	wg.Wait()
	all := map[uint64]bool{}
	for i, s := range seqs {
		if s[0] != s[1] || s[0] != s[2] || s[0] != s[3] || all[s[0]] {
			t.Fatalf("id %d is at %v", i, s)
		}
		all[s[0]] = true
	}
	// Only so many ids are remembered.
	for i := range foldIDs {
		l.mu.Lock()
		l.mu.ring[i] = ""
		l.mu.Unlock()
	}
	if len(l.mu.calls) != 250 {
		t.Fatalf("%d ids are remembered", len(l.mu.calls))
	}
}

// TestLogTimes: entries of one millisecond have times of their own, in order, by which each is found.
func TestLogTimes(t *testing.T) {
	ctx := within(t)
	l := openLog(t, open(t), testLogConfig)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			if _, err := l.Append(ctx, "p", "", fmt.Append(nil, i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var times []time.Time
	must(t, l.Read(ctx, 0, nil, false, func(e *schemas.Entry) bool { times = append(times, e.Time); return true }))
	for i := range times {
		if i > 0 && !times[i].After(times[i-1]) {
			t.Fatalf("entry %d is of %v, after one of %v", i, times[i], times[i-1])
		}
		if i%17 == 0 {
			if seq, err := l.SequenceAt(ctx, times[i]); err != nil || seq != uint64(i+1) {
				t.Fatalf("first at %v is %d, want %d, %v", times[i], seq, i+1, err)
			}
		}
	}
}

// TestLogTransactions: what transactions leave behind is stepped over, and what they have dropped is not seen.
func TestLogTransactions(t *testing.T) {
	ctx := within(t)
	c := open(t)
	l := openLog(t, c, testLogConfig)
	k := franzClient(t, c, kgo.TransactionalID(c.name("txn")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	write := func(commit bool, value string) {
		must(t, k.BeginTransaction())
		must(t, k.ProduceSync(ctx, &kgo.Record{Topic: l.in, Key: []byte("p"), Value: []byte(value)}).FirstErr())
		must(t, k.EndTransaction(ctx, kgo.TransactionEndTry(commit)))
	}
	appended(t, l, "p", "", []byte("a"))
	write(true, "b")
	write(false, "dropped")
	appended(t, l, "p", "", []byte("c"))
	write(false, "dropped")
	until(t, ctx, "the last marker is there", func() error {
		if st, err := l.Stats(ctx); err != nil || st.Last != 8 {
			return fmt.Errorf("%+v, %w", st, err)
		}
		return nil
	})
	got := ""
	must(t, l.Read(ctx, 0, nil, false, func(e *schemas.Entry) bool { got += fmt.Sprint(e.Sequence, string(e.Payload), " "); return true }))
	// The end of a transaction is answered before its marker is written, so c may lie before the marker of the first abort.
	if got != "1a 2b 6c " && got != "1a 2b 5c " {
		t.Fatal(got)
	}
	if e, err := l.Last(ctx, "p"); err != nil || string(e.Payload) != "c" {
		t.Fatal(e, err)
	}
}

// TestLogLast finds what lies far back, and says when there is nothing.
func TestLogLast(t *testing.T) {
	ctx := within(t)
	l := openLog(t, open(t), testLogConfig)
	appended(t, l, "rare", "", []byte("old"))
	appended(t, l, "rare", "", []byte("new"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 125 {
				if _, err := l.Append(ctx, "often", "", []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	e, err := l.Last(ctx, "rare")
	if err != nil || e.Sequence != 2 || string(e.Payload) != "new" {
		t.Fatal(e, err)
	}
	if e, err = l.Last(ctx, "often"); err != nil || e.Sequence != 1002 {
		t.Fatal(e, err)
	}
	_, err = l.Last(ctx, "never")
	wantKind(t, err, schemas.NotFound, "LEAT_TEST_LOG")
}

// TestLogDisk: what was purged leaves the disk by segments, and what is said to be in use stays right meanwhile; a log
// that drops its oldest stays near its size.
func TestLogDisk(t *testing.T) {
	ctx := within(t)
	b := broker.Start(t, 1, broker.Properties("log.retention.check.interval.ms=100", "log.initial.task.delay.ms=100"))
	c := dialConfig(t, testConfig(b))
	l := openLog(t, c, schemas.LogConfig{Name: "LEAT_KEEP", Prefix: "leat.keep", MaxBytes: 12 << 20})
	watcher := openLog(t, dialConfig(t, c.cfg), schemas.LogConfig{Name: "LEAT_KEEP", Prefix: "leat.keep", MaxBytes: 12 << 20})
	for range 100 {
		appended(t, l, "p", "", make([]byte, 100<<10))
	}
	whole, err := watcher.look(ctx)
	must(t, err)
	must(t, l.Purge(ctx, 76))
	near := func(l *log) {
		t.Helper()
		if st, err := l.Stats(ctx); err != nil || st.Bytes < 2_300_000 || st.Bytes > 3_700_000 {
			t.Errorf("a quarter of %d is left: %+v, %v", whole.disk, st, err)
		}
	}
	near(l)
	near(watcher)
	until(t, ctx, "the purged segments are gone", func() error {
		n, err := c.logSize(ctx, "test", l.in)
		if err == nil && n > whole.disk/2 {
			err = fmt.Errorf("%d bytes of %d", n, whole.disk)
		}
		return err
	})
	near(l)
	near(watcher)
	near(openLog(t, c, schemas.LogConfig{Name: "LEAT_KEEP", Prefix: "leat.keep", MaxBytes: 12 << 20}))

	ring := openLog(t, c, schemas.LogConfig{Name: "LEAT_RING", Prefix: "leat.ring", MaxBytes: 4 << 20, DiscardOld: true})
	for range 100 {
		appended(t, ring, "p", "", make([]byte, 100<<10))
	}
	until(t, ctx, "the oldest are gone", func() error {
		st, err := ring.Stats(ctx)
		if err == nil && (st.First == 1 || st.Bytes > 5<<20+200<<10) {
			err = fmt.Errorf("%+v", st)
		}
		return err
	})
}

// TestFill: nothing is counted twice, and what others append shows in the offsets.
func TestFill(t *testing.T) {
	var f fill
	now := time.Now()
	used := func(want int64, summed bool) {
		t.Helper()
		if got, _, s := f.used(); got != want || s != summed {
			t.Errorf("%d bytes in use (summed: %v), want %d (%v)", got, s, want, summed)
		}
	}
	f.set(extent{end: 10, disk: 1000}, now)
	used(1000, false)
	f.add(10, 100)
	f.add(11, 100)
	used(1200, true)
	f.add(14, 100) // two of somebody else came between
	used(1500, true)
	f.set(extent{end: 11, disk: 1100}, now.Add(1)) // the first of ours is there
	used(1500, true)
	f.add(9, 100) // acknowledged late
	used(1500, true)
	if e := f.set(extent{end: 2, disk: 1}, now); e.end != 11 { // an older look
		t.Errorf("%+v", e)
	}
	f.set(extent{end: 15, disk: 1500}, now.Add(2))
	used(1500, false)
	f.set(extent{first: 15, end: 15, disk: 1500}, now.Add(3))
	used(0, false)
	f.set(extent{end: 3, disk: 300}, now.Add(4)) // made again
	f.add(3, 100)
	used(400, true)
}

func TestExtent(t *testing.T) {
	for _, c := range []struct {
		name     string
		was, now extent
		dead     int64
	}{
		{"first look", extent{}, extent{first: 5, end: 10, disk: 100}, 0},
		{"grown", extent{end: 10, disk: 100}, extent{end: 20, disk: 200}, 0},
		{"half purged", extent{end: 10, disk: 100}, extent{first: 5, end: 10, disk: 100}, 50},
		{"half purged and gone", extent{end: 10, disk: 100}, extent{first: 5, end: 10, disk: 50}, 0},
		{"half purged, some of it gone", extent{end: 10, disk: 100}, extent{first: 5, end: 10, disk: 70}, 20},
		{"purged before, gone now", extent{first: 5, end: 10, disk: 100, dead: 50}, extent{first: 5, end: 10, disk: 60}, 10},
		{"purged before, grown", extent{first: 5, end: 10, disk: 100, dead: 50}, extent{first: 5, end: 15, disk: 150}, 50},
		{"all purged", extent{end: 10, disk: 100}, extent{first: 10, end: 10, disk: 100}, 100},
		{"grown and all purged", extent{end: 10, disk: 100}, extent{first: 30, end: 30, disk: 321}, 321},
		{"after all was purged", extent{first: 10, end: 10, disk: 100, dead: 100}, extent{first: 10, end: 12, disk: 130}, 100},
		{"made again", extent{first: 5, end: 10, disk: 100, dead: 50}, extent{end: 2, disk: 20}, 0},
	} {
		if got := c.now.after(c.was); got.dead != c.dead {
			t.Errorf("%s: %d bytes dead, want %d", c.name, got.dead, c.dead)
		}
	}
}

// FuzzDeleted: no answer of a broker does more than fail.
func FuzzDeleted(f *testing.F) {
	answer := func(code int16) []byte {
		w := requestWriter{}
		w.int32(0)
		w.int32(1)
		w.string("t")
		w.int32(1)
		w.int32(0)
		w.int64(5)
		w.int16(code)
		return w.b
	}
	if err := parseDeleted(answer(0)); err != nil {
		f.Fatal(err)
	}
	if err := parseDeleted(answer(29)); kindOf(err) != schemas.Denied {
		f.Fatal(err)
	}
	f.Add(answer(0))
	f.Fuzz(func(t *testing.T, b []byte) { parseDeleted(b) })
}
