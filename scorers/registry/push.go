package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/scorers"
)

// upload is written before the first blob of a push and removed after its version stands, so that what a crash leaves
// behind is found: see Sweep.
type upload struct {
	Name    string    `json:"name"`
	Started time.Time `json:"started"`
	Files   []file    `json:"files"`
}

// PushBody is Push of an upload: a tar of the model's folder (see WriteTar), or one bare model file, whose name
// flags.File gives ("model.onnx" if absent).
func (r *Registry) PushBody(ctx context.Context, body io.Reader, flags scorers.Manifest) (scorers.Version, bool, error) {
	s, err := r.receive(ctx, body, flags.File)
	if err != nil {
		return scorers.Version{}, false, err
	}
	defer s.close()
	return r.Push(ctx, s.files, flags)
}

// Push checks, prepares and probes the model in files, and stores it as the next version of its name. flags are laid
// over its model.yaml, or make one. What is there already under the same digest is returned with created false. The
// errors are Invalid for what is wrong with the model, Unavailable for a store or a runtime that cannot be reached.
func (r *Registry) Push(ctx context.Context, files fs.FS, flags scorers.Manifest) (v scorers.Version, created bool, err error) {
	names, _, err := r.list(files)
	if err != nil {
		return v, false, err
	}
	m, _, err := r.manifest(files, names, flags)
	if err != nil {
		return v, false, err
	}
	l := r.loaders[m.Runtime]
	p, err := l.Prepare(ctx, scorers.Package{Manifest: m, Files: files})
	if err != nil {
		return v, false, err
	}
	probed, err := l.Probe(ctx, p)
	if err != nil {
		return v, false, err
	}
	if probed.Signature.Inputs == nil || probed.Signature.Outputs == nil {
		return v, false, schemas.Errorf(schemas.Internal, "registry.Push", "the loader of %s gave no signature", m.Runtime)
	}
	if err := checkAnnotations(p.Manifest, probed.Signature); err != nil {
		return v, false, err
	}
	if names, _, err = r.list(p.Files); err != nil { // what was prepared is what is kept
		return v, false, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == ManifestFile })
	rec := record{Version: scorers.Version{Name: m.Name, Manifest: p.Manifest, Probed: probed}}
	if rec.Files, rec.Size, err = r.measure(ctx, p.Files, names); err != nil {
		return v, false, err
	}
	if rec.Digest, err = digestOf(p.Manifest, rec.Files); err != nil {
		return v, false, err
	}
	if v, ok, err := r.byDigest(ctx, m.Name, rec.Digest); ok || err != nil {
		return v, false, err
	}
	return r.store(ctx, rec, p.Files)
}

// measure sums and digests files.
func (r *Registry) measure(ctx context.Context, files fs.FS, names []string) ([]file, int64, error) {
	out := make([]file, 0, len(names))
	var size int64
	for _, name := range names {
		f, err := files.Open(name)
		if err != nil {
			return nil, 0, asInvalid("registry.Push", err)
		}
		h := sha256.New()
		n, err := io.Copy(h, ctxReader{ctx, f})
		_ = f.Close() // only read
		if err != nil {
			return nil, 0, asInvalid("registry.Push", err)
		}
		size += n
		out = append(out, file{Name: name, Size: n, SHA256: hex.EncodeToString(h.Sum(nil))})
	}
	return out, size, nil
}

// digestOf is hex SHA-256 over name and SHA-256 of each file, sorted by name, and then the manifest's RFC 8785 JSON;
// each part preceded by its length (u32 little-endian).
func digestOf(m scorers.Manifest, files []file) (string, error) {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b file) int { return strings.Compare(a.Name, b.Name) })
	canon, err := document.Canonical(m)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	part := func(b []byte) {
		_, _ = h.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(b)))) // a hash takes everything
		_, _ = h.Write(b)
	}
	for _, f := range sorted {
		sum, err := hex.DecodeString(f.SHA256)
		if err != nil {
			return "", schemas.Errorf(schemas.Internal, "registry.digestOf", "%w", err)
		}
		part([]byte(f.Name))
		part(sum)
	}
	part(canon)
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (r *Registry) byDigest(ctx context.Context, name, digest string) (scorers.Version, bool, error) {
	live, _, err := r.history(ctx, name)
	if err != nil {
		return scorers.Version{}, false, err
	}
	for _, rec := range live {
		if rec.Digest == digest {
			return rec.Version, true, nil
		}
	}
	return scorers.Version{}, false, nil
}

// store writes the blobs and then the record. The blobs belong to this push alone: no other version shares them, so
// that deleting a version can never take a file from another one.
func (r *Registry) store(ctx context.Context, rec record, files fs.FS) (v scorers.Version, created bool, err error) {
	// Sweep must not take the files of a push that is still going on.
	ctx, cancel := context.WithTimeout(ctx, r.c.Stale/2)
	defer cancel()
	id := rand.Text()
	for i := range rec.Files {
		rec.Files[i].Blob = fmt.Sprintf("%s-%s-%d", rec.Digest, id, i)
	}
	rec.Created = time.Now().UTC()
	intent, err := json.Marshal(upload{Name: rec.Name, Started: rec.Created, Files: rec.Files})
	if err != nil {
		return v, false, schemas.Errorf(schemas.Internal, "registry.Push", "%w", err)
	}
	if _, err := r.kv.Create(ctx, uploadPrefix+id, intent); err != nil {
		return v, false, err
	}
	for _, f := range rec.Files {
		if err := r.putBlob(ctx, files, f); err != nil {
			return v, false, err // Sweep clears what was written
		}
	}
	v, created, err = r.create(ctx, rec)
	if err != nil {
		return v, false, err // the outcome may be unknown: Sweep looks
	}
	if !created {
		if err := r.dropBlobs(ctx, rec.Files); err != nil {
			return v, false, nil // the version stands; Sweep clears what was written for nothing
		}
	}
	_ = r.kv.Delete(ctx, uploadPrefix+id, 0) // else Sweep finds the version and deletes the key
	return v, created, nil
}

func (r *Registry) putBlob(ctx context.Context, files fs.FS, f file) error {
	in, err := files.Open(f.Name)
	if err != nil {
		return asInvalid("registry.Push", err)
	}
	defer in.Close()
	h := sha256.New()
	if err := r.blobs.Put(ctx, f.Blob, io.TeeReader(io.LimitReader(in, f.Size+1), h)); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return schemas.Errorf(schemas.Invalid, "registry.Push", "%s changed while it was pushed", f.Name)
	}
	return nil
}

// create takes the next free number. Two pushes at once get two numbers, or one if they bring the same.
func (r *Registry) create(ctx context.Context, rec record) (scorers.Version, bool, error) {
	const op = "registry.Push"
	for range 100 { // each round lost means that another push won one
		live, last, err := r.history(ctx, rec.Name)
		if err != nil {
			return scorers.Version{}, false, err
		}
		for _, other := range live {
			if other.Digest == rec.Digest {
				return other.Version, false, nil
			}
		}
		rec.Version.Version = last + 1
		b, err := json.Marshal(rec)
		if err != nil {
			return scorers.Version{}, false, schemas.Errorf(schemas.Internal, op, "%w", err)
		}
		_, err = r.kv.Create(ctx, versionKey(rec.Name, last+1), b)
		if err == nil {
			return rec.Version, true, nil
		}
		if !errors.Is(err, schemas.ErrConflict) {
			return scorers.Version{}, false, err
		}
	}
	return scorers.Version{}, false, schemas.Errorf(schemas.Unavailable, op, "model %s: too many pushes at once; try again", rec.Name)
}

// Sweep removes what pushes that never ended have left behind. It is safe at any time and from any process; run it at
// start and now and then.
func (r *Registry) Sweep(ctx context.Context) error {
	keys, err := r.kv.Keys(ctx, uploadPrefix)
	if err != nil {
		return err
	}
	for _, k := range keys {
		b, rev, err := r.kv.Get(ctx, k)
		if schemas.KindOf(err) == schemas.NotFound && err != nil {
			continue
		}
		if err != nil {
			return err
		}
		var u upload
		if err := json.Unmarshal(b, &u); err != nil {
			return schemas.Errorf(schemas.Internal, "registry.Sweep", "key %s: %w", k, err)
		}
		if time.Since(u.Started) < r.c.Stale {
			continue
		}
		if err := r.sweepOne(ctx, u); err != nil {
			return err
		}
		if err := r.kv.Delete(ctx, k, rev); err != nil && !errors.Is(err, schemas.ErrConflict) {
			return err
		}
	}
	return nil
}

func (r *Registry) sweepOne(ctx context.Context, u upload) error {
	live, _, err := r.history(ctx, u.Name)
	if err != nil {
		return err
	}
	for _, rec := range live {
		if len(rec.Files) > 0 && len(u.Files) > 0 && rec.Files[0].Blob == u.Files[0].Blob {
			return nil // the push ended well and died before it said so
		}
	}
	return r.dropBlobs(ctx, u.Files)
}

// ref writes NAME@VERSION for error lines.
func ref(v scorers.Version) string { return v.Name + "@" + strconv.Itoa(v.Version) }
