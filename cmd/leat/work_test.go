package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/bulk"
)

// rowsOf counts a file's rows and lists its columns.
func rowsOf(t *testing.T, path string) (n int64, columns string) {
	t.Helper()
	r, err := files.Open(t.Context(), path, files.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		rec, err := r.Next(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n += rec.NumRows()
		rec.Release()
	}
	for _, f := range r.Schema().Fields() {
		columns += f.Name + " "
	}
	return n, columns
}

func TestJobRun(t *testing.T) {
	to := filepath.Join(t.TempDir(), "scored.parquet")
	v := okJSON[bulk.View](t, "job", "run", "--pipeline", "flight-boost", "--from", sample, "--to", to, "--carry", "flight_id,late")
	if v.Status != bulk.Done || v.Rows != 109619 || v.Exit != 0 || !filepath.IsAbs(v.From) {
		t.Fatalf("%+v", v)
	}
	n, columns := rowsOf(t, to)
	if n != 109619 || !strings.Contains(columns, "flight_id late label probabilities") {
		t.Errorf("%d rows of %s", n, columns)
	}
	has(t, ok(t, "job", "list", "--status", "done"), v.ID, "flight-boost", "109,619")
	if l := okJSON[bulk.JobList](t, "job", "list", "--pipeline", "flight-boost", "--limit", "1"); len(l.Jobs) != 1 {
		t.Errorf("%d jobs", len(l.Jobs))
	}
	has(t, ok(t, "job", "show", v.ID), "job "+v.ID+"  done", "rows      109,619", "took", "scored by onnxruntime")
	has(t, ok(t, "job", "wait", v.ID), "done")
	if r := leat("job", "run", "--pipeline", "flight-boost", "--from", sample, "--to", to); r.code != 1 || !strings.Contains(r.err, "exists") {
		t.Errorf("%+v", r)
	}
	if r := leat("job", "cancel", v.ID); r.code != 1 || !strings.Contains(r.err, "is done") {
		t.Errorf("%+v", r)
	}
	has(t, ok(t, "lineage", "count", "--run", v.ID), "109,619")
}

func TestJobWithBadRowsExitsWith3(t *testing.T) {
	content, err := os.ReadFile(head(t, "csv", 20))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(content), "\n")
	lines[5] = strings.Replace(lines[5], ",-", ",late", 1) // dep_delay
	from := file(t, "bad.csv", strings.Join(lines, ""))
	to := filepath.Join(t.TempDir(), "out.parquet")
	r := leat("job", "run", "--pipeline", "flight-delay", "--from", from, "--to", to)
	if r.code != exitRejected || !strings.Contains(r.err, "1 of 20 rows are not in the sink (1 rejected, 0 skipped)") {
		t.Fatalf("exit %d: %s", r.code, r.err)
	}
	has(t, r.out, "left out  see "+to+".rejected.ndjson", "20, 1 rejected")
	if n, _ := rowsOf(t, to); n != 19 {
		t.Errorf("%d rows in the sink", n)
	}
	if _, err := os.Stat(to + ".rejected.ndjson"); err != nil {
		t.Error(err)
	}
}

// A file that cannot hold the outputs fails the job, and nothing but the job.
func TestJobToAFileThatCannotHoldIt(t *testing.T) {
	to := filepath.Join(t.TempDir(), "scored.csv")
	r := leat("job", "run", "--pipeline", "flight-boost", "--from", head(t, "parquet", 10), "--to", to)
	if r.code != 1 || !strings.Contains(r.err, "probabilities") {
		t.Fatalf("%+v", r)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("the file is there")
	}
	ok(t, "job", "list")
}

// A candidate is scored on what callers sent to another model, though one takes names and the other a packed tensor.
func TestJobFromLineage(t *testing.T) {
	const n = 300
	path := head(t, "parquet", n)
	since := time.Now().UTC().Format(time.RFC3339Nano)
	ok(t, "score", "flight-delay", path, "--limit", "1")
	to := filepath.Join(t.TempDir(), "replayed.ndjson")
	v := okJSON[bulk.View](t, "job", "run", "--pipeline", "flight-boost", "--from", "lineage:flight-delay@"+since, "--to", to)
	if v.Scored != n || v.Skipped != 0 {
		t.Fatalf("%+v", v)
	}
	b, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	want := okJSON[scores](t, "score", "flight-boost", path).Results
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		var got struct {
			Label         float64
			Probabilities []any
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got.Label, got.Probabilities) != fmt.Sprint(want[i].Output["label"], want[i].Output["probabilities"]) {
			t.Fatalf("row %d: %s, scored at once %v", i, line, want[i].Output)
		}
	}
	// And back: the strings that the other model wants were not recorded.
	since = time.Now().UTC().Format(time.RFC3339Nano)
	ok(t, "score", "flight-boost", path, "--limit", "1")
	r := leat("job", "run", "--pipeline", "flight-delay", "--from", "lineage:flight-boost@"+since, "--to", to, "--overwrite")
	if r.code != exitRejected || !strings.Contains(r.err, "300 skipped") {
		t.Errorf("%+v", r)
	}
}

func TestJobDetachAndCancel(t *testing.T) {
	to := filepath.Join(t.TempDir(), "slow.parquet")
	slow := []string{"job", "run", "--pipeline", "flight-boost", "--from", sample, "--to", to, "--throttle", "50", "--chunk-rows", "10"}
	d := okJSON[bulk.View](t, append(slow, "--detach")...)
	has(t, ok(t, "topics", "list"), "TOPIC") // others are served meanwhile
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan result, 1)
	go func() { done <- leatIn(ctx, "", "job", "wait", d.ID) }()
	eventually(t, "the job runs", func() bool {
		v := okJSON[bulk.View](t, "job", "show", d.ID)
		return v.Status == bulk.Running && v.Rows > 0
	})
	has(t, ok(t, "job", "show", d.ID), "throttle  50 rows/s", "running")
	cancel() // as Ctrl-C does
	if r := <-done; r.code != 130 || !strings.Contains(r.err, "the job goes on") || !strings.Contains(r.err, "leat job cancel "+d.ID) {
		t.Fatalf("%+v", r)
	}
	has(t, ok(t, "job", "resume", d.ID, "--throttle", "60"), "60 rows/s")
	go func() { done <- leat("job", "wait", d.ID) }()
	has(t, ok(t, "job", "cancel", d.ID), "cancelled")
	if r := <-done; r.code != 1 || !strings.Contains(r.err, "was cancelled") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("a cancelled job left a file")
	}
}

// Where no bar can be drawn, lines tell how far a job is.
func TestJobLines(t *testing.T) {
	var out bytes.Buffer
	w := &jobWatch{e: &env{err: &out}, printed: time.Now().Add(-lineEvery)}
	v := &bulk.View{Job: bulk.Job{Status: bulk.Running, Counters: bulk.Counters{Rows: 1500, Rate: 250}}, Progress: 0.25, Left: "18s",
		RowsLeft: 4500, EventLag: 90061.2}
	w.show(v)
	w.show(v) // too soon
	if want := "running: 25.0%, 1,500 rows, 250 rows/s; left: 4,500 rows, 25h1m1s of events, about 18s\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// What is shown of a job over a topic: what is left of the whole, and how far it is in each partition.
func TestJobShowsPartitions(t *testing.T) {
	var out bytes.Buffer
	at := time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)
	v := &bulk.View{Job: bulk.Job{ID: "j", Status: bulk.Running, Counters: bulk.Counters{Rows: 150, EventTime: at}}, RowsLeft: 250, EventLag: 0.25,
		Partitions: []bulk.PartitionView{{First: 1, Last: 100, Next: 101}, {Partition: 1, First: 1, Last: 100, Next: 51, Left: 50, EventLag: 0.125}, {Partition: 2, First: 7, Last: 206, Next: 7, Left: 200, EventLag: 3812400}}}
	if err := (&env{out: &out}).printJob(v); err != nil {
		t.Fatal(err)
	}
	has(t, out.String(), "left      250 rows, 250ms of events\n", "events    done up to 2026-05-01T08:00:00Z\n",
		"part. 0 1 to 100, done\n", "part. 1 1 to 100, at 51, 125ms of events left\n", "part. 2 7 to 206, not begun, 44d3h of events left\n")
	out.Reset()
	v.Status, v.RowsLeft, v.EventLag = bulk.Done, 0, 0
	if err := (&env{out: &out}).printJob(v); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "left") || strings.Contains(out.String(), "part.") {
		t.Errorf("of a job that is done: %s", out.String())
	}
}

func TestTopics(t *testing.T) {
	ok(t, "topics", "create", "tested.in", "--partitions", "2")
	has(t, ok(t, "topics", "create", "tested.in", "--partitions", "2"), "partitions  2")
	if r := leat("topics", "create", "tested.in", "--partitions", "3"); r.code != 1 {
		t.Errorf("%+v", r)
	}
	spec := "apiVersion: leat/v1\nkind: Pipeline\nname: tested\ninput: {topic: tested.in}\noutput: {topic: tested.out}\nroute: {model: flight-boost}\n"
	ok(t, "apply", file(t, "p.yaml", spec))
	const n = 1500
	p := okJSON[published](t, "topics", "publish", "tested.in", sample, "--key", "tailnum", "--id", "flight_id", "--event-time", "event_time", "--limit", strconv.Itoa(n))
	if p.Events != n {
		t.Fatalf("%+v", p)
	}
	eventually(t, "all events are scored", func() bool {
		return okJSON[connectors.TopicInfo](t, "topics", "show", "tested.out").Messages == n
	})
	// An event is the row with all its columns, the key, the time; and in the file's order for each key.
	byKey, last := map[string]string{}, map[string]int{}
	lines := strings.Split(strings.TrimSpace(ok(t, "topics", "read", "tested.in", "--json")), "\n")
	if len(lines) != n {
		t.Fatalf("%d events", len(lines))
	}
	order := map[string]int{}
	for i, row := range okJSON[scores](t, "score", "flight-delay", head(t, "parquet", n), "--expect", "flight_id", "--output", "label", "--limit", "0").Results {
		order[*row.Expected] = i
	}
	for _, line := range lines {
		var l connectors.TopicLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		var v struct{ Rows []map[string]any }
		if err := json.Unmarshal(l.Value, &v); err != nil || len(v.Rows) != 1 || len(v.Rows[0]) != 20 || v.Rows[0]["tailnum"] != l.Key {
			t.Fatalf("%v: %.300s", err, line)
		}
		id := v.Rows[0]["flight_id"].(string)
		if l.Headers.Get("Leat-Request-Id") != id || l.Headers.Get("Leat-Event-Time") != v.Rows[0]["event_time"] {
			t.Fatalf("headers %v of %v", l.Headers, v.Rows[0])
		}
		if at, before := order[id], last[l.Key]; byKey[l.Key] != "" && at <= before {
			t.Fatalf("key %s: %s after %s", l.Key, id, byKey[l.Key])
		}
		byKey[l.Key], last[l.Key] = id, order[id]
	}
	out := ok(t, "topics", "read", "tested.out", "--limit", "3", "--since", "1h")
	if strings.Count(out, "\n") != 3 || !strings.Contains(out, "probabilities") {
		t.Errorf("%s", out)
	}
	has(t, ok(t, "topics", "list"), "tested.in", "tested (lag 0)")
	has(t, ok(t, "topics", "show", "tested.in"), "messages    1,500", "group       tested: 0 to come, 0 at work")
	has(t, ok(t, "lineage", "count", "--pipeline", "tested"), "1,500")
	if r := leat("topics", "delete", "tested.in"); r.code != 1 || !strings.Contains(r.err, "in use by pipeline tested") {
		t.Fatalf("%+v", r)
	}
	ok(t, "pipelines", "delete", "tested")
	has(t, ok(t, "topics", "delete", "tested.in"), "topic tested.in: deleted with 1,500 messages")
	ok(t, "topics", "delete", "tested.out")
}

func TestTopicsPublishForms(t *testing.T) {
	ok(t, "topics", "create", "forms", "--partitions", "1")
	started := time.Now()
	r := leatIn(t.Context(), "{\"user\":\"a\",\"n\":1}\n{\"user\":\"b\",\"n\":2}\n{\"user\":null,\"n\":3}\n", "topics", "publish", "forms", "-", "--key", "user", "--rate", "20")
	if r.code != 0 || !strings.Contains(r.out, "3 events stored in forms") {
		t.Fatalf("%+v", r)
	}
	if took := time.Since(started); took < 100*time.Millisecond {
		t.Errorf("3 events at 20 a second in %s", took)
	}
	has(t, ok(t, "topics", "read", "forms"), `a  {"rows":[{"user":"a","n":1}]}`, `-  {"rows":[{"user":null,"n":3}]}`)
	for _, c := range []struct{ args, says string }{
		{"--key nope", "--key nope: no such column"}, {"--event-time n", "want timestamps"}, {"--rate -1", "want 0 for no bound"},
	} {
		r := leatIn(t.Context(), "{\"user\":\"a\",\"n\":1}\n", append([]string{"topics", "publish", "forms", "-"}, strings.Fields(c.args)...)...)
		if r.code != exitUsage || !strings.Contains(r.err, c.says) {
			t.Errorf("%s: %+v", c.args, r)
		}
	}
	// Follow: what is stored comes out while the command runs, and Ctrl-C is its usual end.
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"topics", "read", "forms", "--follow", "--from", "4", "--server", shared.HTTP}, strings.NewReader(""), pw, io.Discard)
		pw.Close()
	}()
	go leatIn(ctx, "{\"user\":\"late\"}\n", "topics", "publish", "forms", "-")
	line, err := bufio.NewReader(pr).ReadString('\n')
	if err != nil || !strings.Contains(line, `"late"`) || !strings.HasPrefix(line, "0/4") {
		t.Errorf("%q %v", line, err)
	}
	cancel()
	if c := <-code; c != 0 {
		t.Errorf("exit %d", c)
	}
	ok(t, "topics", "delete", "forms")
}

func TestLineage(t *testing.T) {
	flight := filepath.Join(example, "flight.json")
	before := time.Now().UTC().Format(time.RFC3339Nano)
	ok(t, "score", "flight-delay", flight, "--id", "seen-1")
	ok(t, "score", "flight-delay", flight, "--id", "seen-1") // a repeat
	out := ok(t, "lineage", "get", "seen-1")
	has(t, out, "request seen-1, row 0  ok", "flight-delay@1", "route (primary)", "via http", "carrier", "MQ", "[0.38137823,0.61862177]", "superseded", "LEAT_LINEAGE/0/")
	g := okJSON[lineage.GetReply](t, "lineage", "get", "seen-1")
	if len(g.Records) != 2 || g.Records[0].RecordID != g.Records[1].RecordID || !g.Records[1].Superseded {
		t.Errorf("%+v", g)
	}
	c := okJSON[lineage.Totals](t, "lineage", "count", "--pipeline", "flight-delay", "--since", before)
	if c.Records != 1 || c.Superseded != 1 || c.OK != 1 {
		t.Errorf("%+v", c)
	}
	list := func(args ...string) int {
		return strings.Count(ok(t, append([]string{"lineage", "list", "--since", before, "--pipeline", "flight-delay"}, args...)...), "\n")
	}
	if list() != 1 || list("--all") != 2 || list("--all", "--json") != 2 || list("--status", "error") != 0 || list("--model", "flight-delay@1") != 1 || list("--model", "flight-delay@2") != 0 || list("--all", "--limit", "1") != 1 {
		t.Error("lists differ from what was recorded")
	}
	has(t, ok(t, "lineage", "list", "--since", before, "--all"), "flight-delay flight-delay@1  http  seen-1/0", `{"label":1,"probabilities":`, "superseded")

	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"lineage", "tail", "--since", before, "--pipeline", "flight-delay", "--server", shared.HTTP}, strings.NewReader(""), pw, io.Discard)
		pw.Close()
	}()
	in := bufio.NewReader(pr)
	first, _ := in.ReadString('\n')
	ok(t, "score", "flight-delay", flight, "--id", "seen-2")
	second, _ := in.ReadString('\n')
	if !strings.Contains(first, "seen-1/0") || !strings.Contains(second, "seen-2/0") {
		t.Errorf("%q\n%q", first, second)
	}
	cancel()
	if c := <-code; c != 0 {
		t.Errorf("tail ended with %d", c)
	}
}

// Export and prune, on a server of its own, since pruning would take the other tests' records.
func TestLineageExport(t *testing.T) {
	at, stop, err := start(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	on := func(args ...string) result { return leat(append(args, "--server", at.HTTP)...) }
	must := func(args ...string) string {
		t.Helper()
		r := on(args...)
		if r.code != 0 {
			t.Fatalf("leat %v: %s", args, r.err)
		}
		return r.out
	}
	must("models", "push", filepath.Join(example, "flight-boost"))
	must("score", "flight-boost", head(t, "parquet", 1200), "--limit", "1")
	dir := t.TempDir()
	parquet, ndjson := filepath.Join(dir, "r.parquet"), filepath.Join(dir, "r.ndjson")
	if r := on("lineage", "prune", "--before", "0s"); r.code != 1 || !strings.Contains(r.err, "export") {
		t.Fatalf("what was not exported was deleted: %+v", r)
	}
	has(t, must("lineage", "export", ndjson, "--pipeline", "flight-boost"), "nothing of it may be pruned")
	if r := on("lineage", "prune", "--before", "0s"); r.code != 1 {
		t.Fatalf("a filtered export let records be deleted: %+v", r)
	}
	has(t, must("lineage", "export", parquet), "may be pruned")
	if n, _ := rowsOf(t, ndjson); n != 1200 {
		t.Errorf("%d lines", n)
	}
	if b, err := os.ReadFile(parquet); err != nil || !bytes.HasPrefix(b, []byte("PAR1")) || !bytes.HasSuffix(b, []byte("PAR1")) {
		t.Errorf("%s: %v", parquet, err)
	}
	if n := strings.Count(must("lineage", "export", "-", "--format", "ndjson", "--since", "1h"), "\n"); n != 1200 {
		t.Errorf("%d lines to standard output", n)
	}
	must("lineage", "export", parquet, "--overwrite")
	has(t, must("lineage", "status"), "LEAT_LINEAGE", "1 to 2", "s ago")
	has(t, must("lineage", "prune", "--before", "0s"), "LEAT_LINEAGE: 2 messages deleted", "begins at sequence 3")
	has(t, must("lineage", "count"), "0")
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
}

// certificate makes one for loopback that signs itself.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		file(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

func TestTokens(t *testing.T) {
	const reads, admins = "a-token-that-may-only-read", "a-token-that-may-do-everything"
	tokens := file(t, "tokens", reads+" read ann\n"+admins+" admin bob\n")
	cert, key := certificate(t)
	at, stop, err := start(filepath.Join(t.TempDir(), "data"), "--token-file", tokens, "--tls-cert", cert, "--tls-key", key)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	on := func(args ...string) result { return leat(append(args, "--server", at.HTTP)...) }
	if r := on("models", "list", "--token", reads); r.code != 1 || !strings.Contains(r.err, "is not trusted: name the one that signed it with --ca FILE") {
		t.Errorf("%+v", r)
	}
	if r := on("models", "list", "--ca", tokens); r.code != 1 || !strings.Contains(r.err, "no PEM certificate") {
		t.Errorf("%+v", r)
	}
	t.Setenv("LEAT_CA", cert)
	if r := on("models", "list"); r.code != 1 || !strings.Contains(r.err, "a token is asked for") {
		t.Errorf("%+v", r)
	}
	if r := on("models", "list", "--token", reads); r.code != 0 {
		t.Errorf("%+v", r)
	}
	t.Setenv("LEAT_TOKEN", reads)
	if r := on("models", "push", filepath.Join(example, "flight-boost")); r.code != 1 || !strings.Contains(r.err, "scope admin") {
		t.Errorf("%+v", r)
	}
	t.Setenv("LEAT_TOKEN", "")
	t.Setenv("LEAT_CA", "")
	// The client file holds what need not be said each time.
	config := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	if err := os.MkdirAll(filepath.Join(config, "leat"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "leat", "client.yaml"), fmt.Appendf(nil, "server: %s\ntoken: %s\nca: %s\n", at.HTTP, admins, cert), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errw bytes.Buffer
	if code := run(t.Context(), []string{"models", "push", filepath.Join(example, "flight-boost")}, strings.NewReader(""), &out, &errw); code != 0 {
		t.Errorf("exit %d: %s", code, errw.String())
	}
	if r := on("score", "flight-boost", filepath.Join(example, "flight-boost.json"), "--id", "bobs"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if r := on("lineage", "get", "bobs"); !strings.Contains(r.out, "bob via http") {
		t.Errorf("%+v", r)
	}
}
