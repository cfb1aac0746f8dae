package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/scorers"
)

const head = "apiVersion: leat/v1\nkind: Pipeline\nname: p\n"
const minimal = head + "route: {model: m}\n"

var goodSpecs = map[string]string{
	"minimal": minimal,
	"full": `apiVersion: leat/v1
kind: Pipeline
name: flight-delay
description: late or not
labels: {team: ops, year: "2013"}
input: {topic: flights.departures}
output: {topic: flights.delay-scores}
lineage: async
deadline: 250ms
record: {mask: [tailnum], drop: [seats]}
route: {model: flight-delay@3}
`,
	"foreign": minimal + "input: {stream: ORDERS, subject: orders.*.new.>}\noutput: {topic: scores}\n",
	"kafka":   minimal + "input: {topic: 'kafka:Orders_v2.new'}\noutput: {topic: kafka:scores}\ndelivery: exactly_once\n",
	"exactly": minimal + "input: {topic: orders}\ndelivery: exactly_once\nlineage: strict\n",
	"nats":    minimal + "input: {topic: nats:orders}\noutput: {topic: kafka:orders}\ndelivery: at_least_once\n",
	"json":    `{"apiVersion":"leat/v1","kind":"Pipeline","name":"p","route":{"model":"m@champion"},"deadline":"1m30s"}`,
}

func TestGoodSpecsParseAndComeBack(t *testing.T) {
	for name, text := range goodSpecs {
		t.Run(name, func(t *testing.T) {
			specs, err := ParseSpec([]byte(text))
			if err != nil || len(specs) != 1 {
				t.Fatalf("%d specs, %v", len(specs), err)
			}
			want := specs[0].Defaulted()
			for _, again := range []func(any) ([]byte, error){yaml.Marshal, json.Marshal} {
				b, err := again(want)
				if err != nil {
					t.Fatal(err)
				}
				back, err := ParseSpec(b)
				if err != nil {
					t.Fatalf("%s\n%v", b, err)
				}
				if got := back[0].Defaulted(); !reflect.DeepEqual(got, want) {
					t.Errorf("came back as %+v, was %+v", got, want)
				}
			}
		})
	}
}

// badSpecs is what people get wrong: the text, and one line for each fault.
var badSpecs = []struct {
	name, text string
	want       []string
	shape      bool // the JSON Schema sees it too
}{
	{"empty", "", []string{"no pipeline in it"}, false},
	{"comment", "# nothing", []string{"no pipeline in it"}, false},
	{"no head", "name: p\nroute: {model: m}", []string{"line 1: apiVersion: missing; write apiVersion: leat/v1", "line 1: kind: missing; write kind: Pipeline"}, true},
	{"version", "apiVersion: leat/v2\nkind: Pipeline\nname: p\nroute: {model: m}", []string{`line 1: apiVersion: "leat/v2" is not known to this version of leat; want leat/v1`}, true},
	{"kind", "apiVersion: leat/v1\nkind: pipline\nname: p\nroute: {model: m}", []string{`line 2: kind: unknown kind "pipline"; did you mean "Pipeline"?`}, true},
	{"key case", "apiversion: leat/v1\nkind: Pipeline\nname: p\nroute: {model: m}", []string{`line 1: apiversion: unknown key; did you mean "apiVersion"?`, "apiVersion: missing"}, true},
	{"no name", "apiVersion: leat/v1\nkind: Pipeline\nroute: {model: m}", []string{"name: missing; callers address the pipeline by it"}, true},
	{"name upper", "apiVersion: leat/v1\nkind: Pipeline\nname: Fraud\nroute: {model: m}", []string{`line 3: name: pipeline name "Fraud": want a lower-case letter, then up to 62 of a-z, 0-9 and '-'`}, true},
	{"name number", "apiVersion: leat/v1\nkind: Pipeline\nname: 7\nroute: {model: m}", []string{`line 3: name: want text, got a number: write "7" in quotes`}, true},
	{"name long", "apiVersion: leat/v1\nkind: Pipeline\nname: " + strings.Repeat("a", 64) + "\nroute: {model: m}", []string{"line 3: name: pipeline name"}, true},
	{"unknown key", minimal + "linage: strict", []string{`line 5: linage: unknown key; did you mean "lineage"?`}, true},
	{"key twice", minimal + "name: q", []string{"line 5: name: this key is here twice"}, false},
	{"no route", head, []string{"line 1: route: names nothing to run; want one of model"}, true},
	{"empty route", head + "route: {}", []string{"line 4: route: names nothing to run; want one of model"}, true},
	{"null route", head + "route:", []string{"line 4: route: names nothing to run"}, true},
	{"empty key", head + "route: {model: m}\n\"\": x", []string{`line 5: "": unknown key; want one of apiVersion, kind, name`}, true},
	{"route text", head + "route: m", []string{`line 4: route: want a map with model, split, switch, sequence, transform, ensemble, cascade, bandit, lookup, got text ("m")`}, true},
	{"route typo", head + "route: {modle: m}", []string{`line 4: route.modle: unknown key; did you mean "model"?`}, true},
	{"model list", head + "route: {model: [m]}", []string{"line 4: route.model: want text, got a list"}, true},
	{"model path", head + "route: {model: ../m}", []string{`line 4: route.model: model name "../m"`, "write NAME, NAME@ALIAS or NAME@VERSION"}, true},
	{"model version 0", head + "route: {model: m@0}", []string{`line 4: route.model: model "m@0": versions count from 1`}, true},
	{"model version 01", head + "route: {model: m@01}", []string{"versions count from 1"}, true},
	{"model no alias", head + "route: {model: m@}", []string{"line 4: route.model: alias name"}, true},
	{"model two ats", head + "route: {model: m@a@b}", []string{`alias name "a@b"`}, true},
	{"lineage", minimal + "lineage: stict", []string{`line 5: lineage: unknown mode "stict"; did you mean "strict"?`}, true},
	{"lineage far", minimal + "lineage: none", []string{`line 5: lineage: unknown mode "none"; want one of strict, async`}, true},
	{"deadline number", minimal + "deadline: 250", []string{`line 5: deadline: "250" is not a duration; write it with a unit, such as 250ms or 2s`}, true},
	{"deadline word", minimal + "deadline: soon", []string{`"soon" is not a duration`}, true},
	{"deadline negative", minimal + "deadline: -1s", []string{"line 5: deadline: -1s: want more than 0 and at most 1h0m0s"}, true},
	{"deadline long", minimal + "deadline: 2h", []string{"deadline: 2h0m0s: want more than 0"}, false},
	{"input empty", minimal + "input: {}", []string{"line 5: input: empty; name a topic, or a foreign stream and its subject"}, true},
	{"input both", minimal + "input: {topic: t, stream: S}", []string{"line 5: input: both a topic and a foreign stream; keep one of them"}, true},
	{"input topic", minimal + "input:\n  topic: Flights/Departures", []string{`line 6: input.topic: topic name "Flights/Departures": want names of a-z, 0-9 and '-' that start with a letter, joined with dots`}, true},
	{"input topic long", minimal + "input: {topic: " + strings.Repeat("abcdefghi.", 20) + "x}", []string{"topic name of 201 bytes: at most 200"}, true},
	{"input key", minimal + "input:\n  topc: a", []string{`line 6: input.topc: unknown key; did you mean "topic"?`}, true},
	{"stream alone", minimal + "input: {stream: S}", []string{"input.subject: missing; write > for all subjects of the stream"}, true},
	{"subject alone", minimal + "input: {subject: s}", []string{"input.stream: missing; a subject is read from a stream"}, true},
	{"stream name", minimal + "input: {stream: a b, subject: s}", []string{`input.stream: "a b" is not a stream name`}, false},
	{"stream ours", minimal + "input: {stream: LEAT_LINEAGE, subject: '>'}", []string{`input.stream: "LEAT_LINEAGE" is internal; to read a topic write input: {topic: NAME}`}, false},
	{"subject", minimal + "input: {stream: S, subject: a..b}", []string{`input.subject: "a..b" is not a subject`}, false},
	{"subject rest", minimal + "input: {stream: S, subject: a.>.b}", []string{"> at the end for the rest"}, false},
	{"output alone", minimal + "output: {topic: t}", []string{"line 5: output: no input to answer"}, true},
	{"output empty", minimal + "input: {topic: t}\noutput: {}", []string{"output.topic: missing; name the topic of the answers, or leave output out"}, true},
	{"output text", minimal + "input: {topic: t}\noutput: u", []string{`line 6: output: want a map with topic, got text ("u")`}, true},
	{"loop", minimal + "input: {topic: t}\noutput:\n  topic: t", []string{`line 7: output.topic: "t" is the input's topic too: its answers would be scored again, for ever; choose another`}, false},
	{"topic transport", minimal + "input: {topic: kakfa:orders}", []string{`line 5: input.topic: topic "kakfa:orders": want NAME, nats:NAME or kafka:NAME`}, true},
	{"topic on nats", minimal + "input: {topic: nats:Orders}", []string{`input.topic: topic name "Orders": want names of a-z`}, true},
	{"topic on kafka", minimal + "input: {topic: 'kafka:a b'}", []string{`input.topic: Kafka topic "a b": want 1 to 249 of letters, digits, '.', '_' and '-'`}, true},
	{"topic on kafka empty", minimal + "input: {topic: 'kafka:'}", []string{`input.topic: Kafka topic "": want`}, true},
	{"topic on kafka dots", minimal + "input: {topic: 'kafka:..'}", []string{`input.topic: Kafka topic "..": want`}, false},
	{"topic on kafka long", minimal + "input: {topic: 'kafka:" + strings.Repeat("a", 250) + "'}", []string{"want 1 to 249"}, true},
	{"topic ours", minimal + "input: {topic: t}\noutput: {topic: kafka:leat.lineage}", []string{`line 6: output.topic: topic name "leat.lineage": names on Kafka that begin with "leat." are Leat's own; choose another`}, false},
	{"delivery", minimal + "input: {topic: kafka:t}\ndelivery: exactly-once", []string{`line 6: delivery: unknown guarantee "exactly-once"; did you mean "exactly_once"?`}, true},
	{"delivery far", minimal + "delivery: twice", []string{`line 5: delivery: unknown guarantee "twice"; want one of at_least_once, exactly_once`}, true},
	{"exactly without input", minimal + "delivery: exactly_once", []string{"line 5: delivery: exactly_once is about a topic's events; it needs input: {topic: kafka:NAME}"}, false},
	{"exactly foreign", minimal + "delivery: exactly_once\ninput: {stream: S, subject: s}", []string{"line 6: input: a foreign stream lies on NATS; delivery: exactly_once needs input: {topic: kafka:NAME}"}, false},
	{"exactly on nats", minimal + "delivery: exactly_once\ninput: {topic: nats:a}\noutput: {topic: nats:b}", []string{
		`line 6: input.topic: "nats:a" lives on NATS; delivery: exactly_once needs it on Kafka: write kafka:a`, `line 7: output.topic: "nats:b" lives on NATS`}, false},
	{"exactly async", minimal + "delivery: exactly_once\ninput: {topic: kafka:a}\nlineage: async", []string{"line 7: lineage: async: delivery: exactly_once needs strict, since the records are part of its transactions"}, false},
	{"mask text", minimal + "record: {mask: amount}", []string{`line 5: record.mask: want a list, such as [a, b], got text ("amount")`}, true},
	{"mask number", minimal + "record:\n  mask:\n    - a\n    - 5", []string{`line 8: record.mask[1]: want text, got a number: write "5" in quotes`}, true},
	{"entity that is masked", minimal + "feedback: {entity: a}\nrecord: {drop: [b, a]}", []string{`line 5: feedback.entity: column "a" is not in the record (record.drop[1]): decisions could not be found by it`}, false},
	{"within without an entity", minimal + "feedback: {within: 1h}", []string{`line 5: feedback.within: it is of feedback that names an entity: say which column that is, as entity`}, false},
	{"within too long", minimal + "feedback: {entity: a, within: 9000h}", []string{`line 5: feedback.within: 9000h0m0s: want more than 0 and at most 8784h0m0s`}, false},
	{"within of no unit", minimal + "feedback: {entity: a, within: '5'}", []string{`line 5: feedback.within: "5" is not a duration`}, true},
	{"feedback misspelt", minimal + "feedback: {entitty: a}", []string{`line 5: feedback.entitty: unknown key; did you mean "entity"?`}, true},
	{"mask empty", minimal + "record: {mask: ['']}", []string{"record.mask[0]: empty; name a column"}, true},
	{"mask twice", minimal + "record: {mask: [a], drop: [a]}", []string{`record.drop[0]: "a" is at record.mask[0] already`}, false},
	{"mask null", minimal + "record: {mask: [a, ~]}", []string{"record.mask[1]: nothing here; leave the entry out"}, true},
	{"labels list", minimal + "labels: [a]", []string{"line 5: labels: want a map, got a list"}, true},
	{"label number", minimal + "labels: {year: 2013}", []string{`line 5: labels.year: want text, got a number: write "2013" in quotes`}, true},
	{"label long", minimal + "labels: {a: " + strings.Repeat("x", 257) + "}", []string{"labels.a: a label's name takes 1 to 256 bytes"}, true},
	{"description long", minimal + "description: " + strings.Repeat("x", 4097), []string{"description: 4097 bytes: at most 4096"}, true},
	{"same name", minimal + "---\n" + minimal, []string{`line 8: name: pipeline "p" is here already, at line 3`}, false},
	{"several", head + "deadline: 5\nlinage: x\nroute: {}\n", []string{"line 4: deadline:", "line 5: linage:", "line 6: route:"}, true},
	{"second document", minimal + "---\nname: q\nroute: {model: m}\n", []string{"line 6: apiVersion: missing", "line 6: kind: missing"}, false},
	{"not a map", "- a\n- b", []string{"line 1: want a map with apiVersion, kind, name", "got a list"}, true},
	{"syntax", head + "route: {model: m", []string{"not YAML: line"}, false},
	{"json syntax", `{"apiVersion": "leat/v1",`, []string{"JSON: unexpected EOF"}, false},
	{"json key", "{\"apiVersion\":\"leat/v1\",\"kind\":\"Pipeline\",\n\"name\":\"p\",\"rout\":{\"model\":\"m\"}}", []string{`line 2: rout: unknown key; did you mean "route"?`}, true},
	{"not UTF-8", minimal + "description: \xff", []string{"not UTF-8"}, false},
	{"deep", minimal + "labels: " + strings.Repeat("[", 70) + strings.Repeat("]", 70), []string{"nested deeper than 64"}, false},
}

func TestBadSpecsSayWhatWouldBeRight(t *testing.T) {
	if len(badSpecs) < 40 {
		t.Fatalf("%d bad specs", len(badSpecs))
	}
	for _, c := range badSpecs {
		t.Run(c.name, func(t *testing.T) {
			specs, err := ParseSpec([]byte(c.text))
			if err == nil || schemas.KindOf(err) != schemas.Invalid || specs != nil {
				t.Fatalf("%d specs, %v", len(specs), err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("says %q\nwithout %q", err, w)
				}
			}
			var fs document.Faults
			if errors.As(err, &fs) && c.name == "several" && len(fs) != 3 {
				t.Errorf("%d faults: %v", len(fs), fs)
			}
		})
	}
}

// asJSON reads YAML the way an editor's schema checker sees it.
func asJSON(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	j, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// schemaOf compiles the JSON Schema.
func schemaOf(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(JSONSchema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("leat.json", doc); err != nil {
		t.Fatal(err)
	}
	sch, err := c.Compile("leat.json")
	if err != nil {
		t.Fatal(err)
	}
	return sch
}

func TestJSONSchemaAgreesWithTheParser(t *testing.T) {
	sch := schemaOf(t)
	for name, text := range goodSpecs {
		if err := sch.Validate(asJSON(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		specs, _ := ParseSpec([]byte(text))
		full, err := yaml.Marshal(specs[0].Defaulted())
		if err != nil {
			t.Fatal(err)
		}
		if err := sch.Validate(asJSON(t, string(full))); err != nil {
			t.Errorf("%s with defaults: %v", name, err)
		}
	}
	for _, b := range badSpecs {
		if !b.shape {
			continue
		}
		if err := sch.Validate(asJSON(t, b.text)); err == nil {
			t.Errorf("%s: the schema lets it pass", b.name)
		}
	}
}

// Every field that the parser takes is in the schema, and no other.
func TestJSONSchemaHasEveryField(t *testing.T) {
	props := func(m map[string]any) []string {
		var names []string
		for n := range m["properties"].(map[string]any) {
			names = append(names, n)
		}
		slices.Sort(names)
		return names
	}
	s := schemaOfSpec()
	in := func(n string) map[string]any { return s["properties"].(map[string]any)[n].(map[string]any) }
	for _, c := range []struct {
		t reflect.Type
		m map[string]any
	}{
		{reflect.TypeFor[Spec](), s}, {reflect.TypeFor[Input](), in("input")}, {reflect.TypeFor[Output](), in("output")},
		{reflect.TypeFor[Record](), in("record")}, {reflect.TypeFor[Node](), schemaOfKinds()},
	} {
		want := document.Fields(c.t)
		slices.Sort(want)
		if got := props(c.m); !slices.Equal(got, want) {
			t.Errorf("%v: schema has %v, the parser %v", c.t, got, want)
		}
	}
}

// The vectors were made by testdata/digest.py, which shares no code with this package.
func TestDigestVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/digest.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Spec, Canonical, SpecDigest, Revision string
		Models                                []ResolvedModel
	}
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 4 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for i, v := range vectors {
		specs, err := ParseSpec([]byte(v.Spec))
		if err != nil {
			t.Fatal(i, err)
		}
		canon, err := document.Canonical(specs[0].Defaulted())
		if err != nil || string(canon) != v.Canonical {
			t.Errorf("%d: canonical %s %v\nwant %s", i, canon, err, v.Canonical)
		}
		d, err := SpecDigest(specs[0])
		if err != nil || d != v.SpecDigest {
			t.Errorf("%d: spec digest %s %v, want %s", i, d, err, v.SpecDigest)
		}
		if got := RevisionOf(d, v.Models); got != v.Revision {
			t.Errorf("%d: revision %s, want %s", i, got, v.Revision)
		}
		slices.Reverse(v.Models)
		if got := RevisionOf(d, v.Models); got != v.Revision {
			t.Errorf("%d: the order of models changes the revision", i)
		}
	}
}

func TestSpecDigestForgetsHowItWasWritten(t *testing.T) {
	var first string
	for i, text := range []string{
		minimal,
		"name: p\nroute:\n  model: m@champion\nkind: Pipeline\napiVersion: leat/v1\nlineage: strict\ndeadline: 5000ms\nrecord: {mask: []}\nlabels: {}\n",
		`{"apiVersion":"leat/v1","kind":"Pipeline","name":"p","route":{"model":"m"},"deadline":"5s"}`,
	} {
		specs, err := ParseSpec([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		d, err := SpecDigest(specs[0])
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = d
		} else if d != first {
			t.Errorf("text %d has another digest", i)
		}
	}
}

// shelf resolves from a fixed set of versions.
type shelf struct{ sig schemas.Signature }

func (s shelf) Resolve(_ context.Context, r schemas.ModelRef) (scorers.Version, error) {
	if r.Name != "flight-delay" || r.Version > 2 || r.Alias != "" && r.Alias != schemas.Champion {
		return scorers.Version{}, schemas.Errorf(schemas.NotFound, "shelf", "no %s", r)
	}
	return scorers.Version{Name: r.Name, Version: max(1, r.Version), Digest: "d" + strconv.Itoa(r.Version), Probed: scorers.Probed{Signature: s.sig}}, nil
}

func (shelf) Known(context.Context, string) ([]string, error) {
	return []string{"flight-delay", "flight-delay@champion", "flight-delay@1", "flight-delay@2"}, nil
}

func TestResolve(t *testing.T) {
	r := shelf{schemas.Signature{
		Inputs: schemas.MustSchema(
			schemas.Field{Name: "tailnum", Type: schemas.String},
			schemas.Field{Name: "features", Type: schemas.Float32, Shape: []int{2}, Features: []string{"seats", "distance"}}),
		Outputs: schemas.MustSchema(schemas.Field{Name: "probability", Type: schemas.Float32}),
	}}
	for _, c := range []struct{ tail, want string }{
		{"route: {model: flight-delay}\nrecord: {mask: [tailnum, seats], drop: [probability]}", ""},
		{"route: {model: flight-delay@2}", ""},
		{"route: {model: flight-dealy}", `line 4: route.model: no model flight-dealy@champion; did you mean "flight-delay@champion"?`},
		{"route:\n  model: flight-delay@7", `line 5: route.model: no model flight-delay@7; did you mean`},
		{"route: {model: flight-delay@champoin}", `did you mean "flight-delay@champion"?`},
		{"route: {model: flight-delay}\nrecord:\n  mask: [tailnum]\n  drop:\n    - distnace", `line 8: record.drop[0]: no column "distnace" in the model's signature; did you mean "distance"?`},
	} {
		specs, err := ParseSpec([]byte(head + c.tail))
		if err != nil {
			t.Fatal(err)
		}
		ms, sig, err := specs[0].Resolve(t.Context(), r, Facts{})
		if c.want == "" {
			if err != nil || len(ms) != 1 || ms[0].Node != RootPath || ms[0].Digest == "" || sig.Inputs == nil {
				t.Errorf("%s: %+v %v", c.tail, ms, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%s: %v\nwant %s", c.tail, err, c.want)
		}
	}
}

// What a server has decides which topics a spec may name, and where it may be exactly once.
func TestServerFacts(t *testing.T) {
	r := shelf{schemas.Signature{Inputs: schemas.MustSchema(schemas.Field{Name: "a", Type: schemas.Float32}), Outputs: schemas.MustSchema(schemas.Field{Name: "b", Type: schemas.Float32})}}
	nats, mixed := Facts{}, Facts{Kafka: true}
	kafka := Facts{Kafka: true, Transport: schemas.TransportKafka, Lineage: schemas.TransportKafka}
	const exactly = "delivery: exactly_once\n"
	for _, c := range []struct {
		facts Facts
		tail  string
		want  []string
	}{
		{nats, "input: {topic: a}\noutput: {topic: nats:b}", nil},
		{mixed, "input: {topic: a}\noutput: {topic: kafka:a}", nil},
		{kafka, "input: {topic: a}\noutput: {topic: nats:a}", nil},
		{kafka, exactly + "input: {topic: a}\noutput: {topic: kafka:B}", nil},
		{kafka, exactly + "input: {topic: a}", nil},
		{nats, "input: {topic: kafka:a}\noutput: {topic: kafka:b}", []string{
			`line 5: input.topic: "kafka:a": this server knows no Kafka: start it with --kafka HOST:PORT, or set kafka.bootstrap`, `line 6: output.topic: "kafka:b": this`}},
		{nats, exactly + "input: {topic: a}\noutput: {topic: b}", []string{
			`line 6: input.topic: "a" lives on NATS; delivery: exactly_once needs it on Kafka: write kafka:a`, `line 7: output.topic: "b" lives on NATS`, "line 5: delivery: exactly_once needs the lineage on Kafka"}},
		{mixed, exactly + "input: {topic: kafka:a}\noutput: {topic: b}", []string{
			`line 7: output.topic: "b" lives on NATS`, "delivery: exactly_once needs the lineage on Kafka, where the topics are: set lineage.transport: kafka for the server, or write delivery: at_least_once"}},
		{nats, "input: {topic: a}\noutput: {topic: nats:a}", []string{`line 6: output.topic: "nats:a" is the input's topic too`}},
		{kafka, "input: {topic: a}\noutput: {topic: kafka:a}", []string{`output.topic: "kafka:a" is the input's topic too`}},
		{kafka, "input: {topic: leat.dead}", []string{`input.topic: topic name "leat.dead": names on Kafka that begin with "leat." are Leat's own`}},
		{kafka, "input: {topic: a}\noutput: {topic: nats:leat.dead}", nil},
	} {
		specs, err := ParseSpec([]byte(head + "route: {model: flight-delay}\n" + c.tail))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = specs[0].Resolve(t.Context(), r, c.facts)
		var fs document.Faults
		if errors.As(err, &fs); len(fs) != len(c.want) || err != nil && schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%+v %s: %v", c.facts, c.tail, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v\nwithout %s", c.tail, err, w)
			}
		}
	}
}

// A spec that was written before there was a choice of delivery keeps its digest, and so does one that names the default.
func TestDeliveryKeepsDigests(t *testing.T) {
	digest := map[string]string{}
	for _, text := range []string{minimal, minimal + "delivery: at_least_once\n", minimal + "input: {topic: a}\ndelivery: exactly_once\n", minimal + "input: {topic: a}\n"} {
		specs, err := ParseSpec([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if digest[text], err = SpecDigest(specs[0]); err != nil {
			t.Fatal(err)
		}
	}
	if digest[minimal] != digest[minimal+"delivery: at_least_once\n"] {
		t.Error("the default that is written is another spec than the one that is not")
	}
	if digest[minimal+"input: {topic: a}\n"] == digest[minimal+"input: {topic: a}\ndelivery: exactly_once\n"] {
		t.Error("another guarantee is the same spec")
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, s := range goodSpecs {
		f.Add([]byte(s))
	}
	for _, b := range badSpecs {
		f.Add([]byte(b.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		specs, err := ParseSpec(b)
		if err != nil {
			if schemas.KindOf(err) != schemas.Invalid {
				t.Fatalf("not Invalid: %v", err)
			}
			return
		}
		for _, s := range specs {
			d, err := SpecDigest(s)
			if err != nil {
				t.Fatal(err)
			}
			y, err := yaml.Marshal(s.Defaulted())
			if err != nil {
				t.Fatal(err)
			}
			back, err := ParseSpec(y)
			if err != nil {
				t.Fatalf("%s\n%v", y, err)
			}
			if again, _ := SpecDigest(back[0]); again != d {
				t.Fatalf("another digest after a round trip:\n%s", y)
			}
		}
	})
}
