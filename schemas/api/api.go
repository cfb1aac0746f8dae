package api

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Scope says what a token must allow.
type Scope string

// The scopes, each including the one before.
const (
	Read  Scope = "read"
	Score Scope = "score"
	Admin Scope = "admin"
)

// Operation is one row of the table.
type Operation struct {
	Name    string // dotted, unique: "models.list"
	Method  string // HTTP method
	Path    string // HTTP path with {segments}: "/v1/models/{name}"
	Scope   Scope
	Summary string // one line for the OpenAPI document
	Request reflect.Type
	Reply   reflect.Type
	Handle  func(ctx context.Context, req any) (any, error) // req is a *Request; the reply a *Reply
}

// Many is a request whose JSON body may also be a list of such objects: its UnmarshalJSON takes both.
type Many interface {
	json.Unmarshaler
	Many()
}

// Stream is a response that writes itself, such as an export.
type Stream interface {
	ContentType() string
	WriteBody(w io.Writer) error
}

// Op makes an Operation from a typed handler. It panics on a request field that no rule can fill: a mistake of the
// programmer that the first start shows.
func Op[Req, Reply any](name, method, path string, scope Scope, summary string, h func(context.Context, *Req) (*Reply, error)) Operation {
	o := Operation{
		Name: name, Method: method, Path: path, Scope: scope, Summary: summary,
		Request: reflect.TypeFor[Req](), Reply: reflect.TypeFor[Reply](),
	}
	o.Handle = func(ctx context.Context, req any) (any, error) {
		r, err := h(ctx, req.(*Req))
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	for f := range fields(o.Request) {
		if f.source == "query" {
			if err := setText(reflect.New(f.typ).Elem(), "0"); err == errKind {
				panic("api: " + name + ": field " + f.name + " has a type that a query cannot fill")
			}
		}
		if f.source == "path" && !strings.Contains(path, "{"+f.name+"}") {
			panic("api: " + name + ": no {" + f.name + "} in " + path)
		}
	}
	return o
}

// Param describes one field of a request that does not come from the JSON body.
type Param struct {
	Name     string
	In       string // "path" or "query"
	Type     reflect.Type
	Describe string // the field's doc:"" tag
}

// Params lists the path and query parameters, for the OpenAPI document.
func (o *Operation) Params() []Param {
	var ps []Param
	for f := range fields(o.Request) {
		if f.source == "path" || f.source == "query" {
			ps = append(ps, Param{Name: f.name, In: f.source, Type: f.typ, Describe: f.doc})
		}
	}
	return ps
}

// BodyType returns the content type of the raw body, "application/json" if JSON fields exist, "" for none.
func (o *Operation) BodyType() string {
	t := ""
	for f := range fields(o.Request) {
		switch f.source {
		case "body":
			return f.name
		case "json":
			t = "application/json"
		}
	}
	return t
}

// Decode fills a new request. path gives a segment's value; body may be nil. Unknown query parameters and unknown JSON
// fields are Invalid, naming them.
func (o *Operation) Decode(path func(string) string, query url.Values, body io.Reader) (any, error) {
	req := reflect.New(o.Request)
	known := map[string]bool{}
	for f := range fields(o.Request) {
		v := req.Elem().FieldByIndex(f.index)
		switch f.source {
		case "path":
			if err := setText(v, path(f.name)); err != nil {
				return nil, schemas.FieldErrorf(schemas.Invalid, o.Name, f.name, "%w", err)
			}
		case "query":
			known[f.name] = true
			if s, ok := query[f.name]; ok && v.Kind() == reflect.Slice {
				v.Set(reflect.ValueOf(s))
			} else if ok && len(s) > 0 {
				if err := setText(v, s[0]); err != nil {
					return nil, schemas.FieldErrorf(schemas.Invalid, o.Name, f.name, "%w", err)
				}
			}
		case "body":
			if body != nil {
				v.Set(reflect.ValueOf(body))
			}
		}
	}
	for k := range query {
		if !known[k] {
			return nil, schemas.FieldErrorf(schemas.Invalid, o.Name, k, "no such query parameter")
		}
	}
	if o.BodyType() == "application/json" && body != nil {
		if err := decodeJSON(body, req.Interface()); err != nil {
			return nil, bodyError(o.Name, err)
		}
	}
	return req.Interface(), nil
}

// DecodeObject fills a new request from one JSON object that holds path, query and body fields by name: the form that
// the operation takes over NATS.
func (o *Operation) DecodeObject(b []byte) (any, error) {
	if len(b) == 0 {
		b = []byte("{}")
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, bodyError(o.Name, err)
	}
	path, query := map[string]string{}, url.Values{}
	for f := range fields(o.Request) {
		raw, ok := all[f.name]
		if !ok || f.source != "path" && f.source != "query" {
			continue
		}
		delete(all, f.name)
		var list []string
		var s string
		switch {
		case json.Unmarshal(raw, &list) == nil:
		case json.Unmarshal(raw, &s) == nil:
			list = []string{s}
		default:
			list = []string{string(raw)}
		}
		if f.source == "query" {
			query[f.name] = list
		} else if len(list) > 0 {
			path[f.name] = list[0]
		}
	}
	rest, err := json.Marshal(all)
	if err != nil {
		return nil, schemas.Errorf(schemas.Invalid, o.Name, "body: %w", err)
	}
	if o.BodyType() == "" && len(all) > 0 {
		for k := range all {
			return nil, schemas.FieldErrorf(schemas.Invalid, o.Name, k, "no such field")
		}
	}
	return o.Decode(func(k string) string { return path[k] }, query, strings.NewReader(string(rest)))
}

type field struct {
	index  []int
	name   string
	source string // path, query, body, json
	doc    string
	typ    reflect.Type
}

func fields(t reflect.Type) func(func(field) bool) {
	return func(yield func(field) bool) {
		if t.Kind() != reflect.Struct {
			return
		}
		for _, sf := range reflect.VisibleFields(t) {
			if !sf.IsExported() || sf.Anonymous {
				continue
			}
			f := field{index: sf.Index, typ: sf.Type, doc: sf.Tag.Get("doc")}
			for _, src := range []string{"path", "query", "body", "json"} {
				if n, _, _ := strings.Cut(sf.Tag.Get(src), ","); n != "" && n != "-" {
					f.name, f.source = n, src
					break
				}
			}
			if f.source != "" && !yield(f) {
				return
			}
		}
	}
}

type kindError struct{}

func (kindError) Error() string { return "unsupported field type" }

var errKind = kindError{}

func setText(v reflect.Value, s string) error {
	fail := func(want string) error { return schemas.Errorf(schemas.Invalid, "api", "%q is not %s", s, want) }
	if v.Type() == reflect.TypeFor[time.Time]() {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return fail("a time as in RFC 3339")
		}
		v.Set(reflect.ValueOf(t))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fail("true or false")
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fail("a whole number")
		}
		v.SetInt(n)
	case reflect.Uint64:
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return fail("a whole number")
		}
		v.SetUint(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fail("a number")
		}
		v.SetFloat(n)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.String {
			return errKind
		}
	default:
		return errKind
	}
	return nil
}
