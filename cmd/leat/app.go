package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/gateway"
	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/connectors/memory"
	"github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/bulk"
	"github.com/leatstream/leat/pipeline/control"
	"github.com/leatstream/leat/pipeline/feedback"
	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/schemas/jsonrow"
	"github.com/leatstream/leat/schemas/wire"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx"
	"github.com/leatstream/leat/scorers/registry"
)

// app is a running server: every part of it, wired.
type app struct {
	cfg     Config
	log     *slog.Logger
	metrics *prometheus.Registry

	lock     *os.File
	server   *nats.Server // nil: external
	client   *nats.Client
	kafka    *kafka.Client // nil: none
	topics   *transports   // where topics live
	formats  *codec.Set    // how events are written
	broker   *memory.Broker
	registry *registry.Registry
	control  *control.Control
	stream   *lineage.Stream
	reader   *lineage.StreamReader
	keeper   *lineage.Keeper
	learning *pipeline.Learning
	host     *pipeline.Host
	jobs     *bulk.Service
	feedback *feedback.Service
	gateway  *gateway.Server
	poison   *pipeline.Poison
	http     net.Addr
	draining atomic.Bool
}

// newApp opens what a server needs and binds its ports; run makes it serve. close undoes it.
func newApp(ctx context.Context, cfg Config, log *slog.Logger) (*app, error) {
	a := &app{cfg: cfg, log: log, metrics: prometheus.NewRegistry()}
	a.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, open := range []func(context.Context) error{a.openData, a.openNATS, a.openKafka, a.openFormats, a.openModels, a.openPipelines, a.openGateway} {
		if err := open(ctx); err != nil {
			a.close()
			return nil, err
		}
	}
	return a, nil
}

// openData makes the data folder ours: two servers on one store would destroy it.
func (a *app) openData(context.Context) error {
	if err := os.MkdirAll(a.cfg.Data, 0o700); err != nil {
		return err
	}
	f, err := lockFile(filepath.Join(a.cfg.Data, "leat.lock"))
	if err != nil {
		return fmt.Errorf("data folder %s: %w", a.cfg.Data, err)
	}
	a.lock = f
	a.poison, err = pipeline.OpenPoison(filepath.Join(a.cfg.Data, "marks"))
	return err
}

func (a *app) openNATS(ctx context.Context) (err error) {
	cfg := a.cfg.NATS.Client
	if cfg.URL == "" {
		a.cfg.NATS.Server.Dir = filepath.Join(a.cfg.Data, "nats")
		if a.server, err = nats.NewServer(a.cfg.NATS.Server, a.log); err != nil {
			return err
		}
		if err = a.server.Start(ctx); err != nil {
			return err
		}
		a.fit(a.server.StoreLimit())
		cfg = a.cfg.NATS.Client
		cfg.Server = a.server
	}
	if a.client, err = nats.Dial(ctx, cfg, a.log); err != nil {
		return err
	}
	if a.server != nil {
		if err := a.client.OpenDoor(ctx); err != nil {
			return err
		}
	}
	a.topics = &transports{usual: schemas.TransportNATS, by: map[string]connectors.Transport{schemas.TransportNATS: a.client}}
	a.broker, err = memory.New(memory.Default())
	return err
}

// openKafka connects to the cluster, if one is configured, and makes it known as a home of topics.
func (a *app) openKafka(ctx context.Context) (err error) {
	a.topics.usual = a.cfg.Transport
	if !a.cfg.hasKafka() {
		return nil
	}
	a.cfg.Kafka.Metrics = kafka.NewMetrics(a.metrics)
	if a.kafka, err = kafka.Dial(ctx, a.cfg.Kafka, a.log); err != nil {
		return err
	}
	a.topics.by[schemas.TransportKafka] = a.kafka
	return nil
}

// openFormats makes known how events may be written. It asks nothing of a schema registry yet.
func (a *app) openFormats(context.Context) error {
	c, err := a.cfg.Schemas.config()
	if err == nil {
		a.formats, err = codec.New(codec.Config{Registry: c})
	}
	return err
}

// fit cuts the sizes of streams to shares of what the disk has for them: a stream reserves its size when it is made, and
// a server on a small disk shall start too.
func (a *app) fit(limit int64) {
	c := &a.cfg
	for _, s := range []struct {
		name  string
		size  *int64
		share int64
	}{
		{"lineage.max_bytes", &c.Lineage.MaxBytes, 5}, {"lineage.jobs_max_bytes", &c.Lineage.JobsMaxBytes, 5},
		{"lineage.rejected_max_bytes", &c.Lineage.RejectedMaxBytes, 100}, {"nats.blob_bytes", &c.NATS.Client.BlobBytes, 8},
		{"nats.kv_bytes", &c.NATS.Client.KVBytes, 50}, {"nats.topic_bytes", &c.NATS.Client.TopicBytes, 20}, {"nats.dead_bytes", &c.NATS.Client.DeadBytes, 50},
		{"jobs.result_bytes", &c.Jobs.ResultBytes, 10}, {"jobs.queue_bytes", &c.Jobs.QueueBytes, 50},
	} {
		if part := limit / s.share; *s.size > part {
			a.log.Info("smaller than configured: the disk has no more room for it", "size", s.name, "bytes", part)
			*s.size = part
		}
	}
}

func (a *app) openModels(ctx context.Context) error {
	kv, err := a.client.KV(ctx, "LEAT_CONTROL")
	if err != nil {
		return err
	}
	blobs, err := a.client.Blobs(ctx, "LEAT_MODELS")
	if err != nil {
		return err
	}
	loader, err := onnx.New(a.cfg.ONNX, scorers.NewSlots(cmp.Or(a.cfg.ONNX.Parallel, a.cfg.Pipeline.Cores)), onnx.NewMetrics(a.metrics))
	if err != nil {
		return err
	}
	loaders := []scorers.Loader{loader}
	if a.cfg.Registry.CacheDir == "" {
		a.cfg.Registry.CacheDir = filepath.Join(a.cfg.Data, "models")
	}
	if a.registry, err = registry.New(kv, blobs, loaders, a.cfg.Registry); err != nil {
		return err
	}
	cc := control.Default()
	cc.Facts = pipeline.Facts{Transport: a.cfg.Transport, Lineage: a.cfg.Lineage.Transport, Kafka: a.cfg.hasKafka(), Registry: a.cfg.Schemas.URL != ""}
	cc.Records = func(ctx context.Context, id string, limit int) ([]*lineage.Record, error) {
		return a.reader.Get(ctx, id, limit)
	}
	cc.Learning = func() *pipeline.Learning { return a.learning }
	history, err := a.client.OpenLog(ctx, cc.Log())
	if err != nil {
		return err
	}
	if a.control, err = control.New(kv, history, a.registry, cc, a.log, a.jobUses); err != nil {
		return err
	}
	return a.openLineage(ctx, loaders)
}

func (a *app) openLineage(ctx context.Context, loaders []scorers.Loader) error {
	kv, err := a.client.KV(ctx, "LEAT_SCHEMAS")
	if err != nil {
		return err
	}
	state, err := a.client.KV(ctx, "LEAT_STATE")
	if err != nil {
		return err
	}
	catalogue := wire.NewCatalogue(kv)
	home := schemas.Logs(a.client)
	if a.cfg.Lineage.Transport == schemas.TransportKafka {
		home = a.kafka
	}
	logs, err := lineage.Open(ctx, home, a.cfg.Lineage.Config)
	if err != nil {
		return err
	}
	a.stream = lineage.NewStream(logs, catalogue, a.cfg.Lineage.Config, lineage.NewMetrics(a.metrics), a.log)
	a.reader = lineage.NewReader(logs, catalogue, a.cfg.Lineage.Config, a.describe)
	a.reader.JoinBy(a.entityOf)
	a.keeper = lineage.NewKeeper(a.reader, state)
	tables, err := lookup.New(a.cfg.Lookup, follower{a}, a.metrics, a.log)
	if err != nil {
		return err
	}
	a.learning = &pipeline.Learning{Journal: lineage.NewJournal(a.reader), Snapshots: state}
	a.host, err = pipeline.NewHost(a.cfg.Pipeline, pipeline.Deps{
		Watch: a.watch, Store: a.registry, Online: a.online, Topic: a.topic, Fan: a.client, Loaders: loaders, Tables: tables,
		Lineage: a.stream, WAL: lineage.NewWriteAhead(a.reader, state), Learning: a.learning, Refuse: a.stream.Refuse, Codec: codec.For, Formats: a.formats,
		CPU: onnx.CPUFeatures(), Poison: a.poison, Metrics: pipeline.NewMetrics(a.metrics), Log: a.log, Process: processName(),
	})
	d := feedback.Deps{Lineage: a.stream, Exists: a.exists, Online: a.feedbackDoor, Refuse: a.stream.Refuse, Metrics: feedback.NewMetrics(a.metrics), Log: a.log}
	if a.kafka != nil {
		d.Topic = a.feedbackTopic
	}
	a.feedback = feedback.New(d)
	return err
}

// processName tells processes apart: HOST/PID.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return host + "/" + strconv.Itoa(os.Getpid())
}

func (a *app) openPipelines(ctx context.Context) error {
	kv, err := a.client.KV(ctx, "LEAT_JOBS")
	if err != nil {
		return err
	}
	a.jobs, err = bulk.New(a.cfg.Jobs, bulk.Deps{
		Jobs: kv, Logs: a.client, Queues: a.client, Pipelines: pins{a.host}, Lineage: a.stream, Records: a.reader,
		Fill: a.lineageFill, Replayer: a.topics, Topics: a.topics, Publisher: a.topics, Ledgers: a.topics, Files: jobFiles{},
		Codec: a.formats.For, Encoder: jsonrow.Rows(), Log: a.log, Metrics: bulk.NewMetrics(a.metrics),
	})
	return err
}

func (a *app) openGateway(ctx context.Context) (err error) {
	a.gateway, err = gateway.New(a.cfg.HTTP, gateway.Deps{
		Requester: doors{a.broker, a.client, a.control}, Models: a, Operations: a.operations(), Ready: a.ready,
		Metrics:  promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{}),
		Counters: gateway.NewMetrics(a.metrics), Logger: a.log, Version: version,
	})
	if err != nil {
		return err
	}
	a.http, err = a.gateway.Listen(ctx)
	return err
}

// operations joins the tables of all packages.
func (a *app) operations() []api.Operation {
	var ops []api.Operation
	ops = append(ops, a.loading(a.control.Operations())...)
	ops = append(ops, a.host.Operations()...)
	ops = append(ops, a.jobs.Operations()...)
	ops = append(ops, lineage.Operations(a.reader, a.keeper)...)
	ops = append(ops, a.feedback.Operations()...)
	ops = append(ops, connectors.Operations(a.topics, a.topicUses)...)
	ops = append(ops, connectors.FeatureOperations(a.client, a.bucketUses)...)
	return ops
}

// loadPatience is how long an answer waits for this process to serve what was changed.
const loadPatience = 10 * time.Second

// loading makes operations that change pipelines answer when this process serves the change, or has failed to load it:
// what was pushed can be called at once.
func (a *app) loading(ops []api.Operation) []api.Operation {
	for i := range ops {
		handle := ops[i].Handle
		ops[i].Handle = func(ctx context.Context, req any) (any, error) {
			reply, err := handle(ctx, req)
			if err != nil {
				return nil, err
			}
			var r *control.Result
			switch x := reply.(type) {
			case *control.Result:
				r = x
			case *control.PushReply:
				r = &x.Result
			}
			if r != nil && !r.DryRun {
				a.served(ctx, r.Changes)
			}
			return reply, nil
		}
	}
	return ops
}

// served waits until the changed pipelines are served here as they should be, or cannot be loaded: then their notes say why.
func (a *app) served(ctx context.Context, changes []control.Change) {
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i := range changes {
		c := changes[i]
		for c.Pipeline != "" && c.Action != control.Unchanged {
			if c.Action == control.Deleted {
				c.To = ""
			}
			s, ok := a.host.State(c.Pipeline)
			if c.To == "" && !ok || ok && s.Revision == c.To && (s.Ready || s.Error != "") {
				if s.Error != "" {
					changes[i].Note = strings.TrimPrefix(changes[i].Note+"; applied, and not loaded yet: "+s.Error, "; ")
				}
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// grace bounds the draining at the end.
const grace = 30 * time.Second

// run serves until ctx ends, then drains: the server says that it is not ready, accepted work finishes, and run returns.
func (a *app) run(ctx context.Context) error {
	// What pipelines and jobs write to outlives them.
	base, stopBase := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBase()
	var below errgroup.Group
	below.Go(func() error { return ended(a.stream.Run(base)) })

	g, gctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(gctx, func() { a.draining.Store(true) })
	defer stop()
	g.Go(func() error { return ended(a.control.Run(gctx)) })
	g.Go(func() error { return a.sweep(gctx) })
	g.Go(func() error { return giveBack(gctx) })
	g.Go(func() error { return a.gateway.Serve(gctx) })
	g.Go(func() error { return a.host.Run(gctx, grace) })
	if a.primary() { // others run what they are told to, and nothing that is shared out by itself
		g.Go(func() error { return ended(a.jobs.Run(gctx)) })
		g.Go(func() error { return ended(a.feedback.Run(gctx, grace)) })
		if err := a.client.ServeAPI(gctx, a.operations()); err != nil {
			a.log.Error("operations are not served over NATS", "error", err)
		}
	}
	if a.server != nil { // the users of an external server reach its topics by themselves
		if err := a.client.OpenDoor(gctx); err != nil {
			a.log.Error("users of NATS cannot reach topics", "error", err)
		}
	}
	err := g.Wait()
	stopBase()
	return errors.Join(err, below.Wait())
}

// primary reports whether this process answers requests.
func (a *app) primary() bool { return a.cfg.Pipeline.Groups.Primary() }

// sweepEvery is how often what broken pushes left behind is removed.
const sweepEvery = time.Hour

func (a *app) sweep(ctx context.Context) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if err := a.registry.Sweep(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("what broken pushes left behind was not removed", "error", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// ended drops the error of a loop that was told to end.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (a *app) close() {
	if a.gateway != nil {
		a.gateway.Close()
	}
	if a.kafka != nil {
		a.kafka.Close()
	}
	if a.client != nil {
		a.client.Close()
	}
	if a.server != nil {
		a.server.Close()
	}
	if a.poison != nil {
		a.poison.Close()
	}
	if a.lock != nil {
		a.lock.Close()
	}
}

func (a *app) ready() error {
	switch {
	case a.draining.Load():
		return schemas.Errorf(schemas.Unavailable, "ready", "shutting down")
	case !a.client.Connected():
		return schemas.Errorf(schemas.Unavailable, "ready", "not connected to the NATS server")
	}
	return a.host.Ready()
}

// natsURL is where users' clients connect.
func (a *app) natsURL() string {
	if a.server != nil {
		return a.server.URL()
	}
	return a.cfg.NATS.Client.URL
}
