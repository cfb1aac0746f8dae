package oip

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

func read(b *schemas.Batch, payload string) (int, schemas.Encoder, error) {
	return Codec{}.AppendRows(b, &schemas.Message{Payload: []byte(payload)})
}

func answer(t *testing.T, enc schemas.Encoder, b *schemas.Batch) (schemas.Header, string) {
	t.Helper()
	h := schemas.Header{}
	out, err := enc.EncodeRows([]byte("x"), h, b, 0, b.Rows(), &schemas.Answer{RequestID: "r", Model: "m", Version: "3"})
	if err != nil {
		t.Fatal(err)
	}
	return h, string(out[1:])
}

// asRequest turns a response into a request: its outputs become inputs.
func asRequest(h schemas.Header, out string) *schemas.Message {
	n := len(out)
	if s := h.Get(HeaderLength); s != "" {
		n, _ = strconv.Atoi(s)
	}
	doc := strings.Replace(out[:n], `"outputs":`, `"inputs":`, 1)
	doc = strings.Replace(doc, `"model_version":"3",`, ``, 1)
	m := &schemas.Message{Header: schemas.Header{}, Payload: []byte(doc + out[n:])}
	if n < len(out) {
		m.Header.Set(HeaderLength, strconv.Itoa(len(doc)))
	}
	return m
}

// required are all dtypes without nulls: the protocol has none.
func required() *schemas.Schema {
	var fs []schemas.Field
	for _, t := range schemastest.DTypes() {
		fs = append(fs, schemas.Field{Name: t.String(), Type: t}, schemas.Field{Name: t.String() + "_tensor", Type: t, Shape: []int{2, 3}},
			schemas.Field{Name: t.String() + "_one", Type: t, Shape: []int{1}})
	}
	return schemas.MustSchema(fs...)
}

// What is answered can be asked, to the bit, as JSON and as bytes.
func TestRoundTrip(t *testing.T) {
	s := required()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		b := schemas.NewBatch(s)
		schemastest.Fill(b, r, r.IntN(9))
		for _, enc := range []schemas.Encoder{Plain(), &encoder{allBinary: true}} {
			h, out := answer(t, enc, b)
			back := schemas.NewBatch(s)
			n, _, err := Codec{}.AppendRows(back, asRequest(h, out))
			if err != nil || n != b.Rows() {
				t.Fatalf("seed %d: %d rows, %v\n%s", seed, n, err, out)
			}
			if d := schemastest.Diff(b, back); d != "" {
				t.Fatalf("seed %d: %s\n%s", seed, d, out)
			}
		}
	}
}

var flight = schemas.MustSchema(
	schemas.Field{Name: "dep_delay", Type: schemas.Float32},
	schemas.Field{Name: "carrier", Type: schemas.String, Nullable: true},
	schemas.Field{Name: "x", Type: schemas.Float32, Shape: []int{3}, Features: []string{"a", "b", "c"}},
)

func print(b *schemas.Batch) string {
	out, err := Plain().EncodeRows(nil, schemas.Header{}, b, 0, b.Rows(), nil)
	if err != nil {
		return err.Error()
	}
	var doc struct {
		Outputs []struct{ Data json.RawMessage }
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return err.Error()
	}
	s := ""
	for _, o := range doc.Outputs {
		s += string(o.Data)
	}
	return s
}

const (
	delay   = `{"name":"dep_delay","shape":[2],"datatype":"FP32","data":[1.5,2]}`
	carrier = `{"name":"carrier","shape":[2,1],"datatype":"BYTES","data":["UA","B6"]}`
	packed  = `{"name":"x","shape":[2,3],"datatype":"FP32","data":[1,2,3,4,5,6]}`
)

func TestForms(t *testing.T) {
	const want = `[1.5,2]["UA","B6"][1,2,3,4,5,6]`
	feature := func(name, data string) string {
		return `{"name":"` + name + `","shape":[2],"datatype":"FP32","data":` + data + `}`
	}
	for in, want := range map[string]string{
		`{"inputs":[` + delay + `,` + carrier + `,` + packed + `]}`:                                                                               want,
		`{"id":"q","model_name":"m","parameters":{"x":{"y":1}},"outputs":[{"name":"p"}],"inputs":[` + packed + `,` + delay + `,` + carrier + `]}`: want,
		// nested data; data before shape and datatype; [N,1] for a scalar
		`{"inputs":[{"data":[[1,2,3],[4,5,6]],"shape":[2,3],"datatype":"FP32","name":"x"},{"datatype":"FP32","data":[[1.5],[2]],"name":"dep_delay","shape":[2,1]},` + carrier + `]}`: want,
		`{"inputs":[` + feature("c", "[3,6]") + `,` + delay + `,` + feature("a", "[1,4]") + `,` + feature("b", "[2,5]") + `,` + carrier + `]}`:                                       want,
		`{"inputs":[` + delay + `,` + packed + `]}`: `[1.5,2][null,null][1,2,3,4,5,6]`,
		`{"inputs":[{"name":"dep_delay","shape":[0],"datatype":"FP32","data":[]},{"name":"x","shape":[0,3],"datatype":"FP32","data":[]}]}`: `[][][]`,
	} {
		b := schemas.NewBatch(flight)
		if _, _, err := read(b, in); err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := print(b); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

// tail makes a message of a JSON document and binary tensors.
func tail(doc string, tensors ...[]byte) *schemas.Message {
	p := []byte(doc)
	for _, b := range tensors {
		p = append(p, b...)
	}
	return &schemas.Message{Header: schemas.Header{HeaderLength: {strconv.Itoa(len(doc))}}, Payload: p}
}

func f32s(vs ...float32) []byte {
	var b []byte
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func texts(vs ...string) []byte {
	var b []byte
	for _, v := range vs {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(v))), v...)
	}
	return b
}

func TestBinaryRequest(t *testing.T) {
	doc := `{"inputs":[{"name":"carrier","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":12}},` + delay +
		`,{"name":"b","shape":[2,1],"datatype":"FP32","parameters":{"binary_data_size":8}},{"parameters":{"binary_data_size":8},"name":"a","shape":[2],"datatype":"FP32"},` +
		`{"name":"c","shape":[2],"datatype":"FP32","data":[3,6]}],"parameters":{"binary_data_output":true}}`
	b := schemas.NewBatch(flight)
	n, enc, err := Codec{}.AppendRows(b, tail(doc, texts("UA", "B6"), f32s(2, 5), f32s(1, 4)))
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if got := print(b); got != `[1.5,2]["UA","B6"][1,2,3,4,5,6]` {
		t.Error(got)
	}
	out := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "p", Type: schemas.Float32}, schemas.Field{Name: "label", Type: schemas.String}))
	for i := range 2 {
		schemas.Append(out.Column(0), float32(i))
		out.Column(0).EndRow()
		out.Column(1).AppendString("no")
		out.Column(1).EndRow()
	}
	out.Advance(2)
	h, got := answer(t, enc, out)
	want := `{"model_name":"m","model_version":"3","id":"r","outputs":[{"name":"p","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}},` +
		`{"name":"label","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":12}}]}`
	if h.Get(HeaderLength) != strconv.Itoa(len(want)) || got != want+string(f32s(0, 1))+string(texts("no", "no")) || h.Get(schemas.HeaderContentType) != ContentTypeBinary {
		t.Errorf("answer %q, header %v", got, h)
	}
}

func TestRequestedOutputs(t *testing.T) {
	out := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "p", Type: schemas.Float32, Shape: []int{2}}, schemas.Field{Name: "label", Type: schemas.Int64, Nullable: true}))
	schemas.Append(out.Column(0), float32(0.1))
	schemas.Append(out.Column(0), float32(0.9))
	out.Column(0).EndRow()
	out.Column(1).AppendNull()
	out.Advance(1)
	ask := func(outputs string) schemas.Encoder {
		_, enc, err := read(schemas.NewBatch(flight), `{"id":"body","outputs":`+outputs+`,"inputs":[`+delay+`,`+packed+`]}`)
		if err != nil {
			t.Fatal(err)
		}
		return enc
	}
	_, got := answer(t, ask(`[{"name":"label"},{"name":"p","parameters":{"binary_data":false}}]`), out)
	if want := `{"model_name":"m","model_version":"3","id":"body","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[null]},{"name":"p","datatype":"FP32","shape":[1,2],"data":[0.1,0.9]}]}`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	h, got := answer(t, ask(`[{"name":"p","parameters":{"binary_data":true}}]`), out)
	if n, _ := strconv.Atoi(h.Get(HeaderLength)); n == 0 || got[n:] != string(f32s(0.1, 0.9)) {
		t.Errorf("binary output: %q %v", got, h)
	}
	enc := ask(`[{"name":"nope"}]`)
	if err := enc.(schemas.OutputChecker).CheckOutputs(out.Schema()); schemas.KindOf(err) != schemas.Invalid || !strings.Contains(err.Error(), "nope") {
		t.Errorf("unknown output: %v", err)
	}
	if _, err := enc.EncodeRows(nil, schemas.Header{}, out, 0, 1, nil); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("unknown output: %v", err)
	}
	if _, err := ask(`[{"name":"label","parameters":{"binary_data":true}}]`).EncodeRows(nil, schemas.Header{}, out, 0, 1, nil); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("a null as bytes: %v", err)
	}
	if id := enc.(schemas.Identified).RequestID(); id != "body" {
		t.Errorf("request id %q", id)
	}
}

func TestFaults(t *testing.T) {
	in := func(inputs ...string) *schemas.Message {
		return &schemas.Message{Payload: []byte(`{"inputs":[` + strings.Join(inputs, ",") + `]}`)}
	}
	doc := func(s string) *schemas.Message { return &schemas.Message{Payload: []byte(s)} }
	x := func(shape, datatype, data string) string {
		return `{"name":"x","shape":` + shape + `,"datatype":"` + datatype + `","data":` + data + `}`
	}
	bin := func(name, datatype string, size int) string {
		return `{"inputs":[{"name":"` + name + `","shape":[2],"datatype":"` + datatype + `","parameters":{"binary_data_size":` + strconv.Itoa(size) + `}},` + packed + `,` + delay + `]}`
	}
	lying := tail(`{}`)
	lying.Header.Set(HeaderLength, "9999")
	wrong := tail(`{}`)
	wrong.Header.Set(HeaderLength, "-1")
	for name, c := range map[string]struct {
		m           *schemas.Message
		field, want string
	}{
		"empty":                   {doc(``), "", "ends at byte 0"},
		"truncated":               {doc(`{"inputs":[{"name":"x"`), "x", "ends at byte"},
		"deep":                    {doc(`{"inputs":[{"name":"x","data":` + strings.Repeat("[", 100_000)), "x", "nested more than"},
		"no inputs":               {doc(`{"id":"a"}`), "", `no "inputs"`},
		"inputs twice":            {doc(`{"inputs":[],"inputs":[]}`), "inputs", "given twice"},
		"unknown name":            {doc(`{"input":[]}`), "", `unknown name "input"`},
		"unknown input":           {in(`{"name":"y","shape":[1],"datatype":"FP32","data":[1]}`), "inputs.y", "unknown input; the inputs are: dep_delay"},
		"input twice":             {in(delay, delay), "dep_delay", "given twice"},
		"missing input":           {in(packed), "dep_delay", "missing input"},
		"missing feature":         {in(delay, `{"name":"a","shape":[2],"datatype":"FP32","data":[1,2]}`), "b", "missing input"},
		"tensor and feature":      {in(packed, `{"name":"a","shape":[2],"datatype":"FP32","data":[1,2]}`), "a", "both as a whole"},
		"no name":                 {in(`{"shape":[1],"datatype":"FP32","data":[1]}`), "inputs", "without a name"},
		"no shape":                {in(`{"name":"x","datatype":"FP32","data":[1]}`), "x", "without a shape"},
		"no datatype":             {in(`{"name":"x","shape":[1,3],"data":[1]}`), "x", "without a datatype"},
		"no data":                 {in(`{"name":"x","shape":[1,3],"datatype":"FP32"}`), "x", "without data"},
		"data twice":              {in(`{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3],"data":[1,2,3]}`), "x", "given twice"},
		"other datatype":          {in(x(`[1,3]`, "INT64", `[1,2,3]`)), "x", "datatype INT64, but the column is FP32"},
		"double for float":        {in(x(`[1,3]`, "FP64", `[1,2,3]`)), "x", "datatype FP64, but the column is FP32"},
		"unknown datatype":        {in(x(`[1,3]`, "FLOAT", `[1,2,3]`)), "x", "unknown datatype"},
		"rank":                    {in(x(`[3]`, "FP32", `[1,2,3]`)), "x", "want [rows,3]"},
		"wide":                    {in(x(`[1,4]`, "FP32", `[1,2,3,4]`)), "x", "want [rows,3]"},
		"empty shape":             {in(x(`[]`, "FP32", `[]`)), "x", "empty shape"},
		"negative shape":          {in(x(`[-1,3]`, "FP32", `[]`)), "x", "out of the range"},
		"overflowing shape":       {in(x(`[4294967296,4294967296,4294967296]`, "FP32", `[]`)), "x", "too many elements"},
		"giant shape":             {in(x(`[2000000000,3]`, "FP32", `[1,2,3]`)), "x", "too many elements"},
		"long shape":              {in(x(`[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]`, "FP32", `[1]`)), "x", "more than 16 dimensions"},
		"less data":               {in(x(`[2,3]`, "FP32", `[1,2,3]`)), "x", "less data than the shape says: 3 of 6"},
		"more data":               {in(x(`[1,3]`, "FP32", `[1,2,3,4]`)), "x", "more data than the shape says"},
		"ragged data":             {in(x(`[2,3]`, "FP32", `[[1,2,3],[4,5]]`)), "x", "less data"},
		"string in data":          {in(x(`[2,3]`, "FP32", `[1,2,3,4,"a",6]`)), "rows[1].x", "the string \"a\""},
		"null in data":            {in(`{"name":"dep_delay","shape":[2],"datatype":"FP32","data":[1,null]}`), "rows[1].dep_delay", "not nullable"},
		"other rows":              {in(delay, x(`[1,3]`, "FP32", `[1,2,3]`)), "x", "1 rows, but the inputs before have 2"},
		"classification":          {doc(`{"outputs":[{"name":"p","parameters":{"classification":2}}],"inputs":[` + delay + `,` + packed + `]}`), "outputs", "classification"},
		"output twice":            {doc(`{"outputs":[{"name":"p"},{"name":"p"}],"inputs":[]}`), "outputs", "twice"},
		"lying length":            {lying, HeaderLength, "not the length"},
		"negative length":         {wrong, HeaderLength, "not the length"},
		"size past the end":       {tail(bin("carrier", "BYTES", 100), texts("a", "b")), "carrier", "10 bytes are left"},
		"size of another shape":   {tail(`{"inputs":[{"name":"dep_delay","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":4}}]}`, f32s(1)), "dep_delay", "the shape needs 8"},
		"bytes left over":         {tail(`{"inputs":[`+delay+`,`+packed+`]}`, f32s(1)), "", "4 bytes after the last binary tensor"},
		"data and size":           {tail(`{"inputs":[{"name":"dep_delay","shape":[2],"datatype":"FP32","data":[1,2],"parameters":{"binary_data_size":8}}]}`, f32s(1, 2)), "dep_delay", "both data and binary_data_size"},
		"length of BYTES":         {tail(bin("carrier", "BYTES", 8), []byte{255, 255, 255, 255, 0, 0, 0, 0}), "carrier", "runs over the end"},
		"too few BYTES":           {tail(bin("carrier", "BYTES", 5), texts("a")), "carrier", "runs over the end"},
		"too many BYTES":          {tail(bin("carrier", "BYTES", 15), texts("a", "b", "c")), "carrier", "5 bytes after the last element"},
		"BYTES that are not text": {tail(bin("carrier", "BYTES", 10), texts("a", "\xff")), "carrier", "not UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			b := schemas.NewBatch(flight)
			n, _, err := Codec{}.AppendRows(b, c.m)
			e := schemas.AsError("", err)
			if e == nil || e.Kind != schemas.Invalid || e.Field != c.field || !strings.Contains(e.Err.Error(), c.want) || n != 0 || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %d, %v, want Invalid at %q with %q", n, err, c.field, c.want)
			}
			if b.Rows() != 0 || b.Column(0).Rows() != 0 || b.Column(2).Rows() != 0 {
				t.Error("rows were left")
			}
			// The pooled decoder is as good as new.
			if n, _, err := read(b, `{"inputs":[`+delay+`,`+packed+`]}`); n != 2 || err != nil {
				t.Errorf("a good request after it: %d, %v", n, err)
			}
		})
	}
	bools := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "b", Type: schemas.Bool}))
	m := tail(`{"inputs":[{"name":"b","shape":[2],"datatype":"BOOL","parameters":{"binary_data_size":2}}]}`, []byte{1, 2})
	if _, _, err := (Codec{}).AppendRows(bools, m); err == nil || !strings.Contains(err.Error(), "BOOL is 0 or 1") {
		t.Errorf("a BOOL of 2: %v", err)
	}
}

func TestMetadata(t *testing.T) {
	sig := schemas.Signature{Inputs: flight, Outputs: schemas.MustSchema(schemas.Field{Name: "when", Type: schemas.Timestamp})}
	b, err := json.Marshal(Metadata("flights", []string{"1", "2"}, "onnx", sig))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"flights","versions":["1","2"],"platform":"onnx","inputs":[{"name":"dep_delay","datatype":"FP32","shape":[-1]},{"name":"carrier","datatype":"BYTES","shape":[-1]},{"name":"x","datatype":"FP32","shape":[-1,3]}],"outputs":[{"name":"when","datatype":"INT64","shape":[-1]}]}`
	if string(b) != want {
		t.Errorf("got %s\nwant %s", b, want)
	}
	for _, typ := range schemastest.DTypes() {
		back, err := DType(Datatype(typ))
		if same := map[schemas.DType]schemas.DType{schemas.Binary: schemas.String, schemas.Timestamp: schemas.Int64}; err != nil || back != typ && back != same[typ] {
			t.Errorf("%s: %s, %v", typ, back, err)
		}
	}
	if _, err := DType("FLOAT"); schemas.KindOf(err) != schemas.Invalid {
		t.Error(err)
	}
	if !reflect.DeepEqual(Extensions(), []string{"binary_tensor_data"}) {
		t.Error(Extensions())
	}
}

// What is told of how an answer was made stands in its parameters.
func TestParameters(t *testing.T) {
	out := schemas.NewBatch(schemas.MustSchema(schemas.Field{Name: "p", Type: schemas.Int64}))
	_, enc, err := read(schemas.NewBatch(flight), `{"inputs":[`+delay+`,`+packed+`,`+carrier+`]}`)
	if err != nil {
		t.Fatal(err)
	}
	for want, a := range map[string]schemas.Answer{
		`"parameters":{"answered":"route/a,route/b"},`:              {Answered: "route/a,route/b"},
		`"parameters":{"fallback":"route"},`:                        {Fallback: "route"},
		`"parameters":{"answered":"route/a","fallback":"route/b"},`: {Answered: "route/a", Fallback: "route/b"},
		``: {},
	} {
		got, err := enc.EncodeRows(nil, schemas.Header{}, out, 0, 0, &a)
		if want = `{` + want + `"outputs":[{"name":"p","datatype":"INT64","shape":[0],"data":[]}]}`; err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}

func TestRowErrorsAreReturned(t *testing.T) {
	a := &schemas.Answer{Errs: []schemas.RowError{{Err: schemas.Errorf(schemas.Expired, "op", "late")}}}
	if _, err := Plain().EncodeRows(nil, schemas.Header{}, schemas.NewBatch(flight), 0, 0, a); schemas.KindOf(err) != schemas.Expired {
		t.Errorf("got %v", err)
	}
}

func TestNoAllocation(t *testing.T) {
	b := schemas.NewBatch(flight)
	m := &schemas.Message{Payload: []byte(`{"inputs":[` + delay + `,` + packed + `]}`)}
	h, a := schemas.Header{}, &schemas.Answer{Model: "m", Version: "3", RequestID: "r"}
	var out []byte
	if n := testing.AllocsPerRun(200, func() {
		b.Reset()
		_, enc, err := Codec{}.AppendRows(b, m)
		if err != nil {
			t.Fatal(err)
		}
		out, _ = enc.EncodeRows(out[:0], h, b, 0, 2, a)
	}); n != 0 {
		t.Errorf("%v allocations to decode and answer a JSON request, want 0", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	s := schemas.MustSchema(schemas.Field{Name: "input", Type: schemas.Float32, Shape: []int{13}})
	m := &schemas.Message{Payload: []byte(`{"inputs":[{"name":"input","shape":[1,13],"datatype":"FP32","data":[1400.5,7,12,0.25,-3.75,1013.2,8.05546,23,0,1.5e3,310,65.02,4]}]}`)}
	dst := schemas.NewBatch(s)
	b.ReportAllocs()
	for b.Loop() {
		dst.Reset()
		if _, _, err := (Codec{}).AppendRows(dst, m); err != nil {
			b.Fatal(err)
		}
	}
}
