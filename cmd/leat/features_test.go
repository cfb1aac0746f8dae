package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/pipeline/control"
)

// TestFeatures: values are put, got, imported, removed and put by a plain client of NATS, and models see them; a bucket in which
// a pipeline looks up stays.
func TestFeatures(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(routes, "lookup.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	spec := func(bucket string) string {
		return file(t, "lookup.yaml", strings.NewReplacer("name: flights-lookup", "name: looked-up", "bucket: aircraft", "bucket: "+bucket).Replace(string(text)))
	}
	r := okJSON[control.Result](t, "apply", spec("fleet"))
	if note := r.Changes[0].Note; !strings.Contains(note, "not loaded yet: route/aircraft: no bucket fleet: make it with leat features create fleet") {
		t.Errorf("note %q", note)
	}
	ok(t, "pipelines", "delete", "looked-up")
	ok(t, "features", "create", "fleet")
	ok(t, "features", "create", "fleet")
	has(t, ok(t, "features", "import", "fleet", file(t, "fleet.csv", "tail,plane_age,seats\nN1,9,150\nN2,,\nN3,30,55\n"), "--key", "tail"), "3 values stored in fleet")
	has(t, ok(t, "features", "get", "fleet", "N1"), "N1  ", `{"tail":"N1","plane_age":9,"seats":150}`)
	has(t, ok(t, "features", "list"), "fleet", "3")
	has(t, ok(t, "apply", spec("fleet")), "looked-up: created")
	ask := func(tail string) float64 {
		return askOne(t, "looked-up", routes+"/lookup.json", map[string]any{"tailnum": tail}).Probabilities[1]
	}
	old, unknown := ask("N1"), ask("N9")
	if old == unknown {
		t.Fatal("what is known of an aircraft makes no difference")
	}
	ok(t, "features", "put", "fleet", "N9", `{"plane_age": 9, "seats": 150}`)
	eventually(t, "a value that was put is seen", func() bool { return ask("N9") == old })
	ok(t, "features", "remove", "fleet", "N9", "N2")
	eventually(t, "a key that was removed is missing", func() bool { return ask("N9") == unknown })

	nc, err := nats.Connect(shared.NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), "fleet")
	if err == nil {
		_, err = kv.PutString(t.Context(), "N9", `{"seats":150,"plane_age":9.0}`)
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a plain KV put is seen", func() bool { return ask("N9") == old })

	all := ok(t, "features", "get", "fleet", "--json")
	if n := strings.Count(all, "\n"); n != 3 {
		t.Errorf("%d lines: %s", n, all)
	}
	ok(t, "features", "create", "copy")
	for _, line := range strings.Split(strings.TrimSpace(all), "\n") {
		key, value, _ := strings.Cut(strings.TrimPrefix(line, `{"key":"`), `"`)
		_, value, _ = strings.Cut(value, `"value":`)
		ok(t, "features", "put", "copy", key, strings.TrimSuffix(value, "}"))
	}
	if l := okJSON[connectors.BucketsReply](t, "features", "list"); len(l.Buckets) < 2 {
		t.Error(l)
	}
	for args, says := range map[string]string{
		"delete fleet": "bucket fleet is in use by pipeline looked-up", "delete nothing": "no bucket nothing: make it with leat features create nothing",
		"create LEAT_X": "bucket name", "get fleet N7": `no key "N7" in bucket fleet`, "get nothing": "no bucket nothing", "get LEAT_CONTROL": "bucket name",
		"put fleet N1 nonsense": "is no JSON", "put fleet N1 [1]": "want one such as", "put nothing N1 {}": "no bucket nothing", "import fleet fleet.csv": "--key: missing",
		"import fleet " + file(t, "f.csv", "tail,age\n,1\n") + " --key tail": "row 1: the key is null or empty", "import fleet " + file(t, "g.csv", "tail,age\nN1,1\n") + " --key tial": "no such column",
	} {
		if r := leat(append([]string{"features"}, strings.Fields(args)...)...); r.code == 0 || !strings.Contains(r.err, says) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	const bad, good = `{"key":"N1","value":[1]}` + "\n", `{"key":"N1","value":{"age":1}}` + "\n"
	for lines, says := range map[string]string{
		bad: `line 1: value: want an object such as {\"column\": 1}",`, good + bad: `line 2: value: want an object such as {\"column\": 1} (those before it are stored)",`,
	} {
		r, err := http.Post(shared.HTTP+"/v1/features/copy/values", "application/x-ndjson", strings.NewReader(lines))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), says) {
			t.Errorf("%d %s, %v; want %s", r.StatusCode, b, err, says)
		}
	}
	has(t, ok(t, "pipelines", "show", "looked-up"), "bucket: fleet")
	ok(t, "pipelines", "delete", "looked-up")
	has(t, ok(t, "features", "delete", "fleet"), "bucket fleet: deleted")
	ok(t, "features", "delete", "copy")
}
