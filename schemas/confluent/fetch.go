package confluent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/avrorow"
	"github.com/leatstream/leat/schemas/protorow"
)

const (
	// maxAnswer bounds an answer of the registry, maxFiles the schemas that one refers to, and maxText all of their text.
	maxAnswer = 2 << 20
	maxFiles  = 200
	maxText   = 4 << 20
)

// The types of schemas, as the registry writes them; an answer without one is Avro.
const (
	typeAvro     = "AVRO"
	typeProtobuf = "PROTOBUF"
)

// schema is what the registry has under an id, or why that cannot be used.
type schema struct {
	id    uint32
	typ   string
	codec schemas.RowCodec
	err   *schemas.Error // Invalid
	size  int            // of its text
}

// answer is the registry's, to /schemas/ids/{id} and to /subjects/{subject}/versions/{version}.
type answer struct {
	Schema     string `json:"schema"`
	Type       string `json:"schemaType"`
	References []struct {
		Name    string `json:"name"`
		Subject string `json:"subject"`
		Version int    `json:"version"`
	} `json:"references"`
}

// fetch asks for a schema and all that it refers to, and compiles it. The error is Invalid for an id that is unknown and
// Unavailable for anything that is not the record's fault; a schema that cannot be used is no error here.
func (r *Registry) fetch(ctx context.Context, id uint32) (*schema, error) {
	if !r.Configured() {
		return nil, schemas.Errorf(schemas.Unavailable, op, "the record needs a schema registry, and none is configured: set schema_registry.url")
	}
	f := files{r: r, id: id, texts: map[string]string{}}
	bounded, cancel := context.WithTimeout(ctx, r.timeout)
	a, err := f.get(bounded, fmt.Sprintf("/schemas/ids/%d", id))
	if err == nil {
		err = f.references(bounded, a)
	}
	cancel()
	s := &schema{id: id, typ: typeAvro, size: f.size}
	var broken *unusable
	switch {
	case errors.As(err, &broken):
		s.err = schemas.Errorf(schemas.Invalid, op, "schema %d cannot be used: %w", id, broken.why)
		return s, nil
	case err != nil:
		return nil, err
	}
	if a.Type != "" {
		s.typ = strings.ToUpper(a.Type)
	}
	if s.codec, err = r.compile(ctx, s.typ, a.Schema, &f); err != nil {
		if schemas.KindOf(err) != schemas.Invalid { // ctx ended
			return nil, err
		}
		s.err = schemas.Errorf(schemas.Invalid, op, "schema %d: %w", id, err)
	}
	return s, nil
}

// compile makes the codec of a schema.
func (r *Registry) compile(ctx context.Context, typ, text string, f *files) (c schemas.RowCodec, err error) {
	defer func() {
		if p := recover(); p != nil { // a schema is another's text: whatever it does to a parser ends here
			err = schemas.Errorf(schemas.Invalid, op, "the parser gave up: %v", p)
		}
	}()
	switch typ {
	case typeAvro:
		texts := make([]string, len(f.names))
		for i, n := range f.names {
			texts[i] = f.texts[n]
		}
		s, err := avrorow.Parse(text, texts)
		if err != nil {
			return nil, err
		}
		return &avroCodec{s, r.answers}, nil
	case typeProtobuf:
		file, err := protorow.Parse(ctx, text, f.texts)
		if err != nil {
			return nil, err
		}
		return &protoCodec{file: file, answers: r.answers}, nil
	}
	return nil, schemas.Errorf(schemas.Invalid, op, "it is of type %.20q: want AVRO or PROTOBUF", typ)
}

// files are the schemas that one refers to.
type files struct {
	r     *Registry
	id    uint32
	names []string // each after those that it refers to itself
	texts map[string]string
	open  int
	size  int
}

// unusable is a fault of the schema, which stays.
type unusable struct{ why error }

func (u *unusable) Error() string { return u.why.Error() }

func (f *files) references(ctx context.Context, a *answer) error {
	for _, ref := range a.References {
		if _, ok := f.texts[ref.Name]; ok {
			continue
		}
		if f.open++; f.open > maxFiles {
			return &unusable{fmt.Errorf("it refers to more than %d others", maxFiles)}
		}
		f.texts[ref.Name] = "" // one that refers to itself ends here, and fails when it is compiled
		b, err := f.get(ctx, fmt.Sprintf("/subjects/%s/versions/%d", url.PathEscape(ref.Subject), ref.Version))
		if err == nil {
			err = f.references(ctx, b)
		}
		if err != nil {
			return err
		}
		f.texts[ref.Name] = b.Schema
		f.names = append(f.names, ref.Name)
	}
	return nil
}

// get asks the registry.
func (f *files) get(ctx context.Context, path string) (*answer, error) {
	var a answer
	err := f.r.client.Do(ctx, http.MethodGet, path, nil, &a)
	var refused *sr.ResponseError
	switch {
	case err == nil && a.Schema == "":
		return nil, f.unavailable("does not answer as one: %s holds no schema", path)
	case err == nil:
		if f.size += len(a.Schema); f.size > maxText {
			return nil, &unusable{fmt.Errorf("it has more than %d MiB with all that it refers to", maxText>>20)}
		}
		return &a, nil
	case errors.Is(err, errTooLarge):
		return nil, &unusable{errTooLarge}
	case errors.As(err, &refused):
		return nil, f.refusal(path, refused)
	case ctx.Err() != nil:
		return nil, f.unavailable("did not answer in time")
	}
	var u *url.Error
	if errors.As(err, &u) { // without the address, which is said already
		err = u.Err
	}
	return nil, f.unavailable("cannot be asked: %w", err)
}

// refusal says what an answer that is none means. Only the registry's own codes say that something does not exist: a
// mistaken address gives 404 too.
func (f *files) refusal(path string, e *sr.ResponseError) error {
	switch {
	case e.StatusCode == http.StatusNotFound && e.ErrorCode == 40403 && strings.HasPrefix(path, "/schemas/"):
		return unknown(f.id)
	case e.StatusCode == http.StatusNotFound && e.ErrorCode >= 40401 && e.ErrorCode <= 40403:
		return &unusable{fmt.Errorf("it refers to %s, which the schema registry does not have", path)}
	case e.StatusCode == http.StatusNotFound:
		return f.unavailable("has no %s (404): is this the address of its REST API?", path)
	case e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden:
		return f.unavailable("refuses us (%d): see schema_registry.username and password_file", e.StatusCode)
	}
	text := e.Message
	if len(text) > 100 {
		text = text[:100] + "..."
	}
	return f.unavailable("answers %d: %q", e.StatusCode, text)
}

func (f *files) unavailable(format string, args ...any) error {
	return schemas.Errorf(schemas.Unavailable, op, "the schema registry %s "+format, append([]any{f.r.url}, args...)...)
}

var errTooLarge = fmt.Errorf("it has more than %d MiB", maxAnswer>>20)

// bounded cuts answers that are too long.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
