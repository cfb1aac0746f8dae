package registry_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/registry"
)

func tarOf(t testing.TB, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		content := h.Uname // carried here, and taken out again
		h.Uname = ""
		h.Mode = 0o644
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUploadsOfAllForms(t *testing.T) {
	kv, b := stores(t)
	r, ctx := open(t, kv, b, nil), t.Context()
	dir := t.TempDir()
	for n, c := range fraud {
		p := filepath.Join(dir, n)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(c), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	var packed, bare bytes.Buffer
	if err := registry.WriteTar(&packed, dir); err != nil {
		t.Fatal(err)
	}
	if err := registry.WriteTar(&bare, filepath.Join(dir, "model.onnx")); err != nil {
		t.Fatal(err)
	}
	want, _, err := r.Push(ctx, folder(fraud), scorers.Manifest{})
	if err != nil {
		t.Fatal(err)
	}
	wrapped := tarOf(t, tar.Header{Name: "fraud-1.0/", Typeflag: tar.TypeDir},
		tar.Header{Name: "fraud-1.0/model.yaml", Uname: fraud["model.yaml"]}, tar.Header{Name: "./fraud-1.0/model.onnx", Uname: "a b"},
		tar.Header{Name: "fraud-1.0/extra/data.bin", Uname: "xyz"}, tar.Header{Name: "fraud-1.0/._model.onnx", Uname: "mac"})
	for name, body := range map[string][]byte{"WriteTar": packed.Bytes(), "wrapped": wrapped} {
		v, created, err := r.PushBody(ctx, bytes.NewReader(body), scorers.Manifest{})
		if err != nil || created || v.Digest != want.Digest {
			t.Errorf("%s: %+v %v %v", name, v, created, err)
		}
	}
	flags := scorers.Manifest{Name: "alone", Description: "d", Labels: map[string]string{"l": "v"}}
	first, created, err := r.PushBody(ctx, strings.NewReader("a b"), flags)
	if err != nil || !created || first.Manifest.File != "model.onnx" || first.Manifest.Labels["l"] != "v" || first.Manifest.Description != "d" {
		t.Fatalf("%+v %v %v", first, created, err)
	}
	if v, created, err := r.PushBody(ctx, &bare, flags); err != nil || created || v.Digest != first.Digest {
		t.Fatalf("bare file in a tar: %+v %v %v", v, created, err)
	}
	flags.File = "other.onnx"
	if v, _, err := r.PushBody(ctx, strings.NewReader("a b"), flags); err != nil || v.Manifest.File != "other.onnx" {
		t.Fatalf("%+v %v", v, err)
	}
}

func TestNothingOfAnUploadIsLeftOnDisk(t *testing.T) {
	kv, b := stores(t)
	tmp := t.TempDir()
	r := open(t, kv, b, func(c *registry.Config) { c.TempDir = tmp })
	for _, body := range [][]byte{[]byte("a b"), tarOf(t, tar.Header{Name: "../x", Uname: "x"}), nil} {
		_, _, _ = r.PushBody(t.Context(), bytes.NewReader(body), scorers.Manifest{Name: "m"})
	}
	if es, err := os.ReadDir(tmp); err != nil || len(es) > 0 {
		t.Fatal(es, err)
	}
}

func TestWriteTarRefusesLinks(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "a.onnx"), []byte("a"), 0o644), os.Symlink("/etc/passwd", filepath.Join(dir, "b.onnx"))); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{dir, filepath.Join(dir, "b.onnx"), filepath.Join(dir, "none")} {
		if err := registry.WriteTar(io.Discard, f); schemas.KindOf(err) != schemas.Invalid || err == nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestSlowUploadEndsWithItsContext(t *testing.T) {
	kv, b := stores(t)
	r := open(t, kv, b, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	endless := readerFunc(func(p []byte) (int, error) { p[0] = 'a'; return 1, nil })
	if _, _, err := r.PushBody(ctx, endless, scorers.Manifest{Name: "m"}); schemas.KindOf(err) != schemas.Expired {
		t.Fatal(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
