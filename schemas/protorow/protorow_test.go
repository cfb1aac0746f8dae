package protorow

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
)

func file(t testing.TB, source string, imports map[string]string) *File {
	t.Helper()
	f, err := Parse(context.Background(), source, imports)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func message(t testing.TB, source string, index ...int) *Message {
	t.Helper()
	if index == nil {
		index = []int{0}
	}
	m, err := file(t, source, nil).Message(index)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// encode writes a message, given as text, with the library, which knows nothing of our decoder.
func encode(t testing.TB, m *Message, text string) []byte {
	t.Helper()
	v := dynamicpb.NewMessage(m.desc)
	if err := prototext.Unmarshal([]byte(text), v); err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// row prints the row that a message became, or why it did not.
func row(t testing.TB, m *Message, to *schemas.Schema, b []byte) string {
	t.Helper()
	dst := schemas.NewBatch(to)
	if err := m.Append(dst, b); err != nil {
		if err.Kind != schemas.Invalid || dst.Rows() != 0 {
			t.Errorf("%v of kind %v, %d rows", err, err.Kind, dst.Rows())
		}
		return err.Error()
	}
	return string(jsonrow.AppendObject(nil, dst, 0))
}

func cols(fields ...schemas.Field) *schemas.Schema { return schemas.MustSchema(fields...) }

func col(name string, t schemas.DType, shape ...int) schemas.Field {
	return schemas.Field{Name: name, Type: t, Shape: shape}
}

func null(f schemas.Field) schemas.Field {
	f.Nullable = true
	return f
}

func proto3(body string) string {
	return `syntax = "proto3"; package a.b; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto"; ` + body
}

// Bytes that others wrote: the examples of the Protobuf documentation (Encoding).
func TestRecordedBytes(t *testing.T) {
	for _, c := range []struct {
		source, bytes string
		to            *schemas.Schema
		want          string
	}{
		{proto3(`message Test1 { optional int32 a = 1; }`), "08 96 01", cols(col("a", schemas.Int32)), `{"a":150}`},
		{proto3(`message Test2 { optional string b = 2; }`), "12 07 74 65 73 74 69 6e 67", cols(col("b", schemas.String)), `{"b":"testing"}`},
		{proto3(`message Test1 { optional int32 a = 1; } message Test3 { optional Test1 c = 3; }`), "1a 03 08 96 01", cols(col("c.a", schemas.Int32)), `{"c.a":150}`},
		{proto3(`message Test4 { string d = 4; repeated int32 e = 6; }`), "22 05 68 65 6c 6c 6f 30 01 30 02 30 03", cols(col("d", schemas.String), col("e", schemas.Int32, 3)), `{"d":"hello","e":[1,2,3]}`},
		{proto3(`message Test5 { repeated int32 f = 6 [packed=true]; }`), "32 06 03 8e 02 9e a7 05", cols(col("f", schemas.Int32, 3)), `{"f":[3,270,86942]}`},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(c.bytes, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		index := 0
		if strings.Contains(c.source, "Test3") {
			index = 1
		}
		if got := row(t, message(t, c.source, index), c.to, b); got != c.want {
			t.Errorf("%s: %s, want %s", c.bytes, got, c.want)
		}
	}
}

func TestFields(t *testing.T) {
	for _, c := range []struct {
		name, source, value string
		to                  *schemas.Schema
		want                string
	}{
		{"kinds", proto3(`message M { int32 a=1; int64 b=2; uint32 c=3; uint64 d=4; sint32 e=5; sint64 f=6; fixed32 g=7; fixed64 h=8; sfixed32 i=9; sfixed64 j=10; float k=11; double l=12; bool m=13; string n=14; bytes o=300; }`),
			`a:-1 b:-2 c:4294967295 d:18446744073709551615 e:-5 f:-6 g:7 h:8 i:-9 j:-10 k:1.5 l:2.5 m:true n:"x" o:"y"`,
			cols(col("o", schemas.Binary), col("a", schemas.Int32), col("b", schemas.Int64), col("c", schemas.Uint32), col("d", schemas.Uint64), col("e", schemas.Int8), col("f", schemas.Float32), col("g", schemas.Uint8), col("h", schemas.Uint64),
				col("i", schemas.Int32), col("j", schemas.Int64), col("k", schemas.Float32), col("l", schemas.Float64), col("m", schemas.Bool), col("n", schemas.String)),
			`{"o":"eQ==","a":-1,"b":-2,"c":4294967295,"d":18446744073709551615,"e":-5,"f":-6,"g":7,"h":8,"i":-9,"j":-10,"k":1.5,"l":2.5,"m":true,"n":"x"}`},
		{"without presence absent is zero", proto3(`message M { int32 a=1; string b=2; E e=3; bool c=4; double d=5; bytes f=6; uint32 u=7; } enum E { ZERO=0; ONE=1; }`), ``,
			cols(null(col("a", schemas.Int32)), col("b", schemas.String), col("e", schemas.String), col("c", schemas.Bool), col("d", schemas.Float32), col("f", schemas.Binary), col("u", schemas.Int8)),
			`{"a":0,"b":"","e":"ZERO","c":false,"d":0,"f":"","u":0}`},
		{"with presence absent is null", proto3(`message M { optional int32 a=1; google.protobuf.DoubleValue w=2; google.protobuf.Timestamp t=3; }`), ``,
			cols(null(col("a", schemas.Int32)), null(col("w", schemas.Float32)), null(col("t", schemas.Timestamp))), `{"a":null,"w":null,"t":null}`},
		{"or refused", proto3(`message M { optional int32 a=1; }`), ``, cols(col("a", schemas.Int32)), `a: missing`},
		{"zero with presence", proto3(`message M { optional int32 a=1; google.protobuf.DoubleValue w=2; google.protobuf.Timestamp t=3; google.protobuf.StringValue s=4; }`), `a:0 w{} t{} s{value:"x"}`,
			cols(null(col("a", schemas.Int32)), null(col("w", schemas.Float32)), null(col("t", schemas.Timestamp)), null(col("s", schemas.String))), `{"a":0,"w":0,"t":"1970-01-01T00:00:00Z","s":"x"}`},
		{"a timestamp", proto3(`message M { google.protobuf.Timestamp t=1; }`), `t{seconds:-1 nanos:5}`, cols(col("t", schemas.Timestamp)), `{"t":"1969-12-31T23:59:59.000000005Z"}`},
		{"a timestamp's parts", proto3(`message M { google.protobuf.Timestamp t=1; }`), `t{seconds:12}`, cols(col("t.seconds", schemas.Float64), col("t.nanos", schemas.Int64)), `{"t.seconds":12,"t.nanos":0}`},
		{"a timestamp out of range", proto3(`message M { google.protobuf.Timestamp t=1; }`), `t{seconds:99999999999}`, cols(col("t", schemas.Timestamp)), `t: 99999999999 seconds are out of the range of nanosecond timestamps (1677-09-21 to 2262-04-11)`},
		{"a broken timestamp", proto3(`message M { google.protobuf.Timestamp t=1; }`), `t{nanos:1000000000}`, cols(col("t", schemas.Timestamp)), `t: a timestamp with 1000000000 nanoseconds`},
		{"a timestamp is no number", proto3(`message M { google.protobuf.Timestamp t=1; }`), `t{seconds:1}`, cols(col("t", schemas.Int64)), `t: a timestamp cannot be a value of int64`},
		{"missing", proto3(`message M { int32 a=1; }`), `a:1`, cols(null(col("b", schemas.Int8)), col("a", schemas.Int8)), `{"b":null,"a":1}`},
		{"out of range", proto3(`message M { int32 a=1; }`), `a:300`, cols(col("a", schemas.Int8)), `a: 300 is out of the range of int8`},
		{"double to float", proto3(`message M { double a=1; }`), `a:1e300`, cols(col("a", schemas.Float32)), `a: 1e+300 is out of the range of float32`},
		{"text is no number", proto3(`message M { string a=1; }`), `a:"1"`, cols(col("a", schemas.Float32)), `a: text cannot be a value of float32`},
		{"nested", proto3(`message M { C c=1; message C { string code=1; optional int32 fleet=2; D d=3; } message D { double x=1; } }`), `c{code:"UA" d{x:1.5}}`,
			cols(col("c.code", schemas.String), null(col("c.fleet", schemas.Int32)), col("c.d.x", schemas.Float32)), `{"c.code":"UA","c.fleet":null,"c.d.x":1.5}`},
		{"nested and absent", proto3(`message M { C c=1; message C { string code=1; } }`), ``, cols(null(col("c.code", schemas.String))), `{"c.code":null}`},
		{"nested and empty", proto3(`message M { C c=1; message C { string code=1; } }`), `c{}`, cols(null(col("c.code", schemas.String))), `{"c.code":""}`},
		{"recursive", proto3(`message M { int32 v=1; M next=2; }`), `v:1 next{v:2 next{v:3}}`, cols(col("v", schemas.Int8), col("next.next.v", schemas.Int8), null(col("next.next.next.v", schemas.Int8))), `{"v":1,"next.next.v":3,"next.next.next.v":null}`},
		{"enums", proto3(`message M { E a=1; E b=2; repeated E c=3; } enum E { ZERO=0; ONE=1; TWO=2; }`), `a:ONE b:TWO c:[ONE,ZERO]`, cols(col("a", schemas.String), col("b", schemas.Int8), col("c", schemas.String, 2)), `{"a":"ONE","b":2,"c":["ONE","ZERO"]}`},
		{"an enum without a name", proto3(`message M { E a=1; E b=2; } enum E { ZERO=0; }`), `a:7`, cols(col("a", schemas.String)), `a: number 7 has no name in the enum`},
		{"an enum without a name as a number", proto3(`message M { E a=1; } enum E { ZERO=0; }`), `a:-7`, cols(col("a", schemas.Int32)), `{"a":-7}`},
		{"oneof", proto3(`message M { oneof o { int32 a=1; string b=2; C c=3; } message C { int32 x=1; } }`), `b:"x"`, cols(null(col("a", schemas.Int32)), null(col("b", schemas.String)), null(col("c.x", schemas.Int8))), `{"a":null,"b":"x","c.x":null}`},
		{"repeated", proto3(`message M { repeated double a=1; repeated string b=2; repeated int32 c=3 [packed=false]; }`), `a:[1,2,3,4] b:["x","y"] c:[5,6]`, cols(col("a", schemas.Float32, 2, 2), col("b", schemas.String, 2), col("c", schemas.Int64, 2)), `{"a":[[1,2],[3,4]],"b":["x","y"],"c":[5,6]}`},
		{"too few", proto3(`message M { repeated double a=1; }`), `a:1`, cols(col("a", schemas.Float32, 2)), `a: 1 elements for the tensor a float32[2]`},
		{"too many", proto3(`message M { repeated double a=1; }`), `a:[1,2,3]`, cols(col("a", schemas.Float32, 2)), `a: more elements than the tensor holds`},
		{"no elements", proto3(`message M { repeated double a=1; }`), ``, cols(null(col("a", schemas.Float32, 2))), `{"a":null}`},
		{"features", proto3(`message M { double v=2; optional double u=1; }`), `v:2.5`, cols(schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{2}, Features: []string{"u", "v"}, Nullable: true}), `{"x":["NaN",2.5]}`},
		{"repeated as a number", proto3(`message M { repeated double a=1; }`), ``, cols(col("a", schemas.Float32)), `a: the Protobuf field is repeated, which no column can hold`},
		{"a map", proto3(`message M { map<string,int32> a=1; }`), ``, cols(null(col("a", schemas.Float32))), `a: the Protobuf field is a map, which no column can hold`},
		{"a message", proto3(`message M { C c=1; message C { int32 x=1; } }`), ``, cols(null(col("c", schemas.Float32))), `c: the Protobuf field is a message, which no column can hold: name one of its fields, with a dot`},
		{"messages", proto3(`message M { repeated C c=1; message C { int32 x=1; } }`), ``, cols(null(col("c.x", schemas.Float32))), `c: the Protobuf field is repeated messages, which no column can hold`},
		{"no message", proto3(`message M { int32 c=1; }`), ``, cols(null(col("c.x", schemas.Float32))), `c: the Protobuf field is no message, as the name of a column asks`},
		{"a decimal", proto3(`import "confluent/type/decimal.proto"; message M { confluent.type.Decimal c=1; }`), ``, cols(null(col("c", schemas.Float32))), `c: the Protobuf field is a decimal, which no column can hold: write a double`},
		{"proto2", `syntax = "proto2"; message M { required int32 a=1; optional int32 b=2 [default=5]; optional E e=3; repeated group G = 4 { optional int32 x=1; } optional group H = 5 { optional int32 y=6; } } enum E { A=1; B=2; }`,
			`a:1 G{x:1} H{y:9}`, cols(col("a", schemas.Int8), col("b", schemas.Int8), null(col("e", schemas.String)), col("h.y", schemas.Int8)), `{"a":1,"b":5,"e":null,"h.y":9}`},
		{"a long default", `syntax = "proto2"; message M { optional string a=1 [default="` + strings.Repeat("x", 300) + `"]; }`, ``, cols(col("a", schemas.String)), `a: the Protobuf field has a default of more than 256 bytes`},
		{"a long name", proto3(`message M { E a=1; } enum E { ` + strings.Repeat("X", 300) + ` = 0; }`), ``, cols(col("a", schemas.String)), `a: the Protobuf field is an enum with a name of more than 256 bytes`},
		{"editions", `edition = "2023"; message M { int32 a=1; int32 b=2 [features.field_presence=IMPLICIT]; }`, ``, cols(null(col("a", schemas.Int8)), col("b", schemas.Int8)), `{"a":null,"b":0}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := message(t, c.source)
			if got := row(t, m, c.to, encode(t, m, c.value)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// The last value counts, messages that come in pieces are one, and of a oneof the last member counts: as all of
// Protobuf's implementations have it. Concatenated bytes are merged messages.
func TestMerging(t *testing.T) {
	m := message(t, proto3(`message M { int32 a=1; C c=2; oneof o { int32 x=3; C y=4; string z=5; } google.protobuf.Timestamp t=6; repeated int32 r=7; message C { int32 p=1; int32 q=2; } }`))
	to := cols(col("a", schemas.Int32), null(col("c.p", schemas.Int32)), null(col("c.q", schemas.Int32)), null(col("x", schemas.Int32)), null(col("y.p", schemas.Int32)), null(col("t", schemas.Timestamp)), null(col("r", schemas.Int32, 3)))
	for _, c := range []struct {
		parts []string
		want  string
	}{
		{[]string{`a:1`, `a:2`}, `{"a":2,"c.p":null,"c.q":null,"x":null,"y.p":null,"t":null,"r":null}`},
		{[]string{`c{p:1 q:2}`, `c{p:3}`}, `{"a":0,"c.p":3,"c.q":2,"x":null,"y.p":null,"t":null,"r":null}`},
		{[]string{`x:1`, `y{p:5}`}, `{"a":0,"c.p":null,"c.q":null,"x":null,"y.p":5,"t":null,"r":null}`},
		{[]string{`y{p:5}`, `x:1`, `y{q:5}`}, `{"a":0,"c.p":null,"c.q":null,"x":null,"y.p":0,"t":null,"r":null}`},
		{[]string{`x:1`, `z:"none of the columns"`}, `{"a":0,"c.p":null,"c.q":null,"x":null,"y.p":null,"t":null,"r":null}`},
		{[]string{`t{seconds:-2 nanos:7}`, `t{seconds:-3}`, `t{nanos:8}`}, `{"a":0,"c.p":null,"c.q":null,"x":null,"y.p":null,"t":"1969-12-31T23:59:57.000000008Z","r":null}`},
		{[]string{`r:[1]`, `a:5 r:[2,3]`}, `{"a":5,"c.p":null,"c.q":null,"x":null,"y.p":null,"t":null,"r":[1,2,3]}`},
	} {
		var b []byte
		for _, p := range c.parts {
			b = append(b, encode(t, m, p)...)
		}
		if got := row(t, m, to, b); got != c.want {
			t.Errorf("%v: %s, want %s", c.parts, got, c.want)
		}
	}
}

func TestFiles(t *testing.T) {
	imports := map[string]string{
		"carriers.proto": `syntax = "proto3"; package ref; import public "codes.proto"; message Carrier { Code code = 1; }`,
		"codes.proto":    `syntax = "proto3"; package ref; enum Code { UA = 0; B6 = 1; }`}
	f := file(t, `syntax = "proto3"; package flights; import "carriers.proto"; import "google/type/latlng.proto";
		message Departure { ref.Carrier carrier = 1; ref.Code own = 2; google.type.LatLng at = 3; map<string, int32> more = 4;
			message First {} message Second { message Deep { double x = 1; } } }
		message Other {}`, imports)
	m, err := f.Message([]int{0})
	if err != nil {
		t.Fatal(err)
	}
	to := cols(col("carrier.code", schemas.String), col("own", schemas.String), col("at.latitude", schemas.Float64))
	if got := row(t, m, to, encode(t, m, `carrier{code:B6} at{latitude:1.5}`)); got != `{"carrier.code":"B6","own":"UA","at.latitude":1.5}` {
		t.Error(got)
	}
	for _, c := range []struct {
		index []int
		want  string
	}{
		{[]int{0}, "flights.Departure"}, {[]int{1}, "flights.Other"}, {[]int{0, 0}, "flights.Departure.First"}, {[]int{0, 1, 0}, "flights.Departure.Second.Deep"},
		{[]int{2}, ""}, {[]int{-1}, ""}, {[]int{0, 2}, ""}, {[]int{1, 0}, ""}, {nil, ""}, {[]int{0, 0, 0, 0, 0}, ""},
	} {
		switch m, err := f.Message(c.index); {
		case err != nil && (c.want != "" || schemas.KindOf(err) != schemas.Invalid):
			t.Errorf("%v: %v", c.index, err)
		case err == nil && string(m.desc.FullName()) != c.want:
			t.Errorf("%v: %s, want %s", c.index, m.desc.FullName(), c.want)
		}
	}
	a, _ := f.Message([]int{0})
	if a != m {
		t.Error("a message is made twice")
	}
	// Options, and imports for them that nobody has, do not matter.
	file(t, `syntax = "proto3"; import "confluent/meta.proto"; import "buf/validate/validate.proto"; option java_package = "x"; option (my.option) = { a: 1 };
		message M { option (confluent.message_meta).doc = "x"; double a = 1 [(confluent.field_meta) = { rules: [ { name: "r" } ] }, deprecated = true, json_name = "q"]; oneof o { option (x) = 1; int32 b = 2; }
			enum E { option (y) = 2; Z = 0 [(confluent.enum_value_meta).doc = "z"]; } }
		service S { rpc Call (Missing) returns (Missing); }`, nil)
	for name := range known {
		file(t, `syntax = "proto3"; import "`+name+`"; message M {}`, nil)
	}
	for _, c := range []struct{ source, want string }{
		{``, ""}, // proto2 without messages
		{`syntax = "proto3"; message M {`, "line 1:"},
		{`syntax = "proto3"; message M { Missing a = 1; }`, "unknown type Missing"},
		{`syntax = "proto3"; import "leat/record.proto"; message M {}`, "cycle"},
		{`{"type":"record"}`, "line 1:1"},
		{strings.Repeat("message M {", 1000), "nested more than 200 deep"},
		{`syntax = "proto3"; message M { int32 a = 1; int32 b = 1; }`, "tag 1"},
	} {
		if _, err := Parse(context.Background(), c.source, nil); c.want != "" && (schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 400) {
			t.Errorf("%.60s: %v, want %s", c.source, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Parse(ctx, `syntax = "proto3"; message M {}`, nil); schemas.KindOf(err) != schemas.Unavailable {
		t.Error("cancelled:", err)
	}
}

func TestBroken(t *testing.T) {
	m := message(t, proto3(`message M { int32 a=1; string b=2; double c=3; float d=4; M m=5; repeated int32 r=6; google.protobuf.Timestamp t=7; map<int32,M> z=8; }`))
	to := cols(null(col("a", schemas.Int32)), null(col("b", schemas.String)), null(col("c", schemas.Float64)), null(col("d", schemas.Float64)), null(col("m.a", schemas.Int8)), null(col("r", schemas.Int32, 2)), null(col("t", schemas.Timestamp)))
	for _, b := range []string{"\x08", "\x08\x80", "\x12\x05a", "\x19123", "\x25123", "\x2a\x02\x08", "\x2a\x02\x08\x80", "\x32\x02\x80\x80", "\x3a\x02\x08\x80", "\x3a\x01\x0a", "\x00\x01",
		"\x0c", "\x0b\x08\x01", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x42\x05a", strings.Repeat("\x4b", 20_000)} {
		if got := row(t, m, to, []byte(b)); !strings.Contains(got, "broken") {
			t.Errorf("%.20x: %s", b, got)
		}
	}
	// A value of another wire type is a field that nobody knows.
	if got := row(t, m, to, []byte("\x0a\x01x\x10\x05\x1d1234")); got != `{"a":0,"b":"","c":0,"d":0,"m.a":null,"r":null,"t":null}` {
		t.Error(got)
	}
	if got := row(t, m, cols(col("b", schemas.String)), []byte("\x12\x01\xff")); got != "b: not UTF-8" {
		t.Error(got)
	}
}
