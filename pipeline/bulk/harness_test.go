package bulk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/connectors/kafka"
	leatnats "github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/schemas/jsonrow"
	"github.com/leatstream/leat/schemas/wire"
	"github.com/leatstream/leat/scorers"
)

// world is one NATS server and what several processes over it share.
type world struct {
	t        testing.TB
	server   *leatnats.Server
	dir      string // of files
	log      *slog.Logger
	logged   *logBuffer
	config   Config
	lin      lineage.Config
	seq      int
	lost     func(uint64) bool // messages that the topics of later processes have lost
	features int               // of the benchmark's model; 0: the arithmetic one
	input    *pipeline.Input   // of the pipeline
	late     bool              // publishes come after the transport's duplicate window
	kafka    *kafka.Config     // where topics live; nil: on NATS
	doom     *doom             // how later processes die; nil: as a test says
}

// logBuffer keeps what was logged, for a test that fails.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if p, ok := t.(*testing.T); ok {
		p.Parallel() // each has a server of its own, and they mostly wait
	}
	w := &world{t: t, dir: t.TempDir(), config: Default(), lin: lineage.Default(), logged: &logBuffer{}}
	w.log = slog.New(slog.NewTextHandler(w.logged, nil))
	t.Cleanup(func() {
		if t.Failed() {
			w.logged.mu.Lock()
			defer w.logged.mu.Unlock()
			t.Logf("log:\n%s", w.logged.b.String())
		}
	})
	w.config.ChunkRows, w.config.Parallel = 100, 3
	w.config.LeaseRenew, w.config.LeaseExpiry, w.config.Progress = 50*time.Millisecond, 500*time.Millisecond, 50*time.Millisecond
	w.config.QueueBytes, w.config.ResultBytes = 4<<20, 16<<20
	w.lin.MaxBytes, w.lin.JobsMaxBytes, w.lin.RejectedMaxBytes = 64<<20, 64<<20, 1<<20
	c := leatnats.DefaultServer()
	c.Dir, c.Port, c.Sync, c.StoreLimit = t.TempDir(), 0, false, 8<<30
	var err error
	if w.server, err = leatnats.NewServer(c, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.server.Close)
	return w
}

// process is one life of one process.
type process struct {
	*Service
	w       *world
	client  *leatnats.Client
	topics  connectors.Transport // where topics live: client, or kafka
	kafka   *kafka.Client        // nil: none
	model   *arithmetic
	reader  *lineage.StreamReader
	stream  *lineage.Stream
	logs    lineage.Logs
	cancel  context.CancelFunc
	stopped chan struct{}
	once    sync.Once
	doom    *doom
}

// hosted gives the service the pipelines of a real host.
type hosted struct {
	host *pipeline.Host
	rev  *pipeline.Revision
}

func (h hosted) Active(name string) (*pipeline.Revision, bool) { return h.rev, name == h.rev.Spec.Name }
func (h hosted) BanditStates(name string) map[string]uint64    { return h.host.BanditStates(name) }
func (h hosted) Pin(ctx context.Context, rev *pipeline.Revision, states map[string]uint64) (Pinned, error) {
	return h.host.Pin(ctx, rev, states)
}

func (h hosted) PinShadow(ctx context.Context, rev *pipeline.Revision, shadow string) (Pinned, error) {
	return h.host.PinShadow(ctx, rev, shadow)
}

// diskFiles is what cmd hands over.
type diskFiles struct{}

func (diskFiles) Open(ctx context.Context, path string, o FileOptions) (FileReader, error) {
	fo := files.Options{Columns: o.Columns, BatchRows: o.BatchRows, FromRow: o.FromRow, Want: o.Want}
	if o.OnRowError != nil {
		fo.OnRowError = func(e files.RowError) error { return o.OnRowError(e.Row, e.Err) }
	}
	return files.Open(ctx, path, fo)
}

func (diskFiles) Create(path string, s *arrow.Schema) (FileWriter, error) {
	w, err := files.Create(path, s, files.WriterOptions{Overwrite: true})
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (diskFiles) CheckFormat(path string) error {
	_, err := files.FormatOf(path)
	return err
}

// forgetful publishes without ids: as if every duplicate window had passed since the last attempt.
type forgetful struct{ connectors.Publisher }

func (f forgetful) Publish(ctx context.Context, msgs []schemas.Message) ([]schemas.Position, error) {
	for i := range msgs {
		msgs[i].ID = ""
	}
	return f.Publisher.Publish(ctx, msgs)
}

// start begins a process's life.
func (w *world) start(cpu string) *process {
	w.t.Helper()
	t := w.t
	ctx, cancel := context.WithCancel(t.Context())
	must := func(err error) {
		if err != nil {
			cancel()
			t.Helper()
			t.Fatal(err)
		}
	}
	nc := leatnats.Default()
	nc.Server, nc.TopicBytes, nc.KVBytes, nc.DeadBytes = w.server, 64<<20, 16<<20, 16<<20
	client, err := leatnats.Dial(ctx, nc, nil)
	must(err)
	p := &process{w: w, client: client, model: w.newModel(), doom: w.doom, cancel: cancel, stopped: make(chan struct{})}
	kv, err := client.KV(ctx, "jobs")
	must(err)
	catalogueKV, err := client.KV(ctx, "schemas")
	must(err)
	catalogue := wire.NewCatalogue(catalogueKV)
	p.logs, err = lineage.Open(ctx, client, w.lin)
	must(err)
	p.stream = lineage.NewStream(p.logs, catalogue, w.lin, nil, nil)
	p.reader = lineage.NewReader(p.logs, catalogue, w.lin, nil)
	host, err := pipeline.NewHost(pipeline.DefaultConfig(), pipeline.Deps{
		Store: p.model, Loaders: []scorers.Loader{p.model}, CPU: cpu, Log: w.log, Lineage: p.stream,
	})
	must(err)
	w.seq++
	formats, err := codec.New(codec.Config{})
	must(err)
	p.topics = client
	if w.kafka != nil {
		p.kafka, err = kafka.Dial(ctx, *w.kafka, w.log)
		must(err)
		p.topics = p.kafka
	}
	var replayer connectors.Replayer = p.topics
	if w.lost != nil {
		replayer = gappy{p.topics, w.lost}
	}
	var publisher connectors.Publisher = p.topics
	if w.late {
		publisher = forgetful{p.topics}
	}
	p.Service, err = New(w.config, Deps{
		Jobs: kv, Logs: client, Queues: client, Pipelines: hosted{host, p.model.revision()}, Lineage: p.stream, Records: p.reader,
		Fill: func(ctx context.Context) (float64, error) {
			st, err := p.logs.Jobs.Stats(ctx)
			return float64(st.Bytes) / float64(max(st.MaxBytes, 1)), err
		},
		Replayer: replayer, Topics: p.topics, Publisher: publisher, Ledgers: p, Files: diskFiles{}, Codec: formats.For, Encoder: jsonrow.Rows(),
		Log: w.log.With("process", w.seq),
	})
	must(err)
	go func() {
		defer close(p.stopped)
		p.Run(ctx)
	}()
	t.Cleanup(p.kill)
	return p
}

// OpenLedger implements Ledgers, for topics on Kafka.
func (p *process) OpenLedger(ctx context.Context, topic, name string) (Ledger, error) {
	if p.kafka == nil {
		return nil, schemas.ErrUnsupported
	}
	return p.deadly(ctx, "open", "opened", 0, func() (Ledger, error) { return p.kafka.OpenLedger(ctx, topic, name) })
}

// DropLedger implements Ledgers.
func (p *process) DropLedger(ctx context.Context, topic, name string) error {
	if p.kafka == nil {
		return nil
	}
	_, err := p.deadly(ctx, "drop", "dropped", 0, func() (Ledger, error) { return nil, p.kafka.DropLedger(ctx, topic, name) })
	return err
}

// kill ends the process without letting it say goodbye: its connections go first.
func (p *process) kill() {
	p.once.Do(func() {
		p.client.Close()
		if p.kafka != nil {
			p.kafka.Close()
		}
		p.cancel()
		<-p.stopped
	})
}

// stop ends the process in good order.
func (p *process) stop() {
	p.once.Do(func() {
		p.cancel()
		<-p.stopped
		if p.kafka != nil {
			p.kafka.Close()
		}
		p.client.Close()
	})
}

// wait returns the job when it satisfies ok.
func (p *process) wait(id string, ok func(*View) bool) *View {
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(p.w.t.Context(), 2*time.Minute)
	defer cancel()
	found := make(chan *View, 1)
	go p.deps.Jobs.Watch(ctx, jobPrefix+id, func(_ string, value []byte, _ uint64, _ bool) {
		if len(value) == 0 {
			return
		}
		j, err := parseJob(value)
		if err != nil {
			p.w.t.Error(err)
			return
		}
		if v := view(j, time.Now()); ok(&v) {
			select {
			case found <- &v:
			default:
			}
		}
	})
	select {
	case v := <-found:
		return v
	case <-ctx.Done():
		v, err := p.Show(p.w.t.Context(), &IDRequest{ID: id})
		p.w.t.Fatalf("the job never got there: %+v %v", v, err)
		return nil
	}
}

func ended(v *View) bool { return v.Ended }

// done waits for the job's good end, and for its leftovers to be gone.
func (p *process) done(id string) *View {
	p.w.t.Helper()
	v := p.wait(id, ended)
	if v.Status != Done {
		p.w.t.Fatalf("job %s: %s", v.Status, v.Reason)
	}
	return p.wait(id, func(v *View) bool { return v.Cleaned })
}

func (p *process) job(r RunRequest) *View {
	p.w.t.Helper()
	if r.Pipeline == "" {
		r.Pipeline = "sums"
	}
	v, err := p.RunJob(p.w.t.Context(), &r)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return v
}

// event is a row of the test's sources.
type event struct {
	A, B, C float32
	Name    string
}

func (e event) score() float64 { return 2*float64(e.A) + float64(e.B) - float64(e.C) }

func events(n int, seed uint64) []event {
	r := rand.New(rand.NewPCG(seed, 1))
	es := make([]event, n)
	for i := range es {
		es[i] = event{r.Float32(), r.Float32() * 10, float32(i), fmt.Sprintf("row-%d", i)}
	}
	return es
}

// writeEvents makes a file with more columns than the model wants.
func (w *world) writeEvents(name string, es []event) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	b := schemas.NewBatch(schemas.MustSchema(
		schemas.Field{Name: "id", Type: schemas.Int64}, schemas.Field{Name: "a", Type: schemas.Float32}, schemas.Field{Name: "b", Type: schemas.Float32},
		schemas.Field{Name: "c", Type: schemas.Float32}, schemas.Field{Name: "name", Type: schemas.String}, schemas.Field{Name: "label", Type: schemas.String},
	))
	for i, e := range es {
		schemas.Append(b.Column(0), int64(i)*7)
		for c, v := range []float32{e.A, e.B, e.C} {
			schemas.Append(b.Column(1+c), v)
		}
		b.Column(4).AppendString(e.Name)
		b.Column(5).AppendString("own")
		for c := range 6 {
			b.Column(c).EndRow()
		}
		b.Advance(1)
	}
	out, err := diskFiles{}.Create(path, b.Schema().Arrow())
	if err == nil {
		if err = writeBatch(out, b); err == nil {
			err = out.Commit()
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return path
}

// read returns a file's rows.
func (w *world) read(path string) *schemas.Batch {
	w.t.Helper()
	r, err := files.Open(w.t.Context(), path, files.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	s, err := schemas.SchemaFromArrow(r.Schema())
	if err != nil {
		w.t.Fatal(err)
	}
	proj, err := schemas.NewProjection(r.Schema(), s)
	if err != nil {
		w.t.Fatal(err)
	}
	b := schemas.NewBatch(s)
	for {
		rec, err := r.Next(w.t.Context())
		if err == io.EOF {
			return b
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if err := proj.AppendRecord(b, rec, 0, int(rec.NumRows())); err != nil {
			w.t.Fatal(err)
		}
		rec.Release()
	}
}

// checkFile checks that a job over a file wrote each row that was not left out once, in order, with its answer.
func (w *world) checkFile(path string, es []event, leftOut map[int]bool) {
	w.t.Helper()
	b := w.read(path)
	row := schemas.Values[int64](b.Column(b.Schema().Index("row")))
	score := schemas.Values[float64](b.Column(b.Schema().Index("score")))
	at := 0
	for i, e := range es {
		if leftOut[i] {
			continue
		}
		if at >= b.Rows() || row[at] != int64(i) || score[at] != e.score() {
			w.t.Fatalf("row %d of the file: want source row %d with score %v; the file has %d rows", at, i, e.score(), b.Rows())
		}
		at++
	}
	if at != b.Rows() {
		w.t.Fatalf("the file has %d rows, want %d", b.Rows(), at)
	}
}

// records counts the canonical records of a job by status, and fails on rows that are in the lineage twice.
func (p *process) records(id string) (ok, failed int) {
	p.w.t.Helper()
	seen := map[string]bool{}
	err := p.reader.Scan(p.w.t.Context(), lineage.Query{Run: id}, func(r *lineage.Record) (bool, error) {
		key := fmt.Sprintf("%s#%d", r.RequestID, r.Row.Row)
		if seen[key] {
			p.w.t.Errorf("two canonical records of %s", key)
		}
		if r.IDReused {
			p.w.t.Errorf("%s has two input digests", key)
		}
		seen[key] = true
		if r.Status == lineage.StatusOK {
			ok++
		} else {
			failed++
		}
		return true, nil
	})
	if err != nil {
		p.w.t.Fatal(err)
	}
	return ok, failed
}

func readText(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
