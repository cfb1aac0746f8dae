package registry

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/schemas/confluent"
	"github.com/leatstream/leat/schemas/jsonrow"
)

const (
	carrierAvro = `{"type":"record","name":"Carrier","namespace":"ref","fields":[{"name":"code","type":{"type":"enum","name":"Code","symbols":["UA","B6"]}}]}`
	flightAvro  = `{"type":"record","name":"Flight","fields":[{"name":"dep_delay","type":["null","double"],"default":null},{"name":"carrier","type":"ref.Carrier"},
		{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}}]}`
	carrierProto = `syntax = "proto3"; package ref; message Carrier { Code code = 1; } enum Code { UA = 0; B6 = 1; }`
	flightProto  = `syntax = "proto3"; import "ref/carrier.proto"; import "google/protobuf/timestamp.proto";
		message Heartbeat { int64 n = 1; }
		message Flight { optional double dep_delay = 1; ref.Carrier carrier = 2; google.protobuf.Timestamp at = 3; map<string, string> more = 4; }`
)

var departures = schemas.MustSchema(schemas.Field{Name: "dep_delay", Type: schemas.Float32, Nullable: true}, schemas.Field{Name: "carrier.code", Type: schemas.String}, schemas.Field{Name: "at", Type: schemas.Timestamp})

// Schemas are registered with franz-go's client, and records written with the encoders of twmb/avro and protobuf-go: of
// what is tested nothing has part in that.
func TestAgainstRegistry(t *testing.T) {
	reg := Start(t)
	ctx := t.Context()
	client, err := sr.NewClient(sr.URLs(reg.URL()))
	if err != nil {
		t.Fatal(err)
	}
	register := func(subject string, s sr.Schema) int {
		t.Helper()
		out, err := client.CreateSchema(ctx, subject, s)
		if err != nil {
			t.Fatal(err)
		}
		return out.ID
	}
	register("avro/carrier", sr.Schema{Schema: carrierAvro}) // a slash, as in the names of files
	avroID := register("flights-value", sr.Schema{Schema: flightAvro, References: []sr.SchemaReference{{Name: "ref.Carrier", Subject: "avro/carrier", Version: 1}}})
	register("ref/carrier.proto", sr.Schema{Schema: carrierProto, Type: sr.TypeProtobuf})
	protoID := register("flights-proto-value", sr.Schema{Schema: flightProto, Type: sr.TypeProtobuf, References: []sr.SchemaReference{{Name: "ref/carrier.proto", Subject: "ref/carrier.proto", Version: 1}}})
	plainID := register("plain-value", sr.Schema{Schema: `"string"`})

	set, err := codec.New(codec.Config{Registry: confluent.Config{URL: reg.URL()}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"dep_delay":12.5,"carrier.code":"B6","at":"2026-05-01T12:00:00.123Z"}`
	avroRecord := header(t, avroID, nil, encodeAvro(t))
	protoRecord := header(t, protoID, []int{1}, encodeProto(t))
	for format, record := range map[string][]byte{codec.Avro: avroRecord, codec.Protobuf: protoRecord} {
		if got := read(ctx, set, format, record); got != want {
			t.Errorf("%s: %s, want %s", format, got, want)
		}
	}
	for _, c := range []struct {
		record []byte
		want   string
	}{
		{header(t, 99999, nil, nil), "invalid: schema 99999 is not in the schema registry"},
		{header(t, plainID, nil, []byte{2, 'a'}), fmt.Sprintf("invalid: schema %d: the schema is of type \"string\": want a record", plainID)},
		{protoRecord, fmt.Sprintf("invalid: schema %d is of type PROTOBUF, the record is read as AVRO", protoID)},
	} {
		if got := read(ctx, set, codec.Avro, c.record); !strings.HasPrefix(got, c.want) {
			t.Errorf("%x: %s, want %s", c.record, got, c.want)
		}
	}
	// Another address of the same server is no registry.
	wrong, err := codec.New(codec.Config{Registry: confluent.Config{URL: strings.TrimSuffix(reg.URL(), "/apis/ccompat/v7") + "/nowhere"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(ctx, wrong, codec.Avro, avroRecord); !strings.HasPrefix(got, "unavailable: ") || !strings.Contains(got, "is this the address of its REST API?") {
		t.Error(got)
	}
	// Without the registry what is known is read on, and what is not waits.
	reg.Stop()
	if got := read(ctx, set, codec.Protobuf, protoRecord); got != want {
		t.Error(got)
	}
	if got := read(ctx, set, codec.Avro, header(t, avroID+1000, nil, nil)); !strings.HasPrefix(got, "unavailable: the schema registry ") {
		t.Error(got)
	}
}

func read(ctx context.Context, set *codec.Set, format string, record []byte) string {
	in, err := codec.ParseInput(format, nil)
	if err != nil {
		return err.Error()
	}
	m := &schemas.Message{Payload: record}
	c, err := set.For(ctx, m, in)
	if err != nil {
		return schemas.KindOf(err).String() + ": " + err.Error()
	}
	b := schemas.NewBatch(departures)
	_, bad, _, err := c.(schemas.RowCodec).AppendGood(b, m, nil)
	switch {
	case err != nil:
		return err.Error()
	case len(bad) > 0:
		return bad[0].Err.Error()
	}
	return string(jsonrow.AppendObject(nil, b, 0))
}

func header(t *testing.T, id int, index []int, value []byte) []byte {
	t.Helper()
	b, err := new(sr.ConfluentHeader).AppendEncode(nil, id, index)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, value...)
}

func encodeAvro(t *testing.T) []byte {
	t.Helper()
	var cache avro.SchemaCache
	if _, err := cache.Parse(carrierAvro); err != nil {
		t.Fatal(err)
	}
	s, err := cache.Parse(flightAvro)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Encode(map[string]any{"dep_delay": 12.5, "carrier": map[string]any{"code": "B6"}, "at": "2026-05-01T12:00:00.123Z", "price": "19.99"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encodeProto(t *testing.T) []byte {
	t.Helper()
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"f.proto": flightProto, "ref/carrier.proto": carrierProto})})}
	files, err := c.Compile(t.Context(), "f.proto")
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(files[0].Messages().ByName("Flight"))
	if err := prototext.Unmarshal([]byte(`dep_delay: 12.5 carrier{code: B6} at{seconds: 1777636800 nanos: 123000000} more{key:"a" value:"b"}`), m); err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
