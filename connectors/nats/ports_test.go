package nats

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

func opened(t testing.TB) (*Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return dial(t, startServer(t, t.TempDir(), 0)), ctx
}

func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func kind(t testing.TB, err error, want schemas.Kind) {
	t.Helper()
	if err == nil || schemas.KindOf(err) != want {
		t.Fatalf("%v is %v, want %v", err, schemas.KindOf(err), want)
	}
}

func TestKV(t *testing.T) {
	c, ctx := opened(t)
	kv := ok(c.KV(ctx, "LEAT_TEST"))(t)
	_, _, err := kv.Get(ctx, "none")
	kind(t, err, schemas.NotFound)
	for _, key := range []string{"plain", "a/b.c", "fraud@champion", "with space", "=odd", ".x", "ü", "*", ">"} {
		rev := ok(kv.Create(ctx, key, []byte("1")))(t)
		if _, err := kv.Create(ctx, key, []byte("2")); !errors.Is(err, schemas.ErrConflict) {
			t.Fatalf("second Create of %q: %v", key, err)
		}
		if _, err := kv.Update(ctx, key, []byte("2"), rev+100); !errors.Is(err, schemas.ErrConflict) {
			t.Fatalf("Update of %q: %v", key, err)
		}
		rev = ok(kv.Update(ctx, key, []byte("2"), rev))(t)
		v, got, err := kv.Get(ctx, key)
		if err != nil || string(v) != "2" || got != rev {
			t.Fatalf("%q: %s at %d, %v", key, v, got, err)
		}
	}
	if keys := ok(kv.Keys(ctx, "fraud@"))(t); !slices.Equal(keys, []string{"fraud@champion"}) {
		t.Fatal(keys)
	}
	if keys := ok(kv.Keys(ctx, ""))(t); len(keys) != 9 || !slices.IsSorted(keys) {
		t.Fatal(keys)
	}
	if err := kv.Delete(ctx, "plain", 1<<40); !errors.Is(err, schemas.ErrConflict) {
		t.Fatal(err)
	}
	if err := kv.Delete(ctx, "plain", 0); err != nil {
		t.Fatal(err)
	}
	_, _, err = kv.Get(ctx, "plain")
	kind(t, err, schemas.NotFound)
	ok(kv.Create(ctx, "plain", []byte("again")))(t)
	_, err = kv.Put(ctx, "big", make([]byte, 1<<20))
	kind(t, err, schemas.Invalid)

	// Watch: what there is, then the mark, then changes.
	type change struct {
		key, value string
		deleted    bool
	}
	run, stop := context.WithCancel(ctx)
	changes, ended := make(chan change, 100), make(chan error, 1)
	go func() {
		ended <- kv.Watch(run, "fraud", func(k string, v []byte, _ uint64, del bool) { changes <- change{k, string(v), del} })
	}()
	var got []change
	next := func() {
		select {
		case c := <-changes:
			got = append(got, c)
		case <-ctx.Done():
			t.Fatalf("only %v", got)
		}
	}
	next()
	next()
	ok(kv.Put(ctx, "other", nil))(t)
	ok(kv.Put(ctx, "fraud@x", []byte("3")))(t)
	next()
	if err := kv.Delete(ctx, "fraud@x", 0); err != nil {
		t.Fatal(err)
	}
	next()
	if want := []change{{"fraud@champion", "2", false}, {"", "", false}, {"fraud@x", "3", false}, {"fraud@x", "", true}}; !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestWatchLeft: a watch that is left with more to tell than the library holds ready leaves no goroutine behind (TestMain looks).
func TestWatchLeft(t *testing.T) {
	c, ctx := opened(t)
	kv := ok(c.KV(ctx, "LEAT_TEST"))(t)
	for i := range 600 {
		ok(kv.Put(ctx, fmt.Sprint("k", i), nil))(t)
	}
	run, stop := context.WithCancel(ctx)
	told, before := 0, c.core.Stats().InMsgs
	err := kv.Watch(run, "", func(string, []byte, uint64, bool) {
		for told++; c.core.Stats().InMsgs < before+600; { // all of them are here, and more than fit wait to be handed over
			runtime.Gosched()
		}
		stop()
	})
	if !errors.Is(err, context.Canceled) || told == 600 {
		t.Fatal(told, err)
	}
}

// TestKVCompareAndSet: of many writers that read the same revision one wins.
func TestKVCompareAndSet(t *testing.T) {
	c, ctx := opened(t)
	kv := ok(c.KV(ctx, "LEAT_TEST"))(t)
	rev := ok(kv.Create(ctx, "k", nil))(t)
	var wg sync.WaitGroup
	won := make(chan int, 16)
	for i := range 16 {
		wg.Go(func() {
			_, err := kv.Update(ctx, "k", fmt.Append(nil, i), rev)
			switch {
			case err == nil:
				won <- i
			case !errors.Is(err, schemas.ErrConflict):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d writers won", len(won))
	}
}

func TestBlobs(t *testing.T) {
	c, ctx := opened(t)
	b := ok(c.Blobs(ctx, "LEAT_TEST"))(t)
	if has := ok(b.Has(ctx, "m"))(t); has {
		t.Fatal("there already")
	}
	_, err := b.Get(ctx, "m")
	kind(t, err, schemas.NotFound)
	data := make([]byte, 5<<20)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	if err := b.Put(ctx, "m", strings.NewReader(string(data))); err != nil {
		t.Fatal(err)
	}
	r := ok(b.Get(ctx, "m"))(t)
	if got := ok(io.ReadAll(r))(t); sha256.Sum256(got) != sha256.Sum256(data) {
		t.Fatalf("%d other bytes came back", len(got))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(ctx, "broken", io.MultiReader(strings.NewReader("half"), failing{})); err == nil {
		t.Fatal("stored what could not be read")
	}
	if has := ok(b.Has(ctx, "broken"))(t); has {
		t.Fatal("half a blob is visible")
	}
	if err := b.Delete(ctx, "m"); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(ctx, "m"); err != nil {
		t.Fatal(err)
	}
	if has := ok(b.Has(ctx, "m"))(t); has {
		t.Fatal("there after Delete")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("planted") }

func TestLog(t *testing.T) {
	c, ctx := opened(t)
	conf := schemas.LogConfig{Name: "LEAT_TEST", Prefix: "leat.test", MaxBytes: 1 << 20}
	l := ok(c.OpenLog(ctx, conf))(t)
	if _, err := l.Last(ctx, "p"); schemas.KindOf(err) != schemas.NotFound {
		t.Fatal(err)
	}
	for i := range 10 {
		if seq := ok(l.Append(ctx, fmt.Sprintf("p%d", i%2), fmt.Sprint("id", i), fmt.Append(nil, i)))(t); seq != uint64(i+1) {
			t.Fatalf("append %d at %d", i, seq)
		}
	}
	if seq := ok(l.Append(ctx, "p0", "id4", []byte("4")))(t); seq != 5 {
		t.Fatalf("a repeat is at %d, want 5", seq)
	}
	read := func(from uint64, subjects ...string) (got []string) {
		t.Helper()
		if err := l.Read(ctx, from, subjects, false, func(e *schemas.Entry) bool {
			got = append(got, fmt.Sprintf("%d:%s:%s", e.Sequence, e.Subject, e.Payload))
			return len(got) < 6
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := read(8); !slices.Equal(got, []string{"8:p1:7", "9:p0:8", "10:p1:9"}) {
		t.Fatal(got)
	}
	if got := read(0, "p1"); !slices.Equal(got, []string{"2:p1:1", "4:p1:3", "6:p1:5", "8:p1:7", "10:p1:9"}) {
		t.Fatal(got)
	}
	if got := read(0); len(got) != 6 {
		t.Fatal(got)
	}
	if got := read(11); len(got) != 0 {
		t.Fatal(got)
	}
	if got := read(0, "none"); len(got) != 0 {
		t.Fatal(got)
	}
	e := ok(l.Last(ctx, "p0"))(t)
	if e.Sequence != 9 || string(e.Payload) != "8" || e.Subject != "p0" || e.Time.IsZero() {
		t.Fatalf("%+v", e)
	}
	if seq := ok(l.SequenceAt(ctx, e.Time))(t); seq != 9 {
		t.Fatal(seq)
	}
	if seq := ok(l.SequenceAt(ctx, time.Now().Add(time.Hour)))(t); seq != 11 {
		t.Fatal(seq)
	}
	// Follow sees what is appended later.
	run, stop := context.WithCancel(ctx)
	seen, ended := make(chan uint64, 10), make(chan error, 1)
	go func() {
		ended <- l.Read(run, 10, nil, true, func(e *schemas.Entry) bool { seen <- e.Sequence; return true })
	}()
	if s := <-seen; s != 10 {
		t.Fatal(s)
	}
	ok(l.Append(ctx, "p0", "", []byte("late")))(t)
	if s := <-seen; s != 11 {
		t.Fatal(s)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := l.Purge(ctx, 6); err != nil {
		t.Fatal(err)
	}
	st := ok(l.Stats(ctx))(t)
	if st.First != 6 || st.Last != 11 || st.Messages != 6 || st.MaxBytes != 1<<20 || st.Subjects != 2 {
		t.Fatalf("%+v", st)
	}
	_, err := l.Append(ctx, "p", "", make([]byte, 2<<20))
	kind(t, err, schemas.Invalid)
	_, err = l.Append(ctx, "p.*", "", nil)
	kind(t, err, schemas.Invalid)
	// Full: the new is refused, and what is there stays.
	for i := 0; err == nil || schemas.KindOf(err) == schemas.Invalid; i++ {
		if _, err = l.Append(ctx, "fill", fmt.Sprint("fill", i), make([]byte, 100<<10)); i > 20 {
			t.Fatal("never full")
		}
	}
	kind(t, err, schemas.Unavailable)
	if !errors.Is(err, schemas.ErrFull) {
		t.Fatalf("%v is not ErrFull", err)
	}
	if st := ok(l.Stats(ctx))(t); st.First != 6 {
		t.Fatalf("%+v", st)
	}
	// Another kind of log under the name is refused, another size is not.
	other := conf
	other.DiscardOld = true
	_, err = c.OpenLog(ctx, other)
	kind(t, err, schemas.Invalid)
	conf.MaxBytes = 4 << 20
	l = ok(c.OpenLog(ctx, conf))(t)
	ok(l.Append(ctx, "fill", "", make([]byte, 100<<10)))(t)
	if err := c.DropLog(ctx, conf.Name); err != nil {
		t.Fatal(err)
	}
	if err := c.DropLog(ctx, conf.Name); err != nil {
		t.Fatal(err)
	}
}

// TestReadsLeaveNothing: a read that has ended, by itself or by its caller, leaves no consumer with the server.
func TestReadsLeaveNothing(t *testing.T) {
	c, ctx := opened(t)
	l := ok(c.OpenLog(ctx, schemas.LogConfig{Name: "LEAT_READ", Prefix: "leat.read", MaxBytes: 1 << 20}))(t)
	for range 10 {
		ok(l.Append(ctx, "p", "", []byte("x")))(t)
	}
	for i := range 30 {
		read, cancel := context.WithCancel(ctx)
		err := l.Read(read, 1, nil, i%3 == 2, func(e *schemas.Entry) bool {
			if i%3 == 2 && e.Sequence == 10 {
				cancel()
			}
			return i%3 != 1
		})
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	info := ok(c.streamInfo(ctx, "test", "LEAT_READ"))(t)
	if info.State.Consumers != 0 {
		t.Errorf("%d consumers are left", info.State.Consumers)
	}
}

// TestSequenceAtWhileAppending: a record that is stored while a time is looked up in an empty log is not stepped over.
func TestSequenceAtWhileAppending(t *testing.T) {
	c, ctx := opened(t)
	l := ok(c.OpenLog(ctx, schemas.LogConfig{Name: "LEAT_EMPTY", Prefix: "leat.empty", MaxBytes: 1 << 20}))(t)
	for next := uint64(1); next <= 300; next++ {
		done := make(chan error, 1)
		go func() {
			_, err := l.Append(ctx, "p", "", []byte("x"))
			done <- err
		}()
		for appended := false; !appended; {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				appended = true
			default:
			}
			if seq := ok(l.SequenceAt(ctx, time.Now().Add(-time.Hour)))(t); seq != next {
				t.Fatalf("sequence %d, and %d was there or next", seq, next)
			}
		}
		if err := l.Purge(ctx, next+1); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLogOnce plants the fault of SEMANTICS 5: a full log answers 10077 for what is new, and 10071 for what is there.
func TestLogOnce(t *testing.T) {
	c, ctx := opened(t)
	l := ok(c.OpenLog(ctx, schemas.LogConfig{Name: "LEAT_J_1", Prefix: "leat.job.1", MaxBytes: 1 << 20, Once: true}))(t)
	seq, existed, err := l.Insert(ctx, "chunk.0", []byte("first"))
	if err != nil || existed || seq != 1 {
		t.Fatal(seq, existed, err)
	}
	seq, existed, err = l.Insert(ctx, "chunk.0", []byte("second"))
	if err != nil || !existed || seq != 1 {
		t.Fatal(seq, existed, err)
	}
	n := 1
	for ; ; n++ {
		_, existed, err = l.Insert(ctx, fmt.Sprint("chunk.", n), make([]byte, 100<<10))
		if err != nil {
			break
		}
		if existed || n > 20 {
			t.Fatal(n, existed)
		}
	}
	if !errors.Is(err, schemas.ErrFull) || schemas.KindOf(err) != schemas.Unavailable || existed {
		t.Fatalf("a full log: %v, existed %v", err, existed)
	}
	for i := range n { // all that is there is still known, also now
		if _, existed, err := l.Insert(ctx, fmt.Sprint("chunk.", i), []byte("x")); err != nil || !existed {
			t.Fatalf("chunk %d: existed %v, %v", i, existed, err)
		}
	}
	if e := ok(l.Last(ctx, "chunk.0"))(t); string(e.Payload) != "first" {
		t.Fatalf("%s", e.Payload)
	}
	// Many at once: one wins.
	l = ok(c.OpenLog(ctx, schemas.LogConfig{Name: "LEAT_J_2", Prefix: "leat.job.2", MaxBytes: 1 << 20, Once: true}))(t)
	var wg sync.WaitGroup
	first := make(chan uint64, 16)
	for range 16 {
		wg.Go(func() {
			_, existed, err := l.Insert(ctx, "c", []byte("x"))
			if err != nil {
				t.Error(err)
			} else if !existed {
				first <- 1
			}
		})
	}
	wg.Wait()
	if len(first) != 1 {
		t.Fatalf("%d inserts were first", len(first))
	}
}

func TestStoreLimit(t *testing.T) {
	conf := DefaultServer()
	conf.Dir, conf.Port, conf.Sync, conf.StoreLimit = t.TempDir(), 0, false, 64<<20
	s := ok(NewServer(conf, nil))(t)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := dial(t, s)
	_, err := c.OpenLog(t.Context(), schemas.LogConfig{Name: "LEAT_BIG", Prefix: "big", MaxBytes: 65 << 20})
	if kind(t, err, schemas.Unavailable); !errors.Is(err, schemas.ErrFull) {
		t.Fatal(err)
	}
	ok(c.OpenLog(t.Context(), schemas.LogConfig{Name: "LEAT_SMALL", Prefix: "small", MaxBytes: 60 << 20}))(t)
}
