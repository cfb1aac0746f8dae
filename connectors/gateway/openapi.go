package gateway

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas/api"
	"github.com/leatstream/leat/schemas/oip"
)

type object = map[string]any

// OpenAPI returns the document that GET /openapi.json answers with. The caller only reads.
func (s *Server) OpenAPI() []byte { return s.openapi }

// describe writes the OpenAPI 3.1 document of the routes.
func (s *Server) describe() ([]byte, error) {
	g := &shapes{named: object{}, names: map[reflect.Type]string{}}
	errorShape := g.of(reflect.TypeFor[errorBody]())
	paths := object{}
	for _, rt := range s.routes {
		item, _ := paths[rt.path].(object)
		if item == nil {
			item = object{}
			paths[rt.path] = item
		}
		item[strings.ToLower(rt.method)] = rt.describe(g, errorShape)
	}
	return json.Marshal(object{
		"openapi": "3.1.0",
		"info": object{"title": "Leat", "version": orUnset(s.deps.Version),
			"description": "Scores events with models and records every answer. Errors are JSON with error, kind, id and field."},
		"paths": paths,
		"components": object{
			"schemas":         g.named,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "A token of the server's token file; an open loopback server asks for none."}},
		},
	})
}

func orUnset(v string) string {
	if v == "" {
		return "unset"
	}
	return v
}

func (rt *route) describe(g *shapes, errorShape any) object {
	name := rt.method + strings.NewReplacer("/", "_", "{", "", "}", "", ".", "_").Replace(rt.path)
	if rt.op != nil {
		name = rt.op.Name
	}
	o := object{"operationId": name, "summary": rt.summary, "tags": []string{tag(rt.path)}}
	if rt.scope != "" {
		o["security"] = []any{object{"token": []string{}}, object{}}
		o["x-leat-scope"] = string(rt.scope)
	}
	if ps := rt.parameters(g); len(ps) > 0 {
		o["parameters"] = ps
	}
	if body := rt.body(g); body != nil {
		o["requestBody"] = object{"required": true, "content": body}
	}
	o["responses"] = object{
		"200":     object{"description": "Done", "content": rt.reply(g)},
		"default": object{"description": "Refused or failed", "content": object{"application/json": object{"schema": errorShape}}},
	}
	return o
}

func tag(path string) string {
	if strings.HasPrefix(path, "/v2") {
		return "open inference protocol"
	}
	if rest, ok := strings.CutPrefix(path, "/v1/"); ok {
		first, _, _ := strings.Cut(rest, "/")
		return first
	}
	return "server"
}

// parameters are the path's segments, the query, and the headers of scoring.
func (rt *route) parameters(g *shapes) []any {
	var ps []any
	described := map[string]bool{}
	if rt.op != nil {
		for _, p := range rt.op.Params() {
			described[p.Name] = p.In == "path" || described[p.Name]
			o := object{"name": p.Name, "in": p.In, "required": p.In == "path", "schema": g.of(p.Type)}
			if p.Describe != "" {
				o["description"] = p.Describe
			}
			ps = append(ps, o)
		}
	}
	for _, seg := range strings.Split(rt.path, "/") {
		if n := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(seg, "{"), "}"), "..."); n != seg && !described[n] {
			ps = append(ps, object{"name": n, "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	if rt.scoring() {
		for _, h := range [][2]string{
			{"Leat-Request-Id", "1 to 128 printable characters; made if absent; always returned"},
			{"Leat-Timeout", "how long the caller waits, such as 250ms"},
			{"Leat-Deadline", "until when the caller waits, RFC 3339; the earlier of both counts"},
			{"Leat-Arm", "the arm that the caller wants, where the pipeline's split allows it"},
			{oip.HeaderLength, "bytes of JSON before binary tensor data"},
		} {
			if h[0] != oip.HeaderLength || strings.HasPrefix(rt.path, "/v2") {
				ps = append(ps, object{"name": h[0], "in": "header", "description": h[1], "schema": object{"type": "string"}})
			}
		}
	}
	return ps
}

func (rt *route) scoring() bool { return rt.op == nil && rt.method == "POST" }

func (rt *route) body(g *shapes) object {
	switch {
	case rt.scoring() && strings.HasPrefix(rt.path, "/v2"):
		return object{"application/json": object{"schema": inferRequest}, "application/octet-stream": object{}}
	case rt.scoring():
		return object{"application/json": object{"schema": rowsShape}, "application/vnd.apache.arrow.stream": object{}}
	case rt.op == nil || rt.op.BodyType() == "":
		return nil
	case rt.op.BodyType() != "application/json":
		return object{rt.op.BodyType(): object{}}
	}
	return object{"application/json": object{"schema": g.body(rt.op.Request)}}
}

func (rt *route) reply(g *shapes) object {
	switch {
	case rt.scoring() && strings.HasPrefix(rt.path, "/v2"):
		return object{"application/json": object{"schema": object{"type": "object"}}, "application/octet-stream": object{}}
	case rt.scoring():
		return object{"application/json": object{"schema": object{"type": "object"}}, "application/vnd.apache.arrow.stream": object{}}
	case rt.op == nil && rt.path == "/metrics":
		return object{"text/plain": object{}}
	case rt.op == nil:
		return object{"application/json": object{"schema": object{"type": "object"}}}
	}
	if v, ok := reflect.New(rt.op.Reply).Interface().(api.Stream); ok {
		return object{streamType(v): object{}}
	}
	return object{"application/json": object{"schema": g.of(rt.op.Reply)}}
}

// streamType asks a zero stream for its type; one that only knows it later is any bytes.
func streamType(v api.Stream) (t string) {
	defer func() {
		if recover() != nil || t == "" {
			t = "application/octet-stream"
		}
	}()
	return v.ContentType()
}

var (
	rowsShape = object{"type": "object", "properties": object{
		"rows":    object{"type": "array", "items": object{"type": "object"}},
		"columns": object{"type": "object"},
	}}
	inferRequest = object{"type": "object", "required": []string{"inputs"}, "properties": object{
		"id":         object{"type": "string"},
		"parameters": object{"type": "object"},
		"inputs": object{"type": "array", "items": object{"type": "object", "required": []string{"name", "shape", "datatype"}, "properties": object{
			"name": object{"type": "string"}, "shape": object{"type": "array", "items": object{"type": "integer"}}, "datatype": object{"type": "string"},
			"parameters": object{"type": "object"}, "data": object{}}}},
		"outputs": object{"type": "array", "items": object{"type": "object", "required": []string{"name"}, "properties": object{
			"name": object{"type": "string"}, "parameters": object{"type": "object"}}}},
	}}
)

// shapes turns Go types into JSON Schema, each named struct once.
type shapes struct {
	named object
	names map[reflect.Type]string
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	timeType      = reflect.TypeFor[time.Time]()
	rawType       = reflect.TypeFor[json.RawMessage]()
	textMarshaler = reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()
)

func (g *shapes) of(t reflect.Type) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t == rawType || t.Kind() == reflect.Interface:
		return object{}
	case t.Implements(marshaler) || reflect.PointerTo(t).Implements(marshaler):
		return object{} // writes itself: any JSON
	case t.Implements(textMarshaler) || reflect.PointerTo(t).Implements(textMarshaler):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": []string{"array", "null"}, "items": g.of(t.Elem())}
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": g.of(t.Elem())}
	case reflect.Struct:
		return g.structure(t)
	}
	return object{}
}

// structure refers to a named struct, so that types may hold themselves.
func (g *shapes) structure(t reflect.Type) any {
	if t.Name() == "" {
		return g.members(t, false)
	}
	name, ok := g.names[t]
	if !ok {
		name = strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
		name, _, _ = strings.Cut(name, "[")
		base := name
		for n := 2; g.named[name] != nil; n++ {
			name = base + strconv.Itoa(n)
		}
		g.names[t] = name
		g.named[name] = object{} // taken, before its own members ask
		g.named[name] = g.members(t, false)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// body is the shape of an operation's JSON body: its fields that come from neither path nor query.
func (g *shapes) body(t reflect.Type) any {
	one := g.members(t, true)
	if reflect.PointerTo(t).Implements(reflect.TypeFor[api.Many]()) {
		return object{"oneOf": []any{one, object{"type": "array", "items": one}}}
	}
	return one
}

func (g *shapes) members(t reflect.Type, strict bool) object {
	props := object{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || f.Anonymous || name == "-" || f.Tag.Get("path") != "" || f.Tag.Get("query") != "" {
			continue
		}
		if name == "" {
			if strict {
				continue
			}
			name = f.Name
		}
		shape := g.of(f.Type)
		if doc := f.Tag.Get("doc"); doc != "" {
			if o, ok := shape.(object); ok {
				o["description"] = doc
			}
		}
		props[name] = shape
	}
	o := object{"type": "object", "properties": props}
	if strict {
		o["additionalProperties"] = false
	}
	return o
}
