package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/spf13/cobra"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
)

// follower reads what lookups of routes look up in.
type follower struct{ *app }

// Follow implements lookup.Follower.
func (f follower) Follow(ctx context.Context, s lookup.Source, each func(*schemas.Change), all func(first uint64)) error {
	switch {
	case s.Transport == schemas.TransportNATS:
		return f.client.FollowBucket(ctx, s.Name, each, all)
	case f.kafka == nil: // it was applied by a server that has it
		return schemas.Errorf(schemas.Unavailable, "lookup", "%s: this server knows no Kafka: start it with --kafka HOST:PORT, or set kafka.bootstrap", s)
	}
	return f.kafka.FollowTopic(ctx, s.Name, each, all)
}

// bucketUses tells which pipelines look up in a bucket.
func (a *app) bucketUses(ctx context.Context, bucket string) (by []string, err error) {
	revs, err := a.control.Pipelines(ctx)
	for i := range revs {
		s, used := &revs[i].Spec, false
		s.Walk(func(_, _ string, n *pipeline.Node) {
			used = used || n.Lookup != nil && n.Lookup.Bucket == bucket
		})
		if used {
			by = append(by, "pipeline "+s.Name)
		}
	}
	return by, err
}

func featuresCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "features",
		Short: "Keep features by key, for lookups of routes",
		Long: `A bucket of features holds the newest value of each key: a JSON object, or an Arrow
stream of one row. A route's lookup finds the columns of a key in it. It is a plain
KV bucket of NATS: any client of NATS can put and get values as well.`,
	}
	cmd.AddCommand(featuresCreate(e), featuresList(e), featuresPut(e), featuresGet(e), featuresRemove(e), featuresImport(e), featuresDelete(e))
	return cmd
}

func valuesPath(bucket string) string { return "/v1/features/" + url.PathEscape(bucket) + "/values" }

func featuresCreate(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "create BUCKET", Short: "Make a bucket", Args: cobra.ExactArgs(1),
		Long:    "Make a bucket. One that exists is fine.",
		Example: "  leat features create aircraft",
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.bucket(cmd.Context(), http.MethodPost, "/v1/features", map[string]any{"name": args[0]}, "ready")
		},
	}
}

func featuresDelete(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "delete BUCKET", Short: "Delete a bucket with all its values", Args: cobra.ExactArgs(1),
		Long: `Delete a bucket with all its values. One in which a pipeline looks up is refused: delete
or change the pipeline first.`,
		Example:           "  leat features delete aircraft",
		ValidArgsFunction: e.completeBuckets,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.bucket(cmd.Context(), http.MethodDelete, "/v1/features/"+url.PathEscape(args[0]), nil, "deleted")
		},
	}
}

// bucket makes a request that is answered with a bucket.
func (e *env) bucket(ctx context.Context, method, path string, in any, done string) error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	var b connectors.BucketInfo
	if err := c.call(ctx, method, path, nil, in, &b); err != nil {
		return err
	}
	return e.print(b, func(w io.Writer) {
		fmt.Fprintf(w, "bucket %s: %s, %s in %s\n", b.Name, done, plural(int(b.Values), "value"), size(b.Bytes))
	})
}

func featuresList(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the buckets", Args: cobra.NoArgs, Example: "  leat features list",
		Long: `List the buckets. VALUES counts the marks of keys that were removed, too.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var r connectors.BucketsReply
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/features", nil, nil, &r); err != nil {
				return err
			}
			return e.print(r, func(w io.Writer) {
				var rows [][]string
				for _, b := range r.Buckets {
					rows = append(rows, []string{b.Name, count(b.Values), size(b.Bytes), ago(b.Last)})
				}
				table(w, []string{"BUCKET", "VALUES", "SIZE", "LAST"}, rows)
			})
		},
	}
}

func featuresPut(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "put BUCKET KEY VALUE|@FILE|-", Short: "Set the value of a key", Args: cobra.ExactArgs(3),
		Long: `Set the value of a key: a JSON object with a name for each column, or, from a file or
standard input, an Arrow stream of one row. It takes the place of the one before as a
whole: what it does not name is not there any more.`,
		Example: `  leat features put aircraft N542MQ '{"plane_age": 9, "seats": 55}'
  leat features put aircraft N542MQ @n542mq.json`,
		ValidArgsFunction: e.completeBuckets,
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := []byte(args[2]), error(nil)
			if path, ok := strings.CutPrefix(args[2], "@"); ok {
				value, err = os.ReadFile(path)
			} else if args[2] == "-" {
				value, err = io.ReadAll(e.in)
			}
			if err != nil {
				return failed(err)
			}
			l := connectors.FeatureLine{Key: args[1], Payload: value}
			if len(value) > 0 && value[0] != 0xff { // as Arrow streams begin
				if text := bytes.TrimSpace(value); !json.Valid(text) || text[0] != '{' {
					return &exitError{exitUsage, fmt.Errorf("%.80q is no JSON object; want one such as {\"column\": 1}, @FILE or -", value)}
				}
				l.Value, l.Payload = value, nil
			}
			return e.store(cmd.Context(), args[0], []connectors.FeatureLine{l})
		},
	}
}

func featuresRemove(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "remove BUCKET KEY...", Short: "Remove the values of keys", Args: cobra.MinimumNArgs(2),
		Example:           "  leat features remove aircraft N542MQ",
		ValidArgsFunction: e.completeBuckets,
		RunE: func(cmd *cobra.Command, args []string) error {
			var lines []connectors.FeatureLine
			for _, k := range args[1:] {
				lines = append(lines, connectors.FeatureLine{Key: k, Deleted: true})
			}
			return e.store(cmd.Context(), args[0], lines)
		},
	}
}

// store sends lines and prints how many are stored.
func (e *env) store(ctx context.Context, bucket string, lines []connectors.FeatureLine) error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	im := &importer{c: c, bucket: bucket}
	for i := range lines {
		if err := im.line(&lines[i]); err != nil {
			return err
		}
	}
	if err := im.flush(ctx); err != nil {
		return err
	}
	return e.print(connectors.FeaturesReply{Stored: im.stored}, func(w io.Writer) {
		fmt.Fprintf(w, "%s stored in %s\n", plural(im.stored, "change"), bucket)
	})
}

func featuresGet(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "get BUCKET [KEY]", Short: "Print the value of a key, or of all", Args: cobra.RangeArgs(1, 2),
		Long: `Print the newest value of a key, or of all keys: key, version, time and value. With
--json, one JSON object a line, as POST /v1/features/{bucket}/values takes them.`,
		Example: `  leat features get aircraft N542MQ
  leat features get aircraft --json > aircraft.ndjson`,
		ValidArgsFunction: e.completeBuckets,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if len(args) == 2 {
				q.Set("key", args[1])
			}
			return e.stream(cmd.Context(), valuesPath(args[0]), q, func(line []byte) error {
				var l connectors.FeatureLine
				if err := json.Unmarshal(line, &l); err != nil {
					return err
				}
				value := string(l.Value)
				if l.Value == nil {
					value = fmt.Sprintf("(%d bytes)", len(l.Payload))
				}
				_, err := fmt.Fprintf(e.out, "%s  %d  %s  %s\n", l.Key, l.Version, l.Time.Local().Format(timeLayout), value)
				return err
			})
		},
	}
}

func featuresImport(e *env) *cobra.Command {
	var key, format string
	cmd := &cobra.Command{
		Use: "import BUCKET FILE|-", Short: "Set a value for each row of a file", Args: cobra.ExactArgs(2),
		Long: `Set a value for each row of a file (Parquet, CSV, NDJSON, JSON, Arrow): the columns of
the row, by their names, under the key that --key names. A row whose key is null or
empty is an error. The command ends when the last value is acknowledged; to repeat it
is harmless.`,
		Example:           "  leat features import aircraft aircraft.csv --key tailnum",
		ValidArgsFunction: e.completeBuckets,
		RunE: func(cmd *cobra.Command, args []string) error {
			return failed(e.importFeatures(cmd.Context(), args[0], args[1], key, format))
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "column that holds the key (needed)")
	cmd.Flags().StringVar(&format, "format", "", "parquet, csv, ndjson, json, arrow or arrows (default: by the file's ending; of -: by its first bytes)")
	return cmd
}

func (e *env) importFeatures(ctx context.Context, bucket, path, key, format string) error {
	if key == "" {
		return &exitError{exitUsage, errors.New("--key: missing; name the column that holds the key")}
	}
	c, err := e.dial()
	if err != nil {
		return err
	}
	o := files.Options{BatchRows: publishRows}
	if err := e.openOptions(path, format, &o); err != nil {
		return err
	}
	r, err := files.Open(ctx, path, o)
	if err != nil {
		return err
	}
	defer r.Close()
	rows, err := newEvents(r.Schema(), &publishFlags{key: key})
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("%s: %w", path, err)}
	}
	im, began := &importer{c: c, bucket: bucket}, time.Now()
	if isTerminal(e.err) {
		total, _ := r.TotalRows()
		b := newBar(e.err, total, "stored")
		im.seen = func(n int) { b.add(int64(n)) }
		defer b.end()
	}
	for err == nil {
		var rec arrow.Record
		if rec, err = r.Next(ctx); err == nil {
			err = im.record(ctx, rec, rows)
			rec.Release()
		}
	}
	if errors.Is(err, io.EOF) {
		err = im.flush(ctx)
	}
	if err != nil && im.stored > 0 {
		return fmt.Errorf("%s are stored, then: %w", plural(im.stored, "value"), err)
	}
	if err != nil {
		return err
	}
	return e.print(connectors.FeaturesReply{Stored: im.stored}, func(w io.Writer) {
		fmt.Fprintf(w, "%s stored in %s in %s\n", plural(im.stored, "value"), bucket, time.Since(began).Round(time.Millisecond))
	})
}

// importer stores lines in requests of bounded size, one after the other.
type importer struct {
	c       *client
	bucket  string
	body    bytes.Buffer
	pending int
	rows    int // read
	stored  int
	seen    func(n int) // nil: nobody looks
}

func (im *importer) record(ctx context.Context, rec arrow.Record, rows *events) error {
	if err := rows.take(rec); err != nil {
		return err
	}
	var value []byte
	for i := range int(rec.NumRows()) {
		im.rows++
		key := rows.value(rows.key, i)
		if key == "" {
			return fmt.Errorf("row %d: the key is null or empty", im.rows)
		}
		value = jsonrow.AppendObject(value[:0], rows.batch, i)
		if err := im.line(&connectors.FeatureLine{Key: key, Value: value}); err != nil {
			return err
		}
		if im.pending >= publishRows || im.body.Len() >= maxChunk {
			if err := im.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (im *importer) line(l *connectors.FeatureLine) error {
	enc := json.NewEncoder(&im.body)
	enc.SetEscapeHTML(false)
	im.pending++
	return enc.Encode(l)
}

func (im *importer) flush(ctx context.Context) error {
	if im.pending == 0 {
		return nil
	}
	r, err := im.c.send(ctx, http.MethodPost, valuesPath(im.bucket), nil, http.Header{"Content-Type": {"application/x-ndjson"}}, bytes.NewReader(im.body.Bytes()))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	var reply connectors.FeaturesReply
	if err := decode(r.Body, &reply); err != nil {
		return err
	}
	if reply.Stored != im.pending {
		return fmt.Errorf("the server stored %d of %d values", reply.Stored, im.pending)
	}
	im.stored += im.pending
	if im.seen != nil {
		im.seen(im.pending)
	}
	im.pending = 0
	im.body.Reset()
	return nil
}

// completeBuckets offers the names of buckets to the shell.
func (e *env) completeBuckets(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	c, err := e.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var l connectors.BucketsReply
	if err := c.call(cmd.Context(), http.MethodGet, "/v1/features", nil, nil, &l); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, b := range l.Buckets {
		names = append(names, b.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
