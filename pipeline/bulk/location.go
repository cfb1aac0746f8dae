package bulk

import (
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
)

// location is a parsed From or To.
type location struct {
	kind  locationKind
	name  string // path, topic reference or pipeline
	start connectors.Start
}

// parseFrom reads FILE, topic:NAME[@sequence|@time] or lineage:PIPELINE[@time].
func parseFrom(s string) (location, error) {
	l, err := parseLocation("from", s)
	if err == nil && l.kind == lineageLocation && l.start.Sequence > 0 {
		return l, schemas.FieldErrorf(schemas.Invalid, "bulk.parseFrom", "from", "lineage:%s@%d: want a time such as 2026-05-01T00:00:00Z", l.name, l.start.Sequence)
	}
	return l, err
}

// parseTo reads FILE or topic:NAME.
func parseTo(s string) (location, error) {
	l, err := parseLocation("to", s)
	switch {
	case err != nil:
	case l.kind == lineageLocation:
		err = schemas.FieldErrorf(schemas.Invalid, "bulk.parseTo", "to", "%q: want a file or topic:NAME; the lineage is written by every job", s)
	case l.start != connectors.Start{}:
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
	t, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return l, schemas.FieldErrorf(schemas.Invalid, op, field, "%.200q: after @ want a sequence or a time such as 2026-05-01T00:00:00Z", s)
	}
	if y := t.Year(); y < 1970 || y > 2261 { // what 64 bits of nanoseconds hold
		return l, schemas.FieldErrorf(schemas.Invalid, op, field, "%.200q: want a time of the years 1970 to 2261", s)
	}
	l.start.Time = t
	return l, nil
}
