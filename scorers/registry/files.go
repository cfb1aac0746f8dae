package registry

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/leatstream/leat/schemas"
)

const (
	maxFileName = 255
	maxDepth    = 8
)

// checkFileName takes relative slash paths of plain names: no "..", no absolute path, no backslash, no control
// character, nothing hidden.
func checkFileName(name string) error {
	bad := !fs.ValidPath(name) || name == "." || len(name) > maxFileName || !utf8.ValidString(name) ||
		strings.ContainsAny(name, `\:*?"<>|`) || strings.Count(name, "/") >= maxDepth
	for _, r := range name {
		bad = bad || r < 0x20 || r == 0x7f
	}
	if bad || hidden(name) {
		return fmt.Errorf("file name %.80q: want a relative path of plain names, at most %d deep and %d bytes, without '..', backslash or leading dots", name, maxDepth, maxFileName)
	}
	return nil
}

// hidden tells files that tools leave behind and no model needs: .git, .DS_Store, ._model.onnx.
func hidden(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." && part != ".." {
			return true
		}
	}
	return false
}

// list returns the files of a package, sorted, checked for names, kinds, number and size. Hidden ones are left out.
func (r *Registry) list(files fs.FS) (names []string, size int64, err error) {
	const op = "registry.Push"
	folded := map[string]string{}
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case hidden(name) && d.IsDir():
			return fs.SkipDir
		case hidden(name):
			return nil
		}
		if err := checkFileName(name); err != nil {
			return schemas.Errorf(schemas.Invalid, op, "%w", err)
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return schemas.Errorf(schemas.Invalid, op, "%s is no regular file (%s): links and devices are not taken", name, info.Mode().Type())
		}
		if other, dup := folded[strings.ToLower(name)]; dup {
			return schemas.Errorf(schemas.Invalid, op, "files %q and %q differ in case only", other, name)
		}
		folded[strings.ToLower(name)] = name
		names = append(names, name)
		if size += info.Size(); size > r.c.MaxBytes {
			return r.tooLarge()
		}
		if len(names) > r.c.MaxFiles {
			return r.tooMany()
		}
		return nil
	})
	if err != nil {
		return nil, 0, asInvalid(op, err)
	}
	slices.Sort(names)
	return names, size, nil
}

func (r *Registry) tooLarge() error {
	return schemas.Errorf(schemas.Invalid, "registry.Push", "the model's files are larger than %d bytes together (max_bytes)", r.c.MaxBytes)
}

func (r *Registry) tooMany() error {
	return schemas.Errorf(schemas.Invalid, "registry.Push", "more than %d files in the model (max_files)", r.c.MaxFiles)
}

// asInvalid keeps an error that has a kind or is a context's; a full disk is ours; what else the file system says of the
// pusher's files is the pusher's to mend.
func asInvalid(op string, err error) error {
	var e *schemas.Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return schemas.AsError(op, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return schemas.Errorf(schemas.Unavailable, op, "no room for the upload: %w", err)
	}
	return schemas.Errorf(schemas.Invalid, op, "%w", err)
}

// spool is an upload on disk, in a folder of its own.
type spool struct {
	dir   string
	root  *os.Root
	files fs.FS
}

func (s *spool) close() {
	_ = s.root.Close()
	_ = os.RemoveAll(s.dir) // a temporary folder; what is left of it the system clears
}

func (r *Registry) newSpool() (*spool, error) {
	dir, err := os.MkdirTemp(r.c.TempDir, "leat-push-")
	if err != nil {
		return nil, schemas.Errorf(schemas.Unavailable, "registry.Push", "no room for the upload: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, schemas.Errorf(schemas.Unavailable, "registry.Push", "%w", err)
	}
	return &spool{dir: dir, root: root, files: root.FS()}, nil
}

// tarMagic is at byte 257 of every header that tar has written since 1988.
var tarMagic = []byte("ustar")

// receive writes an upload to disk: a tar, told by its first header, else one bare file of the given name.
func (r *Registry) receive(ctx context.Context, body io.Reader, bare string) (*spool, error) {
	s, err := r.newSpool()
	if err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(ctxReader{ctx, body}, 1<<16)
	first, err := in.Peek(512)
	switch {
	case len(first) == 0:
		if err == io.EOF {
			err = schemas.Errorf(schemas.Invalid, "registry.Push", "the body is empty; want a tar of the model's folder, or one model file")
		}
	case len(first) == 512 && bytes.Equal(first[257:257+len(tarMagic)], tarMagic):
		err = r.untar(s, in)
	default:
		err = r.bareFile(s, in, bare)
	}
	if err != nil {
		s.close()
		return nil, asInvalid("registry.Push", err)
	}
	return s, nil
}

func (r *Registry) bareFile(s *spool, in io.Reader, name string) error {
	if name == "" {
		name = "model.onnx"
	}
	if strings.Contains(name, "/") {
		name = path.Base(name)
	}
	if err := checkFileName(name); err != nil {
		return schemas.FieldErrorf(schemas.Invalid, "registry.Push", "file", "%w", err)
	}
	_, err := r.writeFile(s, name, in, r.c.MaxBytes)
	return err
}

// untar takes regular files and folders and nothing else. Names are checked before anything is made, the bytes are
// counted as they are written (a header's size is only a claim), and every write goes through os.Root.
func (r *Registry) untar(s *spool, in io.Reader) error {
	const op = "registry.Push"
	t := tar.NewReader(in)
	left, count := r.c.MaxBytes, 0
	seen := map[string]bool{}
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return schemas.Errorf(schemas.Invalid, op, "tar: %w", err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeDir, tar.TypeReg:
		default:
			return schemas.Errorf(schemas.Invalid, op, "tar: %.80q is neither file nor folder (type %q): links and devices are not taken", h.Name, h.Typeflag)
		}
		if h.Typeflag == tar.TypeDir && (name == "" || name == ".") {
			continue
		}
		if count++; count > 4*r.c.MaxFiles { // hidden files and folders cost too
			return r.tooMany()
		}
		if hidden(name) && fs.ValidPath(name) && !strings.Contains(name, `\`) {
			continue
		}
		if err := checkFileName(name); err != nil {
			return schemas.Errorf(schemas.Invalid, op, "tar: %w", err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if seen[strings.ToLower(name)] {
			return schemas.Errorf(schemas.Invalid, op, "tar: %q is in it twice, or in two cases", name)
		}
		seen[strings.ToLower(name)] = true
		n, err := r.writeFile(s, name, t, left)
		if err != nil {
			return err
		}
		left -= n
	}
	return s.enter()
}

// enter goes into the one folder that some tars wrap everything in.
func (s *spool) enter() error {
	entries, err := fs.ReadDir(s.files, ".")
	if err != nil {
		return err
	}
	if len(entries) == 1 && entries[0].IsDir() {
		s.files, err = fs.Sub(s.files, entries[0].Name())
	}
	return err
}

func (r *Registry) writeFile(s *spool, name string, in io.Reader, left int64) (int64, error) {
	const op = "registry.Push"
	if dir := path.Dir(name); dir != "." {
		if err := s.root.MkdirAll(dir, 0o700); err != nil {
			return 0, schemas.Errorf(schemas.Invalid, op, "%w", err)
		}
	}
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, schemas.Errorf(schemas.Invalid, op, "%w", err)
	}
	n, err := io.Copy(f, io.LimitReader(in, left+1))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return n, fmt.Errorf("%s: %w", name, err)
	}
	if n > left {
		return n, r.tooLarge()
	}
	return n, nil
}

// ctxReader ends a slow upload with its context, between reads.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// WriteTar writes a model for upload: a folder, without hidden files, or one bare file under its own name. Links are
// refused: what a link points at may not be what its owner means to send.
func WriteTar(w io.Writer, file string) error {
	const op = "registry.WriteTar"
	info, err := os.Lstat(file)
	if err != nil {
		return schemas.Errorf(schemas.Invalid, op, "%w", err)
	}
	dir, only := file, ""
	if !info.IsDir() {
		dir, only = path.Split(strings.ReplaceAll(file, string(os.PathSeparator), "/"))
		if dir == "" {
			dir = "."
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return schemas.Errorf(schemas.Invalid, op, "%w", err)
	}
	defer root.Close()
	names := []string{only}
	if only == "" {
		big := Registry{c: Config{MaxBytes: 1 << 62, MaxFiles: 10_000}} // the server knows its limits
		if names, _, err = big.list(root.FS()); err != nil {
			return err
		}
	}
	t := tar.NewWriter(w)
	for _, name := range names {
		if err := tarFile(t, root, name); err != nil {
			return asInvalid(op, err)
		}
	}
	return t.Close()
}

func tarFile(t *tar.Writer, root *os.Root, name string) error {
	if err := checkFileName(name); err != nil {
		return err
	}
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file: links and devices are not taken", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size(), Format: tar.FormatPAX}); err != nil {
		return err
	}
	n, err := io.Copy(t, io.LimitReader(f, info.Size()))
	if err == nil && n < info.Size() {
		err = fmt.Errorf("%s became shorter while it was read", name)
	}
	return err
}
