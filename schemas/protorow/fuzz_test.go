package protorow

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

// kinds has a field of each kind; everything wants all of them.
var kinds = proto3(`message M { int32 i32=1; int64 i64=2; uint32 u32=3; uint64 u64=4; sint32 s32=5; sint64 s64=6; fixed32 f32=7; fixed64 f64=8; sfixed32 sf32=9;
	sfixed64 sf64=10; float f=11; double d=12; bool b=13; string s=14; bytes y=15; optional int32 oi=16; E e=17; C c=18; repeated int32 r=19; repeated double rd=20 [packed=false];
	oneof o { int32 x=21; string z=22; C oc=23; } google.protobuf.Timestamp t=24; google.protobuf.Int64Value w=25; uint32 far=1000;
	message C { int32 p=1; optional string q=2; C c=3; } } enum E { ZERO=0; ONE=1; MINUS=-1; }`)

var everything = cols(col("i32", schemas.Int32), col("i64", schemas.Int64), col("u32", schemas.Uint32), col("u64", schemas.Uint64), col("s32", schemas.Int32),
	col("s64", schemas.Int64), col("f32", schemas.Uint32), col("f64", schemas.Uint64), col("sf32", schemas.Int32), col("sf64", schemas.Int64), col("f", schemas.Float32),
	col("d", schemas.Float64), col("b", schemas.Bool), col("s", schemas.String), col("y", schemas.Binary), null(col("oi", schemas.Int32)), col("e", schemas.Int32),
	null(col("c.p", schemas.Int32)), null(col("c.q", schemas.String)), null(col("c.c.p", schemas.Int32)), null(col("r", schemas.Int32, 2)), null(col("rd", schemas.Float64, 2)),
	null(col("x", schemas.Int32)), null(col("z", schemas.String)), null(col("oc.p", schemas.Int32)), null(col("oc.q", schemas.String)), null(col("t", schemas.Timestamp)),
	null(col("w", schemas.Int64)), col("far", schemas.Uint32))

// against compares a row with what the library makes of the same bytes; false if it makes nothing of them.
func against(t *testing.T, m *Message, dst *schemas.Batch, b []byte) bool {
	t.Helper()
	v := dynamicpb.NewMessage(m.desc)
	if err := proto.Unmarshal(b, v); err != nil {
		return false
	}
	for i := range dst.Schema().Len() {
		c := dst.Column(i)
		want, ok := lookup(v, strings.Split(c.Field().Name, "."))
		if got := elements(c); ok && fmt.Sprint(got) != fmt.Sprint(want) || ok == c.IsNull(0) {
			t.Fatalf("%x: %s is %v (%v) for the library, and ours is %v (null %v)", b, c.Field(), want, ok, got, c.IsNull(0))
		}
	}
	return true
}

// lookup follows a path of names; false for what a row has as null.
func lookup(v protoreflect.Message, path []string) ([]any, bool) {
	f := v.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	if f.HasPresence() && !v.Has(f) {
		return nil, false
	}
	got := v.Get(f)
	switch {
	case len(path) > 1:
		return lookup(got.Message(), path[1:])
	case f.IsList():
		var out []any
		for i := range got.List().Len() {
			out = append(out, plain(f, got.List().Get(i)))
		}
		return out, len(out) > 0
	case f.Message() != nil && f.Message().Name() == "Timestamp":
		in := got.Message()
		s, n := in.Get(in.Descriptor().Fields().ByNumber(1)).Int(), in.Get(in.Descriptor().Fields().ByNumber(2)).Int()
		return []any{s*1e9 + n}, true
	case f.Message() != nil:
		in := got.Message()
		return []any{plain(in.Descriptor().Fields().ByNumber(1), in.Get(in.Descriptor().Fields().ByNumber(1)))}, true
	}
	return []any{plain(f, got)}, true
}

func plain(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.EnumKind:
		return int32(v.Enum())
	case protoreflect.StringKind:
		return []byte(v.String())
	}
	return v.Interface()
}

func elements(c *schemas.Column) []any {
	var out []any
	for e := range c.Width() {
		switch c.Field().Type {
		case schemas.Bool:
			out = append(out, c.Data()[e] == 1)
		case schemas.Int32:
			out = append(out, schemas.Values[int32](c)[e])
		case schemas.Int64, schemas.Timestamp:
			out = append(out, schemas.Values[int64](c)[e])
		case schemas.Uint32:
			out = append(out, schemas.Values[uint32](c)[e])
		case schemas.Uint64:
			out = append(out, schemas.Values[uint64](c)[e])
		case schemas.Float32:
			out = append(out, schemas.Values[float32](c)[e])
		case schemas.Float64:
			out = append(out, schemas.Values[float64](c)[e])
		default:
			out = append(out, c.Text(e))
		}
	}
	return out
}

// sample makes a random message of a type, with tensors of the sizes that everything wants.
func sample(r *rand.Rand, d protoreflect.MessageDescriptor, depth int) protoreflect.Message {
	m := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if r.IntN(3) == 0 || depth > 2 && f.Message() != nil {
			continue
		}
		switch {
		case f.IsList():
			l := m.Mutable(f).List()
			for range 2 {
				l.Append(value(r, f, depth))
			}
		default:
			m.Set(f, value(r, f, depth))
		}
	}
	return m
}

func value(r *rand.Rand, f protoreflect.FieldDescriptor, depth int) protoreflect.Value {
	u := r.Uint64() >> r.IntN(64)
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(u&1 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(u)))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(u))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		if f.ContainingMessage().Name() == "Timestamp" {
			return protoreflect.ValueOfInt64(int64(u%4e9) - 2e9)
		}
		return protoreflect.ValueOfInt64(int64(u))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(u))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(u)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(r.NormFloat64()))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(math.Ldexp(r.NormFloat64(), r.IntN(600)-300))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString([]string{"", "a", "Zürich"}[r.IntN(3)])
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(bytes.Repeat([]byte{byte(u)}, r.IntN(4)))
	}
	if f.Message().Name() == "Timestamp" {
		m := sample(r, f.Message(), depth+1)
		m.Set(f.Message().Fields().ByNumber(2), protoreflect.ValueOfInt32(int32(u%1e9)))
		return protoreflect.ValueOfMessage(m)
	}
	return protoreflect.ValueOfMessage(sample(r, f.Message(), depth+1))
}

// What the library writes, we read as the library does; two messages behind each other as well, which are merged.
func TestAgainstLibrary(t *testing.T) {
	m := message(t, kinds)
	r := rand.New(rand.NewPCG(1, 2))
	dst := schemas.NewBatch(everything)
	for i := range 3000 {
		b, err := proto.Marshal(sample(r, m.desc, 0).Interface())
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			v := sample(r, m.desc, 0) // with the lists of one only, for they are appended
			v.Clear(m.desc.Fields().ByName("r"))
			v.Clear(m.desc.Fields().ByName("rd"))
			if b, err = (proto.MarshalOptions{}).MarshalAppend(b, v.Interface()); err != nil {
				t.Fatal(err)
			}
		}
		dst.Reset()
		if err := m.Append(dst, b); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if !against(t, m, dst, b) {
			t.Fatalf("%x: the library cannot read it", b)
		}
	}
}

// FuzzMessage reads any bytes as a message of all kinds: where we and the library both read it the values are the same,
// and what we refuse leaves the batch as it was.
func FuzzMessage(f *testing.F) {
	m := message(f, kinds)
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b, err := proto.Marshal(sample(r, m.desc, 0).Interface())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	few := cols(col("e", schemas.String), null(col("oc.q", schemas.String)), null(col("none", schemas.Float64, 4)))
	f.Fuzz(func(t *testing.T, b []byte) {
		dst := schemas.NewBatch(everything)
		if err := m.Append(dst, b); err == nil {
			against(t, m, dst, b)
		} else if err.Kind != schemas.Invalid {
			t.Fatal(err)
		}
		dst = schemas.NewBatch(few)
		before := schemas.NewBatch(few)
		schemastest.Fill(dst, rand.New(rand.NewPCG(1, 1)), 3)
		before.AppendRange(dst, 0, 3)
		if err := m.Append(dst, b); err != nil {
			if d := schemastest.Diff(before, dst); d != "" {
				t.Fatal(d)
			}
		} else if dst.Rows() != 4 {
			t.Fatal(dst.Rows(), "rows")
		}
	})
}

// FuzzFile compiles any file, and reads a few bytes as its first message.
func FuzzFile(f *testing.F) {
	for _, s := range []string{kinds, `syntax = "proto2"; message M { optional group G = 1 { optional int32 i32 = 1 [default = 5]; } extensions 5 to 9; }`,
		`edition = "2023"; import "google/type/date.proto"; message M { google.type.Date c = 1; }`, `message M { map<string, M> i32 = 1; }`} {
		f.Add(s, []byte("\x08\x05\x12\x01a\x0b\x08\x01\x0c"))
	}
	f.Fuzz(func(t *testing.T, source string, b []byte) {
		if len(source) > 2<<10 {
			return
		}
		file, err := Parse(context.Background(), source, nil)
		if err != nil {
			if schemas.KindOf(err) != schemas.Invalid {
				t.Fatal(err)
			}
			return
		}
		m, err := file.Message([]int{0})
		if err != nil {
			return
		}
		for _, to := range []*schemas.Schema{everything, cols(null(col("i32", schemas.Float32)), null(col("c.p", schemas.Int8)))} {
			if err := m.Append(schemas.NewBatch(to), b); err != nil && err.Kind != schemas.Invalid {
				t.Fatal(err)
			}
		}
	})
}

// flights is a message of 13 floats, and as many columns.
func flights(t testing.TB) (*Message, *schemas.Schema, []byte) {
	source, text := "", ""
	cs := make([]schemas.Field, 13)
	for i := range cs {
		name := fmt.Sprintf("feature_%02d", i)
		source += fmt.Sprintf("float %s = %d; ", name, i+1)
		text += fmt.Sprintf("%s: %v ", name, float32(i+1)*1.25)
		cs[i] = col(name, schemas.Float32)
	}
	m := message(t, proto3("message M { "+source+" }"))
	return m, cols(cs...), encode(t, m, text)
}

func BenchmarkAppend(b *testing.B) {
	m, to, msg := flights(b)
	dst := schemas.NewBatch(to)
	b.ReportAllocs()
	for b.Loop() {
		dst.Reset()
		if err := m.Append(dst, msg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLibrary decodes the same message into the library's own form, which is not yet a row.
func BenchmarkLibrary(b *testing.B) {
	m, _, msg := flights(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := proto.Unmarshal(msg, dynamicpb.NewMessage(m.desc)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	m, to, msg := flights(t)
	dst := schemas.NewBatch(to)
	if got := testing.AllocsPerRun(200, func() {
		dst.Reset()
		if err := m.Append(dst, msg); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations to decode a message, want 0", got)
	}
}
