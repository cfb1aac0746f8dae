package nats

import (
	"io/fs"
	"path/filepath"
	"syscall"
)

// diskShare returns 80 % of what the disk has for dir: what is free, and what dir itself holds.
func diskShare(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	n := int64(st.Bavail) * int64(st.Bsize)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // a file that vanished meanwhile does not matter
		}
		if i, err := d.Info(); err == nil {
			n += i.Size()
		}
		return nil
	})
	return n / 10 * 8, err
}
