package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// Open returns the package of a version after every byte of it was read and found to be what was pushed: each file
// against its SHA-256, files and manifest together against the version's digest. Without a cache folder the files are in
// memory; with one they lie there, and are verified again by each Open. Package.Files opens files, not folders.
func (r *Registry) Open(ctx context.Context, v scorers.Version) (scorers.Package, error) {
	const op = "registry.Open"
	rec, _, err := r.record(ctx, v.Name, v.Version)
	if err != nil {
		return scorers.Package{}, err
	}
	digest, err := digestOf(rec.Manifest, rec.Files)
	if err != nil {
		return scorers.Package{}, err
	}
	if digest != rec.Digest || v.Digest != "" && v.Digest != rec.Digest {
		return scorers.Package{}, schemas.Errorf(schemas.Internal, op, "model %s: the record does not match its digest; it was changed after the push", ref(rec.Version))
	}
	p := scorers.Package{Manifest: rec.Manifest}
	if r.c.CacheDir != "" {
		p.Files, err = r.cached(ctx, rec)
	} else {
		p.Files, err = r.inMemory(ctx, rec)
	}
	return p, err
}

func (r *Registry) inMemory(ctx context.Context, rec record) (fs.FS, error) {
	m := memory{}
	for _, f := range rec.Files {
		var b bytes.Buffer
		b.Grow(int(min(f.Size, r.c.MaxBytes)))
		if err := r.fetch(ctx, rec, f, &b); err != nil {
			return nil, err
		}
		m[f.Name] = b.Bytes()
	}
	return m, nil
}

// fetch copies a blob to w and verifies it on the way.
func (r *Registry) fetch(ctx context.Context, rec record, f file, w io.Writer) error {
	const op = "registry.Open"
	in, err := r.blobs.Get(ctx, f.Blob)
	if err != nil {
		if schemas.KindOf(err) == schemas.NotFound {
			return schemas.Errorf(schemas.Internal, op, "model %s: %s is missing from the store", ref(rec.Version), f.Name)
		}
		return err
	}
	defer in.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(ctxReader{ctx, in}, f.Size+1)); err != nil {
		return schemas.AsError(op, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return schemas.Errorf(schemas.Internal, op, "model %s: %s is not what was pushed (its digest differs); push it again", ref(rec.Version), f.Name)
	}
	return nil
}

// cached returns the version's files from the cache folder, filling it first if they are not there or not right. A
// folder appears under its digest by one rename, so that several processes may share the cache.
func (r *Registry) cached(ctx context.Context, rec record) (fs.FS, error) {
	const op = "registry.Open"
	dir := filepath.Join(r.c.CacheDir, rec.Digest)
	if c := folder(dir); c.verify(ctx, rec.Files) == nil {
		return c, nil
	}
	if err := os.MkdirAll(r.c.CacheDir, 0o700); err != nil {
		return nil, schemas.Errorf(schemas.Unavailable, op, "model cache: %w", err)
	}
	tmp, err := os.MkdirTemp(r.c.CacheDir, ".fill-")
	if err != nil {
		return nil, schemas.Errorf(schemas.Unavailable, op, "model cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	for _, f := range rec.Files {
		if err := r.fill(ctx, tmp, rec, f); err != nil {
			return nil, err
		}
	}
	for range 2 {
		if err = os.Rename(tmp, dir); err == nil {
			return folder(dir), nil
		}
		// Somebody filled it meanwhile, or what lies there is not right.
		if c := folder(dir); c.verify(ctx, rec.Files) == nil {
			return c, nil
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, schemas.Errorf(schemas.Unavailable, op, "model cache: %w", err)
		}
	}
	return nil, schemas.Errorf(schemas.Unavailable, op, "model cache: %w", err)
}

func (r *Registry) fill(ctx context.Context, dir string, rec record, f file) error {
	const op = "registry.Open"
	if err := checkFileName(f.Name); err != nil { // the digest vouches for the record; this for whoever made it
		return schemas.Errorf(schemas.Internal, op, "%w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, op, "model cache: %w", err)
	}
	defer root.Close()
	if err := root.MkdirAll(path.Dir(f.Name), 0o700); err != nil {
		return schemas.Errorf(schemas.Unavailable, op, "model cache: %w", err)
	}
	out, err := root.OpenFile(f.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, op, "model cache: %w", err)
	}
	err = r.fetch(ctx, rec, f, out)
	return errors.Join(err, out.Close())
}

// folder is a package on disk. Each Open goes through os.Root, so that a link in it leads nowhere else.
type folder string

func (d folder) Open(name string) (fs.File, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, err
	}
	defer root.Close() // an opened file outlives it
	return root.FS().Open(name)
}

func (d folder) verify(ctx context.Context, files []file) error {
	for _, f := range files {
		in, err := d.Open(f.Name)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, ctxReader{ctx, in})
		_ = in.Close() // only read
		if err != nil {
			return err
		}
		if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
			return schemas.Errorf(schemas.Internal, "registry.verify", "%s differs", f.Name)
		}
	}
	return nil
}

// memory is a package in memory: file name to content, read only.
type memory map[string][]byte

func (m memory) Open(name string) (fs.File, error) {
	b, ok := m[name]
	if !ok || !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memoryFile{Reader: bytes.NewReader(b), name: path.Base(name)}, nil
}

type memoryFile struct {
	*bytes.Reader
	name string
}

func (f *memoryFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *memoryFile) Close() error               { return nil }
func (f *memoryFile) Name() string               { return f.name }
func (f *memoryFile) Mode() fs.FileMode          { return 0o400 }
func (f *memoryFile) ModTime() time.Time         { return time.Time{} }
func (f *memoryFile) IsDir() bool                { return false }
func (f *memoryFile) Sys() any                   { return nil }
