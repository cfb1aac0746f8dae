package pipeline

import (
	"slices"
	"time"

	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// maxLookupWidth bounds the elements of a column of a lookup: each key has them in memory.
const maxLookupWidth = 1 << 14

var missings = []string{MissingNull, MissingDefault, MissingError}

var lookupKind = nodeKind{
	key:      "lookup",
	used:     func(n *Node) bool { return n.Lookup != nil },
	children: func(*Node) []child { return nil },
	copy: func(n *Node) {
		l := *n.Lookup
		l.Columns = slices.Clone(l.Columns)
		n.Lookup = &l
	},
	check: checkLookup,
	schema: object("Columns that are kept by key beside the requests, in this process's memory.", []string{"key", "columns"}, map[string]any{
		"bucket": map[string]any{"type": "string", "pattern": `^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`, "description": "The NATS KV bucket with a value for each key: a JSON object, or an Arrow stream of one row."},
		"topic":  map[string]any{"type": "string", "pattern": kafkaPattern + `|` + topicPattern, "description": "Instead of bucket: a compacted topic of Kafka, kafka:NAME."},
		"key":    map[string]any{"type": "string", "minLength": 1, "description": "The column whose value is the key: text, a whole number, a bool or a timestamp."},
		"columns": map[string]any{
			"type": "array", "minItems": 1, "maxItems": schemas.MaxColumns, "description": "The columns of the answer, by the names that the values have.",
			"items": object("A column.", []string{"name", "type"}, map[string]any{
				"name":    map[string]any{"type": "string", "minLength": 1},
				"type":    map[string]any{"enum": schemas.DTypes()},
				"shape":   map[string]any{"type": "array", "minItems": 1, "items": map[string]any{"type": "integer", "minimum": 1}, "description": "Of one value; absent: a scalar."},
				"default": map[string]any{"type": []string{"string", "number", "boolean"}, "description": "Stands for what a value lacks or has null; of a tensor, each element."},
			}),
		},
		"missing": map[string]any{"enum": []any{MissingNull, MissingDefault, MissingError, nil}, "default": MissingNull, "description": "What a row answers whose key is null, not there, or stale: nulls, the columns' defaults, or an error."},
		"stale":   map[string]any{"type": "string", "pattern": durationPattern, "description": "A value that was stored longer ago is missing: 15m, 24h. Absent: none is."},
	}),
}

func checkLookup(n *Node, at string, c *checker) {
	l := n.Lookup
	at = document.Join(at, "lookup")
	in := func(key string) string { return document.Join(at, key) }
	switch {
	case l.Bucket == "" && l.Topic == "":
		c.fault(in("bucket"), "missing; name the NATS KV bucket that has the values, or topic: kafka:NAME")
	case l.Bucket != "" && l.Topic != "":
		c.fault(in("topic"), "both a bucket and a topic; keep one of them")
	case l.Bucket != "":
		c.err(in("bucket"), schemas.CheckBucket(l.Bucket))
	default:
		c.lookupTopic(in("topic"), l.Topic, Facts{Transport: schemas.TransportKafka, Kafka: true})
	}
	if l.Key == "" {
		c.fault(in("key"), "missing; name the column whose value is the key")
	}
	if !slices.Contains(missings, l.Missing) && l.Missing != "" {
		c.fault(in("missing"), "unknown answer %.80q%s", l.Missing, document.Meant(l.Missing, missings))
	}
	if l.Stale < 0 {
		c.fault(in("stale"), "%v: want more than 0; leave it out if no value is too old", time.Duration(l.Stale))
	}
	switch {
	case len(l.Columns) == 0:
		c.fault(in("columns"), "no columns; name at least one, such as {name: tier, type: string}")
	case len(l.Columns) > schemas.MaxColumns:
		c.fault(in("columns"), "%d columns: at most %d", len(l.Columns), schemas.MaxColumns)
		return
	}
	seen := map[string]string{}
	for i := range l.Columns {
		at := document.Index(in("columns"), i)
		col := &l.Columns[i]
		if first, twice := seen[col.Name]; twice && col.Name != "" {
			c.fault(document.Join(at, "name"), "%.80q is the name of %s too", col.Name, first)
		}
		seen[col.Name] = at
		c.lookupColumn(col, at, l.Missing)
	}
}

func (c *checker) lookupColumn(col *LookupColumn, at, missing string) {
	if col.Name == "" || len(col.Name) > schemas.MaxColumnName {
		c.fault(document.Join(at, "name"), "%.80q: a name has 1 to %d bytes", col.Name, schemas.MaxColumnName)
		return
	}
	if _, err := schemas.ParseDType(col.Type); err != nil {
		c.fault(document.Join(at, "type"), "unknown type %.80q%s", col.Type, document.Meant(col.Type, schemas.DTypes()))
		return
	}
	width := 1
	for _, d := range col.Shape {
		if d < 1 || d > maxLookupWidth || width > maxLookupWidth/d {
			c.fault(document.Join(at, "shape"), "%v: want positive numbers, at most %d elements", col.Shape, maxLookupWidth)
			return
		}
		width *= d
	}
	if missing == MissingDefault && col.Default == nil {
		c.fault(document.Join(at, "default"), "missing; with missing: %s every column has one. Or write missing: %s", MissingDefault, MissingNull)
		return
	}
	x := col.column()
	if err := x.Check(); err != nil {
		c.fault(document.Join(at, "default"), "%v", schemas.AsError("", err).Err)
	}
}

// lookupTopic checks that a topic can be looked up in: topics of NATS keep everything, and not the newest of each key.
func (c *checker) lookupTopic(at, ref string, f Facts) {
	r, err := schemas.ParseTopicRef(ref)
	if err == nil {
		err = checkReserved(r)
	}
	switch r = f.Topic(ref); {
	case err != nil:
		c.err(at, err)
	case r.Transport != schemas.TransportKafka:
		c.fault(at, "%.80q lives on NATS, where topics are not compacted; name a bucket instead, or a topic of Kafka: kafka:NAME", ref)
	case !f.Kafka:
		c.fault(at, "%.80q: this server knows no Kafka: start it with --kafka HOST:PORT, or set kafka.bootstrap", ref)
	}
}

func (col *LookupColumn) column() lookup.Column {
	t, _ := schemas.ParseDType(col.Type) // Validate has read it
	x := lookup.Column{Name: col.Name, Type: t}
	if len(col.Shape) > 0 {
		x.Shape = col.Shape
	}
	if col.Default != nil {
		text := string(*col.Default)
		x.Default = &text
	}
	return x
}

// source is where the values are.
func (l *Lookup) source() lookup.Source {
	if l.Bucket != "" {
		return lookup.Source{Transport: schemas.TransportNATS, Name: l.Bucket}
	}
	r, _ := schemas.ParseTopicRef(l.Topic) // Validate has read it
	return lookup.Source{Transport: schemas.TransportKafka, Name: r.Name}
}
