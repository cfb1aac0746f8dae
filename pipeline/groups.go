package pipeline

import (
	"slices"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// GroupPrimary is the group that answers requests and reads topics. GroupShadow and a name is that of a shadow.
const (
	GroupPrimary = "primary"
	GroupShadow  = "shadow:"
)

// Groups are what a process does of the pipelines. The zero Groups are all of it, for its own requests alone: nothing is
// sent to, or taken from, another process.
type Groups []string

// Validate reports what is not the name of a group.
func (g Groups) Validate() error {
	for i, name := range g {
		shadow, ok := strings.CutPrefix(name, GroupShadow)
		if name != GroupPrimary && (!ok || schemas.CheckName("shadow", shadow) != nil) {
			return schemas.FieldErrorf(schemas.Invalid, "pipeline.Groups", "pipeline.groups", "%.80q: want %s, or %sNAME for the shadow NAME of every pipeline that has one", name, GroupPrimary, GroupShadow)
		}
		if slices.Index(g, name) < i {
			return schemas.FieldErrorf(schemas.Invalid, "pipeline.Groups", "pipeline.groups", "%s stands there twice", name)
		}
	}
	return nil
}

// Primary reports whether the process answers requests, reads topics, and runs jobs.
func (g Groups) Primary() bool { return len(g) == 0 || slices.Contains(g, GroupPrimary) }

// shadow reports whether the process runs a shadow.
func (g Groups) shadow(name string) bool { return len(g) == 0 || slices.Contains(g, GroupShadow+name) }

// shared reports whether work is shared with other processes.
func (g Groups) shared() bool { return len(g) > 0 }
