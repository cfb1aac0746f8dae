package codec

import (
	"context"
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/confluent"
	"github.com/leatstream/leat/schemas/csvrow"
	"github.com/leatstream/leat/schemas/jsonrow"
	"github.com/leatstream/leat/schemas/wire"
)

const op = "codec.For"

// The formats that input.format names.
const (
	JSON     = "json"     // one object is one row; or native {"rows":[..]} and {"columns":{..}}, or Open Inference Protocol
	CSV      = "csv"      // lines without a header, in the order of input.columns or of the model's columns
	Arrow    = "arrow"    // an Arrow IPC stream
	Avro     = "avro"     // a record in the schema registry's format
	Protobuf = "protobuf" // a message in the schema registry's format
)

// Formats lists them, for error lines and descriptions.
var Formats = []string{JSON, CSV, Arrow, Avro, Protobuf}

// Input says how the records of a topic are written that have no Content-Type. It is immutable and safe for concurrent
// use. See ParseInput.
type Input struct {
	format string
	csv    *csvrow.Codec
}

// ParseInput reads input.format and input.columns of a pipeline; "" is JSON. columns are names of a CSV line's cells and
// go with that format only. The error is Invalid and names the field.
func ParseInput(format string, columns []string) (*Input, error) {
	in := &Input{format: format}
	switch format {
	case "":
		in.format = JSON
	case JSON, CSV, Arrow, Avro, Protobuf:
	default:
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "input.format", "%.40q is no format: want %s", format, strings.Join(Formats, ", "))
	}
	if len(columns) > 0 && in.format != CSV {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "input.columns", "only lines of csv have columns by position: set input.format to csv")
	}
	var err error
	if in.csv, err = csvrow.New(columns, jsonrow.Rows()); err != nil {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "input.columns", "%w", err)
	}
	return in, nil
}

// Format returns the format's name.
func (in *Input) Format() string { return in.format }

// Check is Invalid if records of this input can never be rows of the schema: CSV whose columns lack one that is not
// nullable. Of the other formats nothing is known before a record comes.
func (in *Input) Check(s *schemas.Schema) error {
	if in.format != CSV {
		return nil
	}
	if err := in.csv.Check(s); err != nil {
		return schemas.FieldErrorf(schemas.Invalid, op, "input.columns", "%w", err)
	}
	return nil
}

// Config is what the formats need of the server.
type Config struct {
	Registry confluent.Config
}

// Set is the formats of one server. It is safe for concurrent use; it runs nothing and has nothing to close.
type Set struct {
	registry *confluent.Registry
}

// New makes a Set; it does no I/O. The error is Invalid and names the field of the configuration.
func New(c Config) (*Set, error) {
	r, err := confluent.New(c.Registry, jsonrow.Rows())
	if err != nil {
		return nil, err
	}
	return &Set{registry: r}, nil
}

// Check is Invalid if this server cannot read the format: Avro and Protobuf need a schema registry.
func (s *Set) Check(in *Input) error {
	if (in.format == Avro || in.format == Protobuf) && !s.registry.Configured() {
		return schemas.FieldErrorf(schemas.Invalid, op, "input.format", "%s needs a schema registry, and none is configured: set schema_registry.url in the server's configuration", in.format)
	}
	return nil
}

// For returns the codec of a record. Its Content-Type decides if it has one that names a format, else in does. With a
// nil in the message is a request: see the function For.
//
// A record of Avro or Protobuf whose schema is not known yet is asked for at the registry, within ctx and the registry's
// own deadline: the error is Unavailable if that fails, and the record is to be tried again; every other error is
// Invalid, and the record can never be read. Of a known schema For does not allocate and does not wait.
func (s *Set) For(ctx context.Context, m *schemas.Message, in *Input) (schemas.Codec, error) {
	if in == nil {
		return For(m)
	}
	if len(m.Payload) == 0 {
		return nil, schemas.Errorf(schemas.Invalid, op, "a record without a value (tombstone) holds no row")
	}
	format := in.format
	if ct := m.Header.Get(schemas.HeaderContentType); ct != "" {
		switch format = named(ct, m); {
		case format == "":
			return For(m) // JSON or Arrow; else it says what is taken
		case format == octets:
			format = in.format
		}
	}
	switch format {
	case CSV:
		return in.csv, nil
	case Arrow:
		return wire.StreamCodec{}, nil
	case Avro:
		c, err := s.registry.Avro(ctx, m.Payload)
		if err != nil {
			return nil, err
		}
		return c, nil
	case Protobuf:
		c, err := s.registry.Protobuf(ctx, m.Payload)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	return document(m), nil
}

// octets stands for a content type that says nothing.
const octets = "octets"

// named returns the format that only records of topics come in, or octets.
func named(ct string, m *schemas.Message) string {
	ct = media(ct)
	for i := range eventTypes {
		if strings.EqualFold(ct, eventTypes[i].ct) {
			if f := eventTypes[i].format; f != octets || !binaryTensors(m) {
				return f
			}
		}
	}
	return ""
}

// eventTypes are what producers call the formats: none but text/csv is registered.
var eventTypes = [...]struct{ ct, format string }{
	{csvrow.ContentType, CSV},
	{"application/avro", Avro}, {"application/x-avro", Avro}, {"application/vnd.apache.avro", Avro}, {"avro/binary", Avro},
	{"application/protobuf", Protobuf}, {"application/x-protobuf", Protobuf}, {"application/vnd.google.protobuf", Protobuf},
	{"application/octet-stream", octets},
}
