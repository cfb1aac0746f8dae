package ortlib

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// maxLibrary bounds what is unpacked from a wheel: the largest of the three pinned libraries is 36 MB.
const maxLibrary = 128 << 20

// Fetch brings the pinned library into the cache and returns its path; one that is there and whole is left alone. It runs
// pip in a temporary folder, unpacks the shared library alone, checks its SHA-256, syncs it and renames it into place, so
// that a crash or a second Fetch beside it leaves either nothing or the whole file. progress, which may be nil, is
// called with short lines for a person. Errors are Unavailable and say what is missing.
func Fetch(ctx context.Context, s Search, progress func(line string)) (string, error) {
	const op = "ortlib.Fetch"
	if progress == nil {
		progress = func(string) {}
	}
	p, ok := pinned()
	if !ok {
		return "", schemas.Errorf(schemas.Unavailable, op, "no pinned ONNX Runtime for %s/%s: name a libonnxruntime %s with --onnxruntime", runtime.GOOS, runtime.GOARCH, Version)
	}
	dir, err := s.CacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, p.file)
	if sum, err := digest(path); err == nil && sum == p.sha256 {
		progress("ONNX Runtime " + Version + " is in the cache: " + path)
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", schemas.Errorf(schemas.Unavailable, op, "cache folder: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, ".fetch-")
	if err != nil {
		return "", schemas.Errorf(schemas.Unavailable, op, "cache folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	progress("fetching ONNX Runtime " + Version + " with pip (about 20 MB)")
	wheel, err := download(ctx, s, p, tmp)
	if err != nil {
		return "", err
	}
	progress("checking its SHA-256")
	whole := filepath.Join(tmp, p.file)
	if err := unpack(wheel, p, whole); err != nil {
		return "", err
	}
	if err := os.Rename(whole, path); err != nil {
		return "", schemas.Errorf(schemas.Unavailable, op, "cache folder: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return "", schemas.Errorf(schemas.Unavailable, op, "cache folder: %w", err)
	}
	progress("ONNX Runtime " + Version + " is ready: " + path)
	return path, nil
}

// Ensure is Find, and Fetch if that found nothing.
func Ensure(ctx context.Context, s Search, progress func(line string)) (Library, error) {
	l, err := Find(s)
	if err == nil || s.Path != "" || s.Env != "" {
		return l, err
	}
	path, err := Fetch(ctx, s, progress)
	return Library{path, FromCache}, err
}

// download has pip put the wheel of the platform into dir and returns its path.
func download(ctx context.Context, s Search, p pin, dir string) (string, error) {
	const op = "ortlib.Fetch"
	python := s.Python
	if python == "" {
		python = "python3"
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--only-binary=:all:",
		"--python-version", "3.11", "--platform", p.platform, "--dest", dir, "onnxruntime=="+Version)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", schemas.AsError(op, context.Cause(ctx))
		}
		if errors.Is(err, exec.ErrNotFound) {
			return "", schemas.Errorf(schemas.Unavailable, op, "%s is not installed, and pip fetches ONNX Runtime: install python3 with pip, or name a libonnxruntime %s with --onnxruntime", python, Version)
		}
		return "", schemas.Errorf(schemas.Unavailable, op, "pip could not fetch onnxruntime==%s (%s): check that `%s -m pip` works and reaches its package index, or name a libonnxruntime %s with --onnxruntime", Version, lastLine(out.String(), err), python, Version)
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", schemas.Errorf(schemas.Unavailable, op, "pip left %d wheels, want one: name a libonnxruntime %s with --onnxruntime", len(wheels), Version)
	}
	return wheels[0], nil
}

// unpack writes the library out of the wheel to path, synced, if its digest is the pinned one.
func unpack(wheel string, p pin, path string) error {
	const op = "ortlib.Fetch"
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, op, "the wheel that pip fetched cannot be read (%w): run it again", err)
	}
	defer z.Close()
	for _, m := range z.File {
		if m.Name != p.member {
			continue
		}
		r, err := m.Open()
		if err != nil {
			return schemas.Errorf(schemas.Unavailable, op, "the wheel that pip fetched cannot be read (%w): run it again", err)
		}
		defer r.Close()
		return write(io.LimitReader(r, maxLibrary), p.sha256, path)
	}
	return schemas.Errorf(schemas.Unavailable, op, "the wheel that pip fetched holds no %s: name a libonnxruntime %s with --onnxruntime", p.member, Version)
}

func write(r io.Reader, want, path string) error {
	const op = "ortlib.Fetch"
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, op, "cache folder: %w", err)
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, op, "cache folder: %w", err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != want {
		return schemas.Errorf(schemas.Unavailable, op, "the library that pip fetched has SHA-256 %s and not the pinned %s: it was not kept", sum, want)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lastLine returns what a failed program said at its end: pip's reason.
func lastLine(out string, err error) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if l := strings.TrimSpace(lines[len(lines)-1]); l != "" {
		return l
	}
	return err.Error()
}
