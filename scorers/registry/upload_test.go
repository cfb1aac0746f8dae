package registry

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// sealed gives each block of b that looks like a header the checksum that tar wants, or hardly an input of the fuzzer
// would be read past its first header.
func sealed(b []byte) []byte {
	const block, sum, magic = 512, 148, 257
	b = bytes.Clone(b)
	for h := range slices.Chunk(b, block) {
		if len(h) < block || !bytes.HasPrefix(h[magic:], tarMagic) {
			continue
		}
		copy(h[sum:], "        ")
		n := 0
		for _, c := range h {
			n += int(c)
		}
		copy(h[sum:], fmt.Sprintf("%06o\x00 ", n))
	}
	return b
}

// FuzzReceive: whatever the bytes, nothing is written outside the spool's folder, nothing in it is a link, and the
// bounds hold.
func FuzzReceive(f *testing.F) {
	add := func(hs ...*tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range hs {
			if err := w.WriteHeader(h); err != nil {
				f.Fatal(err)
			}
			if h.Size > 0 {
				_, _ = w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
			}
		}
		_ = w.Close()
		f.Add(b.Bytes())
	}
	add(&tar.Header{Name: "a/m.onnx", Typeflag: tar.TypeReg, Size: 10, Mode: 0o644})
	add(&tar.Header{Name: "../m.onnx", Typeflag: tar.TypeReg, Size: 10}, &tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"})
	add(&tar.Header{Name: "a", Typeflag: tar.TypeDir}, &tar.Header{Name: strings.Repeat("d/", 200) + "x", Typeflag: tar.TypeReg, Size: 600, Format: tar.FormatPAX})
	add(&tar.Header{Name: "s", Typeflag: tar.TypeReg, Size: 3, PAXRecords: map[string]string{"LEAT.x": "y"}})
	f.Add([]byte("not a tar"))
	outer := f.TempDir() // left as it was by each run
	inner := filepath.Join(outer, "in")
	if err := os.Mkdir(inner, 0o700); err != nil {
		f.Fatal(err)
	}
	r := &Registry{c: Config{MaxBytes: 4096, MaxFiles: 4, TempDir: inner}}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := r.receive(t.Context(), bytes.NewReader(sealed(b)), "m.onnx")
		if err != nil {
			if schemas.KindOf(err) != schemas.Invalid {
				t.Fatalf("not Invalid: %v", err)
			}
		} else {
			var size int64
			_ = fs.WalkDir(s.files, ".", func(name string, d fs.DirEntry, err error) error {
				if err != nil {
					t.Fatal(err)
				}
				info, err := d.Info()
				if err != nil {
					t.Fatal(err)
				}
				if !d.IsDir() && !info.Mode().IsRegular() {
					t.Fatalf("%s is %v", name, info.Mode())
				}
				if !d.IsDir() {
					size += info.Size()
					if err := checkFileName(name); err != nil {
						t.Fatalf("written: %v", err)
					}
				}
				return nil
			})
			if size > 4096 {
				t.Fatalf("%d bytes written", size)
			}
			s.close()
		}
		if es, err := os.ReadDir(outer); err != nil || len(es) != 1 {
			t.Fatalf("written outside: %v %v", es, err)
		}
		if es, err := os.ReadDir(inner); err != nil || len(es) != 0 {
			t.Fatalf("left behind: %v %v", es, err)
		}
	})
}
