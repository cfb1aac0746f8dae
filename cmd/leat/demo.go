package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/bulk"
)

// demo runs the main job on real data, against a server of its own.
type demo struct {
	e        *env
	examples string
	rate     int
	events   int
	keep     bool
	kafka    string // brokers; "": NATS alone
	mixed    bool   // with Kafka: topics there, the lineage on NATS

	dir    string
	flags  []string // of the server
	server *child
	c      *client
	faults []string // what did not hold
}

// The demo's names.
const (
	demoPipeline = "flight-late"
	demoIn       = "flights.departures"
	demoOut      = "flights.delay-scores"
)

func demoCommand(e *env) *cobra.Command {
	d := &demo{e: e}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the main job on real flights: online, continuous, bulk, replay, lineage",
		Long: `Start a server with data in a temporary folder, push two models, score one
flight, stream departures through a durable topic, score the whole sample in
bulk, replay the topic against the second model, and check that the lineage
holds exactly one canonical record for each. Exit status 0 only if all of it held.

With --kafka the topics and the lineage live on that cluster, and the stream is
scored exactly once; with --mixed as well, the lineage stays on NATS. What the
demo makes there carries the name of its run as a prefix, and stays.`,
		Example: "  leat demo\n  leat demo --rate 5000 --events 20000 --keep\n  leat demo --kafka 127.0.0.1:9092",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failed(d.run(cmd.Context()))
		},
	}
	cmd.Flags().StringVar(&d.examples, "examples", "examples/flights", "folder of the example")
	cmd.Flags().IntVar(&d.rate, "rate", 2000, "events a second")
	cmd.Flags().IntVar(&d.events, "events", 10000, "events to stream")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "keep the server's data folder and say where it is")
	cmd.Flags().StringVar(&d.kafka, "kafka", "", "brokers of a Kafka cluster, HOST:PORT,...: the data plane of this demo")
	cmd.Flags().BoolVar(&d.mixed, "mixed", false, "with --kafka: topics on Kafka, the lineage on NATS")
	return cmd
}

func (d *demo) run(ctx context.Context) (err error) {
	if _, err := os.Stat(filepath.Join(d.examples, "sample.parquet")); err != nil {
		return fmt.Errorf("no example in %s: run this at the top of the source tree, or name the folder with --examples", d.examples)
	}
	if d.rate < 1 || d.events < 1 {
		return &exitError{exitUsage, errors.New("--rate and --events want at least 1")}
	}
	if d.mixed && d.kafka == "" {
		return &exitError{exitUsage, errors.New("--mixed wants --kafka HOST:PORT")}
	}
	if d.dir, err = os.MkdirTemp("", "leat-demo-"); err != nil {
		return err
	}
	defer func() {
		if !d.keep {
			os.RemoveAll(d.dir)
		}
	}()
	if err = d.prepare(); err != nil {
		return err
	}
	if d.server, err = startServer(ctx, filepath.Join(d.dir, "data"), d.e.err, d.flags...); err != nil {
		return err
	}
	defer d.server.stop()
	if d.c, err = (&env{server: d.server.at.HTTP}).dial(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{d.models, d.one, d.stream, d.bulk, d.replay, d.lineage} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return d.finish()
}

// prepare writes what the server needs to know of Kafka. What the demo makes there carries the name of this run, so that
// two runs on one cluster do not meet.
func (d *demo) prepare() error {
	if d.kafka == "" {
		return nil
	}
	config := filepath.Join(d.dir, "leat.yaml")
	prefix := strings.ToLower(filepath.Base(d.dir)) + "."
	if err := os.WriteFile(config, []byte("kafka: {prefix: "+prefix+"}\n"), 0o600); err != nil {
		return err
	}
	d.flags = []string{"--config", config, "--kafka", d.kafka, "--transport", "kafka"}
	if !d.mixed {
		d.flags = append(d.flags, "--lineage", "kafka")
	}
	return nil
}

// plane says where the topics and the lineage of this demo live.
func (d *demo) plane() string {
	switch {
	case d.kafka == "":
		return "topics and lineage on the embedded NATS server"
	case d.mixed:
		return "topics on Kafka at " + d.kafka + ", lineage on the embedded NATS server"
	}
	return "topics and lineage on Kafka at " + d.kafka
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.e.out, format, args...) }

func (d *demo) head(n int, what string) { d.say("\n%s\n", d.e.bold(fmt.Sprintf("%d. %s", n, what))) }

// hold notes what did not hold; the demo goes on and fails at its end.
func (d *demo) hold(ok bool, format string, args ...any) {
	mark := "ok  "
	if !ok {
		mark = "NOT "
		d.faults = append(d.faults, fmt.Sprintf(format, args...))
	}
	d.say("   %s %s\n", mark, fmt.Sprintf(format, args...))
}

// leat runs another command of this program against the demo's server, showing it as a user would type it.
func (d *demo) leat(ctx context.Context, args ...string) error {
	d.say("   $ leat %s\n", strings.ReplaceAll(strings.Join(args, " "), d.dir, "$TMP"))
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		indent(d.e.out, pr)
	}()
	errw := &strings.Builder{}
	code := run(ctx, append(args, "--server", d.server.at.HTTP), strings.NewReader(""), pw, io.MultiWriter(errw))
	pw.Close()
	<-done
	if code != 0 {
		return fmt.Errorf("leat %s: exit status %d: %s", args[0], code, strings.TrimSpace(errw.String()))
	}
	return nil
}

func (d *demo) models(ctx context.Context) error {
	d.say("leat serve runs on %s and %s, data in a temporary folder; %s\n", d.server.at.HTTP, d.server.at.NATS, d.plane())
	d.head(1, "Push two models: will a flight arrive more than 15 minutes late?")
	for _, m := range []string{"flight-delay", "flight-boost"} {
		if err := d.leat(ctx, "models", "push", filepath.Join(d.examples, m)); err != nil {
			return err
		}
	}
	return d.c.waitReady(ctx, 10*time.Second)
}

func (d *demo) one(ctx context.Context) error {
	d.head(2, "Score one flight")
	return d.leat(ctx, "score", "flight-delay", filepath.Join(d.examples, "flight.json"))
}

func (d *demo) stream(ctx context.Context) error {
	d.head(3, fmt.Sprintf("Stream departures in event order through a durable topic, %d a second", d.rate))
	spec := filepath.Join(d.dir, demoPipeline+".yaml")
	text := fmt.Sprintf("apiVersion: leat/v1\nkind: Pipeline\nname: %s\ninput: {topic: %s}\noutput: {topic: %s}\n%sroute: {model: flight-delay@champion}\n", demoPipeline, demoIn, demoOut, d.delivery())
	if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
		return err
	}
	if err := d.leat(ctx, "apply", spec); err != nil {
		return err
	}
	if err := d.c.waitReady(ctx, 10*time.Second); err != nil {
		return err
	}
	s := &streaming{d: d, sent: map[string]time.Time{}}
	if err := s.run(ctx); err != nil {
		return err
	}
	d.hold(s.seen == d.events, "%s events published, %s scores seen in %s", count(uint64(d.events)), count(uint64(s.seen)), demoOut)
	return nil
}

// delivery is the line of the pipeline's guarantee.
func (d *demo) delivery() string {
	if d.kafka != "" && !d.mixed {
		return "delivery: exactly_once\n"
	}
	return ""
}

// job runs a bulk job to its end and returns what it became.
func (d *demo) job(ctx context.Context, args ...string) (*bulk.View, error) {
	d.say("   $ leat job run %s\n", strings.ReplaceAll(strings.Join(args, " "), d.dir, "$TMP"))
	sub := &env{in: strings.NewReader(""), out: d.e.out, err: d.e.err, color: d.e.color, server: d.server.at.HTTP}
	root := newRoot(sub)
	root.SetArgs(append(append([]string{"job", "run"}, args...), "--server", d.server.at.HTTP))
	root.SetOut(d.e.out)
	root.SetErr(d.e.err)
	if err := root.ExecuteContext(ctx); err != nil {
		return nil, err
	}
	var l bulk.JobList
	if err := d.c.call(ctx, http.MethodGet, "/v1/jobs", url.Values{"limit": {"1"}}, nil, &l); err != nil {
		return nil, err
	}
	if len(l.Jobs) == 0 {
		return nil, errors.New("the job is not listed")
	}
	return &l.Jobs[0], nil
}

func (d *demo) bulk(ctx context.Context) error {
	d.head(4, "Score the whole sample in bulk")
	sample, err := filepath.Abs(filepath.Join(d.examples, "sample.parquet"))
	if err != nil {
		return err
	}
	to := filepath.Join(d.dir, "scores.parquet")
	j, err := d.job(ctx, "--pipeline", "flight-delay", "--from", sample, "--to", to, "--carry", "flight_id,late")
	if err != nil {
		return err
	}
	rows, err := parquetRows(ctx, to)
	if err != nil {
		return err
	}
	d.hold(j.Status == bulk.Done && rows == j.Rows && j.Rejected == 0, "%s rows in, %s rows in scores.parquet", count(uint64(j.Rows)), count(uint64(rows)))
	return d.counted(ctx, "flight-delay", j.ID, rows)
}

func (d *demo) replay(ctx context.Context) error {
	d.head(5, "Replay the topic from its beginning against the second model")
	to := filepath.Join(d.dir, "replayed.parquet")
	j, err := d.job(ctx, "--pipeline", "flight-boost", "--from", "topic:"+demoIn, "--to", to)
	if err != nil {
		return err
	}
	rows, err := parquetRows(ctx, to)
	if err != nil {
		return err
	}
	d.hold(j.Status == bulk.Done && rows == int64(d.events), "%s events replayed, %s rows in replayed.parquet", count(uint64(d.events)), count(uint64(rows)))
	return d.counted(ctx, "flight-boost", j.ID, rows)
}

func (d *demo) lineage(ctx context.Context) error {
	d.head(6, "The lineage holds exactly one canonical record for each")
	if err := d.counted(ctx, "flight-delay", lineage.RunNone, 1); err != nil {
		return err
	}
	if err := d.counted(ctx, demoPipeline, lineage.RunNone, int64(d.events)); err != nil {
		return err
	}
	return d.leat(ctx, "lineage", "status")
}

// counted checks the number of canonical records of a pipeline and a run.
func (d *demo) counted(ctx context.Context, pipeline, runID string, want int64) error {
	var t lineage.Totals
	if err := d.c.call(ctx, http.MethodGet, "/v1/lineage/count", url.Values{"pipeline": {pipeline}, "run": {runID}}, nil, &t); err != nil {
		return err
	}
	what := "requests and events"
	if runID != lineage.RunNone {
		what = "job " + runID
	}
	d.hold(t.Records == want && t.OK == want, "%s canonical records of %s, %s (%d superseded)", count(uint64(t.Records)), pipeline, what, t.Superseded)
	return nil
}

func (d *demo) finish() error {
	d.say("\n%s\n", d.e.bold("Try next"))
	d.say(`   leat serve                                   # a server of your own, then in another terminal:
   leat models push examples/flights/flight-boost
   leat score flight-boost examples/flights/sample.parquet --expect late
   leat lineage tail
   leat job run --pipeline flight-boost --from examples/flights/sample.parquet --to scores.parquet
   curl -d @examples/flights/flight-boost.json http://127.0.0.1:8080/v1/pipelines/flight-boost/score
`)
	if d.keep {
		d.say("   leat serve --data %s   # this demo's data\n", filepath.Join(d.dir, "data"))
	}
	if len(d.faults) > 0 {
		return &exitError{exitRejected, fmt.Errorf("did not hold: %s", strings.Join(d.faults, "; "))}
	}
	d.say("\nAll of it held.\n")
	return nil
}
