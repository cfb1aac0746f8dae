package protorow

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/parser"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/leatstream/leat/schemas"
)

const op = "schemas.Protobuf"

// mainFile is the name of the file that nobody else has.
const mainFile = "leat/record.proto"

// maxBraces bounds how deep a file is nested.
const maxBraces = 200

// File is a compiled .proto file. It is safe for concurrent use.
type File struct {
	desc protoreflect.FileDescriptor

	mu       sync.Mutex
	messages map[protoreflect.FullName]*Message // of desc: the file bounds how many there are
}

// Parse compiles a file. imports are the files that it imports, by the names that it imports them by; those of
// google/protobuf, google/type and confluent are known. Options mean nothing to the bytes of a message and are passed
// over, and so are imports that are missing, unless a field is of a type from there. A file that cannot be compiled is
// Invalid. Parse ends with ctx.
func Parse(ctx context.Context, source string, imports map[string]string) (f *File, err error) {
	defer func() {
		if p := recover(); p != nil { // the compiler panics on what it takes for impossible
			f, err = nil, broken(errors.New("the compiler gave up"))
		}
	}()
	files := resolver{mainFile: source}
	for name, text := range known {
		files[name] = text
	}
	for name, text := range imports {
		files[name] = text
	}
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(files), MaxParallelism: 1}
	linked, err := c.Compile(ctx, mainFile)
	if err != nil {
		if ctx.Err() != nil {
			return nil, schemas.AsError(op, ctx.Err())
		}
		return nil, broken(err)
	}
	return &File{desc: linked[0], messages: map[protoreflect.FullName]*Message{}}, nil
}

func broken(err error) error {
	text := strings.ReplaceAll(err.Error(), mainFile+":", "line ")
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	if len(text) > 300 {
		text = text[:297] + "..."
	}
	return schemas.Errorf(schemas.Invalid, op, "the schema cannot be compiled: %s", text)
}

// resolver finds sources by name and hands them on as far as messages need them.
type resolver map[string]string

func (r resolver) FindFileByPath(name string) (protocompile.SearchResult, error) {
	source, ok := r[name]
	if !ok {
		return protocompile.SearchResult{}, protoregistry.NotFound
	}
	if braces(source) > maxBraces {
		return protocompile.SearchResult{}, schemas.Errorf(schemas.Invalid, op, "%s is nested more than %d deep", name, maxBraces)
	}
	h := reporter.NewHandler(nil)
	tree, err := parser.Parse(name, strings.NewReader(source), h)
	if err != nil {
		return protocompile.SearchResult{}, err
	}
	parsed, err := parser.ResultFromAST(tree, true, h)
	if err != nil {
		return protocompile.SearchResult{}, err
	}
	r.prune(parsed.FileDescriptorProto())
	return protocompile.SearchResult{ParseResult: parsed}, nil
}

// braces is how deep braces are nested, or more, where text or comments hold some.
func braces(source string) int {
	depth, most := 0, 0
	for i := 0; i < len(source); i++ {
		switch source[i] {
		case '{':
			depth++
			most = max(most, depth)
		case '}':
			depth = max(0, depth-1)
		}
	}
	return most
}

// prune takes out what can fail and does not change how bytes are read: options but for a few, services, and imports
// that nobody knows, which as a rule are those of options.
func (r resolver) prune(f *descriptorpb.FileDescriptorProto) {
	f.Service = nil
	var deps []string
	at := map[int32]int32{}
	for i, d := range f.Dependency {
		if _, ok := r[d]; ok || strings.HasPrefix(d, "google/protobuf/") {
			at[int32(i)] = int32(len(deps))
			deps = append(deps, d)
		}
	}
	renumber := func(old []int32) (out []int32) {
		for _, i := range old {
			if j, ok := at[i]; ok {
				out = append(out, j)
			}
		}
		return out
	}
	f.Dependency, f.PublicDependency, f.WeakDependency = deps, renumber(f.PublicDependency), renumber(f.WeakDependency)
	if o := f.Options; o != nil {
		o.UninterpretedOption = needed(o.UninterpretedOption)
	}
	for _, e := range f.EnumType {
		pruneEnum(e)
	}
	for _, x := range f.Extension {
		pruneField(x)
	}
	for _, m := range f.MessageType {
		pruneMessage(m)
	}
}

// Message returns the message that an index path names: the first index counts the file's messages, each further one
// the messages within the one before. As in Confluent's own clients, the entries of maps do not count.
func (f *File) Message(index []int) (*Message, error) {
	in := protoreflect.MessageDescriptors(f.desc.Messages())
	var m protoreflect.MessageDescriptor
	for _, want := range index {
		m = nil
		for i := range in.Len() {
			if c := in.Get(i); !c.IsMapEntry() {
				if want == 0 {
					m = c
					break
				}
				want--
			}
		}
		if m == nil {
			return nil, schemas.Errorf(schemas.Invalid, op, "the record is of message %v of the schema, which has no such message", slices.Clone(index)) // the caller's may stay on its stack
		}
		in = m.Messages()
	}
	if m == nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "the record names no message of the schema")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out, ok := f.messages[m.FullName()]
	if !ok {
		out = &Message{desc: m}
		f.messages[m.FullName()] = out
	}
	return out, nil
}
