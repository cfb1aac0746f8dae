package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/pipeline/control"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/wire"
)

// scoreFlags are the flags of leat score.
type scoreFlags struct {
	format, id, expect, output string
	version, limit             int
	timeout                    time.Duration
	allColumns                 bool
}

func scoreCommand(e *env) *cobra.Command {
	var f scoreFlags
	cmd := &cobra.Command{
		Use:   "score PIPELINE FILE|-",
		Short: "Score the rows of a file and print input beside output",
		Long: `Score every row of a file (Parquet, CSV, NDJSON, JSON, Arrow) or of standard input
and print input beside output. Columns are matched by name; columns that the
pipeline does not ask for may be there. A JSON file may also be the body of a
request: {"rows": ..}, {"columns": ..} or the Open Inference Protocol's {"inputs": ..}.

With --expect COLUMN, a column of the file that holds the truth, errors are
added: accuracy, AUC, log-loss and a confusion table for a classifier; RMSE, MAE
and R2 for a regression.

The rows go to the server in requests of up to 1,000. For long files use
'leat job run': it resumes, and writes a file.`,
		Example: `  leat score flight-delay examples/flights/flight.json
  leat score flight-boost examples/flights/sample.parquet --expect late
  leat score flight-delay flights.csv --limit 5 --all-columns
  echo '{"x": 1, "y": 2}' | leat score sum -
  leat score flight-delay flights.ndjson --json > scored.json   # all rows`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return e.completePipelines(cmd, args, s)
			}
			return nil, cobra.ShellCompDirectiveDefault // a file
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.limit < 0 {
				return fmt.Errorf("--limit %d: want 0 for all rows, or more", f.limit)
			}
			if f.output != "" && f.expect == "" {
				return errors.New("--output picks the output that --expect is compared with: give both")
			}
			if e.json && !cmd.Flags().Changed("limit") {
				f.limit = 0
			}
			return failed(e.score(cmd.Context(), args[0], args[1], &f))
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.format, "format", "", "parquet, csv, ndjson, json, arrow or arrows (default: by the file's ending; of -: by its first bytes)")
	fs.StringVar(&f.id, "id", "", "id of the request; further requests of a long file are ID-2, ID-3, ...")
	fs.IntVar(&f.version, "version", 0, "ask this version of the pipeline's model (default: the active one)")
	fs.DurationVar(&f.timeout, "timeout", 0, "how long a request may take (default: the pipeline's)")
	fs.IntVar(&f.limit, "limit", 20, "rows printed at most; 0: all (with --json, all is the default)")
	fs.BoolVar(&f.allColumns, "all-columns", false, "print every column, however wide the table gets")
	fs.StringVar(&f.expect, "expect", "", "column of the file that holds the truth")
	fs.StringVar(&f.output, "output", "", "output that --expect is compared with (default: chosen by type)")
	return cmd
}

// chunkRows is the rows of a request at most: enough that the cost of a request is small beside its scoring, few enough
// that the first answer comes soon. maxChunk keeps the body below what a gateway takes by default.
const (
	chunkRows = 1000
	maxChunk  = 6 << 20
)

// scoring is one run of leat score.
type scoring struct {
	e        *env
	c        *client
	flags    *scoreFlags
	pipeline string
	model    string // NAME@VERSION that answered
	sig      schemas.Signature
	header   http.Header
	requests int
	rows     int
	began    time.Time
	took     time.Duration
	last     string // request id of the last answer
	truth    *evaluator
	print    scorePrinter
}

// scorePrinter shows rows with their answers. The batches are lent.
type scorePrinter interface {
	rows(in, out *schemas.Batch, expected []string) error
	end(s *scoring, ev *evaluation) error
}

func (e *env) score(ctx context.Context, name, path string, f *scoreFlags) error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	s := &scoring{e: e, c: c, flags: f, pipeline: name, header: http.Header{schemas.HeaderContentType: {wire.ContentTypeStream}}}
	if f.timeout > 0 {
		s.header.Set(schemas.HeaderTimeout, f.timeout.String())
	}
	if err := s.describe(ctx); err != nil {
		return err
	}
	if f.expect != "" {
		if s.truth, err = newEvaluator(f.expect, f.output, s.sig.Outputs); err != nil {
			return &exitError{exitUsage, err}
		}
	}
	in, err := s.open(ctx, path)
	if err != nil {
		return err
	}
	defer in.close()
	if e.json {
		s.print = newJSONScores(e.out, s)
	} else {
		s.print = newTableScores(e, s)
	}
	s.began = time.Now()
	stop := s.progress(in.total)
	err = s.each(ctx, in)
	s.took = time.Since(s.began)
	stop()
	if err != nil {
		return err
	}
	if s.rows == 0 {
		return fmt.Errorf("%s holds no rows", path)
	}
	var ev *evaluation
	if s.truth != nil {
		if ev, err = s.truth.evaluate(); err != nil {
			return err
		}
	}
	return s.print.end(s, ev)
}

// describe learns what the pipeline takes and gives.
func (s *scoring) describe(ctx context.Context) error {
	var d control.PipelineDetail
	if err := s.c.call(ctx, http.MethodGet, "/v1/pipelines/"+url.PathEscape(s.pipeline), nil, nil, &d); err != nil {
		return err
	}
	s.sig = d.Signature
	if s.flags.version == 0 {
		return nil
	}
	if d.Spec.Route.Model == "" {
		return fmt.Errorf("pipeline %s has a route of several nodes: --version fits one of a model alone", s.pipeline)
	}
	ref := d.Models[0].Name + "@" + strconv.Itoa(s.flags.version)
	var m control.ModelDetail
	if err := s.c.call(ctx, http.MethodGet, "/v1/models/"+url.PathEscape(ref), nil, nil, &m); err != nil {
		return err
	}
	s.sig = m.Versions[0].Probed.Signature
	s.header.Set(schemas.HeaderModel, ref)
	return nil
}

// each sends the input in chunks and hands over the answers.
func (s *scoring) each(ctx context.Context, in *scoreInput) error {
	rows, out := schemas.NewBatch(s.sig.Inputs), schemas.NewBatch(s.sig.Outputs)
	for {
		rows.Reset()
		out.Reset()
		expected, err := in.next(ctx, rows)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if rows.Rows() == 0 {
			continue
		}
		if err := s.send(ctx, rows, 0, rows.Rows(), out); err != nil {
			return err
		}
		if s.truth != nil {
			if err := s.truth.add(expected, out); err != nil {
				return err
			}
		}
		if err := s.print.rows(rows, out, expected); err != nil {
			return err
		}
		s.rows += rows.Rows()
	}
}

// send scores rows [from, to) and appends the answers to out. What is too large for a request goes in two.
func (s *scoring) send(ctx context.Context, rows *schemas.Batch, from, to int, out *schemas.Batch) error {
	body := wire.AppendStream(nil, rows, from, to)
	if len(body) > maxChunk && to-from > 1 {
		mid := (from + to) / 2
		if err := s.send(ctx, rows, from, mid, out); err != nil {
			return err
		}
		return s.send(ctx, rows, mid, to, out)
	}
	s.requests++
	h := s.header.Clone()
	if id := s.flags.id; id != "" {
		if s.requests > 1 {
			id += "-" + strconv.Itoa(s.requests)
		}
		h.Set(schemas.HeaderRequestID, id)
	}
	r, err := s.c.send(ctx, http.MethodPost, "/v1/pipelines/"+url.PathEscape(s.pipeline)+"/score", nil, h, bytes.NewReader(body))
	if err != nil {
		var bad *schemas.Error
		if s.rows+from > 0 && errors.As(err, &bad) {
			one := *bad
			one.Err = fmt.Errorf("rows %d to %d of the file: %w", s.rows+from, s.rows+to-1, bad.Err)
			return &one
		}
		return err
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("the server's answer ended early: %w", err)
	}
	n, err := wire.AppendStreamRows(out, answer)
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	if n != to-from {
		return fmt.Errorf("the server answered %d rows of %d", n, to-from)
	}
	s.model, s.last = r.Header.Get(schemas.HeaderModel), r.Header.Get(schemas.HeaderRequestID)
	return nil
}

// progress shows a bar on a terminal where the rows are known and take more than one request.
func (s *scoring) progress(total int64) (stop func()) {
	if !isTerminal(s.e.err) || total <= chunkRows {
		return func() {}
	}
	bar := newBar(s.e.err, total, "scored")
	s.print = &countedScores{s.print, bar}
	return bar.end
}

// countedScores moves a bar with the answers.
type countedScores struct {
	scorePrinter
	bar *bar
}

func (c *countedScores) rows(in, out *schemas.Batch, expected []string) error {
	c.bar.add(int64(in.Rows()))
	return c.scorePrinter.rows(in, out, expected)
}

// stdinFormat tells the format of standard input by its first bytes.
func stdinFormat(head []byte) files.Format {
	text := bytes.TrimLeft(head, " \t\r\n\ufeff")
	switch {
	case bytes.HasPrefix(head, []byte("PAR1")):
		return files.Parquet
	case bytes.HasPrefix(head, []byte("ARROW1")):
		return files.Arrow
	case bytes.HasPrefix(head, []byte("\xff\xff\xff\xff")):
		return files.Stream
	case bytes.HasPrefix(text, []byte("[")):
		return files.JSON
	case !bytes.HasPrefix(text, []byte("{")):
		return files.CSV
	}
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	if keys := topKeys(line); keys != nil && !isBody(keys) && len(strings.TrimSpace(string(rest))) > 0 {
		return files.NDJSON
	}
	return files.JSON // also objects one after the other
}
