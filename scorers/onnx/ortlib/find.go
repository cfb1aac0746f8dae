package ortlib

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// Search says where the library may lie. The zero Search looks into the user's cache and the system.
type Search struct {
	Path   string   // value of --onnxruntime: a file; nothing else is looked at
	Env    string   // value of LEAT_ONNXRUNTIME: a file; nothing else is looked at, unless Path is set
	Cache  string   // folder; "": leat/onnxruntime/<version> below the user's cache folder
	System []string // folders; nil: the usual ones of this system
	Python string   // program that Fetch runs; "": python3
}

// Origin says which step of the search found a library.
type Origin string

// The steps, in order.
const (
	FromFlag   Origin = "--onnxruntime"
	FromEnv    Origin = "LEAT_ONNXRUNTIME"
	FromCache  Origin = "cache"
	FromSystem Origin = "system"
)

// Library is a library that was found. Its version is known for sure only once it is open.
type Library struct {
	Path   string
	Origin Origin
}

// remedy ends every error of this package.
const remedy = "run `leat doctor --fix` (or `make setup`), or name a libonnxruntime " + Version + " with --onnxruntime"

// CacheDir returns the folder that Fetch writes to.
func (s Search) CacheDir() (string, error) {
	if s.Cache != "" {
		return s.Cache, nil
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", schemas.Errorf(schemas.Unavailable, "ortlib.CacheDir", "no cache folder for this user (%v): name a libonnxruntime %s with --onnxruntime", err, Version)
	}
	return filepath.Join(d, "leat", "onnxruntime", Version), nil
}

// Find returns the first library in the order flag, environment, cache, system. A file in the cache is taken only if its
// SHA-256 is the pinned one: it is read whole, once a process (24 MB, about 20 ms with SHA instructions), because a stamp
// of size and time would not see a damaged block. Unavailable, in one line that says what to run, if there is none.
func Find(s Search) (Library, error) {
	const op = "ortlib.Find"
	for _, named := range []Library{{s.Path, FromFlag}, {s.Env, FromEnv}} {
		if named.Path == "" {
			continue
		}
		if fi, err := os.Stat(named.Path); err != nil || !fi.Mode().IsRegular() {
			return Library{}, schemas.Errorf(schemas.Unavailable, op, "no ONNX Runtime library at %s (from %s): %s", named.Path, named.Origin, remedy)
		}
		return named, nil
	}
	bad := ""
	if p, ok := pinned(); ok {
		if dir, err := s.CacheDir(); err == nil {
			path := filepath.Join(dir, p.file)
			switch sum, err := digest(path); {
			case err == nil && sum == p.sha256:
				return Library{path, FromCache}, nil
			case err == nil:
				bad = path
			}
		}
	}
	if path := s.inSystem(); path != "" {
		return Library{path, FromSystem}, nil
	}
	if bad != "" {
		return Library{}, schemas.Errorf(schemas.Unavailable, op, "the ONNX Runtime library in the cache (%s) is damaged: %s", bad, remedy)
	}
	return Library{}, schemas.Errorf(schemas.Unavailable, op, "ONNX Runtime %s is not installed, and models of type onnx need it: %s", Version, remedy)
}

// inSystem returns a library in a system folder whose name, after links, does not speak of another version.
func (s Search) inSystem() string {
	dirs := s.System
	if dirs == nil {
		dirs = systemDirs()
	}
	names := []string{"libonnxruntime.so." + Version, "libonnxruntime.so.1", "libonnxruntime.so"}
	if runtime.GOOS == "darwin" {
		names = []string{"libonnxruntime." + Version + ".dylib", "libonnxruntime.1.dylib", "libonnxruntime.dylib"}
	}
	for _, d := range dirs {
		for _, n := range names {
			path, err := filepath.EvalSymlinks(filepath.Join(d, n))
			if err != nil {
				continue
			}
			base := strings.TrimSuffix(filepath.Base(path), ".dylib")
			if strings.Contains(base, Version) || !strings.ContainsAny(strings.TrimSuffix(base, ".so"), "0123456789") || strings.HasSuffix(base, ".so.1") {
				return path
			}
		}
	}
	return ""
}

func systemDirs() []string {
	if runtime.GOOS == "darwin" {
		return []string{"/opt/homebrew/lib", "/usr/local/lib", "/usr/lib"}
	}
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	return []string{"/usr/local/lib", "/usr/local/lib64", "/usr/lib/" + triplet, "/usr/lib64", "/usr/lib", "/lib/" + triplet, "/lib64", "/lib", "/opt/onnxruntime/lib"}
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
