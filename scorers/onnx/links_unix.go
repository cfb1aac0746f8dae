//go:build unix

package onnx

import (
	"io/fs"
	"syscall"
)

// links returns the number of names that a file has; 1 if its file system does not say.
func links(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}
