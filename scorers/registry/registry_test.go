package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/registry"
)

// stores are a KV bucket and an object store on a real server of this test.
func stores(t testing.TB) (schemas.KV, schemas.Blobs) {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
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
	kv, err := c.KV(t.Context(), "LEAT_CONTROL_KV")
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Blobs(t.Context(), "LEAT_MODELS")
	if err != nil {
		t.Fatal(err)
	}
	return kv, b
}

// sums is a loader of a format that needs no runtime: a text file with the names of its float inputs, whose answer is
// their sum. It reads its file and nothing else, as the contract says.
type sums struct{}

func (sums) Runtime() string { return "onnx" }

func (sums) Prepare(_ context.Context, p scorers.Package) (scorers.Package, error) { return p, nil }

func (sums) Probe(_ context.Context, p scorers.Package) (scorers.Probed, error) {
	sig, err := sumsSignature(p)
	return scorers.Probed{Signature: sig, Class: scorers.BatchInvariant, Runtime: "sums 1"}, err
}

func (sums) Load(_ context.Context, p scorers.Package, probed scorers.Probed) (scorers.Scorer, error) {
	sig, err := sumsSignature(p)
	return sum{sig}, err
}

func sumsSignature(p scorers.Package) (schemas.Signature, error) {
	b, err := fs.ReadFile(p.Files, p.Manifest.File)
	if err != nil {
		return schemas.Signature{}, err
	}
	var in []schemas.Field
	for name := range strings.FieldsSeq(string(b)) {
		in = append(in, schemas.Field{Name: name, Type: schemas.Float64})
	}
	if len(in) == 0 {
		return schemas.Signature{}, schemas.Errorf(schemas.Invalid, "sums", "no inputs in %s", p.Manifest.File)
	}
	s, err := schemas.NewSchema(in)
	return schemas.Signature{Inputs: s, Outputs: schemas.MustSchema(schemas.Field{Name: "sum", Type: schemas.Float64})}, err
}

type sum struct{ sig schemas.Signature }

func (s sum) Signature() schemas.Signature { return s.sig }
func (sum) Close() error                   { return nil }
func (s sum) Score(_ context.Context, in, out *schemas.Batch) error {
	for i := range in.Rows() {
		v := 0.0
		for j := range s.sig.Inputs.Len() {
			v += schemas.Values[float64](in.Column(j))[i]
		}
		schemas.Append(out.Column(0), v)
		out.Column(0).EndRow()
	}
	out.Advance(in.Rows())
	return nil
}

func open(t testing.TB, kv schemas.KV, b schemas.Blobs, change func(*registry.Config)) *registry.Registry {
	t.Helper()
	c := registry.Default()
	c.TempDir = t.TempDir()
	if change != nil {
		change(&c)
	}
	r, err := registry.New(kv, b, []scorers.Loader{sums{}}, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func folder(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for n, c := range files {
		m[n] = &fstest.MapFile{Data: []byte(c), Mode: 0o644}
	}
	return m
}

var fraud = map[string]string{
	"model.yaml": "name: fraud\nfile: model.onnx\nlabels: {task: test}\ninputs: [{name: a, nullable: true}]\n",
	"model.onnx": "a b", "extra/data.bin": "xyz", ".DS_Store": "junk",
}

func TestPushNumbersVersionsAndKnowsThemByDigest(t *testing.T) {
	kv, b := stores(t)
	r, ctx := open(t, kv, b, nil), t.Context()
	v1, created, err := r.Push(ctx, folder(fraud), scorers.Manifest{})
	if err != nil || !created || v1.Version != 1 || v1.Name != "fraud" || len(v1.Digest) != 64 || v1.Size != 6 || v1.Manifest.Runtime != "onnx" {
		t.Fatalf("%+v %v %v", v1, created, err)
	}
	again, created, err := r.Push(ctx, folder(fraud), scorers.Manifest{})
	if err != nil || created || again.Version != 1 || again.Digest != v1.Digest {
		t.Fatalf("the same again: %+v %v %v", again, created, err)
	}
	for i, change := range []map[string]string{
		{"model.onnx": "a b c"}, {"extra/data.bin": "xyZ"}, {"extra/more.bin": ""}, {"model.yaml": "name: fraud\nfile: model.onnx\n"},
	} {
		files := maps.Clone(fraud)
		maps.Copy(files, change)
		v, created, err := r.Push(ctx, folder(files), scorers.Manifest{})
		if err != nil || !created || v.Version != i+2 || v.Digest == v1.Digest {
			t.Fatalf("change %d: %+v %v %v", i, v, created, err)
		}
	}
	labelled, created, err := r.Push(ctx, folder(fraud), scorers.Manifest{Labels: map[string]string{"team": "x"}})
	if err != nil || !created || labelled.Manifest.Labels["team"] != "x" || labelled.Manifest.Labels["task"] != "test" {
		t.Fatalf("%+v %v %v", labelled, created, err)
	}
	vs, err := r.Versions(ctx, "fraud")
	if err != nil || len(vs) != 6 || vs[0].Version != 1 || vs[5].Version != 6 {
		t.Fatalf("%+v %v", vs, err)
	}
	// Another registry on the same stores: what is pushed survives a restart.
	got, err := open(t, kv, b, nil).Version(ctx, "fraud", 1)
	if err != nil || got.Digest != v1.Digest || got.Probed.Signature.Inputs.ID() != v1.Probed.Signature.Inputs.ID() || !got.Created.Equal(v1.Created) {
		t.Fatalf("%+v %v", got, err)
	}
	if names, err := r.Names(ctx); err != nil || !slices.Equal(names, []string{"fraud"}) {
		t.Fatal(names, err)
	}
	for _, f := range []func() error{
		func() error { _, err := r.Version(ctx, "fraud", 7); return err },
		func() error { _, err := r.Version(ctx, "fraud", 0); return err },
		func() error { _, err := r.Versions(ctx, "frau"); return err },
		func() error { return r.Delete(ctx, "fraud", 9) },
	} {
		if err := f(); schemas.KindOf(err) != schemas.NotFound || err == nil {
			t.Errorf("want NotFound, got %v", err)
		}
	}
}

func TestDeletedNumbersAreNeverUsedAgain(t *testing.T) {
	kv, b := stores(t)
	r, ctx := open(t, kv, b, nil), t.Context()
	push := func(content string) scorers.Version {
		t.Helper()
		v, created, err := r.Push(ctx, folder(map[string]string{"m.onnx": content}), scorers.Manifest{Name: "m"})
		if err != nil || !created {
			t.Fatal(created, err)
		}
		return v
	}
	v1, v2 := push("a"), push("b")
	for range 2 { // the second time it is gone already, and that is fine
		if err := r.Delete(ctx, "m", 2); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Version(ctx, "m", 2); schemas.KindOf(err) != schemas.NotFound || !strings.Contains(err.Error(), "was deleted") {
		t.Fatal(err)
	}
	if _, err := r.Open(ctx, v2); schemas.KindOf(err) != schemas.NotFound {
		t.Fatal(err)
	}
	if v := push("b"); v.Version != 3 || v.Digest != v2.Digest {
		t.Fatalf("pushed again: %+v", v)
	}
	if err := r.Delete(ctx, "m", 3); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(ctx, v1); err != nil {
		t.Fatalf("deleting took another version's files: %v", err)
	}
	if err := r.Delete(ctx, "m", 1); err != nil {
		t.Fatal(err)
	}
	if names, err := r.Names(ctx); err != nil || len(names) > 0 {
		t.Fatal(names, err)
	}
	if v := push("z"); v.Version != 4 {
		t.Fatalf("%+v", v)
	}
}

func TestPushesAtOnceGetNumbersWithoutGaps(t *testing.T) {
	kv, b := stores(t)
	ctx := t.Context()
	var wg sync.WaitGroup
	var mu sync.Mutex
	numbers := map[int]int{}
	for i := range 12 { // six contents, each pushed twice at once, by registries that know nothing of each other
		r := open(t, kv, b, nil)
		wg.Go(func() {
			v, _, err := r.Push(ctx, folder(map[string]string{"m.onnx": fmt.Sprint("c", i/2)}), scorers.Manifest{Name: "m"})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			numbers[v.Version]++
		})
	}
	wg.Wait()
	for n := 1; n <= 6; n++ {
		if numbers[n] != 2 {
			t.Errorf("version %d came %d times: %v", n, numbers[n], numbers)
		}
	}
	if vs, err := open(t, kv, b, nil).Versions(ctx, "m"); err != nil || len(vs) != 6 {
		t.Fatal(len(vs), err)
	}
}

func TestOpenGivesBackWhatWasPushedAndVerifies(t *testing.T) {
	for _, cached := range []bool{false, true} {
		t.Run(fmt.Sprint("cached=", cached), func(t *testing.T) {
			kv, b := stores(t)
			dir := t.TempDir()
			r := open(t, kv, b, func(c *registry.Config) {
				if cached {
					c.CacheDir = dir
				}
			})
			ctx := t.Context()
			v, _, err := r.Push(ctx, folder(fraud), scorers.Manifest{})
			if err != nil {
				t.Fatal(err)
			}
			read := func() {
				t.Helper()
				p, err := r.Open(ctx, v)
				if err != nil {
					t.Fatal(err)
				}
				for n, want := range map[string]string{"model.onnx": "a b", "extra/data.bin": "xyz"} {
					if got, err := fs.ReadFile(p.Files, n); err != nil || string(got) != want {
						t.Errorf("%s: %q %v", n, got, err)
					}
				}
				for _, n := range []string{".DS_Store", "model.yaml", "../" + v.Digest + "/model.onnx", "/etc/passwd", "none"} {
					if f, err := p.Files.Open(n); err == nil {
						f.Close()
						t.Errorf("%s is there", n)
					}
				}
			}
			read()
			s, err := r.Load(ctx, v)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if cached {
				read()
				for _, spoil := range []func() error{ // a cache that was tampered with is filled again
					func() error { return os.WriteFile(filepath.Join(dir, v.Digest, "model.onnx"), []byte("a z"), 0o600) },
					func() error { return os.Remove(filepath.Join(dir, v.Digest, "extra/data.bin")) },
					func() error {
						f := filepath.Join(dir, v.Digest, "model.onnx")
						return errors.Join(os.Remove(f), os.Symlink("/etc/passwd", f))
					},
				} {
					if err := spoil(); err != nil {
						t.Fatal(err)
					}
					read()
				}
			}
		})
	}
}

// spoiled gives other bytes than were stored.
type spoiled struct {
	schemas.Blobs
	to string
}

func (s spoiled) Get(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(s.to)), nil
}

func TestOpenRefusesWhatWasNotPushed(t *testing.T) {
	kv, b := stores(t)
	ctx := t.Context()
	v, _, err := open(t, kv, b, nil).Push(ctx, folder(map[string]string{"m.onnx": "a b"}), scorers.Manifest{Name: "m"})
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"a c", "a b ", "a", ""} {
		for _, cache := range []string{"", t.TempDir()} {
			r := open(t, kv, spoiled{b, to}, func(c *registry.Config) { c.CacheDir = cache })
			if _, err := r.Open(ctx, v); err == nil || !strings.Contains(err.Error(), "is not what was pushed") {
				t.Errorf("%q: %v", to, err)
			}
		}
	}
	// A record that was changed by hand no longer matches its digest.
	raw, rev, err := kv.Get(ctx, "registry.version.m.1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Update(ctx, "registry.version.m.1", bytes.Replace(raw, []byte(`"m.onnx"`), []byte(`"n.onnx"`), 1), rev); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, kv, b, nil).Open(ctx, v); err == nil || !strings.Contains(err.Error(), "does not match its digest") {
		t.Error(err)
	}
}

// failing loses the store after some blobs, as a crash in the middle of a push would.
type failing struct {
	schemas.Blobs
	after int
}

func (f *failing) Put(ctx context.Context, name string, r io.Reader) error {
	if f.after--; f.after < 0 {
		return schemas.Errorf(schemas.Unavailable, "failing", "gone")
	}
	return f.Blobs.Put(ctx, name, r)
}

// counting knows which blobs are there.
type counting struct {
	schemas.Blobs
	mu    sync.Mutex
	names map[string]bool
}

func (c *counting) Put(ctx context.Context, name string, r io.Reader) error {
	c.mu.Lock()
	c.names[name] = true
	c.mu.Unlock()
	return c.Blobs.Put(ctx, name, r)
}

func (c *counting) Delete(ctx context.Context, name string) error {
	c.mu.Lock()
	delete(c.names, name)
	c.mu.Unlock()
	return c.Blobs.Delete(ctx, name)
}

func TestSweepRemovesWhatABrokenPushLeft(t *testing.T) {
	kv, b := stores(t)
	ctx := t.Context()
	blobs := &counting{Blobs: b, names: map[string]bool{}}
	broken := open(t, kv, &failing{blobs, 1}, nil)
	if _, _, err := broken.Push(ctx, folder(fraud), scorers.Manifest{}); schemas.KindOf(err) != schemas.Unavailable {
		t.Fatal(err)
	}
	if _, err := broken.Versions(ctx, "fraud"); schemas.KindOf(err) != schemas.NotFound {
		t.Fatal(err)
	}
	r := open(t, kv, blobs, nil)
	if err := r.Sweep(ctx); err != nil || len(blobs.names) != 1 {
		t.Fatalf("a push that may still go on lost its files: %v, %v", blobs.names, err)
	}
	// The same key, as if it had been written long ago.
	keys, err := kv.Keys(ctx, "registry.upload.")
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	raw, rev, err := kv.Get(ctx, keys[0])
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Replace(raw, []byte(`"started":"20`), []byte(`"started":"19`), 1)
	if _, err := kv.Update(ctx, keys[0], old, rev); err != nil {
		t.Fatal(err)
	}
	if err := r.Sweep(ctx); err != nil || len(blobs.names) != 0 {
		t.Fatal(blobs.names, err)
	}
	if keys, err := kv.Keys(ctx, "registry.upload."); err != nil || len(keys) != 0 {
		t.Fatal(keys, err)
	}
	// A push that stands and died before it said so keeps its files.
	v, _, err := r.Push(ctx, folder(fraud), scorers.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	rec, _, err := kv.Get(ctx, "registry.version.fraud.1")
	if err != nil {
		t.Fatal(err)
	}
	files := rec[bytes.Index(rec, []byte(`"files":`)):]
	if _, err := kv.Create(ctx, "registry.upload.x", append([]byte(`{"name":"fraud","started":"1999-01-01T00:00:00Z",`), files...)); err != nil {
		t.Fatal(err)
	}
	if err := r.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(ctx, v); err != nil {
		t.Fatal(err)
	}
}
