package ortlib_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers/onnx/ortlib"
)

// unavailable fails unless err is Unavailable, one line, and says the words.
func unavailable(t *testing.T, err error, words ...string) {
	t.Helper()
	var e *schemas.Error
	if !errors.As(err, &e) || e.Kind != schemas.Unavailable {
		t.Fatalf("want Unavailable, got %v", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// installed is the library that the tests run with, fetched on a fresh machine.
func installed(t *testing.T) ortlib.Library {
	t.Helper()
	l, err := ortlib.Ensure(t.Context(), ortlib.Search{Env: os.Getenv("LEAT_ONNXRUNTIME")}, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFindOrder(t *testing.T) {
	lib := installed(t)
	good, err := os.ReadFile(lib.Path)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Base(lib.Path)
	dir := t.TempDir()
	flag, env := write(t, filepath.Join(dir, "flag.so"), nil), write(t, filepath.Join(dir, "env.so"), nil)
	cache, system, none := filepath.Join(dir, "cache"), filepath.Join(dir, "system"), filepath.Join(dir, "none")
	write(t, filepath.Join(cache, base), good)
	write(t, filepath.Join(system, base), good)
	s := ortlib.Search{Path: flag, Env: env, Cache: cache, System: []string{none, system}}
	for _, want := range []ortlib.Library{
		{Path: flag, Origin: ortlib.FromFlag}, {Path: env, Origin: ortlib.FromEnv},
		{Path: filepath.Join(cache, base), Origin: ortlib.FromCache}, {Path: filepath.Join(system, base), Origin: ortlib.FromSystem},
	} {
		got, err := ortlib.Find(s)
		if err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
		switch want.Origin { // the next step's turn
		case ortlib.FromFlag:
			s.Path = ""
		case ortlib.FromEnv:
			s.Env = ""
		case ortlib.FromCache:
			s.Cache = none
		}
	}
	s.System = []string{none}
	_, err = ortlib.Find(s)
	unavailable(t, err, ortlib.Version, "leat doctor --fix", "make setup", "--onnxruntime")

	// What is named and missing is not replaced in silence by what the cache holds.
	_, err = ortlib.Find(ortlib.Search{Env: none, Cache: cache})
	unavailable(t, err, none, "LEAT_ONNXRUNTIME")

	// A byte in the middle of the cached library: refused, and said so.
	good[len(good)/2] ^= 1
	write(t, filepath.Join(cache, base), good)
	_, err = ortlib.Find(ortlib.Search{Cache: cache, System: []string{none}})
	unavailable(t, err, "damaged", "leat doctor --fix")

	// A library of another version in the system is passed over.
	other := filepath.Join(dir, "other")
	write(t, filepath.Join(other, strings.Replace(base, ortlib.Version, "1.19.2", 1)), nil)
	if err := os.Symlink(strings.Replace(base, ortlib.Version, "1.19.2", 1), filepath.Join(other, strings.Replace(base, "."+ortlib.Version, "", 1))); err != nil {
		t.Fatal(err)
	}
	_, err = ortlib.Find(ortlib.Search{Cache: none, System: []string{other}})
	unavailable(t, err, "not installed")
}

// TestOpen goes through what can be wrong before it opens the right one: a process opens one library only.
func TestOpen(t *testing.T) {
	lib := installed(t)
	good, err := os.ReadFile(lib.Path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err = ortlib.Open(ortlib.Search{Path: filepath.Join(dir, "none")})
	unavailable(t, err, "none", "--onnxruntime")
	_, err = ortlib.Open(ortlib.Search{Path: write(t, filepath.Join(dir, "text.so"), []byte("text"))})
	unavailable(t, err, "text.so", "is no ONNX Runtime", "leat doctor --fix")

	// The real library, but for the version that it reports.
	version := []byte(ortlib.Version + "\x00")
	if !bytes.Contains(good, version) {
		t.Fatal("the library does not hold its version as text")
	}
	other := bytes.ReplaceAll(good, version, []byte("1.27.9\x00"))
	_, err = ortlib.Open(ortlib.Search{Path: write(t, filepath.Join(dir, "other.so"), other)})
	unavailable(t, err, "other.so", "1.27.9", ortlib.Version, "leat doctor --fix")

	got, err := ortlib.Open(ortlib.Search{Env: lib.Path})
	if err != nil || got.Path != lib.Path {
		t.Fatalf("got %+v, %v", got, err)
	}
	again, err := ortlib.Open(ortlib.Search{Path: filepath.Join(dir, "none")})
	if err != nil || again != got {
		t.Errorf("opened again: %+v, %v", again, err)
	}
}

// TestFetch fetches in earnest into a new cache, twice: the second time nothing is left to do.
func TestFetch(t *testing.T) {
	s := ortlib.Search{Cache: filepath.Join(t.TempDir(), "a", "b"), System: []string{}}
	var lines []string
	path, err := ortlib.Fetch(t.Context(), s, func(l string) { lines = append(lines, l) })
	if err != nil {
		t.Fatal(err)
	}
	if l, err := ortlib.Find(s); err != nil || l.Path != path || l.Origin != ortlib.FromCache {
		t.Errorf("found %+v, %v", l, err)
	}
	left, err := os.ReadDir(s.Cache)
	if err != nil || len(left) != 1 {
		t.Errorf("the cache holds %v, %v", left, err)
	}
	if len(lines) < 2 {
		t.Errorf("progress %q", lines)
	}
	s.Python = "no-such-python"
	if again, err := ortlib.Fetch(t.Context(), s, nil); err != nil || again != path {
		t.Errorf("fetched again: %s, %v", again, err)
	}
}

// TestFetchFails: each way to fail is one line, and leaves nothing in the cache.
func TestFetchFails(t *testing.T) {
	dir := t.TempDir()
	script := func(name, body string) string {
		return write(t, filepath.Join(dir, name), []byte("#!/bin/sh\n"+body))
	}
	wheel := func(member string) string {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		w, err := z.Create(member)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, "not the library")
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		// pip runs with the folder that it downloads to as its working folder
		return fmt.Sprintf("cp %s onnxruntime.whl\n", write(t, filepath.Join(dir, strings.ReplaceAll(member, "/", "-")), b.Bytes()))
	}
	real := "onnxruntime/capi/" + filepath.Base(installed(t).Path)
	for _, c := range []struct{ name, python, word string }{
		{"no python", "no-such-python", "install python3 with pip"},
		{"pip fails", script("fails", "echo first >&2; echo 'ERROR: no network' >&2; exit 1\n"), "ERROR: no network"},
		{"pip leaves nothing", script("nothing", "exit 0\n"), "0 wheels"},
		{"a wheel that is none", script("none", "echo x > a.whl\n"), "cannot be read"},
		{"a wheel without the library", script("without", wheel("other/file")), "holds no"},
		{"another library", script("another", wheel(real)), "not the pinned"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := ortlib.Search{Cache: t.TempDir(), Python: c.python}
			_, err := ortlib.Fetch(t.Context(), s, nil)
			unavailable(t, err, c.word)
			if left, err := os.ReadDir(s.Cache); err != nil || len(left) != 0 {
				t.Errorf("the cache holds %v, %v", left, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ortlib.Fetch(ctx, ortlib.Search{Cache: t.TempDir()}, nil)
	unavailable(t, err)
}
