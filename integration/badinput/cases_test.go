package badinput

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
)

// bad is one case: what is sent, and what must come back.
type bad struct {
	name string
	request
	kind   string // "invalid" unless stated
	status int    // 0: the kind's
	field  string // part of the field; "": none is wanted
	says   string // part of the line, where several faults are told at once; "": any
}

// scoring cases go over HTTP and over NATS with the same body and headers.
func scoringCases(tg *target) []bad {
	var cs []bad
	add := func(name, pipeline, field, body string, header ...string) {
		h := map[string]string{}
		for i := 0; i+1 < len(header); i += 2 {
			h[header[i]] = header[i+1]
		}
		cs = append(cs,
			bad{name: "http/" + name, field: field, request: request{method: http.MethodPost, path: "/v1/pipelines/" + pipeline + "/score", header: h, body: []byte(body)}},
			bad{name: "nats/" + name, field: field, request: request{subject: "leat.score." + pipeline, header: h, body: []byte(body)}})
	}
	g := string(tg.good[delay])
	with := func(old, new string) string {
		if !strings.Contains(g, old) {
			panic("the good row has no " + old)
		}
		return strings.Replace(g, old, new, 1)
	}
	add("empty body", delay, "", "")
	add("white space", delay, "", " \n ")
	add("truncated", delay, "", g[:len(g)/2])
	add("trailing nonsense", delay, "", g+"}")
	add("two documents", delay, "", g+g)
	add("nested 100,000 deep", delay, "", strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000))
	add("nested 100,000 deep in a value", delay, "dep_delay", with(`"dep_delay": 20.0`, `"dep_delay": `+strings.Repeat(`[`, 100_000)+strings.Repeat(`]`, 100_000)))
	add("nested 100,000 deep in an unknown name", delay, "", `{"rows":[{"x":`+strings.Repeat(`{"a":`, 100_000)+"1"+strings.Repeat("}", 100_000)+`}]}`)
	add("array at the top", delay, "", "[1,2]")
	add("number at the top", delay, "", "7")
	add("no rows", delay, "", `{"rows":[]}`)
	add("neither rows nor columns", delay, "", `{"row":[]}`)
	add("rows and columns", delay, "", `{"rows":[],"columns":{}}`)
	add("rows twice", delay, "", `{"rows":[],"rows":[]}`)
	add("rows of arrays", delay, "rows", `{"rows":[[1,2,3]]}`)
	add("row that is null", delay, "rows", `{"rows":[null]}`)
	add("ragged columns", "typed", "", `{"columns":{"small":[1,2],"whole":[1],"flag":[true,true],"word":["a","b"]}}`)
	add("column that is no array", "typed", "small", `{"columns":{"small":1,"whole":[1],"flag":[true],"word":["a"]}}`)
	add("text for a float", delay, "dep_delay", with("20.0", `"late"`))
	add("bool for a float", delay, "dep_delay", with("20.0", `true`))
	add("object for a float", delay, "dep_delay", with("20.0", `{"v":1}`))
	add("float for a string", delay, "carrier", with(`"MQ"`, "1.5"))
	add("bare NaN", delay, "", with("20.0", "NaN"))
	add("bare Infinity", delay, "", with("20.0", "-Infinity"))
	add("nan in another form", delay, "dep_delay", with("20.0", `"nan"`))
	add("infinity in another form", delay, "dep_delay", with("20.0", `"+Inf"`))
	add("hexadecimal number", delay, "", with("20.0", "0x10"))
	add("number with a leading zero", delay, "", with("20.0", "007"))
	add("number of a million digits", delay, "", with("20.0", strings.Repeat("9", 1_000_000-2000)))
	add("float out of range", delay, "dep_delay", with("20.0", "1e400"))
	add("NaN for an integer", "typed", "small", `{"rows":[{"small":"NaN","whole":1,"flag":true,"word":"x"}]}`)
	add("integer out of range", "typed", "small", `{"rows":[{"small":128,"whole":1,"flag":true,"word":"x"}]}`)
	add("64-bit integer out of range", "typed", "whole", `{"rows":[{"small":1,"whole":9223372036854775808,"flag":true,"word":"x"}]}`)
	add("fraction for an integer", "typed", "small", `{"rows":[{"small":1.5,"whole":1,"flag":true,"word":"x"}]}`)
	add("number for a bool", "typed", "flag", `{"rows":[{"small":1,"whole":1,"flag":1,"word":"x"}]}`)
	add("null that is not allowed", delay, "carrier", with(`"MQ"`, "null"))
	add("string with NUL", delay, "carrier", with(`"MQ"`, `"M\u0000Q"`))
	add("string with a bare control character", delay, "", with(`"MQ"`, "\"M\x01Q\""))
	add("string that is not UTF-8", delay, "", with(`"MQ"`, "\"M\xff\xfeQ\""))
	add("half a surrogate", delay, "", with(`"MQ"`, `"\ud800"`))
	add("escape that is none", delay, "", with(`"MQ"`, `"\x"`))
	add("name twice", delay, "dep_delay", with(`"dep_delay": 20.0`, `"dep_delay": 20.0, "dep_delay": 21.0`))
	add("name missing", delay, "carrier", with(`"carrier": "MQ",`, ""))
	add("name unknown", delay, "color", with(`"carrier": "MQ"`, `"carrier": "MQ", "color": 1`))
	add("second row bad", "typed", "rows[1]", `{"rows":[{"small":1,"whole":1,"flag":true,"word":"x"},{"small":"?","whole":1,"flag":true,"word":"x"}]}`)
	add("tensor too short", boost, "features", `{"rows":[{"features":[1,2,3]}]}`)
	add("tensor too long", boost, "features", `{"rows":[{"features":[1,2,3,4,5,6,7,8,9,10,11,12,13,14]}]}`)
	add("tensor nested too deep", boost, "features", `{"rows":[{"features":[[1,2,3,4,5,6,7,8,9,10,11,12,13]]}]}`)
	add("unknown content type", delay, "Content-Type", g, "Content-Type", "image/png")
	add("content type of nonsense", delay, "Content-Type", g, "Content-Type", ";;;/")
	add("deadline of nonsense", delay, "Leat-Deadline", g, "Leat-Deadline", "tomorrow")
	add("timeout of nonsense", delay, "Leat-Timeout", g, "Leat-Timeout", "soon")
	add("timeout of nothing", delay, "Leat-Timeout", g, "Leat-Timeout", "0s")
	add("timeout below nothing", delay, "Leat-Timeout", g, "Leat-Timeout", "-1s")
	add("timeout without a unit", delay, "Leat-Timeout", g, "Leat-Timeout", "250")
	add("request id with a space", delay, "Leat-Request-Id", g, "Leat-Request-Id", "two words")
	add("request id too long", delay, "Leat-Request-Id", g, "Leat-Request-Id", strings.Repeat("x", 129))
	add("request id that is not ASCII", delay, "Leat-Request-Id", g, "Leat-Request-Id", "idé")
	add("model of nonsense", delay, "", g, "Leat-Model", "@@@")
	add("schema id of nonsense", delay, "Leat-Schema", "x", "Content-Type", "application/vnd.leat.batch", "Leat-Schema", "xyz")
	add("schema id missing", delay, "Leat-Schema", "x", "Content-Type", "application/vnd.leat.batch")
	for _, k := range []struct{ name, kind, header, value string }{
		{"deadline that has passed", "expired", "Leat-Deadline", "2020-01-01T00:00:00Z"},
		{"version that is not there", "not_found", "Leat-Model", delay + "@99"},
		{"version of another model", "not_found", "Leat-Model", boost + "@1"},
	} {
		add(k.name, delay, "", g, k.header, k.value)
		for i := len(cs) - 2; i < len(cs); i++ {
			cs[i].kind = k.kind
		}
	}
	arrowCases(func(name, field string, body []byte) {
		add("arrow/"+name, "typed", field, string(body), "Content-Type", "application/vnd.apache.arrow.stream")
	})
	protocolCases(func(name, field, body string, header ...string) {
		h := append([]string{"Content-Type", "application/json"}, header...)
		if len(header) > 0 {
			h[1] = "application/octet-stream"
		}
		add("oip/"+name, "typed", field, body, h...)
		cs[len(cs)-2].path = "/v2/models/typed/infer"
	})
	return cs
}

// protocolCases are of the Open Inference Protocol. A header makes it its binary form.
func protocolCases(add func(name, field, body string, header ...string)) {
	input := func(name, datatype, shape, data string) string {
		return fmt.Sprintf(`{"name":%q,"datatype":%q,"shape":%s,"data":%s}`, name, datatype, shape, data)
	}
	body := func(replace string, by string, more string) string {
		var ins []string
		for _, c := range [][3]string{{"small", "INT8", "[1]"}, {"whole", "INT64", "[2]"}, {"flag", "BOOL", "[true]"}, {"word", "BYTES", `["x"]`}} {
			one := input(c[0], c[1], "[1,1]", c[2])
			if c[0] == replace {
				one = by
			}
			if one != "" {
				ins = append(ins, one)
			}
		}
		return `{"inputs":[` + strings.Join(ins, ",") + `]` + more + `}`
	}
	add("unknown output", "outputs", body("", "", `,"outputs":[{"name":"nothing"}]`))
	add("wrong datatype", "small", body("small", input("small", "FP32", "[1,1]", "[1]"), ""))
	add("datatype that is none", "small", body("small", input("small", "INT7", "[1,1]", "[1]"), ""))
	add("data shorter than the shape", "small", body("small", input("small", "INT8", "[3,1]", "[1]"), ""))
	add("data longer than the shape", "small", body("small", input("small", "INT8", "[1,1]", "[1,2]"), ""))
	add("shape that overflows", "small", body("small", input("small", "INT8", "[4294967296,4294967296,4294967296]", "[1]"), ""))
	add("shape that overflows to 1", "small", body("small", input("small", "INT8", "[9223372036854775807,9223372036854775807]", "[1]"), ""))
	add("shape below 0", "small", body("small", input("small", "INT8", "[-1,1]", "[1]"), ""))
	add("shape of text", "", body("small", input("small", "INT8", `["1"]`, "[1]"), ""))
	add("shape of 100,000 dimensions", "small", body("small", input("small", "INT8", "["+strings.Repeat("1,", 99_999)+"1]", "[1]"), ""))
	add("ragged inputs", "", body("small", input("small", "INT8", "[2,1]", "[1,2]"), ""))
	add("input missing", "small", body("small", "", ""))
	add("input twice", "small", body("small", input("small", "INT8", "[1,1]", "[1]")+","+input("small", "INT8", "[1,1]", "[1]"), ""))
	add("input unknown", "color", body("small", input("small", "INT8", "[1,1]", "[1]")+","+input("color", "INT8", "[1,1]", "[1]"), ""))
	add("integer out of range", "small", body("small", input("small", "INT8", "[1,1]", "[300]"), ""))
	add("string with NUL", "word", body("word", input("word", "BYTES", "[1,1]", `["a\u0000b"]`), ""))
	add("no inputs", "", `{"inputs":[]}`)
	add("inputs of nonsense", "", `{"inputs":7}`)
	add("id with a space", "", body("", "", `,"id":"two words"`))
	sized := func(n string) string {
		return body("small", `{"name":"small","datatype":"INT8","shape":[1,1],"parameters":{"binary_data_size":`+n+`}}`, "")
	}
	binaryCase := func(name, field, n, tail string) {
		head := sized(n)
		add("binary: "+name, field, head+tail, "Inference-Header-Content-Length", fmt.Sprint(len(head)))
	}
	binaryCase("too few bytes", "", "1", "")
	binaryCase("too many bytes", "", "1", "xyz")
	binaryCase("size that is not the shape's", "small", "2", "xy")
	binaryCase("size below 0", "", "-1", "x")
	binaryCase("size of 2^62", "", "4611686018427387904", "x")
	add("binary: header longer than the body", "Inference-Header-Content-Length", "{}", "Inference-Header-Content-Length", "1000")
	add("binary: header of nonsense", "Inference-Header-Content-Length", "{}", "Inference-Header-Content-Length", "x")
	add("binary: header below 0", "Inference-Header-Content-Length", "{}", "Inference-Header-Content-Length", "-5")
	head := body("word", `{"name":"word","datatype":"BYTES","shape":[1,1],"parameters":{"binary_data_size":8}}`, "")
	add("binary: string longer than its bytes", "word", head+string(binary.LittleEndian.AppendUint32(nil, 1<<31-1))+"abcd", "Inference-Header-Content-Length", fmt.Sprint(len(head)))
}

// httpCases are what only HTTP can get wrong, and the operations.
func httpCases(tg *target) []bad {
	var cs []bad
	add := func(name, method, path, kind, field string, body []byte, header ...string) *bad {
		h := map[string]string{}
		for i := 0; i+1 < len(header); i += 2 {
			h[header[i]] = header[i+1]
		}
		cs = append(cs, bad{name: "http/" + name, kind: kind, field: field, request: request{method: method, path: path, header: h, body: body}})
		return &cs[len(cs)-1]
	}
	score := "/v1/pipelines/" + delay + "/score"
	g := tg.good[delay]
	json := func(s string) []byte { return []byte(s) }
	add("unknown pipeline", "POST", "/v1/pipelines/nobody/score", "not_found", "", g)
	add("unknown model", "POST", "/v2/models/nobody/infer", "not_found", "", g)
	add("unknown version", "POST", "/v2/models/"+delay+"/versions/99/infer", "not_found", "", json(`{"inputs":[]}`))
	add("version of nonsense", "POST", "/v2/models/"+delay+"/versions/one/infer", "invalid", "version", g)
	add("version of 40 digits", "POST", "/v2/models/"+delay+"/versions/"+strings.Repeat("9", 40)+"/infer", "invalid", "version", g)
	add("name of nonsense", "POST", "/v1/pipelines/..%2f..%2fetc/score", "invalid", "", g)
	add("name with a wildcard", "POST", "/v1/pipelines/%3E/score", "invalid", "", g)
	add("name of 10,000 letters", "POST", "/v1/pipelines/"+strings.Repeat("a", 10_000)+"/score", "invalid", "", g)
	add("64 MiB", "POST", score, "invalid", "", bytes.Repeat([]byte(" "), 64<<20)).status = http.StatusRequestEntityTooLarge
	add("gzip bomb", "POST", score, "invalid", "", bomb(1<<30), "Content-Encoding", "gzip").status = http.StatusRequestEntityTooLarge
	add("gzip cut off", "POST", score, "invalid", "Content-Encoding", bomb(1 << 16)[:30], "Content-Encoding", "gzip")
	add("gzip that is none", "POST", score, "invalid", "Content-Encoding", g, "Content-Encoding", "gzip")
	add("deflate that is none", "POST", score, "invalid", "Content-Encoding", bytes.Repeat([]byte{0xff}, 100), "Content-Encoding", "deflate")
	add("unknown encoding", "POST", score, "invalid", "Content-Encoding", g, "Content-Encoding", "br")
	add("two encodings", "POST", score, "invalid", "Content-Encoding", g, "Content-Encoding", "gzip, gzip")
	add("foreign host", "POST", score, "denied", "Host", g, "Host", "evil.example")
	add("foreign origin", "POST", score, "denied", "", g, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	add("unknown path", "GET", "/v1/nothing", "not_found", "", nil)
	add("unknown path with a NUL", "GET", "/v1/%00", "not_found", "", nil)
	add("wrong method", "DELETE", score, "invalid", "", nil).status = http.StatusMethodNotAllowed
	add("unknown query parameter", "GET", "/v1/models?color=red", "invalid", "color", nil)
	add("cursor of nonsense", "GET", "/v1/lineage?cursor=x", "invalid", "cursor", nil)
	add("limit of nonsense", "GET", "/v1/lineage?limit=many", "invalid", "limit", nil)
	add("limit too large", "GET", "/v1/lineage?limit=1000000000", "invalid", "limit", nil)
	add("limit of 40 digits", "GET", "/v1/lineage?limit="+strings.Repeat("9", 40), "invalid", "limit", nil)
	add("time of nonsense", "GET", "/v1/lineage?since=yesterday", "invalid", "since", nil)
	add("status of nonsense", "GET", "/v1/lineage?status=fine", "invalid", "status", nil)
	add("format of nonsense", "GET", "/v1/lineage/export?format=xls", "invalid", "format", nil)
	add("export id of nonsense", "GET", "/v1/lineage/export?id=../x", "invalid", "id", nil)
	add("unknown request", "GET", "/v1/lineage/nothing", "not_found", "", nil)
	add("unknown topic", "GET", "/v1/topics/nothing/messages", "not_found", "", nil)
	add("unknown job", "GET", "/v1/jobs/nothing", "not_found", "", nil)
	add("YAML of nonsense", "POST", "/v1/pipelines", "invalid", "", json(`{"spec":"a: [b"}`))
	add("YAML of another kind", "POST", "/v1/pipelines", "invalid", "", json(`{"spec":"apiVersion: leat/v1\nkind: Pod\nname: x\nroute: {model: flight-boost}\n"}`)).says = "line 2: kind:"
	add("YAML with an unknown key", "POST", "/v1/pipelines", "invalid", "", json(`{"spec":"apiVersion: leat/v1\nkind: Pipeline\nname: x\nrout: {model: flight-boost}\n"}`)).says = `line 4: rout: unknown key; did you mean "route"`
	add("YAML with a bad name", "POST", "/v1/pipelines", "invalid", "", json(`{"spec":"apiVersion: leat/v1\nkind: Pipeline\nname: Über\nroute: {model: flight-boost}\n"}`)).says = "line 3: name:"
	add("YAML with an unknown model", "POST", "/v1/pipelines", "invalid", "", json(`{"spec":"apiVersion: leat/v1\nkind: Pipeline\nname: x\nroute: {model: nobody}\n"}`)).says = "line 4: route.model: no model nobody@champion"
	add("YAML of a billion laughs", "POST", "/v1/pipelines", "invalid", "", laughs())
	add("YAML nested 100,000 deep", "POST", "/v1/pipelines", "invalid", "", json(`{"spec":"`+strings.Repeat("[", 100_000)+`"}`))
	add("operation's body cut off", "POST", "/v1/jobs", "invalid", "", json(`{"pipeline":`))
	add("operation's body of another type", "POST", "/v1/jobs", "invalid", "", json(`{"pipeline":7}`))
	add("operation's unknown field", "POST", "/v1/jobs", "invalid", "", json(`{"color":7}`))
	add("operation's body nested 100,000 deep", "POST", "/v1/jobs", "invalid", "", json(`{"carry":`+strings.Repeat("[", 100_000)))
	add("job of an unknown pipeline", "POST", "/v1/jobs", "not_found", "pipeline", json(`{"pipeline":"nobody","from":"/nothing.parquet","to":"/nothing-2.parquet"}`))
	add("job from nothing", "POST", "/v1/jobs", "not_found", "from", json(`{"pipeline":"flight-boost","from":"/nothing.parquet","to":"/tmp/never.parquet"}`))
	add("job to nowhere", "POST", "/v1/jobs", "invalid", "to", json(`{"pipeline":"flight-boost","from":"/nothing.parquet","to":"scores.xls"}`))
	add("job with a bad throttle", "POST", "/v1/jobs", "invalid", "throttle", json(`{"pipeline":"flight-boost","from":"/nothing.parquet","to":"/tmp/never.parquet","throttle":-1}`))
	add("model that is no tar", "POST", "/v1/models", "invalid", "", bytes.Repeat([]byte("x"), 4096), "Content-Type", "application/x-tar")
	add("model of no bytes", "POST", "/v1/models", "invalid", "", nil, "Content-Type", "application/x-tar")
	add("model that leaves its folder", "POST", "/v1/models", "invalid", "", archive("../../evil", "x"), "Content-Type", "application/x-tar")
	add("model that is a link", "POST", "/v1/models", "invalid", "", link("model.onnx", "/etc/passwd"), "Content-Type", "application/x-tar")
	add("model that is no ONNX", "POST", "/v1/models", "invalid", "", archive("model.yaml", "name: evil\nfile: model.onnx\n", "model.onnx", strings.Repeat("\xff", 1000)), "Content-Type", "application/x-tar")
	add("model without its file", "POST", "/v1/models", "invalid", "", archive("model.yaml", "name: evil\nfile: other.onnx\n"), "Content-Type", "application/x-tar")
	add("event of nonsense", "POST", "/v1/topics/nothing/messages", "", "", json("nonsense\n"), "Content-Type", "application/x-ndjson").kind = "invalid"
	add("topic of nonsense", "POST", "/v1/topics", "invalid", "", json(`{"name":"No Good"}`))
	for _, path := range []string{score, "/v2/models/typed/infer", "/v1/pipelines", "/v1/jobs", "/v1/models", "/v1/topics", "/v1/topics/nothing/messages", "/v1/lineage/prune", "/v1/models/typed/promote"} {
		c := add("10 MB of nonsense to "+path, "POST", path, "invalid", "", noise(10<<20))
		if path != "/v1/models" && path != "/v1/topics/nothing/messages" { // they take large bodies, bit by bit
			c.status = http.StatusRequestEntityTooLarge
		}
	}
	return cs
}

// bomb is so many zero bytes, packed.
func bomb(n int) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	zeros := make([]byte, 1<<20)
	for left := n; left > 0; left -= len(zeros) {
		_, _ = w.Write(zeros[:min(left, len(zeros))]) // to memory
	}
	_ = w.Close()
	return out.Bytes()
}

// laughs is a document whose aliases unfold to 10^9 elements.
func laughs() []byte {
	var y strings.Builder
	y.WriteString(`a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n`)
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&y, `a%d: &a%d [%s]\n`, i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return []byte(`{"spec":"` + y.String() + `"}`)
}

// noise is bytes without a meaning, the same every time.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}
