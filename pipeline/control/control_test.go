package control_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/control"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx"
	"github.com/leatstream/leat/scorers/onnx/ortlib"
	"github.com/leatstream/leat/scorers/registry"
)

var library ortlib.Search

func TestMain(m *testing.M) {
	library.Env = os.Getenv("LEAT_ONNXRUNTIME")
	say := func(line string) { fmt.Fprintln(os.Stderr, line) }
	if _, err := ortlib.Ensure(context.Background(), library, say); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// house is a real server with real models, and one control on it.
type house struct {
	*control.Control
	t     testing.TB
	kv    schemas.KV
	blobs schemas.Blobs
	log   schemas.Log
	reg   *registry.Registry
	facts pipeline.Facts // of the controls that are made from now on
}

func newHouse(t testing.TB, uses ...control.Uses) *house {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	sc := nats.DefaultServer()
	sc.Dir, sc.Port, sc.Sync = t.TempDir(), 0, false
	s, err := nats.NewServer(sc, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	cc := nats.Default()
	cc.Server = s
	c, err := nats.Dial(t.Context(), cc, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := &house{t: t}
	if h.kv, err = c.KV(t.Context(), "LEAT_CONTROL_KV"); err != nil {
		t.Fatal(err)
	}
	if h.blobs, err = c.Blobs(t.Context(), "LEAT_MODELS"); err != nil {
		t.Fatal(err)
	}
	cfg := control.Default()
	if h.log, err = c.OpenLog(t.Context(), cfg.Log()); err != nil {
		t.Fatal(err)
	}
	l, err := onnx.New(onnx.Config{Library: library}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	rc := registry.Default()
	rc.TempDir = t.TempDir()
	if h.reg, err = registry.New(h.kv, h.blobs, []scorers.Loader{l}, rc); err != nil {
		t.Fatal(err)
	}
	h.Control = h.on(h.kv, h.log, uses...)
	return h
}

// on is another process's control on the same stores, seen through kv and log.
func (h *house) on(kv schemas.KV, log schemas.Log, uses ...control.Uses) *control.Control {
	h.t.Helper()
	cfg := control.Default()
	cfg.Patience, cfg.Facts = 50*time.Millisecond, h.facts
	c, err := control.New(kv, log, h.reg, cfg, nil, uses...)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// push stores a model of the ONNX tests as the next version of name; labels make versions of one file differ.
func (h *house) push(name, file, label string) scorers.Version {
	h.t.Helper()
	b, err := os.ReadFile("../../scorers/onnx/testdata/" + file + ".onnx")
	if err != nil {
		h.t.Fatal(err)
	}
	v, created, _, err := h.Push(context.Background(), bytes.NewReader(b), scorers.Manifest{Name: name, Labels: map[string]string{"n": label}})
	if err != nil || !created {
		h.t.Fatalf("push %s: created %v, %v", name, created, err)
	}
	return v
}

func (h *house) apply(text string) control.Result {
	h.t.Helper()
	r, err := h.tryApply(text, false)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *house) tryApply(text string, dry bool) (control.Result, error) {
	h.t.Helper()
	specs, err := pipeline.ParseSpec([]byte(text))
	if err != nil {
		h.t.Fatal(err)
	}
	return h.Apply(context.Background(), specs, dry)
}

func (h *house) active() map[string]pipeline.Revision {
	h.t.Helper()
	revs, err := h.Pipelines(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	m := map[string]pipeline.Revision{}
	for _, r := range revs {
		m[r.Spec.Name] = r
	}
	return m
}

func spec(name, model, more string) string {
	return fmt.Sprintf("---\napiVersion: leat/v1\nkind: Pipeline\nname: %s\nroute: {model: %s}\n%s", name, model, more)
}

func wantErr(t testing.TB, err error, kind schemas.Kind, parts ...string) {
	t.Helper()
	if err == nil || schemas.KindOf(err) != kind {
		t.Fatalf("error %v (%v); want %v", err, schemas.KindOf(err), kind)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Fatalf("says %q\nwithout %q", err, p)
		}
	}
}

func TestFirstPushMakesTheModelCallable(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	v := h.push("fraud", "linear", "1")
	rev, err := h.Pipeline(ctx, "fraud")
	if err != nil {
		t.Fatal(err)
	}
	if len(rev.Models) != 1 || rev.Models[0].Digest != v.Digest || rev.Models[0].Ref != "fraud@champion" || rev.Models[0].Node != pipeline.RootPath ||
		rev.Cause != "push" || rev.Signature.Inputs.ID() != v.Probed.Signature.Inputs.ID() || rev.Spec.Lineage != pipeline.Strict {
		t.Fatalf("%+v", rev)
	}
	if d, err := pipeline.SpecDigest(rev.Spec); err != nil || d != rev.SpecDigest || pipeline.RevisionOf(d, rev.Models) != rev.Revision {
		t.Fatal("the revision is not what SEMANTICS says", err)
	}
	if v := h.push("fraud", "linear", "2"); v.Version != 2 {
		t.Fatalf("%+v", v)
	}
	if again, err := h.Pipeline(ctx, "fraud"); err != nil || again.Revision != rev.Revision {
		t.Fatalf("a later push went live: %+v %v", again, err)
	}
	if a, err := h.Aliases(ctx, "fraud"); err != nil || len(a) != 1 || a["champion"] != 1 {
		t.Fatal(a, err)
	}
	// A pipeline of the name that is there already stays.
	h.apply(spec("mlp", "fraud@2", ""))
	h.push("mlp", "mlp", "1")
	if rev := h.active()["mlp"]; rev.Models[0].Name != "fraud" {
		t.Fatalf("a push replaced a pipeline: %+v", rev)
	}
	// Deleted by its user, it does not come back with the next push.
	if _, err := h.DeletePipeline(ctx, "fraud"); err != nil {
		t.Fatal(err)
	}
	h.push("fraud", "linear", "3")
	if _, err := h.Pipeline(ctx, "fraud"); schemas.KindOf(err) != schemas.NotFound {
		t.Fatal(err)
	}
}

func TestRunFinishesAPushThatWasCutShort(t *testing.T) {
	h := newHouse(t)
	b, err := os.ReadFile("../../scorers/onnx/testdata/linear.onnx")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.reg.PushBody(t.Context(), bytes.NewReader(b), scorers.Manifest{Name: "fraud"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	err = h.Watch(t.Context(), func(u control.Update) error {
		if len(u.Active) > 0 && u.Active[0].Spec.Name == "fraud" {
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

var errSeen = errors.New("seen")

func TestPromoteAndDemoteMoveEveryPipelineThatNamesTheAlias(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "linear", "1")
	h.push("fraud", "linear", "2")
	h.apply(spec("second", "fraud", "") + spec("pinned", "fraud@1", ""))
	before := h.active()
	r, err := h.Promote(ctx, "fraud", 2)
	if err != nil {
		t.Fatal(err)
	}
	after := h.active()
	for name, want := range map[string]int{"fraud": 2, "second": 2, "pinned": 1} {
		if got := after[name].Models[0].Version; got != want {
			t.Errorf("%s runs version %d", name, got)
		}
		if moved := after[name].Revision != before[name].Revision; moved != (want == 2) {
			t.Errorf("%s: moved %v", name, moved)
		}
		if want == 2 && after[name].Cause != "promote fraud@2" {
			t.Errorf("%s: cause %q", name, after[name].Cause)
		}
	}
	if len(r.Changes) != 3 || r.Changes[0].Action != "champion 1 -> 2" || !strings.Contains(r.Changes[1].Diff, "-# route: fraud@champion is fraud@1 (") ||
		!strings.Contains(r.Changes[1].Diff, "+# route: fraud@champion is fraud@2 (") {
		t.Fatalf("%+v", r)
	}
	if r, err := h.Promote(ctx, "fraud", 2); err != nil || len(r.Changes) != 1 || r.Changes[0].Action != control.Unchanged {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := h.Demote(ctx, "fraud"); err != nil {
		t.Fatal(err)
	}
	for name, rev := range h.active() {
		if rev.Revision != before[name].Revision {
			t.Errorf("%s is not where it was: %+v", name, rev.Models)
		}
	}
	_, err = h.Demote(ctx, "fraud")
	wantErr(t, err, schemas.Invalid, "model fraud has no earlier champion to go back to")
	_, err = h.Promote(ctx, "fraud", 9)
	wantErr(t, err, schemas.NotFound, "no model fraud@9; ")
	_, err = h.Promote(ctx, "frued", 1)
	wantErr(t, err, schemas.NotFound, `no model frued; did you mean "fraud"?`)
	_, err = h.Demote(ctx, "none")
	wantErr(t, err, schemas.NotFound, "no model none")
}

func TestDemotePassesOverVersionsThatAreGone(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	for i := range 3 {
		h.push("fraud", "linear", fmt.Sprint(i))
	}
	for _, v := range []int{2, 3} {
		if _, err := h.Promote(ctx, "fraud", v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.DeleteModel(ctx, "fraud", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Demote(ctx, "fraud"); err != nil {
		t.Fatal(err)
	}
	if a, err := h.Aliases(ctx, "fraud"); err != nil || a["champion"] != 1 {
		t.Fatal(a, err)
	}
}

func TestPromoteIsRefusedWhereAPipelineCannotFollow(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	v := h.push("fraud", "columns", "1")
	col := v.Probed.Signature.Inputs.Field(0).Name
	h.apply(spec("masked", "fraud", "record: {mask: ["+col+"]}\n"))
	h.push("fraud", "linear", "2")
	before := h.active()
	_, err := h.Promote(ctx, "fraud", 2)
	wantErr(t, err, schemas.Invalid, "pipeline masked cannot follow fraud@champion", "record.mask[0]", col)
	for name, rev := range h.active() {
		if rev.Revision != before[name].Revision {
			t.Errorf("%s moved", name)
		}
	}
	if _, err := h.DeletePipeline(ctx, "masked"); err != nil {
		t.Fatal(err)
	}
	r, err := h.Promote(ctx, "fraud", 2)
	if err != nil || !strings.Contains(r.Changes[1].Note, "the signature changes: inputs were (") {
		t.Fatalf("%+v %v", r, err)
	}
}

func TestAliases(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "linear", "1")
	h.push("fraud", "linear", "2")
	if _, err := h.SetAlias(ctx, "fraud", "blue", 2); err != nil {
		t.Fatal(err)
	}
	h.apply(spec("p", "fraud@blue", ""))
	r, err := h.SetAlias(ctx, "fraud", "blue", 1)
	if err != nil || len(r.Changes) != 2 || r.Changes[1].Pipeline != "p" {
		t.Fatalf("%+v %v", r, err)
	}
	_, err = h.DeleteAlias(ctx, "fraud", "blue")
	wantErr(t, err, schemas.Invalid, "alias fraud@blue is in use by pipeline p")
	_, err = h.DeleteAlias(ctx, "fraud", "bleu")
	wantErr(t, err, schemas.NotFound, `no alias "bleu"; did you mean "blue"?`)
	for _, bad := range []string{"7", "Blue", "", "a b"} {
		_, err = h.SetAlias(ctx, "fraud", bad, 1)
		wantErr(t, err, schemas.Invalid, "alias name")
	}
	if _, err := h.DeletePipeline(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.DeleteAlias(ctx, "fraud", "blue"); err != nil {
		t.Fatal(err)
	}
	if v, err := h.Resolve(ctx, schemas.ModelRef{Name: "fraud", Alias: "champion"}); err != nil || v.Version != 1 {
		t.Fatal(v, err)
	}
	_, err = h.Resolve(ctx, schemas.ModelRef{Name: "fraud", Alias: "blue"})
	wantErr(t, err, schemas.NotFound, "no model fraud@blue; ")
}

func TestApplyIsAllOrNothing(t *testing.T) {
	h := newHouse(t)
	h.push("fraud", "columns", "1")
	sig := h.active()["fraud"].Signature
	col := sig.Inputs.Field(0).Name
	good := spec("a", "fraud", "description: first\n")
	_, err := h.tryApply(good+spec("b", "fruad", "")+spec("c", "fraud@7", "record: {drop: ["+col+"]}\n")+spec("d", "fraud", "record: {drop: ["+col+"x]}\n"), false)
	wantErr(t, err, schemas.Invalid, `line 11: route.model: no model fruad@champion; did you mean "fraud@champion"? (in pipeline b)`, "no model fraud@7", "(in pipeline c)",
		`record.drop[0]: no column "`+col+`x" in the model's signature; did you mean "`+col+`"?`)
	if _, ok := h.active()["a"]; ok {
		t.Fatal("a part was applied")
	}
	dry, err := h.tryApply(good, true)
	if err != nil || !dry.DryRun || len(dry.Changes) != 1 || dry.Changes[0].Action != control.Created || !strings.Contains(dry.Changes[0].Diff, "+description: first") {
		t.Fatalf("%+v %v", dry, err)
	}
	if _, ok := h.active()["a"]; ok {
		t.Fatal("a dry run changed something")
	}
	r := h.apply(good)
	if r.Changes[0].To != dry.Changes[0].To || r.Epoch != dry.Epoch+1 {
		t.Fatalf("dry %+v, real %+v", dry, r)
	}
	if again := h.apply(good); again.Changes[0].Action != control.Unchanged || again.Epoch != r.Epoch {
		t.Fatalf("%+v", again)
	}
	changed := h.apply(strings.Replace(good, "first", "second", 1))
	if c := changed.Changes[0]; c.Action != control.Changed || c.From != r.Changes[0].To || !strings.Contains(c.Diff, "-description: first\n+description: second\n") {
		t.Fatalf("%+v", changed)
	}
}

func TestTopicLoopsAreRefused(t *testing.T) {
	h := newHouse(t)
	h.push("fraud", "linear", "1")
	h.apply(spec("a", "fraud", "input: {topic: t1}\noutput: {topic: t2}\n") + spec("b", "fraud", "input: {topic: t2}\noutput: {topic: t3}\n"))
	_, err := h.tryApply(spec("c", "fraud", "input: {topic: t3}\noutput: {topic: t1}\n"), false)
	wantErr(t, err, schemas.Invalid, `output.topic: "t1" leads back to the input of pipeline c (c -> a -> b -> c)`)
	h.apply(spec("c", "fraud", "input: {topic: t3}\noutput: {topic: t4}\n"))
}

// What a server has decides what can be applied to it: names of topics on Kafka, and exactly once.
func TestApplyAsksTheServersFacts(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "linear", "1")
	exactly := spec("p", "fraud", "delivery: exactly_once\ninput: {topic: in}\noutput: {topic: out}\n")
	_, err := h.tryApply(exactly, true)
	wantErr(t, err, schemas.Invalid, `line 7: input.topic: "in" lives on NATS; delivery: exactly_once needs it on Kafka: write kafka:in`, "output.topic", "delivery: exactly_once needs the lineage on Kafka")
	_, err = h.tryApply(spec("p", "fraud", "input: {topic: kafka:in}\n"), true)
	wantErr(t, err, schemas.Invalid, "input.topic", "this server knows no Kafka")

	h.facts = pipeline.Facts{Kafka: true, Transport: schemas.TransportKafka, Lineage: schemas.TransportKafka}
	h.Control = h.on(h.kv, h.log)
	h.apply(exactly)
	if rev := h.active()["p"]; rev.Spec.Delivery != pipeline.ExactlyOnce {
		t.Fatalf("%+v", rev.Spec)
	}
	// One topic has several names.
	_, err = h.tryApply(spec("q", "fraud", "input: {topic: kafka:out}\noutput: {topic: kafka:in}\n"), false)
	wantErr(t, err, schemas.Invalid, `output.topic: "kafka:in" leads back to the input of pipeline q (q -> p -> q)`)
	h.apply(spec("q", "fraud", "input: {topic: nats:out}\noutput: {topic: nats:in}\n"))
	h.push("fraud", "linear", "2")
	if _, err := h.Promote(ctx, "fraud", 2); err != nil {
		t.Fatal(err)
	}
}

func TestDeleteSaysWhoIsInTheWay(t *testing.T) {
	jobs := map[string]bool{}
	h := newHouse(t, func(_ context.Context, pipe, model string, version int) ([]string, error) {
		if key := fmt.Sprintf("%s/%s@%d", pipe, model, version); jobs[key] {
			return []string{"job 01J"}, nil
		}
		return nil, nil
	})
	ctx := t.Context()
	h.push("fraud", "linear", "1")
	h.push("fraud", "linear", "2")
	h.apply(spec("p", "fraud@2", ""))
	if _, err := h.SetAlias(ctx, "fraud", "blue", 2); err != nil {
		t.Fatal(err)
	}
	_, err := h.DeleteModel(ctx, "fraud", 2)
	wantErr(t, err, schemas.Invalid, "model fraud@2 is in use by alias fraud@blue, pipeline p (route: fraud@2)")
	_, err = h.DeleteModel(ctx, "fraud", 1)
	wantErr(t, err, schemas.Invalid, "alias fraud@champion, pipeline fraud (route: fraud@champion)")
	_, err = h.DeleteModel(ctx, "fraud", 0)
	wantErr(t, err, schemas.Invalid, "model fraud is in use by alias fraud@blue, pipeline p (route: fraud@2)")
	_, err = h.DeleteModel(ctx, "fraud", 5)
	wantErr(t, err, schemas.NotFound, "fraud@5")
	jobs["p/@0"] = true
	_, err = h.DeletePipeline(ctx, "p")
	wantErr(t, err, schemas.Invalid, "pipeline p is in use by job 01J")
	delete(jobs, "p/@0")
	if _, err := h.DeletePipeline(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.DeleteAlias(ctx, "fraud", "blue"); err != nil {
		t.Fatal(err)
	}
	jobs["/fraud@2"] = true
	_, err = h.DeleteModel(ctx, "fraud", 2)
	wantErr(t, err, schemas.Invalid, "model fraud@2 is in use by job 01J")
	delete(jobs, "/fraud@2")
	r, err := h.DeleteModel(ctx, "fraud", 0)
	if err != nil || len(r.Changes) != 3 {
		t.Fatalf("%+v %v", r, err)
	}
	if len(h.active()) != 0 {
		t.Fatal(h.active())
	}
	if names, err := h.reg.Names(ctx); err != nil || len(names) != 0 {
		t.Fatal(names, err)
	}
	_, err = h.DeletePipeline(ctx, "fraud")
	wantErr(t, err, schemas.NotFound, `no pipeline "fraud"`)
	if v := h.push("fraud", "linear", "1"); v.Version != 3 {
		t.Fatalf("a number was used again: %+v", v)
	}
	if rev := h.active()["fraud"]; rev.Models[0].Version != 3 {
		t.Fatalf("%+v", rev)
	}
	// The only version is the model.
	if _, err := h.DeleteModel(ctx, "fraud", 3); err != nil || len(h.active()) != 0 {
		t.Fatal(err, h.active())
	}
}

func TestOwnPipelineThatWasChangedIsAReference(t *testing.T) {
	h := newHouse(t)
	h.push("fraud", "linear", "1")
	h.apply(spec("fraud", "fraud", "deadline: 1s\n"))
	_, err := h.DeleteModel(t.Context(), "fraud", 0)
	wantErr(t, err, schemas.Invalid, "model fraud is in use by pipeline fraud (route: fraud@champion)")
}

func TestHistoryTellsCauseAndDiff(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.push("fraud", "linear", "1")
	h.push("fraud", "linear", "2")
	if _, err := h.Promote(ctx, "fraud", 2); err != nil {
		t.Fatal(err)
	}
	h.apply(spec("fraud", "fraud", "description: hello\n"))
	if _, err := h.DeletePipeline(ctx, "fraud"); err != nil {
		t.Fatal(err)
	}
	es, err := h.History(ctx, "fraud", "", 10, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range es {
		got = append(got, fmt.Sprintf("%d %s by %s", e.Epoch, e.Action, e.Cause))
	}
	if want := []string{"4 deleted by delete", "3 changed by apply", "2 changed by promote fraud@2", "1 created by push"}; !slices.Equal(got, want) {
		t.Fatalf("%q", got)
	}
	if !strings.Contains(es[1].Diff, "+description: hello") || es[1].From != es[2].To || es[0].To != "" || es[2].Models[0].Version != 2 {
		t.Fatalf("%+v", es)
	}
	page, err := h.History(ctx, "fraud", "", 2, 4)
	if err != nil || len(page) != 2 || page[0].Epoch != 3 || page[1].Epoch != 2 {
		t.Fatalf("%+v %v", page, err)
	}
	ms, err := h.History(ctx, "", "fraud", 10, 0)
	if err != nil || len(ms) != 2 || ms[0].Action != "champion 1 -> 2" || ms[1].Action != "champion -> 1" {
		t.Fatalf("%+v %v", ms, err)
	}
}
