package child

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// pack makes a tar of the files of a folder.
func pack(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: e.Name(), Mode: 0o644, Size: int64(len(b))})
		}
		if err == nil {
			_, err = w.Write(b)
		}
		if err != nil {
			return nil, fmt.Errorf("child: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	return out.Bytes(), nil
}
