package bulk

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// locationKind says what a location is.
type locationKind uint8

const (
	fileLocation locationKind = iota
	topicLocation
	lineageLocation
	shadowLocation
)

// location is a parsed From or To.
type location struct {
	kind  locationKind
	name  string // path, topic reference, pipeline or shadow
	start connectors.Start
	parts map[int32]uint64 // of a topic: partitions to read, with the first sequence wanted of each; nil: all, from start on
}

// parseFrom reads FILE, topic:NAME[@sequence|@partition:sequence,...|@time] or lineage:PIPELINE[@time].
func parseFrom(s string) (location, error) {
	l, err := parseLocation("from", s)
	if err == nil && l.kind == shadowLocation {
		return l, schemas.FieldErrorf(schemas.Invalid, "bulk.parseFrom", "from", "%q: a shadow is no source; its answers are in the lineage", s)
	}
	if err == nil && l.kind == lineageLocation && (l.start.Sequence > 0 || l.parts != nil) {
		return l, schemas.FieldErrorf(schemas.Invalid, "bulk.parseFrom", "from", "%.200q: after @ want a time such as 2026-05-01T00:00:00Z", s)
	}
	return l, err
}

// parseTo reads FILE, topic:NAME or shadow:NAME.
func parseTo(s string) (location, error) {
	l, err := parseLocation("to", s)
	switch {
	case err != nil:
	case l.kind == lineageLocation:
		err = schemas.FieldErrorf(schemas.Invalid, "bulk.parseTo", "to", "%q: want a file, topic:NAME or shadow:NAME; the lineage is written by every job", s)
	case l.kind == shadowLocation && (l.start != connectors.Start{} || l.parts != nil):
		err = schemas.FieldErrorf(schemas.Invalid, "bulk.parseTo", "to", "%q: leave out what follows @", s)
	case l.start != connectors.Start{} || l.parts != nil:
		err = schemas.FieldErrorf(schemas.Invalid, "bulk.parseTo", "to", "%q: a topic is written at its end: leave out what follows @", s)
	}
	return l, err
}

func parseLocation(field, s string) (location, error) {
	const op = "bulk.parseLocation"
	scheme, rest, _ := strings.Cut(s, ":")
	l := location{kind: fileLocation, name: s}
	switch scheme {
	case "topic":
		l.kind = topicLocation
	case "lineage":
		l.kind = lineageLocation
	case "shadow":
		l.kind = shadowLocation
	default:
		switch {
		case s == "":
			return l, schemas.FieldErrorf(schemas.Invalid, op, field, "want a file, topic:NAME or lineage:PIPELINE")
		case strings.ContainsRune(s, 0):
			return l, schemas.FieldErrorf(schemas.Invalid, op, field, "the path holds a NUL byte")
		case !filepath.IsAbs(s):
			return l, schemas.FieldErrorf(schemas.Invalid, op, field, "%.200q: the server opens the file, so it wants an absolute path", s)
		}
		l.name = filepath.Clean(s)
		return l, nil
	}
	name, at, has := strings.Cut(rest, "@")
	l.name = name
	_, check := schemas.ParseTopicRef(name)
	if l.kind == lineageLocation {
		check = schemas.CheckName("pipeline", name)
	}
	if l.kind == shadowLocation {
		check = schemas.CheckName("shadow", name)
	}
	if check != nil {
		return l, schemas.FieldErrorf(schemas.Invalid, op, field, "%w", check)
	}
	if !has {
		return l, nil
	}
	if n, err := strconv.ParseUint(at, 10, 64); err == nil {
		if n == 0 {
			return l, schemas.FieldErrorf(schemas.Invalid, op, field, "%q: sequences count from 1", s)
		}
		l.start.Sequence = n
		return l, nil
	}
	if p, _, ok := strings.Cut(at, ":"); ok && isNumber(p) { // a time has a date before its first colon
		var err error
		l.parts, err = parseParts(at)
		if err != nil {
			return l, schemas.FieldErrorf(schemas.Invalid, op, field, "%.200q: %w", s, err)
		}
		return l, nil
	}
	t, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return l, schemas.FieldErrorf(schemas.Invalid, op, field, "%.200q: after @ want a sequence, partitions with a sequence each such as 0:120,1:98, or a time such as 2026-05-01T00:00:00Z", s)
	}
	if y := t.Year(); y < 1970 || y > 2261 { // what 64 bits of nanoseconds hold
		return l, schemas.FieldErrorf(schemas.Invalid, op, field, "%.200q: want a time of the years 1970 to 2261", s)
	}
	l.start.Time = t
	return l, nil
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// parseParts reads partition:sequence,...
func parseParts(at string) (map[int32]uint64, error) {
	parts := map[int32]uint64{}
	for one := range strings.SplitSeq(at, ",") {
		part, seq, _ := strings.Cut(one, ":")
		p, err := strconv.ParseUint(part, 10, 31)
		n, nerr := strconv.ParseUint(seq, 10, 64)
		if err != nil || nerr != nil {
			return nil, fmt.Errorf("%.40q: want a partition and its first sequence, such as 0:120", one)
		}
		if n == 0 {
			return nil, fmt.Errorf("%s: sequences count from 1", one)
		}
		if _, twice := parts[int32(p)]; twice {
			return nil, fmt.Errorf("partition %d is named twice", p)
		}
		parts[int32(p)] = n
	}
	return parts, nil
}
