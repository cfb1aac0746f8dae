package avrorow

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/twmb/avro"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/cells"
)

const op = "schemas.Avro"

// Schema is an Avro schema that records are written with. It is immutable and safe for concurrent use.
type Schema struct {
	root  *node
	plans cells.PerSchema[*plan]
}

// shape is an Avro type as decoding tells them apart.
type shape uint8

const (
	nothing shape = iota // null
	boolean
	varInt
	varLong
	float32Bits
	float64Bits
	bytesOf
	text
	fixed
	enum
	record
	array
	mapping
	union
)

// node is one type of a schema. Named types are shared, and may contain themselves.
type node struct {
	shape   shape
	unit    int64    // of a timestamp: nanoseconds
	refused string   // why no column can hold it
	size    int      // fixed
	symbols []string // enum
	fields  []field
	items   *node // array, mapping
	union   []*node
}

type field struct {
	name string
	node *node
}

var primitives = map[string]shape{"null": nothing, "boolean": boolean, "int": varInt, "long": varLong, "float": float32Bits,
	"double": float64Bits, "bytes": bytesOf, "string": text}

// Parse reads a schema. references are schemas whose named types it uses, each after those that it uses itself. A
// schema that is not Avro, or of which a datum is no record, is Invalid.
func Parse(schema string, references []string) (*Schema, error) {
	var cache avro.SchemaCache
	lax := avro.WithLaxNames(nil)
	for _, r := range references {
		if _, err := cache.Parse(plain(r), lax); err != nil {
			return nil, broken(err)
		}
	}
	parsed, err := cache.Parse(plain(schema), lax)
	if err != nil {
		return nil, broken(err)
	}
	tree := parsed.Root()
	if len(references) > 0 { // the definitions go into the tree itself
		if parsed, err = tree.Schema(lax); err != nil {
			return nil, broken(err)
		}
		tree = parsed.Root()
	}
	b := builder{named: map[string]*node{}}
	b.define(tree)
	root := b.build(tree, "")
	if b.unknown != "" {
		return nil, schemas.Errorf(schemas.Invalid, op, "the schema names the type %.80q, which it does not define", b.unknown)
	}
	if b.long {
		return nil, schemas.Errorf(schemas.Invalid, op, "the schema has an enum with a symbol of more than %d bytes", maxSymbol)
	}
	if root.shape != record {
		return nil, schemas.Errorf(schemas.Invalid, op, "the schema is of type %.80q: want a record, whose fields are a row", tree.Type)
	}
	return &Schema{root: root}, nil
}

func broken(err error) error {
	text := err.Error()
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	if len(text) > 300 {
		text = text[:297] + "..."
	}
	return schemas.Errorf(schemas.Invalid, op, "the schema cannot be read: %s", text)
}

// plain takes the defaults out of a schema: they matter to readers of another schema only, and registries hold schemas
// whose defaults are wrong, which a parser refuses. What is no JSON is left for the parser.
func plain(schema string) string {
	d := json.NewDecoder(strings.NewReader(schema))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return schema
	}
	if !dropDefaults(v) {
		return schema
	}
	var out bytes.Buffer
	if json.NewEncoder(&out).Encode(v) != nil {
		return schema
	}
	return out.String()
}

func dropDefaults(v any) (had bool) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			had = dropDefaults(e) || had
		}
	case map[string]any:
		if _, is := v["default"]; is {
			delete(v, "default")
			had = true
		}
		for _, e := range v {
			had = dropDefaults(e) || had
		}
	}
	return had
}

const noColumn = ", which no column can hold"

// builder turns the parser's tree into nodes.
type builder struct {
	named   map[string]*node
	unknown string
	long    bool // a symbol is
}

// maxSymbol bounds the names of an enum's values: a byte stands for one of them.
const maxSymbol = 256

func fullName(n *avro.SchemaNode) string {
	if n.Namespace == "" || strings.Contains(n.Name, ".") {
		return n.Name
	}
	return n.Namespace + "." + n.Name
}

// define makes a node for each named type of the tree.
func (b *builder) define(n *avro.SchemaNode) {
	switch n.Type {
	case "record", "error", "enum", "fixed":
		b.named[fullName(n)] = &node{}
	}
	for i := range n.Fields {
		b.define(&n.Fields[i].Type)
	}
	for _, c := range []*avro.SchemaNode{n.Items, n.Values} {
		if c != nil {
			b.define(c)
		}
	}
	for i := range n.Branches {
		b.define(&n.Branches[i])
	}
}

// build makes the node of a type. A name without dots is looked for in the namespace that it stands in, then as it is.
func (b *builder) build(n *avro.SchemaNode, space string) *node {
	if s, ok := primitives[n.Type]; ok {
		out := &node{shape: s}
		out.logical(n)
		return out
	}
	switch n.Type {
	case "array":
		return &node{shape: array, items: b.build(n.Items, space)}
	case "map":
		return &node{shape: mapping, items: b.build(n.Values, space), refused: "is a map" + noColumn}
	case "union":
		out := &node{shape: union}
		for i := range n.Branches {
			out.union = append(out.union, b.build(&n.Branches[i], space))
		}
		return out
	case "record", "error":
		name := fullName(n)
		out := b.named[name]
		space = name[:max(0, strings.LastIndexByte(name, '.'))]
		out.shape, out.refused = record, "is a record"+noColumn+": name one of its fields, with a dot"
		for i := range n.Fields {
			out.fields = append(out.fields, field{n.Fields[i].Name, b.build(&n.Fields[i].Type, space)})
		}
		return out
	case "enum":
		out := b.named[fullName(n)]
		out.shape, out.symbols = enum, n.Symbols
		for _, s := range n.Symbols {
			b.long = b.long || len(s) > maxSymbol
		}
		return out
	case "fixed":
		out := b.named[fullName(n)]
		out.shape, out.size = fixed, n.Size
		out.logical(n)
		return out
	}
	if out, ok := b.named[space+"."+n.Type]; ok && !strings.Contains(n.Type, ".") {
		return out
	}
	out, ok := b.named[n.Type]
	if !ok {
		b.unknown = n.Type
		return &node{}
	}
	return out
}

// logical notes what the logical type makes of the values. One that is unknown means nothing, as the specification says.
func (n *node) logical(t *avro.SchemaNode) {
	integer := n.shape == varInt || n.shape == varLong
	switch t.LogicalType {
	case "timestamp-millis", "local-timestamp-millis":
		if n.shape == varLong {
			n.unit = 1_000_000
		}
	case "timestamp-micros", "local-timestamp-micros":
		if n.shape == varLong {
			n.unit = 1_000
		}
	case "timestamp-nanos", "local-timestamp-nanos":
		if n.shape == varLong {
			n.unit = 1
		}
	case "date":
		if n.shape == varInt {
			n.unit = 86_400_000_000_000
		}
	case "time-millis", "time-micros":
		if integer {
			n.refused = "is a time of day (" + t.LogicalType + ")" + noColumn
		}
	case "decimal", "big-decimal":
		if n.shape == bytesOf || n.shape == fixed {
			n.refused = "is a " + t.LogicalType + noColumn + ": write a double"
		}
	case "duration":
		if n.shape == fixed && n.size == 12 {
			n.refused = "is a duration" + noColumn
		}
	}
}
