package onnx

import (
	"bytes"
	"io"
	"io/fs"
	"time"
)

// oneFile is a read-only file system of one file in its root: what Prepare hands on. Times and permissions are fixed, so
// that nothing but name and content can tell two of them apart.
type oneFile struct {
	name string
	data []byte
}

var (
	_ fs.ReadDirFS  = oneFile{}
	_ fs.ReadFileFS = oneFile{}
)

// Open opens the file or the root.
func (o oneFile) Open(name string) (fs.File, error) {
	switch name {
	case o.name:
		return &openFile{o, bytes.NewReader(o.data)}, nil
	case ".":
		return &openRoot{o: o}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadFile returns a copy of the content.
func (o oneFile) ReadFile(name string) ([]byte, error) {
	if name != o.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return bytes.Clone(o.data), nil
}

// ReadDir lists the root.
func (o oneFile) ReadDir(name string) ([]fs.DirEntry, error) {
	if name != "." {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []fs.DirEntry{fs.FileInfoToDirEntry(info{o.name, int64(len(o.data)), 0o444})}, nil
}

type openFile struct {
	o oneFile
	*bytes.Reader
}

func (f *openFile) Stat() (fs.FileInfo, error) {
	return info{f.o.name, int64(len(f.o.data)), 0o444}, nil
}
func (f *openFile) Close() error { return nil }

type openRoot struct {
	o    oneFile
	done bool
}

func (r *openRoot) Stat() (fs.FileInfo, error) { return info{".", 0, fs.ModeDir | 0o555}, nil }
func (r *openRoot) Close() error               { return nil }
func (r *openRoot) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: ".", Err: fs.ErrInvalid}
}
func (r *openRoot) ReadDir(n int) ([]fs.DirEntry, error) {
	switch {
	case r.done && n > 0:
		return nil, io.EOF
	case r.done:
		return nil, nil
	}
	r.done = true
	return r.o.ReadDir(".")
}

type info struct {
	name string
	size int64
	mode fs.FileMode
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
