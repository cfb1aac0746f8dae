package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/spf13/cobra"

	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/feedback"
	"github.com/leatstream/leat/schemas"
)

// importColumn is a field of feedback that a column of a file can give.
type importColumn struct {
	flag, doc string
	usual     []string // names of columns that are taken without being named
	want      schemas.DType
	text      bool // whatever the column holds is taken as text
	set       func(f *lineage.Feedback, c *schemas.Column, row int) error
}

var importColumns = []importColumn{
	{"request-id", "the request's id", []string{"request_id"}, schemas.String, true, func(f *lineage.Feedback, c *schemas.Column, i int) error {
		f.RequestID = text(c, i, 0)
		return nil
	}},
	{"row", "the row in the request", []string{"row"}, schemas.Int32, false, func(f *lineage.Feedback, c *schemas.Column, i int) error {
		v := anyNumber(c, i)
		if f.Row = int32(v); float64(f.Row) != v {
			return fmt.Errorf("%v: want a whole number, from 0", v)
		}
		return nil
	}},
	{"entity", "what was decided about", []string{"entity"}, schemas.String, true, func(f *lineage.Feedback, c *schemas.Column, i int) error {
		f.Entity = text(c, i, 0)
		return nil
	}},
	{"time", "when what is said was so", []string{"time", "event_time"}, schemas.Timestamp, true, func(f *lineage.Feedback, c *schemas.Column, i int) (err error) {
		if f.EventTime, err = time.Parse(time.RFC3339Nano, text(c, i, 0)); err != nil {
			return fmt.Errorf("%.40q: want a time as in RFC 3339", text(c, i, 0))
		}
		return nil
	}},
	{"node", "the path of the node whose decision is meant", []string{"node"}, schemas.String, true, func(f *lineage.Feedback, c *schemas.Column, i int) error {
		f.Node = text(c, i, 0)
		return nil
	}},
	{"label", "what was true", []string{"label"}, 0, true, func(f *lineage.Feedback, c *schemas.Column, i int) error {
		switch c.Field().Type {
		case schemas.Bool:
			f.Label = c.Data()[i] != 0
		case schemas.String, schemas.Timestamp:
			f.Label = text(c, i, 0)
		default:
			f.Label = anyNumber(c, i)
		}
		return nil
	}},
	{"reward", "what the decision was worth", []string{"reward"}, schemas.Float64, false, func(f *lineage.Feedback, c *schemas.Column, i int) error {
		v := anyNumber(c, i)
		f.Reward = &v
		return nil
	}},
	{"comment", "a comment", []string{"comment"}, schemas.String, true, func(f *lineage.Feedback, c *schemas.Column, i int) error {
		f.Comment = text(c, i, 0)
		return nil
	}},
	{"id", "the feedback's id", []string{"feedback_id"}, schemas.String, true, func(f *lineage.Feedback, c *schemas.Column, i int) error {
		f.ID = text(c, i, 0)
		return nil
	}},
	{"pipeline-column", "the pipeline's name", []string{"pipeline"}, schemas.String, true, func(f *lineage.Feedback, c *schemas.Column, i int) error {
		f.Pipeline = text(c, i, 0)
		return nil
	}},
}

func feedbackImport(e *env) *cobra.Command {
	im := feedbackImporter{e: e, names: map[string]*string{}}
	cmd := &cobra.Command{
		Use: "import FILE|-", Short: "Record feedback of a file, a row each", Args: cobra.ExactArgs(1),
		Long: `Record each row of a file (CSV, NDJSON, JSON, Parquet, Arrow) as one piece of feedback.
Columns named request_id, row, entity, time (or event_time), node, label, reward,
comment, feedback_id and pipeline are taken by their names; a flag names another
column. All other columns are left out, and so is what is null or empty.

The first row that is wrong ends the import, with its number. What came before it is
recorded; import the whole file again when it is mended, or after a crash: repeats
count once.`,
		Example: `  leat feedback import outcomes.csv --pipeline flight-delay
  leat feedback import arrivals.parquet --pipeline flight-delay --entity-column tailnum --time-column arrived --label-column late
  cat outcomes.ndjson | leat feedback import - --json`,
		RunE: func(cmd *cobra.Command, args []string) error { return failed(im.run(cmd.Context(), args[0])) },
	}
	fs := cmd.Flags()
	fs.StringVar(&im.pipeline, "pipeline", "", "the pipeline that decided, where no column says it")
	fs.StringVar(&im.format, "format", "", "parquet, csv, ndjson, json, arrow or arrows (default: by the file's ending; of -: by its first bytes)")
	for i := range importColumns {
		c := &importColumns[i]
		name := strings.TrimSuffix(c.flag, "-column") + "-column"
		im.names[c.flag] = fs.String(name, "", fmt.Sprintf("column that holds %s (default: %s)", c.doc, strings.Join(c.usual, " or ")))
	}
	_ = cmd.RegisterFlagCompletionFunc("pipeline", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return e.completePipelines(cmd, nil, "")
	})
	return cmd
}

// imported is what leat feedback import prints.
type imported struct {
	File    string  `json:"file"`
	Kept    int     `json:"kept"`
	Seconds float64 `json:"seconds"`
}

// One request carries so many rows and about so many bytes at most.
const (
	importRows  = 2000
	importBytes = 2 << 20
)

// feedbackImporter sends the rows of a file.
type feedbackImporter struct {
	e                *env
	pipeline, format string
	names            map[string]*string // columns by flag; "": the usual ones

	c     *client
	takes []taken
	batch *schemas.Batch
	seen  func(n int)

	pending []lineage.FeedbackInput
	bytes   int
	kept    int
	row     int64 // of the file, from 1
}

// taken is a column of the file that is taken.
type taken struct {
	*importColumn
	at   int // in batch
	name string
}

func (im *feedbackImporter) run(ctx context.Context, path string) error {
	var err error
	if im.c, err = im.e.dial(); err != nil {
		return err
	}
	o := files.Options{BatchRows: importRows, Want: im.want()}
	if err := im.e.openOptions(path, im.format, &o); err != nil {
		return err
	}
	r, err := files.Open(ctx, path, o)
	if err != nil {
		return err
	}
	defer r.Close()
	projection, err := im.columns(r.Schema())
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("%s: %w", path, err)}
	}
	began := time.Now()
	if isTerminal(im.e.err) {
		total, _ := r.TotalRows()
		b := newBar(im.e.err, total, "recorded")
		im.seen = func(n int) { b.add(int64(n)) }
		defer b.end()
	}
	if err := im.all(ctx, r, projection); err != nil {
		if im.kept > 0 {
			return fmt.Errorf("%s recorded, then: %w", plural(im.kept, "row"), err)
		}
		return err
	}
	out := imported{path, im.kept, time.Since(began).Seconds()}
	return im.e.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s of feedback recorded in %s (%s/s)\n", plural(out.Kept, "row"), time.Since(began).Round(time.Millisecond), count(uint64(float64(out.Kept)/max(out.Seconds, 1e-9))))
	})
}

// want types the columns of text files, so that an id of digits stays an id.
func (im *feedbackImporter) want() *schemas.Schema {
	var fs []schemas.Field
	for i := range importColumns {
		c := &importColumns[i]
		names := c.usual
		if n := *im.names[c.flag]; n != "" {
			names = []string{n}
		}
		for _, n := range names {
			if c.want != 0 {
				fs = append(fs, schemas.Field{Name: n, Type: c.want, Nullable: true})
			}
		}
	}
	s, err := schemas.NewSchema(fs)
	if err != nil {
		return nil // one column under two flags: both are told below, or typed by the file
	}
	return s
}

// columns finds what is taken of the file.
func (im *feedbackImporter) columns(s *arrow.Schema) (*schemas.Projection, error) {
	var fields []schemas.Field
	has := map[string]bool{}
	for i := range importColumns {
		c := &importColumns[i]
		named := *im.names[c.flag]
		names := c.usual
		if named != "" {
			names = []string{named}
		}
		for _, n := range names {
			at := s.FieldIndices(n)
			if len(at) == 0 {
				continue
			}
			f := schemas.Field{Name: n, Nullable: true}
			var err error
			if f.Type, err = dtypeOf(s.Field(at[0]).Type); err != nil || f.Type == schemas.Binary || !c.text && !numeric(f.Type) {
				return nil, fmt.Errorf("column %s: a column of %s cannot be %s", n, s.Field(at[0]).Type, c.doc)
			}
			for j := range fields {
				if fields[j].Name == n {
					return nil, fmt.Errorf("column %s: it is taken as two things", n)
				}
			}
			im.takes = append(im.takes, taken{c, len(fields), n})
			fields = append(fields, f)
			has[c.flag] = true
			break
		}
		if named != "" && !has[c.flag] {
			return nil, fmt.Errorf("--%s-column %s: no such column; it has %s", strings.TrimSuffix(c.flag, "-column"), named, strings.Join(columnNames(s), ", "))
		}
	}
	switch {
	case !has["request-id"] && !has["entity"]:
		return nil, fmt.Errorf("no column says which decision: name one with --request-id-column, or --entity-column and --time-column; it has %s", strings.Join(columnNames(s), ", "))
	case !has["label"] && !has["reward"] && !has["comment"]:
		return nil, fmt.Errorf("nothing is said: name a column with --label-column, --reward-column or --comment-column; it has %s", strings.Join(columnNames(s), ", "))
	case !has["pipeline-column"] && im.pipeline == "":
		return nil, errors.New("no column says which pipeline: say --pipeline NAME")
	}
	schema, err := schemas.NewSchema(fields)
	if err != nil {
		return nil, err
	}
	im.batch = schemas.NewBatch(schema)
	return schemas.NewProjection(s, schema)
}

// anyNumber is a float, or an integer as one.
func anyNumber(c *schemas.Column, i int) float64 {
	if c.Field().Type.Float() {
		return number(c, i)
	}
	v, _ := strconv.ParseFloat(text(c, i, 0), 64) // as it was just written
	return v
}

func numeric(t schemas.DType) bool {
	switch t {
	case schemas.Bool, schemas.String, schemas.Binary, schemas.Timestamp:
		return false
	}
	return true
}

func columnNames(s *arrow.Schema) []string {
	var out []string
	for _, f := range s.Fields() {
		out = append(out, f.Name)
	}
	return out
}

func (im *feedbackImporter) all(ctx context.Context, r files.Reader, p *schemas.Projection) error {
	for {
		rec, err := r.Next(ctx)
		if err == io.EOF {
			return im.flush(ctx)
		}
		if err != nil {
			return errors.Join(err, im.flush(ctx))
		}
		im.batch.Reset()
		err = p.AppendRecord(im.batch, rec, 0, int(rec.NumRows()))
		rec.Release()
		if err != nil {
			return err
		}
		for i := range im.batch.Rows() {
			im.row++
			f, err := im.feedback(i)
			if err != nil {
				return errors.Join(fmt.Errorf("row %d: %w", im.row, err), im.flush(ctx))
			}
			im.add(f)
			if len(im.pending) >= importRows || im.bytes >= importBytes {
				if err := im.flush(ctx); err != nil {
					return err
				}
			}
		}
	}
}

// feedback is row i of the batch.
func (im *feedbackImporter) feedback(i int) (*lineage.Feedback, error) {
	f := &lineage.Feedback{}
	for _, t := range im.takes {
		c := im.batch.Column(t.at)
		if c.IsNull(i) || c.Field().Type == schemas.String && len(c.Text(i)) == 0 {
			continue
		}
		if err := t.set(f, c, i); err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	if f.Pipeline == "" {
		f.Pipeline = im.pipeline
	}
	return f, f.Complete()
}

func (im *feedbackImporter) add(f *lineage.Feedback) {
	in := lineage.FeedbackInput{
		Pipeline: f.Pipeline, RequestID: f.RequestID, Row: f.Row, Entity: f.Entity, Node: f.Node, Label: f.Label, Reward: f.Reward, Comment: f.Comment, ID: f.ID,
	}
	if !f.EventTime.IsZero() {
		in.Time = f.EventTime.UTC().Format(time.RFC3339Nano)
	}
	im.pending = append(im.pending, in)
	im.bytes += 256 + len(f.RequestID) + len(f.Entity) + len(f.Comment)
	if l, ok := f.Label.(string); ok {
		im.bytes += len(l)
	}
}

func (im *feedbackImporter) flush(ctx context.Context) error {
	if len(im.pending) == 0 {
		return nil
	}
	var r feedback.Reply
	if err := im.c.call(context.WithoutCancel(ctx), http.MethodPost, "/v1/feedback", nil, im.pending, &r); err != nil {
		return err
	}
	im.kept += r.Kept
	if im.seen != nil {
		im.seen(r.Kept)
	}
	im.pending, im.bytes = im.pending[:0], 0
	return ctx.Err()
}
