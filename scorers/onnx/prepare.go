package onnx

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
)

// Prepare puts external data inside the file and removes ZipMap. If there was nothing to do, p itself comes back; else
// a package of the one edited file. It needs no library. Errors are Invalid, naming the file.
func (l *Loader) Prepare(ctx context.Context, p scorers.Package) (scorers.Package, error) {
	const op = "onnx.Prepare"
	if err := ctx.Err(); err != nil {
		return scorers.Package{}, schemas.AsError(op, err)
	}
	was, err := readModel(p)
	if err != nil {
		return scorers.Package{}, err
	}
	if _, err := onnxfile.Parse(was); err != nil {
		return scorers.Package{}, err
	}
	used := map[string]int64{}
	now, err := onnxfile.Inline(was, func(e onnxfile.External) ([]byte, error) {
		return readExternal(p.Files, path.Dir(p.Manifest.File), e, used)
	})
	if err != nil {
		return scorers.Package{}, err
	}
	if now, err = onnxfile.WithoutZipMap(now); err != nil {
		return scorers.Package{}, err
	}
	if len(now) == len(was) && bytes.Equal(now, was) {
		return p, nil
	}
	out := p
	out.Manifest.File = path.Base(p.Manifest.File)
	out.Files = oneFile{name: out.Manifest.File, data: now}
	return out, nil
}

// readModel reads the model's file, up to the size that protobuf can hold.
func readModel(p scorers.Package) ([]byte, error) {
	const op = "onnx.Load"
	f, size, err := openRegular(p.Files, p.Manifest.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > onnxfile.MaxBytes {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, p.Manifest.File, "%d bytes: models of 2 GiB and more are not taken", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, p.Manifest.File, "reading the model: %w", err)
	}
	return b, nil
}

// readExternal reads a tensor's data from a file of the package. The location is relative to the model's folder. used counts
// what was taken from each file: tensors may share bytes (tied weights), but not so that a small file grows to gigabytes.
func readExternal(files fs.FS, dir string, e onnxfile.External, used map[string]int64) ([]byte, error) {
	const op = "onnx.Prepare"
	if !fs.ValidPath(e.Location) || e.Location == "." || bytes.ContainsAny([]byte(e.Location), "\\\x00") {
		return nil, schemas.Errorf(schemas.Invalid, op, "the model refers to external data at %q: only files inside the package are read, without \"..\" and not absolute", e.Location)
	}
	f, size, err := openRegular(files, path.Join(dir, e.Location))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if e.Offset > size || e.Length > size-e.Offset {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, e.Location, "external data ends at byte %d: the model asks for %d bytes from %d on", size, e.Length, e.Offset)
	}
	if used[e.Location] += e.Length; used[e.Location] > 4*size {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, e.Location, "the model takes more than four times the file's bytes from it: tensors overlap")
	}
	b := make([]byte, e.Length)
	if r, ok := f.(io.ReaderAt); ok {
		if n, err := r.ReadAt(b, e.Offset); n < len(b) {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, e.Location, "reading external data: %w", err)
		}
		return b, nil
	}
	if _, err := io.CopyN(io.Discard, f, e.Offset); err != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, e.Location, "reading external data: %w", err)
	}
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, e.Location, "reading external data: %w", err)
	}
	return b, nil
}

// openRegular opens a file of the package. A link is refused although os.Root would keep it inside: a hard link can name
// any file of the disk, and neither belongs into a package.
func openRegular(files fs.FS, name string) (fs.File, int64, error) {
	const op = "onnx.Load"
	if !fs.ValidPath(name) || name == "." {
		return nil, 0, schemas.FieldErrorf(schemas.Invalid, op, "file", "%q: want a path inside the package", name)
	}
	if fi, err := fs.Lstat(files, name); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		return nil, 0, schemas.FieldErrorf(schemas.Invalid, op, name, "a symbolic link: put the file itself into the package")
	}
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, schemas.FieldErrorf(schemas.Invalid, op, name, "no such file in the package")
	}
	if err != nil {
		return nil, 0, schemas.FieldErrorf(schemas.Invalid, op, name, "opening it: %w", err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil && links(fi) > 1 {
		err = errors.New("a hard link: put a copy of the file into the package")
	}
	if err != nil {
		f.Close()
		return nil, 0, schemas.FieldErrorf(schemas.Invalid, op, name, "%w", err)
	}
	return f, fi.Size(), nil
}
