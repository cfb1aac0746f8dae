package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// looked is a lookup, with more of it, and a model.
func looked(more, columns, then string) string {
	return "route: {sequence: [{name: facts, lookup: {" + more + "columns: [" + columns + "]}}, {name: ask, model: " + then + "}]}"
}

const in = "bucket: b, key: k, "

// badLookups is what is wrong with a lookup, as far as its text tells.
var badLookups = []struct {
	name, text string
	want       []string
	shape      bool
}{
	{"nowhere", looked("key: k, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.bucket: missing; name the NATS KV bucket that has the values, or topic: kafka:NAME`}, false},
	{"two places", looked("bucket: b, topic: kafka:t, key: k, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.topic: both a bucket and a topic; keep one of them`}, false},
	{"internal bucket", looked("bucket: LEAT_CONTROL, key: k, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.bucket: bucket name "LEAT_CONTROL": want 1 to 64 of letters, digits, '-' and '_', and not LEAT_ at the beginning`}, false},
	{"bucket of dots", looked("bucket: a.b, key: k, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.bucket: bucket name "a.b": want`}, true},
	{"topic of NATS", looked("topic: 'nats:t', key: k, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.topic: "nats:t" lives on NATS, where topics are not compacted; name a bucket instead, or a topic of Kafka: kafka:NAME`}, false},
	{"internal topic", looked("topic: 'kafka:leat.lineage', key: k, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.topic: topic name "leat.lineage": names on Kafka that begin with "leat." are Leat's own`}, false},
	{"no key", looked("bucket: b, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.key: missing; name the column whose value is the key`}, true},
	{"no columns", looked(in, "", "risk"), []string{`line 4: route.sequence[0].lookup.columns: no columns; name at least one, such as {name: tier, type: string}`}, true},
	{"columns as a map", "route: {lookup: {bucket: b, key: k, columns: {a: int64}}}", []string{`line 4: route.lookup.columns: want a list of maps with name, type, shape, default, got a map`}, true},
	{"no type", looked(in, "{name: a}", "risk"), []string{`line 4: route.sequence[0].lookup.columns[0].type: unknown type ""; want one of bool`}, true},
	{"type misspelt", looked(in, "{name: a, type: flaot64}", "risk"), []string{`line 4: route.sequence[0].lookup.columns[0].type: unknown type "flaot64"; did you mean "float64"?`}, true},
	{"no name", looked(in, "{type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.columns[0].name: "": a name has 1 to 256 bytes`}, true},
	{"names twice", looked(in, "{name: a, type: int64}, {name: a, type: bool}", "risk"), []string{`line 4: route.sequence[0].lookup.columns[1].name: "a" is the name of route.sequence[0].lookup.columns[0] too`}, false},
	{"default of another type", looked(in, "{name: a, type: int8, default: 200}", "risk"), []string{`line 4: route.sequence[0].lookup.columns[0].default: default "200" is no int8`}, false},
	{"default as a list", looked(in, "{name: a, type: int8, shape: [2], default: [1, 2]}", "risk"), []string{`line 4: route.sequence[0].lookup.columns[0].default: want text, got a list`}, true},
	{"defaults that are not there", looked(in+"missing: default, ", "{name: a, type: int8, default: 1}, {name: b, type: string}", "risk"), []string{`line 4: route.sequence[0].lookup.columns[1].default: missing; with missing: default every column has one. Or write missing: null`}, false},
	{"missing misspelt", looked(in+"missing: eror, ", "{name: a, type: int8}", "risk"), []string{`line 4: route.sequence[0].lookup.missing: unknown answer "eror"; did you mean "error"?`}, true},
	{"shape of nothing", looked(in, "{name: a, type: int8, shape: [2, 0]}", "risk"), []string{`line 4: route.sequence[0].lookup.columns[0].shape: [2 0]: want positive numbers, at most 16384 elements`}, true},
	{"shape too wide", looked(in, "{name: a, type: int8, shape: [200, 200]}", "risk"), []string{`line 4: route.sequence[0].lookup.columns[0].shape: [200 200]: want positive numbers, at most 16384 elements`}, false},
	{"stale without a unit", looked(in+"stale: 15, ", "{name: a, type: int8}", "risk"), []string{`line 4: route.sequence[0].lookup.stale: "15" is not a duration; write it with a unit`}, true},
	{"stale before", looked(in+"stale: -1s, ", "{name: a, type: int8}", "risk"), []string{`line 4: route.sequence[0].lookup.stale: -1s: want more than 0; leave it out if no value is too old`}, true},
	{"unknown key", looked(in+"colums: [a], ", "{name: a, type: int8}", "risk"), []string{`line 4: route.sequence[0].lookup.colums: unknown key; did you mean "columns"?`}, true},
}

// badLookupGraphs is what is wrong once the models are known.
var badLookupGraphs = []struct {
	name, text string
	want       []string
}{
	{"key of a float", looked("bucket: b, key: amount, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.key: column "amount" is float64; a key is text, a whole number, a bool or a timestamp`}},
	{"column of another type", looked(in, "{name: score, type: float64}", "scorer"), []string{`line 4: route.sequence[1].model: the model reads column "score" as float32, and a step before makes it float64`}},
	{"column of another width", looked(in, "{name: vector, type: float32, shape: [3]}", "embed"), []string{`line 4: route.sequence[1].model: the model reads column "vector" as float32[4], and a step before makes it float32[3]`}},
	{"name of its version", looked(in, "{name: facts.version, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.columns: facts.version: two columns of this name; a lookup records the version and age of a value by this name`}},
	{"key that a shadow has not", "route: {model: risk}\nshadows: [{name: s, sequence: [{name: facts, lookup: {bucket: b, key: contry, columns: [{name: amount, type: float64}]}}, {name: ask, model: bare}]}]", []string{`line 5: shadows[0].sequence[0].lookup.key: no column "contry"; did you mean "country"?; a column that the route does not read is said under columns`}},
	{"no model", "route: {lookup: {bucket: b, key: k, columns: [{name: a, type: int64}]}}", []string{`line 4: route: runs no model; a pipeline has at least one`}},
	{"no Kafka", looked("topic: 'kafka:t', key: k, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.topic: "kafka:t": this server knows no Kafka: start it with --kafka HOST:PORT`}},
	{"usual topic", looked("topic: t, key: k, ", "{name: a, type: int64}", "risk"), []string{`line 4: route.sequence[0].lookup.topic: "t" lives on NATS, where topics are not compacted`}},
	{"mask of an absent column", looked(in, "{name: tier, type: string}", "risk") + "\nrecord: {mask: [tire]}", []string{`line 5: record.mask[0]: no column "tire" in the model's signature; did you mean "tier"?`}},
}

func TestBadLookups(t *testing.T) {
	sch := schemaOf(t)
	for _, c := range badLookups {
		t.Run(c.name, func(t *testing.T) {
			specs, err := ParseSpec([]byte(head + c.text))
			if specs != nil {
				t.Fatal("it passed")
			}
			told(t, err, c.want)
			if err := sch.Validate(asJSON(t, head+c.text)); (err != nil) != c.shape {
				t.Errorf("the JSON Schema says %v", err)
			}
		})
	}
	for _, c := range badLookupGraphs {
		t.Run(c.name, func(t *testing.T) {
			specs, err := ParseSpec([]byte(head + c.text))
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = specs[0].Resolve(t.Context(), rack{}, Facts{})
			told(t, err, c.want)
		})
	}
}

// TestGoodLookups: what is right is taken, the ways to write it mean the same, and types follow from defaults.
func TestGoodLookups(t *testing.T) {
	sch := schemaOf(t)
	digests := map[string]bool{}
	for _, missing := range []string{"", "missing: null, ", "missing: 'null', "} {
		text := head + looked(in+missing, "{name: tier, type: string, default: none}, {name: n, type: float64, default: 0}, {name: v, type: float32, shape: [4], default: '0.5'}", "risk")
		specs, err := ParseSpec([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := sch.Validate(asJSON(t, text)); err != nil {
			t.Error(err)
		}
		d, err := SpecDigest(specs[0])
		if err != nil {
			t.Fatal(err)
		}
		digests[d] = true
	}
	if len(digests) != 1 {
		t.Errorf("%d digests of one meaning", len(digests))
	}
	for missing, want := range map[string]string{"null": "nullable", "default": "", "error": ""} {
		text := head + "record: {mask: [tier], drop: [facts.age]}\n" + looked(in+"missing: "+missing+", stale: 1h30m, ", "{name: tier, type: string, default: none}", "risk")
		specs, err := ParseSpec([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, sig, err := specs[0].Resolve(t.Context(), rack{}, Facts{}); err != nil || sig.Inputs.Index("k") >= 0 && sig.Inputs.Field(sig.Inputs.Index("k")).Type != schemas.String {
			t.Fatal(err, sig.Inputs)
		}
		m, err := rack{}.Resolve(t.Context(), schemas.ModelRef{Name: "risk"})
		if err != nil {
			t.Fatal(err)
		}
		g := buildGraph(&checker{}, &specs[0], map[string]schemas.Signature{"route/ask": m.Probed.Signature})
		if got := strings.Contains(fmt.Sprint(g.lookups[0].out.Field(0)), "Nullable:true") || g.lookups[0].out.Field(0).Nullable; got != (want != "") {
			t.Errorf("missing: %s: %v", missing, g.lookups[0].out)
		}
	}
}
