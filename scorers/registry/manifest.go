package registry

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/scorers"
)

// ManifestFile is the manifest's name in a package.
const ManifestFile = "model.yaml"

// Bounds of a manifest, beside those of package document.
const (
	maxLabels      = 64
	maxLabel       = 256
	maxDescription = 4096
)

// runtimeByEnding says which runtime a file is for when nobody says so.
var runtimeByEnding = map[string]string{".onnx": "onnx"}

// ParseManifest reads model.yaml strictly: every fault with its path, line and what would be right, as one Invalid
// error. It does not know which files are there and which runtimes; Push checks that.
func ParseManifest(b []byte) (scorers.Manifest, error) {
	const op = "registry.ParseManifest"
	var m scorers.Manifest
	docs, err := document.Parse(b)
	if err != nil {
		return m, err
	}
	if len(docs) != 1 {
		return m, schemas.Errorf(schemas.Invalid, op, "%s holds %d documents; want one", ManifestFile, len(docs))
	}
	faults := document.Decode(docs[0], &m)
	if len(faults) == 0 {
		faults = manifestFaults(&m, docs[0])
	}
	return m, faults.Err(op)
}

func manifestFaults(m *scorers.Manifest, text *document.Value) document.Faults {
	var fs document.Faults
	fault := func(path, format string, args ...any) {
		fs = append(fs, document.Fault{Path: path, Line: text.LineOf(path), Text: fmt.Sprintf(format, args...)})
	}
	if m.Name != "" {
		if err := schemas.CheckName("model", m.Name); err != nil {
			fault("name", "%v", err)
		}
	}
	if m.File != "" {
		if err := checkFileName(m.File); err != nil {
			fault("file", "%v", err)
		}
	}
	if len(m.Description) > maxDescription {
		fault("description", "%d bytes: at most %d", len(m.Description), maxDescription)
	}
	if len(m.Labels) > maxLabels {
		fault("labels", "%d labels: at most %d", len(m.Labels), maxLabels)
	}
	for _, k := range slices.Sorted(maps.Keys(m.Labels)) {
		if k == "" || len(k) > maxLabel || len(m.Labels[k]) > maxLabel {
			fault(fmt.Sprintf("labels.%.80s", k), "a label's name takes 1 to %d bytes, its value up to %d", maxLabel, maxLabel)
		}
	}
	for _, l := range []struct {
		key string
		as  []scorers.Annotation
	}{{"inputs", m.Inputs}, {"outputs", m.Outputs}} {
		seen := map[string]int{}
		for i, a := range l.as {
			at := document.Index(l.key, i)
			if a.Name == "" {
				fault(at+".name", "missing; name the input or output of the model's file that this is about")
			} else if j, dup := seen[a.Name]; dup {
				fault(at+".name", "%.80q is at %s already", a.Name, document.Index(l.key, j))
			}
			seen[a.Name] = i
			features := map[string]bool{}
			for j, f := range a.Features {
				fat := document.Index(at+".features", j)
				switch {
				case f == "" || len(f) > schemas.MaxColumnName:
					fault(fat, "want 1 to %d bytes", schemas.MaxColumnName)
				case features[f]:
					fault(fat, "%.80q is here twice", f)
				}
				features[f] = true
			}
		}
	}
	return fs
}

// manifest reads the package's manifest, or makes one for a bare file, and lays the flags over it. It returns the
// files that belong to the model: all but model.yaml itself.
func (r *Registry) manifest(files fs.FS, names []string, flags scorers.Manifest) (scorers.Manifest, []string, error) {
	const op = "registry.Push"
	var m scorers.Manifest
	rest := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == ManifestFile })
	if len(rest) < len(names) {
		b, err := readSmall(files, ManifestFile, document.MaxBytes)
		if err != nil {
			return m, nil, err
		}
		if m, err = ParseManifest(b); err != nil {
			return m, nil, schemas.Errorf(schemas.Invalid, op, "%s: %w", ManifestFile, err)
		}
	}
	m = overlay(m, flags)
	if m.File == "" {
		if m.File = onlyModel(rest); m.File == "" {
			hint := ""
			if near := document.Near(ManifestFile, rest); near != "" && len(rest) == len(names) {
				hint = fmt.Sprintf(" (is %q meant to be it?)", near)
			}
			return m, nil, schemas.FieldErrorf(schemas.Invalid, op, "file", "the package has no %s%s that names the model's file, and not exactly one file that looks like a model (%s)",
				ManifestFile, hint, strings.Join(slices.Sorted(maps.Keys(runtimeByEnding)), ", "))
		}
	}
	if !slices.Contains(rest, m.File) {
		return m, nil, schemas.FieldErrorf(schemas.Invalid, op, "file", "no file %.80q in the package%s", m.File, document.Meant(m.File, rest))
	}
	if m.Name == "" {
		return m, nil, schemas.FieldErrorf(schemas.Invalid, op, "name", "the model has no name; give one in %s or with --name", ManifestFile)
	}
	if m.Runtime == "" {
		if m.Runtime = runtimeByEnding[strings.ToLower(path.Ext(m.File))]; m.Runtime == "" {
			return m, nil, schemas.FieldErrorf(schemas.Invalid, op, "runtime", "%.80q does not tell its runtime by its ending; write runtime:%s", m.File, document.Meant("", r.runtimes()))
		}
	}
	if _, ok := r.loaders[m.Runtime]; !ok {
		return m, nil, schemas.FieldErrorf(schemas.Invalid, op, "runtime", "unknown runtime %.80q%s", m.Runtime, document.Meant(m.Runtime, r.runtimes()))
	}
	return m, rest, manifestFaults(&m, nil).Err(op)
}

// overlay lays flags over a manifest: what they state wins, labels are added.
func overlay(m, flags scorers.Manifest) scorers.Manifest {
	set := func(dst *string, v string) {
		if v != "" {
			*dst = v
		}
	}
	set(&m.Name, flags.Name)
	set(&m.Description, flags.Description)
	set(&m.File, flags.File)
	set(&m.Runtime, flags.Runtime)
	if len(flags.Labels) > 0 {
		labels := maps.Clone(m.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, flags.Labels)
		m.Labels = labels
	}
	if len(flags.Inputs) > 0 {
		m.Inputs = flags.Inputs
	}
	if len(flags.Outputs) > 0 {
		m.Outputs = flags.Outputs
	}
	return m
}

// onlyModel returns the one file that a runtime takes, "" if there are none or several.
func onlyModel(names []string) string {
	found := ""
	for _, n := range names {
		if runtimeByEnding[strings.ToLower(path.Ext(n))] == "" {
			continue
		}
		if found != "" {
			return ""
		}
		found = n
	}
	return found
}

// checkAnnotations reports annotations of inputs or outputs that the model does not have.
func checkAnnotations(m scorers.Manifest, sig schemas.Signature) error {
	var fs document.Faults
	for _, l := range []struct {
		key string
		as  []scorers.Annotation
		s   *schemas.Schema
	}{{"inputs", m.Inputs, sig.Inputs}, {"outputs", m.Outputs, sig.Outputs}} {
		var known []string
		for _, f := range l.s.Fields() {
			known = append(known, f.Name)
		}
		for i, a := range l.as {
			if l.s.Index(a.Name) < 0 {
				fs = append(fs, document.Fault{
					Path: document.Index(l.key, i) + ".name",
					Text: fmt.Sprintf("the model has no %s %.80q%s", strings.TrimSuffix(l.key, "s"), a.Name, document.Meant(a.Name, known)),
				})
			}
		}
	}
	return fs.Err("registry.Push")
}

func readSmall(files fs.FS, name string, limit int64) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, schemas.Errorf(schemas.Invalid, "registry.Push", "%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, schemas.Errorf(schemas.Internal, "registry.Push", "%w", err)
	}
	if int64(len(b)) > limit {
		return nil, schemas.Errorf(schemas.Invalid, "registry.Push", "%s is larger than %d bytes", name, limit)
	}
	return b, nil
}
