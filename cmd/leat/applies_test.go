package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// appliedSpec is the i-th revision of a route in which every row goes by three nodes, or two, on two levels. The names of all
// nodes say which revision it is; of the models, only every other revision uses flight-other, which comes and goes. Odd
// revisions weigh the members in another way.
func appliedSpec(i int) string {
	other, weights := "flight-boost@1", [2]int{1, 1}
	if i%2 == 1 {
		other, weights = "flight-other@1", [2]int{1, 3}
	}
	return fmt.Sprintf(`apiVersion: leat/v1
kind: Pipeline
name: applied
columns: {k: int64}
record: {drop: [carrier, origin, dest]}
route:
  split:
    key: k
    salt: applies
    arms:
      - name: both-%[1]d
        weight: 50
        ensemble:
          columns: {label: max, probabilities: weighted_mean}
          members:
            - {name: one-%[1]d, weight: %[3]d, model: flight-delay@1}
            - {name: two-%[1]d, weight: %[4]d, model: %[2]s}
      - {name: alone-%[1]d, weight: 50, model: flight-delay@1}
`, i, other, weights[0], weights[1])
}

// TestAppliesUnderLoad: 1,000 revisions while requests run. Every request is answered, by one whole revision: the nodes of
// all its records are of it, and the answer is what this revision's weights make. Memory and goroutines stay flat, and the
// metrics know the nodes of the last revision alone.
func TestAppliesUnderLoad(t *testing.T) {
	applies := 1000
	if testing.Short() {
		applies = 100
	}
	rate := runtime.MemProfileRate
	runtime.MemProfileRate = 4096
	defer func() { runtime.MemProfileRate = rate }()
	dir := t.TempDir()
	at, stop, err := start(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if code := stop(); code != 0 {
			t.Error("leat serve ended with", code)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	on := func(args ...string) string {
		t.Helper()
		r := leatIn(t.Context(), "", append(args, "--server", at.HTTP)...)
		if r.code != 0 {
			t.Fatalf("leat %s: %s", strings.Join(args, " "), r.err)
		}
		return r.out
	}
	on("models", "push", filepath.Join(example, "flight-delay"))
	on("models", "push", filepath.Join(example, "flight-boost"))
	on("models", "push", filepath.Join(example, "flight-boost"), "--name", "flight-other", "--label", "other=yes")
	on("pipelines", "delete", "flight-other") // so that only revisions of the test hold it
	l := &appliesLoad{t: t, url: at.HTTP, answers: map[string]rowsAnswered{}}
	l.apply(0)

	l.phase(1, applies/10) // pools and caches reach their size
	before := footprintNow()
	l.phase(applies/10+1, applies)
	const most = 1 << 20 // about a kilobyte for each apply; a revision's graph takes more than ten
	after := footprintNow()
	for end := time.Now().Add(10 * time.Second); (after.heap > before.heap+most || after.goroutines > before.goroutines+10) && time.Now().Before(end); {
		after = footprintNow() // connections are still being closed
	}
	if after.goroutines > before.goroutines+10 {
		t.Errorf("%d goroutines after %d applies, %d after %d", after.goroutines, applies, before.goroutines, applies/10)
	}
	if after.heap > before.heap+most {
		t.Errorf("%d KiB of ours on the heap after %d applies, %d KiB after %d", after.heap>>10, applies, before.heap>>10, applies/10)
	}
	t.Logf("%d requests; of ours on the heap %d -> %d KiB, goroutines %d -> %d", len(l.answers), before.heap>>10, after.heap>>10, before.goroutines, after.goroutines)

	records := filepath.Join(dir, "records.ndjson")
	on("lineage", "export", records, "--pipeline", "applied")
	l.judge(records)
	metrics := string(l.get("/metrics"))
	if n := strings.Count(metrics, "leat_node_rows_total{"); strings.Count(metrics, fmt.Sprintf("-%d\"", applies)) == 0 || n != 5+2 { // of the pushed pipelines, too
		t.Errorf("%d nodes in the metrics, want 7 of revision %d", n, applies)
	}
}

// rowsAnswered are the probabilities of a late flight, by row, with the keys that were asked.
type rowsAnswered struct {
	keys  []int
	rates []float64
}

// appliesLoad asks and applies.
type appliesLoad struct {
	t       *testing.T
	url     string
	mu      sync.Mutex
	answers map[string]rowsAnswered // by request id
}

type footprint struct {
	heap       int // bytes that our code holds; the store's server keeps blocks of 8 MiB for a while
	goroutines int
}

// phase applies revisions [from, to] while four callers ask, ten times for each revision.
func (l *appliesLoad) phase(from, to int) {
	const each = 10
	asks := make(chan int, each)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := range asks {
				l.ask(n)
			}
		})
	}
	for i := from; i <= to; i++ {
		for n := range each {
			asks <- i*each + n
		}
		l.apply(i)
	}
	close(asks)
	wg.Wait()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func footprintNow() footprint { return footprint{heapOfOurs(), runtime.NumGoroutine()} }

// heapOfOurs estimates, from the heap's profile, the bytes in use that were allocated under a function of this module, less
// those of the test and those that lie in the embedded server.
func heapOfOurs() int {
	runtime.GC()
	runtime.GC() // a profile is as of the collection before the last
	var records []runtime.MemProfileRecord
	for n, ok := runtime.MemProfile(nil, false); !ok; {
		records = make([]runtime.MemProfileRecord, n+100)
		n, ok = runtime.MemProfile(records, false)
		records = records[:min(n, len(records))]
	}
	sum := 0.0
	for _, r := range records {
		if r.InUseObjects() == 0 || !ofOurs(r.Stack()) {
			continue
		}
		bytes := float64(r.InUseBytes())
		sum += bytes / (1 - math.Exp(-bytes/float64(r.InUseObjects())/float64(runtime.MemProfileRate))) // as package pprof scales samples
	}
	return int(sum)
}

func ofOurs(stack []uintptr) (ours bool) {
	frames := runtime.CallersFrames(stack)
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if strings.Contains(f.Function, "nats-server") || strings.Contains(f.Function, "appliesLoad") {
			return false
		}
		ours = ours || strings.HasPrefix(f.Function, "github.com/leatstream/leat/")
	}
	return ours
}

func (l *appliesLoad) apply(i int) {
	body, err := json.Marshal(map[string]string{"spec": appliedSpec(i)})
	if err != nil {
		l.t.Error(err)
	}
	if _, err := l.post("/v1/pipelines", body, nil); err != nil {
		l.t.Errorf("revision %d: %v", i, err)
	}
}

// ask sends a request of three rows.
func (l *appliesLoad) ask(n int) {
	row := appliesRow()
	var rows []map[string]any
	a := rowsAnswered{}
	for k := range 3 {
		r := map[string]any{}
		for name, v := range row {
			r[name] = v
		}
		r["k"] = 3*n + k
		a.keys = append(a.keys, 3*n+k)
		rows = append(rows, r)
	}
	body, err := json.Marshal(map[string]any{"rows": rows})
	if err != nil {
		l.t.Error(err)
	}
	var got struct {
		ID   string
		Rows []struct{ Probabilities []float64 }
	}
	if _, err := l.post("/v1/pipelines/applied/score", body, &got); err != nil || len(got.Rows) != len(rows) {
		l.t.Errorf("request %d: %d rows, %v", n, len(got.Rows), err)
		return
	}
	for _, r := range got.Rows {
		a.rates = append(a.rates, r.Probabilities[1])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[got.ID] = a
}

// appliesRow is the flight of the example, with what both models read.
var appliesRow = sync.OnceValue(func() map[string]any {
	b, err := os.ReadFile(filepath.Join(example, "flight.json"))
	if err != nil {
		panic(err)
	}
	var f struct{ Rows []map[string]any }
	if err := json.Unmarshal(b, &f); err != nil {
		panic(err)
	}
	return f.Rows[0]
})

func (l *appliesLoad) post(path string, body []byte, out any) ([]byte, error) {
	r, err := http.Post(l.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, b)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(b, out)
	}
	return b, err
}

func (l *appliesLoad) get(path string) []byte {
	r, err := http.Get(l.url + path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// told is what the records say of one request.
type told struct {
	revision string
	nodes    map[int32][]string // by row
}

// judge reads all records. Rows that went the same way under revisions of the same kind have the same answer.
func (l *appliesLoad) judge(path string) {
	f, err := os.Open(path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	requests, suffixOf := map[string]*told{}, map[string]string{}
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var r struct {
			RequestID string `json:"request_id"`
			Revision  string
			Node      string
			Row       int32
			Status    string
		}
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			l.t.Fatal(err)
		}
		x := requests[r.RequestID]
		if x == nil {
			x = &told{revision: r.Revision, nodes: map[int32][]string{}}
			requests[r.RequestID] = x
		}
		if r.Revision != x.revision || r.Status != "ok" {
			l.t.Errorf("request %s: a record of revision %.12s, status %s, and one of revision %.12s", r.RequestID, r.Revision, r.Status, x.revision)
		}
		x.nodes[r.Row] = append(x.nodes[r.Row], r.Node)
		for name := range strings.SplitSeq(strings.TrimPrefix(strings.TrimPrefix(r.Node, "route"), "/"), "/") {
			_, suffix, _ := strings.Cut(name, "-")
			if known, ok := suffixOf[r.Revision]; suffix != "" && ok && known != suffix {
				l.t.Errorf("revision %.12s has node %s, and nodes that end in -%s", r.Revision, r.Node, known)
			} else if suffix != "" {
				suffixOf[r.Revision] = suffix
			}
		}
	}
	if err := in.Err(); err != nil {
		l.t.Fatal(err)
	}
	if len(requests) != len(l.answers) || len(requests) == 0 {
		l.t.Errorf("%d requests are recorded, and %d were answered", len(requests), len(l.answers))
	}
	rates, seen := map[string]float64{}, map[string]bool{} // by way
	for id, a := range l.answers {
		x := requests[id]
		if x == nil {
			l.t.Errorf("request %s is not recorded", id)
			continue
		}
		seen[x.revision] = true
		suffix := suffixOf[x.revision]
		odd := strings.ContainsAny(suffix[len(suffix)-1:], "13579")
		for row, rate := range a.rates {
			way := "alone"
			want := 2
			if len(x.nodes[int32(row)]) > 2 {
				way, want = fmt.Sprint("both, odd: ", odd), 4
			}
			if n := len(x.nodes[int32(row)]); n != want {
				l.t.Errorf("request %s row %d: records of %v", id, row, x.nodes[int32(row)])
			}
			if known, ok := rates[way]; ok && known != rate {
				l.t.Errorf("request %s row %d of revision -%s went %s: %v, and another %v", id, row, suffix, way, rate, known)
			}
			rates[way] = rate
		}
	}
	if len(rates) != 3 || len(seen) < 10 {
		l.t.Errorf("the answers were %v, by %d revisions", rates, len(seen))
	}
	l.t.Logf("answers came of %d revisions", len(seen))
}
