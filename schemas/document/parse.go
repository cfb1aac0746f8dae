package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/leatstream/leat/schemas"
	"gopkg.in/yaml.v3"
)

// Bounds on a document. Aliases count as what they expand to.
const (
	MaxBytes = 1 << 20
	MaxDepth = 64
	MaxNodes = 100_000
)

// Kind is the kind of a value.
type Kind uint8

// The kinds.
const (
	Null Kind = iota
	Bool
	Number
	Text
	List
	Map
)

// String names the kind as error lines do.
func (k Kind) String() string {
	return [...]string{"nothing", "true or false", "a number", "text", "a list", "a map"}[k]
}

// Value is one node of a document, whether it came as YAML or JSON. It is immutable once parsed.
type Value struct {
	Kind  Kind
	Line  int
	Text  string // of a scalar: text without quotes; "true" or "false"; a number as written
	Items []*Value
	Keys  []Key // of a map: in order, names unique
}

// Key is one entry of a map.
type Key struct {
	Name  string
	Line  int
	Value *Value
}

// Find returns the value of a key, nil if it is absent or v is no map.
func (v *Value) Find(name string) *Value {
	if v == nil {
		return nil
	}
	for i := range v.Keys {
		if v.Keys[i].Name == name {
			return v.Keys[i].Value
		}
	}
	return nil
}

// LineOf returns the line of the value at path ("route.model", "record.mask[1]"), or of the nearest one above it that
// exists; 0 for a nil Value.
func (v *Value) LineOf(path string) int {
	if v == nil {
		return 0
	}
	line := v.Line
	for path != "" && v != nil {
		var part string
		if path[0] == '[' {
			end := strings.IndexByte(path, ']')
			if end < 0 {
				break
			}
			var i int
			if _, err := fmt.Sscanf(path[1:end], "%d", &i); err != nil || v.Kind != List || i >= len(v.Items) {
				break
			}
			v, path = v.Items[i], strings.TrimPrefix(path[end+1:], ".")
			line = v.Line
			continue
		}
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		part, path = path[:end], strings.TrimPrefix(path[end:], ".")
		at := -1
		for i := range v.Keys {
			if v.Keys[i].Name == part {
				at = i
			}
		}
		if at < 0 {
			break
		}
		line = v.Keys[at].Line
		v = v.Keys[at].Value
	}
	return line
}

// Parse reads all documents of a text: YAML documents split by "---", or JSON objects one after the other. Empty
// documents are left out. It never panics and never expands more than MaxNodes nodes.
func Parse(b []byte) (docs []*Value, err error) {
	const op = "document.Parse"
	if len(b) > MaxBytes {
		return nil, schemas.Errorf(schemas.Invalid, op, "document of %d bytes: at most %d", len(b), MaxBytes)
	}
	if !utf8.Valid(b) {
		return nil, schemas.Errorf(schemas.Invalid, op, "the document is not UTF-8")
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	if t := bytes.TrimLeft(b, " \t\r\n"); len(t) > 0 && t[0] == '{' {
		docs, err = parseJSON(b)
		var syntax *syntaxError
		if err == nil || !errors.As(err, &syntax) || looksLikeJSON(t) {
			return docs, err
		}
	}
	return parseYAML(b)
}

// looksLikeJSON tells {"name": ...} from a YAML flow map {name: ...}.
func looksLikeJSON(t []byte) bool {
	t = bytes.TrimLeft(t[1:], " \t\r\n")
	return len(t) == 0 || t[0] == '"' || t[0] == '}'
}

type syntaxError struct{ err error }

func (e *syntaxError) Error() string { return e.err.Error() }

type jsonParser struct {
	d                     *json.Decoder
	text                  []byte
	breaks                []int // offsets of line breaks
	faults                Faults
	nodes                 int
	depthLimit, nodeLimit int
}

func parseJSON(b []byte) ([]*Value, error) {
	const op = "document.Parse"
	p := jsonParser{d: json.NewDecoder(bytes.NewReader(b)), text: b, depthLimit: MaxDepth, nodeLimit: MaxNodes}
	p.d.UseNumber()
	for i, c := range b {
		if c == '\n' {
			p.breaks = append(p.breaks, i)
		}
	}
	var docs []*Value
	for p.d.More() {
		v, err := p.value(0)
		if err != nil {
			return nil, schemas.Errorf(schemas.Invalid, op, "line %d: %w", p.line(), err)
		}
		docs = append(docs, v)
	}
	if _, err := p.d.Token(); err != io.EOF {
		return nil, schemas.Errorf(schemas.Invalid, op, "line %d: %w", p.line(), &syntaxError{errors.New("JSON: more follows the last object")})
	}
	return docs, p.faults.Err(op)
}

// line is where the decoder stands.
func (p *jsonParser) line() int { return 1 + sort.SearchInts(p.breaks, int(p.d.InputOffset())) }

func (p *jsonParser) token() (json.Token, error) {
	t, err := p.d.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, &syntaxError{fmt.Errorf("JSON: %w", err)}
	}
	if p.nodes++; p.nodes > p.nodeLimit {
		return nil, fmt.Errorf("more than %d values", p.nodeLimit)
	}
	return t, nil
}

func (p *jsonParser) value(depth int) (*Value, error) {
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	v := &Value{Line: p.line()}
	switch x := t.(type) {
	case nil:
	case bool:
		v.Kind, v.Text = Bool, fmt.Sprint(x)
	case json.Number:
		v.Kind, v.Text = Number, x.String()
	case string:
		v.Kind, v.Text = Text, x
	case json.Delim:
		if depth >= p.depthLimit {
			return nil, fmt.Errorf("nested deeper than %d", p.depthLimit)
		}
		if x == '[' {
			v.Kind = List
			for p.d.More() {
				e, err := p.value(depth + 1)
				if err != nil {
					return nil, err
				}
				v.Items = append(v.Items, e)
			}
		} else if err := p.object(v, depth); err != nil {
			return nil, err
		}
		_, err = p.token() // the closing bracket
	}
	return v, err
}

func (p *jsonParser) object(v *Value, depth int) error {
	v.Kind = Map
	seen := map[string]bool{}
	for p.d.More() {
		t, err := p.token()
		if err != nil {
			return err
		}
		k := Key{Name: t.(string), Line: p.line()} // the decoder gives nothing but a string here
		if k.Value, err = p.value(depth + 1); err != nil {
			return err
		}
		if seen[k.Name] {
			p.faults = append(p.faults, Fault{Path: clip(k.Name), Line: k.Line, Text: "this key is here twice"})
			continue
		}
		seen[k.Name] = true
		v.Keys = append(v.Keys, k)
	}
	return nil
}

type yamlParser struct {
	nodes   int
	anchors []*yaml.Node // that are being read
	faults  Faults
}

func parseYAML(b []byte) (docs []*Value, err error) {
	const op = "document.Parse"
	defer func() { // the library has had panics on hostile text; one of them must not take the process along
		if r := recover(); r != nil {
			docs, err = nil, schemas.Errorf(schemas.Invalid, op, "not YAML: %v", r)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(b))
	p := yamlParser{}
	for {
		var n yaml.Node
		if err := d.Decode(&n); err == io.EOF {
			return docs, p.faults.Err(op)
		} else if err != nil {
			return nil, schemas.Errorf(schemas.Invalid, op, "%s", strings.Replace(err.Error(), "yaml: line", "not YAML: line", 1))
		}
		v, err := p.value(&n, 0)
		if err != nil {
			return nil, schemas.Errorf(schemas.Invalid, op, "%w", err)
		}
		if v.Kind != Null {
			docs = append(docs, v)
		}
	}
}

func (p *yamlParser) value(n *yaml.Node, depth int) (*Value, error) {
	if p.nodes++; p.nodes > MaxNodes {
		return nil, fmt.Errorf("more than %d values, aliases counted as what they stand for", MaxNodes)
	}
	if depth > MaxDepth {
		return nil, fmt.Errorf("line %d: nested deeper than %d", n.Line, MaxDepth)
	}
	if n.Anchor != "" && n.Kind != yaml.AliasNode {
		p.anchors = append(p.anchors, n)
		defer func() { p.anchors = p.anchors[:len(p.anchors)-1] }()
	}
	v := &Value{Line: n.Line}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 0 {
			return v, nil
		}
		return p.value(n.Content[0], depth)
	case yaml.AliasNode:
		if slices.Contains(p.anchors, n.Alias) {
			return nil, fmt.Errorf("line %d: *%s is a part of &%s itself, which then has no end; write out what is meant", n.Line, clip(n.Value), clip(n.Value))
		}
		return p.value(n.Alias, depth+1)
	case yaml.ScalarNode:
		return v, p.scalar(v, n)
	case yaml.SequenceNode:
		v.Kind = List
		for _, c := range n.Content {
			e, err := p.value(c, depth+1)
			if err != nil {
				return nil, err
			}
			v.Items = append(v.Items, e)
		}
	case yaml.MappingNode:
		v.Kind = Map
		return v, p.mapping(v, n, depth)
	}
	return v, nil
}

func (p *yamlParser) mapping(v *Value, n *yaml.Node, depth int) error {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		kn := n.Content[i]
		k, err := p.value(kn, depth+1)
		if err != nil {
			return err
		}
		e, err := p.value(n.Content[i+1], depth+1)
		if err != nil {
			return err
		}
		switch {
		case kn.Tag == "!!merge":
			p.fault(kn.Line, "<<", "merge keys are not taken; write the keys out")
		case k.Kind == List || k.Kind == Map:
			p.fault(kn.Line, "", "a key must be text")
		case seen[k.Text]:
			p.fault(kn.Line, clip(k.Text), "this key is here twice")
		default:
			seen[k.Text] = true
			v.Keys = append(v.Keys, Key{Name: k.Text, Line: kn.Line, Value: e})
		}
	}
	return nil
}

func (p *yamlParser) scalar(v *Value, n *yaml.Node) error {
	v.Text = n.Value
	switch tag := n.ShortTag(); tag {
	case "!!null":
		v.Kind = Null
		if n.Value != "" && n.Value != "~" && !strings.EqualFold(n.Value, "null") {
			v.Kind = Text
		}
	case "!!bool":
		v.Kind, v.Text = Bool, strings.ToLower(n.Value)
	case "!!int", "!!float":
		v.Kind = Number
	case "!!str", "!!timestamp", "!!merge":
		v.Kind = Text
	default:
		p.fault(n.Line, "", "tag %s is not taken", clip(tag))
	}
	return nil
}

func (p *yamlParser) fault(line int, path, format string, args ...any) {
	if len(p.faults) < maxFaults {
		p.faults = append(p.faults, Fault{Path: path, Line: line, Text: fmt.Sprintf(format, args...)})
	}
}
