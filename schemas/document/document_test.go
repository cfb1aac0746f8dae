package document

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

type inner struct {
	Topic string   `yaml:"topic"`
	Cols  []string `yaml:"cols"`
}

type outer struct {
	Name   string            `yaml:"name"`
	Count  int               `yaml:"count"`
	Share  float64           `yaml:"share"`
	Small  uint8             `yaml:"small"`
	On     bool              `yaml:"on"`
	Wait   time.Duration     `yaml:"wait"`
	Labels map[string]string `yaml:"labels"`
	Input  *inner            `yaml:"input"`
	Inputs []inner           `yaml:"inputs"`
	hidden string
}

func one(t *testing.T, text string) *Value {
	t.Helper()
	docs, err := Parse([]byte(text))
	if err != nil || len(docs) != 1 {
		t.Fatalf("Parse(%q) = %d documents, %v", text, len(docs), err)
	}
	return docs[0]
}

func TestYAMLAndJSONDecodeAlike(t *testing.T) {
	want := outer{
		Name: "a/é\U0001f600", Count: -3, Share: 0.5, Small: 7, On: true, Wait: 250 * time.Millisecond,
		Labels: map[string]string{"year": "2013", "k.x": "v"}, Input: &inner{Topic: "t", Cols: []string{"a", "b"}},
	}
	for name, text := range map[string]string{
		"yaml":  "name: a/é\U0001f600\ncount: -3\nshare: 0.5\nsmall: 7\non: true\nwait: 250ms\nlabels: {year: \"2013\", k.x: v}\ninput:\n  topic: t\n  cols: [a, b]\n",
		"json":  `{"name":"a\/é\ud83d\ude00","count":-3,"share":0.5,"small":7,"on":true,"wait":"250ms","labels":{"year":"2013","k.x":"v"},"input":{"topic":"t","cols":["a","b"]}}`,
		"tabs":  "{\t\"name\":\"a/é\U0001f600\",\n\t\"count\":-3,\"share\":5e-1,\"small\":7,\"on\":true,\"wait\":\"250ms\",\"labels\":{\"year\":\"2013\",\"k.x\":\"v\"},\"input\":{\"topic\":\"t\",\"cols\":[\"a\",\"b\"]}}",
		"flow":  "{name: a/é\U0001f600, count: -3, share: 0.5, small: 7, on: true, wait: 250ms, labels: {year: '2013', k.x: v}, input: {topic: t, cols: [a, b]}}",
		"alias": "x: &c [a, b]\nname: a/é\U0001f600\ncount: -3\nshare: 0.5\nsmall: 7\non: true\nwait: 250ms\nlabels: {year: '2013', k.x: v}\ninput: {topic: t, cols: *c}\n",
	} {
		t.Run(name, func(t *testing.T) {
			var got outer
			fs := Decode(one(t, text), &got)
			if name == "alias" && len(fs) == 1 && fs[0].Path == "x" {
				fs = nil
			}
			if len(fs) > 0 || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, faults %v", got, fs)
			}
		})
	}
}

func TestFaultsNamePathLineAndRemedy(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"nmae: x", `line 1: nmae: unknown key; did you mean "name"?`},
		{"Name: x", `line 1: Name: unknown key; did you mean "name"?`},
		{"zebra: x", `line 1: zebra: unknown key; want one of name, count, share, small, on, wait, labels, input, inputs`},
		{"count: 1\ninput:\n  topik: x", `line 3: input.topik: unknown key; did you mean "topic"?`},
		{`{"":"x"}`, `line 1: "": unknown key; want one of name, count, share, small, on, wait, labels, input, inputs`},
		{"name: 5", `line 1: name: want text, got a number: write "5" in quotes`},
		{"name: true", `line 1: name: want text, got true or false: write "true" in quotes`},
		{"name: [a]", `line 1: name: want text, got a list`},
		{"labels: {a: 1}", `line 1: labels.a: want text, got a number: write "1" in quotes`},
		{"labels: x", `line 1: labels: want a map, got text ("x")`},
		{"input: x", `line 1: input: want a map with topic, cols, got text ("x")`},
		{"input:\n  cols: x", `line 2: input.cols: want a list, such as [a, b], got text ("x")`},
		{"input:\n  cols:\n  - a\n  - 3", `line 4: input.cols[1]: want text, got a number: write "3" in quotes`},
		{"input: {cols: [a, ]}\nname: 1", `line 2: name: want text, got a number: write "1" in quotes`},
		{"inputs: {a: {topic: t}}", `line 1: inputs: want a list of maps with topic, cols, got a map`},
		{"count: 1.5", `line 1: count: want a whole number, got a number (1.5)`},
		{"small: 256", `line 1: small: want a whole number, not negative, got a number (256)`},
		{"share: x", `line 1: share: want a number, got text ("x")`},
		{"on: 1", `line 1: on: want true or false, got a number (1)`},
		{"wait: 5", `line 1: wait: want a duration such as 250ms, got a number (5)`},
		{`{"name":"a",` + "\n" + `"nam":"b"}`, `line 2: nam: unknown key; did you mean "name"?`},
		{"nmae: x\ncuont: 1", "line 1: nmae: unknown key; did you mean \"name\"?\nline 2: cuont: unknown key; did you mean \"count\"?"},
	} {
		var o outer
		if got := Decode(one(t, c.text), &o).Error(); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.text, got, c.want)
		}
	}
}

func TestUnexportedFieldsAreNoKeys(t *testing.T) {
	var o outer
	if got := Decode(one(t, "hidden: x"), &o).Error(); !strings.HasPrefix(got, "line 1: hidden: unknown key") || o.hidden != "" {
		t.Errorf("%q, %q", got, o.hidden)
	}
}

func TestParseRefuses(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), c-1)
	}
	for _, c := range []struct{ text, want string }{
		{"a: 1\na: 2", "line 2: a: this key is here twice"},
		{"{\"a\":1,\n\"a\":2}", "line 2: a: this key is here twice"},
		{"a: [1", "not YAML: line 1"},
		{`{"a":1`, "unexpected EOF"},
		{`{"a":1} x`, "invalid character 'x'"},
		{"a: \xff", "not UTF-8"},
		{"a: \x00", "control characters"},
		{"a: !!binary aGk=", "tag !!binary is not taken"},
		{"a: !mine x", "tag !mine is not taken"},
		{"a: &x {b: 1}\nc:\n  <<: *x", "merge keys are not taken"},
		{"? [a]\n: b", "a key must be text"},
		{"a: &x [*x]", "line 1: *x is a part of &x itself, which then has no end; write out what is meant"},
		{"a: &x [1]\nb: &y\n  - *x\n  - {c: [*y]}", "line 4: *y is a part of &y itself"},
		{strings.Repeat("[", 100), "did not find expected node content"},
		{strings.Repeat("[", 70) + strings.Repeat("]", 70), "nested deeper than 64"},
		{`{"a":` + strings.Repeat("[", 100_000), "nested deeper than 64"},
		{strings.Repeat("- ", 20_000) + "x", "depth"},
		{bomb, "more than 100000 values"},
		{strings.Repeat("a", MaxBytes+1), "at most 1048576"},
	} {
		docs, err := Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("Parse(%.40q) = %d documents, %v; want Invalid with %q", c.text, len(docs), err, c.want)
		}
	}
}

func TestSeveralDocuments(t *testing.T) {
	for text, want := range map[string]int{
		"---\n---\n": 0, "": 0, "# only a comment": 0, "a: 1\n---\na: 2\n...\n---\n": 2, `{"a":1} {"a":2}`: 2, "{\"a\":1}\n": 1,
	} {
		if docs, err := Parse([]byte(text)); err != nil || len(docs) != want {
			t.Errorf("Parse(%q) = %d documents, %v; want %d", text, len(docs), err, want)
		}
	}
}

func TestLineOf(t *testing.T) {
	v := one(t, "name: x\ninput:\n  topic: t\n  cols:\n    - a\n    - b\n")
	for path, want := range map[string]int{
		"": 1, "name": 1, "input": 2, "input.topic": 3, "input.cols[1]": 6, "input.cols[9]": 4, "input.none": 2, "none.at.all": 1, "input.cols[x": 4,
	} {
		if got := v.LineOf(path); got != want {
			t.Errorf("LineOf(%q) = %d, want %d", path, got, want)
		}
	}
}

func TestFaultsAreInvalidErrorsThatKeepTheList(t *testing.T) {
	var o outer
	err := Decode(one(t, "x: 1\ny: 2"), &o).Err("op")
	var fs Faults
	if !errors.As(err, &fs) || len(fs) != 2 || schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("Err = %v", err)
	}
	if (Faults{}).Err("op") != nil {
		t.Error("no faults are an error")
	}
}

func TestNear(t *testing.T) {
	known := []string{"model", "split", "record", "apiVersion", "flight-delay"}
	for word, want := range map[string]string{
		"modle": "model", "Model": "model", "splt": "split", "api_version": "apiVersion", "flihgt-dealy": "flight-delay",
		"flightdelay": "flight-delay", "xyz": "", "": "", "m": "", "recrod": "record",
	} {
		if got := Near(word, known); got != want {
			t.Errorf("Near(%q) = %q, want %q", word, got, want)
		}
	}
}

// The vectors are those of RFC 8785, sections 3.2.2, 3.2.3 and appendix B.
func TestCanonicalVectorsOfTheRFC(t *testing.T) {
	for in, want := range map[string]string{
		`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`:                                        `{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`: "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\"\U0001f600\":\"Emoji: Grinning Face\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}",
		` [ "<&>\u2028" , { } , [ ] ] `: "[\"<&>\u2028\",{},[]]",
	} {
		if got, err := CanonicalJSON([]byte(in)); err != nil || string(got) != want {
			t.Errorf("%s:\n got %s %v\nwant %s", in, got, err, want)
		}
	}
	for bits, want := range map[uint64]string{
		0x0000000000000000: "0", 0x8000000000000000: "0", 0x0000000000000001: "5e-324", 0x8000000000000001: "-5e-324",
		0x7fefffffffffffff: "1.7976931348623157e+308", 0x4340000000000000: "9007199254740992", 0xc340000000000000: "-9007199254740992",
		0x4430000000000000: "295147905179352830000", 0x44b52d02c7e14af5: "9.999999999999997e+22", 0x44b52d02c7e14af6: "1e+23",
		0x444b1ae4d6e2ef4f: "999999999999999900000", 0x444b1ae4d6e2ef50: "1e+21", 0x3eb0c6f7a0b5ed8c: "9.999999999999997e-7",
		0x3eb0c6f7a0b5ed8d: "0.000001", 0x41b3de4355555554: "333333333.33333325", 0xbecbf647612f3696: "-0.0000033333333333333333",
		0x43143ff3c1cb0959: "1424953923781206.2",
	} {
		f := math.Float64frombits(bits)
		if got, err := appendNumber(nil, strconv.FormatFloat(f, 'e', -1, 64)); err != nil || string(got) != want {
			t.Errorf("%x: got %s %v, want %s", bits, got, err, want)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for _, in := range []string{"", "{", `{"a":1,"a":2}`, "1 2", "9007199254740993", "1e999", "\"\xff\"", "[1,]", strings.Repeat("[", 2000)} {
		if got, err := CanonicalJSON([]byte(in)); err == nil {
			t.Errorf("CanonicalJSON(%.20q) = %s", in, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"name: x\ninput: {topic: t}\n---\na: &x [1, 2]\nb: *x", `{"name":"a","input":{"cols":["a"]}}`, "<<: *a", "? [a]\n: b", "a: |\n  text\n", "%YAML 1.1\n---\n!!set {a}", "a: &x [*x]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		docs, err := Parse(b)
		if err != nil && schemas.KindOf(err) != schemas.Invalid {
			t.Fatalf("not Invalid: %v", err)
		}
		for _, d := range docs {
			var o outer
			_ = Decode(d, &o).Error()
		}
	})
}

func FuzzCanonicalJSON(f *testing.F) {
	for _, s := range []string{`{"b":1,"a":[1e21,-0,1.5e-7]}`, `"\ud83d\ude00\u0000"`, `[true,null]`, `66616868e10`, `1152921504606847000`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		once, err := CanonicalJSON(b)
		if err != nil {
			return
		}
		twice, err := CanonicalJSON(once)
		if err != nil || string(twice) != string(once) {
			t.Fatalf("canonical form is not stable: %s -> %s, %v", once, twice, err)
		}
	})
}

// either is written as text or as a map.
type either struct {
	Word string `yaml:"-"`
	Ref  string `yaml:"ref"`
}

func (e *either) UnmarshalText(b []byte) error {
	e.Word = string(b)
	return nil
}

func TestTextOrMap(t *testing.T) {
	for text, want := range map[string]string{
		"e: mean": "{mean } ", "e: {ref: m}": "{ m} ", "e:": "{ } ", "e: {reff: m}": `{ } e.reff: unknown key; did you mean "ref"?`,
		"e: [m]": "{ } e: want text or a map, got a list", "at: {a: 1}": "{ } at: want text, got a map",
	} {
		docs, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var dst struct {
			E  either    `yaml:"e"`
			At time.Time `yaml:"at"`
		}
		fs := Decode(docs[0], &dst)
		got := fmt.Sprintf("%v ", dst.E)
		for _, f := range fs {
			got += f.Path + ": " + f.Text
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
