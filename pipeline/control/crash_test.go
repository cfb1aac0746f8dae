package control_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/control"
	"github.com/leatstream/leat/schemas"
)

// mortal is a store that dies: before runs before each write and may stop it, as a crash would, or wait.
type mortal struct {
	schemas.KV
	before func(op, key string) error
}

var errDead = errors.New("the process is dead")

func (m mortal) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := m.before("create", key); err != nil {
		return 0, err
	}
	return m.KV.Create(ctx, key, value)
}

func (m mortal) Update(ctx context.Context, key string, value []byte, last uint64) (uint64, error) {
	if err := m.before("update", key); err != nil {
		return 0, err
	}
	return m.KV.Update(ctx, key, value, last)
}

func (m mortal) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	if err := m.before("put", key); err != nil {
		return 0, err
	}
	return m.KV.Put(ctx, key, value)
}

// mortalLog dies with it.
type mortalLog struct {
	schemas.Log
	before func(op, key string) error
}

func (m mortalLog) Append(ctx context.Context, subject, id string, payload []byte) (uint64, error) {
	if err := m.before("append", subject); err != nil {
		return 0, err
	}
	// Ids fold within a window only; without one every repeat shows, as after a long outage.
	return m.Log.Append(ctx, subject, "", payload)
}

// dying returns a control that dies at its nth write.
func (h *house) dying(n int) *control.Control {
	left := n
	before := func(string, string) error {
		if left--; left < 0 {
			return errDead
		}
		return nil
	}
	return h.on(mortal{h.kv, before}, mortalLog{h.log, before})
}

// checkWhole fails unless every pipeline that names fraud's champion runs the same version of it, and returns that one.
func checkWhole(t *testing.T, revs []pipeline.Revision) int {
	t.Helper()
	version := 0
	for _, r := range revs {
		m := r.Models[0]
		if m.Ref != "fraud@champion" {
			continue
		}
		if version != 0 && m.Version != version {
			t.Fatalf("some moved and some did not: %+v", revs)
		}
		version = m.Version
		if d, err := pipeline.SpecDigest(r.Spec); err != nil || pipeline.RevisionOf(d, r.Models) != r.Revision {
			t.Fatalf("pipeline %s: revision and content differ", r.Spec.Name)
		}
	}
	return version
}

func TestAChangeThatDiesAnywhereIsWholeOrNothing(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "linear", "1")
	h.push("fraud", "linear", "2")
	h.apply(spec("a", "fraud", "") + spec("b", "fraud", "") + spec("c", "fraud", ""))
	died := 0
	for n := 0; ; n++ {
		from := checkWhole(t, must(h.Pipelines(ctx)))
		to := 3 - from
		_, err := h.dying(n).Promote(ctx, "fraud", to)
		now := checkWhole(t, must(h.Pipelines(ctx)))
		if err == nil {
			if now != to {
				t.Fatal("promoted, and not")
			}
			break
		}
		died++
		if !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		if decided := strings.Contains(err.Error(), "is decided and will be finished"); (now == to) != decided {
			t.Fatalf("died at write %d: version %d, and says %v", n, now, err)
		}
		// A watch that begins in the middle sees what is decided.
		if err := h.Watch(ctx, func(u control.Update) error {
			if !u.All || checkWhole(t, u.Active) != now || len(u.Active) != 4 {
				t.Errorf("%+v", u)
			}
			return errSeen
		}); !errors.Is(err, errSeen) {
			t.Fatal(err)
		}
		if err := h.Finish(ctx); err != nil {
			t.Fatal(err)
		}
		if again := checkWhole(t, must(h.Pipelines(ctx))); again != now {
			t.Fatalf("finishing moved it from %d to %d", now, again)
		}
	}
	if died < 10 { // the change key, five keys, five entries, idle
		t.Fatalf("died %d times only", died)
	}
	es, err := h.History(ctx, "a", "", 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(es); i++ {
		if es[i].Epoch+1 != es[i-1].Epoch || es[i].To != es[i-1].From {
			t.Fatalf("history has a gap or a repeat: %+v, %+v", es[i], es[i-1])
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestAnApplyThatDiesAnywhereIsWholeOrNothing(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "linear", "1")
	for n := 0; ; n++ {
		specs := must(pipeline.ParseSpec([]byte(spec("x", "fraud", fmt.Sprintf("description: n%d\n", n)) + spec("y", "fraud", fmt.Sprintf("description: n%d\n", n)))))
		_, err := h.dying(n).Apply(ctx, specs, false)
		act := h.active()
		x, y := act["x"].Spec.Description, act["y"].Spec.Description
		if x != y {
			t.Fatalf("x is %q, y is %q", x, y)
		}
		if err == nil {
			break
		}
		// No Finish: the next change has to finish it.
	}
}

// A process that was only slow goes on after others have finished its change and made more.
func TestASlowProcessDoesNoHarm(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "linear", "1")
	h.push("fraud", "linear", "2")
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	before := func(op, key string) error {
		if key != "control.change" {
			once.Do(func() {
				close(reached)
				<-goOn
			})
		}
		return nil
	}
	slow := h.on(mortal{h.kv, before}, h.log)
	done := make(chan error, 1)
	go func() {
		specs := must(pipeline.ParseSpec([]byte(spec("ghost", "fraud", ""))))
		_, err := slow.Apply(ctx, specs, false)
		done <- err
	}()
	<-reached
	if _, err := h.DeletePipeline(ctx, "ghost"); err != nil { // finishes the creation first
		t.Fatal(err)
	}
	if _, err := h.Promote(ctx, "fraud", 2); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	act := h.active()
	if _, ok := act["ghost"]; ok || act["fraud"].Models[0].Version != 2 {
		t.Fatalf("an old write won: %+v", act)
	}
}

func TestManyProcessesAtOnce(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "linear", "1")
	h.push("fraud", "linear", "2")
	h.push("fraud", "linear", "3")
	var all []string
	for i := range 4 {
		all = append(all, spec(fmt.Sprint("p", i), "fraud", ""))
	}
	h.apply(strings.Join(all, ""))

	watching, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	var mu sync.Mutex
	latest := map[string]string{}
	woke := make(chan struct{}, 1) // one token is enough: the test looks at latest
	go func() {                    // the view of a server: never a mixture
		now := map[string]pipeline.Revision{}
		ended <- h.Watch(watching, func(u control.Update) error {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range u.Active {
				now[r.Spec.Name] = r
				latest[r.Spec.Name] = r.Revision
			}
			checkWhole(t, slices.Collect(maps.Values(now)))
			select {
			case woke <- struct{}{}:
			default:
			}
			return nil
		})
	}()

	var wg sync.WaitGroup
	for i := range 4 {
		c := h.on(h.kv, h.log)
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for n := range 8 {
				var err error
				switch rnd.IntN(3) {
				case 0:
					_, err = c.Promote(ctx, "fraud", 1+rnd.IntN(3))
				case 1:
					_, err = c.Demote(ctx, "fraud")
					if schemas.KindOf(err) == schemas.Invalid {
						err = nil // nothing to undo
					}
				case 2:
					specs := must(pipeline.ParseSpec([]byte(spec(fmt.Sprint("p", rnd.IntN(4)), "fraud", fmt.Sprintf("description: by %d, %d\n", i, n)))))
					_, err = c.Apply(ctx, specs, false)
				}
				if err != nil {
					t.Errorf("process %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	champion := must(h.Aliases(ctx, "fraud"))["champion"]
	if v := checkWhole(t, must(h.Pipelines(ctx))); v != champion {
		t.Fatalf("champion is %d, pipelines run %d", champion, v)
	}
	goal := map[string]string{}
	for n, r := range h.active() {
		goal[n] = r.Revision
	}
	for late := time.After(20 * time.Second); ; {
		mu.Lock()
		there := maps.Equal(goal, latest)
		mu.Unlock()
		if there {
			break
		}
		select {
		case <-woke:
		case <-late:
			t.Fatalf("the watch ends with %v, want %v", latest, goal)
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for name, rev := range goal {
		if es := must(h.History(ctx, name, "", 1, 0)); len(es) != 1 || es[0].To != rev {
			t.Fatalf("%s: the history ends with %+v, active is %s", name, es, rev)
		}
	}
}

func TestWatchTellsEachChangeAsAWhole(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "linear", "1")
	h.push("fraud", "linear", "2")
	leaks := goleak.IgnoreCurrent()
	updates := make(chan control.Update) // unbuffered: the watch waits for the test, and the test for the watch
	watching, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- h.Watch(watching, func(u control.Update) error {
			updates <- u
			return nil
		})
	}()
	next := func() control.Update {
		t.Helper()
		select {
		case u := <-updates:
			return u
		case err := <-done:
			t.Fatal(err)
		case <-time.After(20 * time.Second):
			t.Fatal("no update")
		}
		return control.Update{}
	}
	names := func(u control.Update) string {
		var ns []string
		for _, r := range u.Active {
			ns = append(ns, fmt.Sprintf("%s@%d", r.Spec.Name, r.Models[0].Version))
		}
		return fmt.Sprintf("all %v: %s; deleted %v", u.All, strings.Join(ns, " "), u.Deleted)
	}
	if got := names(next()); got != "all true: fraud@1; deleted []" {
		t.Fatal(got)
	}
	go h.apply(spec("a", "fraud", "") + spec("b", "fraud@1", ""))
	u := next()
	if got := names(u); got != "all false: a@1 b@1; deleted []" {
		t.Fatal(got)
	}
	epoch := u.Epoch
	go h.Promote(ctx, "fraud", 2)
	if u = next(); names(u) != "all false: a@2 fraud@2; deleted []" || u.Epoch != epoch+1 {
		t.Fatal(names(u), u.Epoch)
	}
	go h.DeletePipeline(ctx, "a")
	if got := names(next()); got != "all false: ; deleted [a]" {
		t.Fatal(got)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := h.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, leaks)
}

func TestManyPipelinesFollowOneAlias(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "columns", "1")
	h.push("fraud", "columns", "2")
	var b strings.Builder
	for i := range 200 {
		b.WriteString(spec(fmt.Sprintf("p%03d", i), "fraud", "description: "+strings.Repeat("words of all kinds ", 30)+"\n"))
	}
	h.apply(b.String())
	start := time.Now()
	r, err := h.Promote(ctx, "fraud", 2)
	if err != nil || len(r.Changes) != 202 {
		t.Fatal(len(r.Changes), err)
	}
	t.Logf("200 pipelines moved in %v", time.Since(start))
	if v := checkWhole(t, must(h.Pipelines(ctx))); v != 2 {
		t.Fatal(v)
	}
}

func TestFollow(t *testing.T) {
	h := newHouse(t)
	h.push("fraud", "linear", "1")
	h.push("other", "mlp", "1")
	ctx, stop := context.WithCancel(t.Context())
	var got []string
	err := h.Follow(ctx, func(name string, rev *pipeline.Revision) {
		switch {
		case name == "":
			got = append(got, "all seen")
			go h.DeletePipeline(ctx, "other")
		case rev == nil:
			got = append(got, "no "+name)
			stop()
		default:
			got = append(got, name+" "+rev.Models[0].Ref)
		}
	})
	if !errors.Is(err, context.Canceled) || !slices.Equal(got, []string{"fraud fraud@champion", "other other@champion", "all seen", "no other"}) {
		t.Fatal(got, err)
	}
}
