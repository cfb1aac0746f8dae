package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/pipeline/bulk"
)

func jobCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "job",
		Aliases: []string{"jobs"},
		Short:   "Score files, topics and the lineage in bulk",
		Long: `A job scores a bounded source into a sink, each row once, whatever crashes in
between: it resumes by itself. It pins the pipeline's revision, records every row
in the lineage, and yields to online traffic.

Exit status: 0 done; 3 done, but rows were rejected or skipped; 1 otherwise.`,
	}
	cmd.AddCommand(jobRun(e), jobList(e), jobShow(e), jobWait(e), jobCancel(e), jobResume(e))
	return cmd
}

func jobRun(e *env) *cobra.Command {
	var r bulk.RunRequest
	var detach bool
	cmd := &cobra.Command{
		Use: "run --pipeline P --from FILE|topic:NAME|lineage:P --to FILE|topic:NAME|shadow:NAME", Short: "Start a job and wait for its end", Args: cobra.NoArgs,
		Long: `Start a job and wait for its end. Files (.parquet, .csv, .ndjson, .arrow) are opened
by the server. What is read:

  FILE                      its rows; columns are matched by name
  topic:NAME                the events stored now: a replay
    @SEQUENCE                 ... from there on, in every partition
    @PARTITION:SEQUENCE,...   ... of these partitions alone, each from there on
    @TIME                     ... stored from then on
  lineage:PIPELINE[@TIME]   the inputs that callers sent it, from then on

Sequences count from 1, as "leat topics read" shows them: on Kafka, one more than
the offset.

What is written: a file with the outputs, which appears when it is whole, or a
topic. Ctrl-C leaves the job running.`,
		Example: `  leat job run --pipeline flight-boost --from sample.parquet --to scored.parquet --carry flight_id,late
  leat job run --pipeline flight-boost --from topic:flights.departures@2026-05-01T00:00:00Z --to topic:flights.rescored
  leat job run --pipeline flight-boost --from topic:kafka:departures@0:120,3:98 --to again.parquet
  leat job run --pipeline flight-boost --from lineage:flight-delay --to compare.parquet --detach
  leat job run --pipeline flight-delay --from lineage:flight-delay@2026-05-01T00:00:00Z --to shadow:forest`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if r.From, err = location(r.From); err == nil {
				r.To, err = location(r.To)
			}
			if err != nil {
				return failed(err)
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			var v bulk.View
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/jobs", nil, &r, &v); err != nil {
				return err
			}
			if detach {
				return e.print(v, func(w io.Writer) {
					fmt.Fprintf(w, "job %s runs; follow it with: leat job wait %s\n", v.ID, v.ID)
				})
			}
			return e.waitJob(cmd.Context(), c, v.ID)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Pipeline, "pipeline", "", "pipeline whose active revision scores")
	f.StringVar(&r.From, "from", "", "FILE, topic:NAME[@sequence|@partition:sequence,...|@time] or lineage:PIPELINE[@time]")
	f.StringVar(&r.To, "to", "", "FILE, topic:NAME, or shadow:NAME of the pipeline (from its own lineage)")
	f.StringSliceVar(&r.Carry, "carry", nil, "columns of the source's file to write beside the outputs; all: all")
	f.Float64Var(&r.Throttle, "throttle", 0, "rows per second at most (default: no bound)")
	f.IntVar(&r.ChunkRows, "chunk-rows", 0, "rows of a chunk at most (default: the server's)")
	f.Var(byteSize{&r.ResultBytes}, "result-bytes", "size of the job's result stream, such as 4GiB (default: the server's)")
	f.BoolVar(&r.Overwrite, "overwrite", false, "replace the file of --to if it exists")
	f.BoolVar(&r.MixedEnvironments, "mixed-environments", false, "let processes of other runtimes or CPU features take part: bits may differ")
	f.BoolVar(&detach, "detach", false, "do not wait")
	for _, name := range []string{"pipeline", "from", "to"} {
		_ = cmd.MarkFlagRequired(name) // they exist
	}
	_ = cmd.RegisterFlagCompletionFunc("pipeline", func(cmd *cobra.Command, _ []string, s string) ([]string, cobra.ShellCompDirective) {
		return e.completePipelines(cmd, nil, s)
	})
	return cmd
}

// location makes a file's path absolute: the server opens it, from another folder.
func location(s string) (string, error) {
	if s == "" || strings.HasPrefix(s, "topic:") || strings.HasPrefix(s, "lineage:") || strings.HasPrefix(s, "shadow:") {
		return s, nil
	}
	return filepath.Abs(s)
}

func jobList(e *env) *cobra.Command {
	var status, pipeline string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List jobs, newest first", Args: cobra.NoArgs, Example: "  leat job list\n  leat job list --status running",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if status != "" && !slices.Contains(bulk.Statuses, bulk.Status(status)) {
				return fmt.Errorf("--status %q: want one of %v", status, bulk.Statuses)
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			for k, v := range map[string]string{"status": status, "pipeline": pipeline} {
				if v != "" {
					q.Set(k, v)
				}
			}
			var l bulk.JobList
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/jobs", q, nil, &l); err != nil {
				return err
			}
			return e.print(l, func(w io.Writer) {
				var rows [][]string
				for i := range l.Jobs {
					j := &l.Jobs[i]
					rows = append(rows, []string{j.ID, string(j.Status), j.Pipeline, j.From, j.To, jobRows(j), orDash(jobLeft(j)), ago(j.Created), orDash(j.Reason)})
				}
				table(w, []string{"JOB", "STATUS", "PIPELINE", "FROM", "TO", "ROWS", "LEFT", "MADE", "REASON"}, rows)
			})
		},
	}
	cmd.Flags().StringVar(&status, "status", "", "only jobs of this status: pending, running, paused, done, failed or cancelled")
	cmd.Flags().StringVar(&pipeline, "pipeline", "", "only jobs of this pipeline")
	cmd.Flags().IntVar(&limit, "limit", 100, "newest so many")
	return cmd
}

// jobRows says how far a job is.
func jobRows(v *bulk.View) string {
	s := count(uint64(v.Rows))
	if !v.Final() && v.Total > 0 {
		s += fmt.Sprintf(" (%.0f%%)", 100*v.Progress)
	}
	if v.Rejected > 0 {
		s += fmt.Sprintf(", %s rejected", count(uint64(v.Rejected)))
	}
	if v.Skipped > 0 {
		s += fmt.Sprintf(", %s skipped", count(uint64(v.Skipped)))
	}
	return s
}

// jobLeft says what a job has still to do, in rows, in event time and in time; "" if that is nothing, or not known.
func jobLeft(v *bulk.View) string {
	if v.Status == bulk.Done || v.Status == bulk.Cancelled {
		return ""
	}
	var parts []string
	if v.RowsLeft > 0 {
		parts = append(parts, count(uint64(v.RowsLeft))+" rows")
	}
	if v.EventLag > 0 {
		parts = append(parts, seconds(v.EventLag)+" of events")
	}
	if v.Left != "" {
		parts = append(parts, "about "+v.Left)
	}
	return strings.Join(parts, ", ")
}

// seconds writes a duration as exactly as people want it: 44d3h, 25h1m1s, 250ms.
func seconds(s float64) string {
	const day = 24 * time.Hour
	d := time.Duration(s * float64(time.Second))
	switch {
	case d >= 3*day:
		h := int(d.Round(time.Hour) / time.Hour)
		return fmt.Sprintf("%dd%dh", h/24, h%24)
	case d >= time.Second:
		return d.Round(time.Second).String()
	}
	return d.Round(time.Millisecond).String()
}

// jobDo makes a command that asks something of one job and prints the job.
func (e *env) jobDo(use, short, example, method, suffix string, body func() any) *cobra.Command {
	return &cobra.Command{
		Use: use + " JOB", Short: short, Args: cobra.ExactArgs(1), Example: example, ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var in any
			if body != nil {
				in = body()
			}
			var v bulk.View
			if err := c.call(cmd.Context(), method, "/v1/jobs/"+url.PathEscape(args[0])+suffix, nil, in, &v); err != nil {
				return err
			}
			return e.printJob(&v)
		},
	}
}

func jobShow(e *env) *cobra.Command {
	return e.jobDo("show", "Show a job and its progress", "  leat job show 01k0w6m1c2x3", http.MethodGet, "", nil)
}

func jobCancel(e *env) *cobra.Command {
	return e.jobDo("cancel", "Cancel a job and drop its results", "  leat job cancel 01k0w6m1c2x3", http.MethodPost, "/cancel", nil)
}

func jobResume(e *env) *cobra.Command {
	var throttle float64
	var result int64
	var mixed bool
	var cmd *cobra.Command
	cmd = e.jobDo("resume", "Let a paused or failed job go on, or change a running one",
		"  leat job resume 01k0w6m1c2x3\n  leat job resume 01k0w6m1c2x3 --throttle 0   # as fast as it can", http.MethodPost, "/resume",
		func() any {
			r := map[string]any{}
			f := cmd.Flags()
			if f.Changed("throttle") {
				r["throttle"] = throttle
			}
			if f.Changed("result-bytes") {
				r["result_bytes"] = result
			}
			if f.Changed("mixed-environments") {
				r["mixed_environments"] = mixed
			}
			return r
		})
	f := cmd.Flags()
	f.Float64Var(&throttle, "throttle", 0, "new bound of rows per second; 0: none")
	f.Var(byteSize{&result}, "result-bytes", "new size of the job's result stream, such as 8GiB")
	f.BoolVar(&mixed, "mixed-environments", false, "let processes of other runtimes or CPU features take part: bits may differ")
	return cmd
}

func jobWait(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "wait JOB", Short: "Follow a job to its end", Args: cobra.ExactArgs(1), Example: "  leat job wait 01k0w6m1c2x3",
		ValidArgsFunction: e.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			return e.waitJob(cmd.Context(), c, args[0])
		},
	}
}

// How often a job is asked for: often at first, so that a short one ends at once; and how often a line is printed where
// no bar can be.
const (
	firstPoll = 20 * time.Millisecond
	lastPoll  = 250 * time.Millisecond
	lineEvery = 5 * time.Second
)

// waitJob follows a job to its end and returns its exit code as an error.
func (e *env) waitJob(ctx context.Context, c *client, id string) error {
	w := &jobWatch{e: e, printed: time.Now()}
	defer w.clear()
	for poll := firstPoll; ; poll = min(poll*3/2, lastPoll) {
		var v bulk.View
		err := c.call(ctx, http.MethodGet, "/v1/jobs/"+url.PathEscape(id), nil, nil, &v)
		if ctx.Err() != nil {
			return w.detach(id)
		}
		if err != nil {
			return err
		}
		if v.Ended {
			w.clear()
			return e.endJob(&v)
		}
		w.show(&v)
		t := time.NewTimer(poll)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return w.detach(id)
		}
	}
}

// endJob prints a job that has ended and turns its exit code into an error.
func (e *env) endJob(v *bulk.View) error {
	if err := e.printJob(v); err != nil {
		return err
	}
	switch {
	case v.Exit == 0:
		return nil
	case v.Exit == exitRejected:
		return &exitError{exitRejected, fmt.Errorf("job %s is done, but %s of %s rows are not in the sink (%s rejected, %s skipped)",
			v.ID, count(uint64(v.Rejected+v.Skipped)), count(uint64(v.Rows)), count(uint64(v.Rejected)), count(uint64(v.Skipped)))}
	case v.Status == bulk.Cancelled:
		return &exitError{v.Exit, fmt.Errorf("job %s was cancelled", v.ID)}
	}
	return &exitError{v.Exit, fmt.Errorf("job %s %s: %s; when that is mended: leat job resume %s", v.ID, map[bool]string{true: "is paused", false: "failed"}[v.Status == bulk.Paused], orDash(v.Reason), v.ID)}
}

// jobWatch shows a running job: a bar on a terminal, else a line now and then.
type jobWatch struct {
	e       *env
	bar     *bar
	passed  int64
	printed time.Time
}

func (w *jobWatch) show(v *bulk.View) {
	if isTerminal(w.e.err) {
		if w.bar == nil || w.bar.total != v.Total {
			w.clear()
			w.bar = newBar(w.e.err, v.Total, "")
			w.passed = 0
		}
		text := fmt.Sprintf("%s %s rows, %s rows/s", v.Status, count(uint64(v.Rows)), count(uint64(v.Rate)))
		if left := jobLeft(v); left != "" {
			text += "; left: " + left
		}
		if v.Reason != "" {
			text += " (" + v.Reason + ")"
		}
		w.bar.describe(text)
		w.bar.add(v.Passed - w.passed)
		w.passed = v.Passed
		return
	}
	if time.Since(w.printed) < lineEvery {
		return
	}
	w.printed = time.Now()
	line := fmt.Sprintf("%s: %.1f%%, %s rows, %s rows/s", v.Status, 100*v.Progress, count(uint64(v.Rows)), count(uint64(v.Rate)))
	if left := jobLeft(v); left != "" {
		line += "; left: " + left
	}
	if v.Reason != "" {
		line += " (" + v.Reason + ")"
	}
	fmt.Fprintln(w.e.err, line)
}

func (w *jobWatch) clear() {
	if w.bar != nil {
		w.bar.end()
		w.bar = nil
	}
}

// detach says that the job goes on without us.
func (w *jobWatch) detach(id string) error {
	w.clear()
	return &exitError{130, errors.New("detached; the job goes on. Follow it: leat job wait " + id + "   End it: leat job cancel " + id)}
}

func (e *env) printJob(v *bulk.View) error {
	return e.print(v, func(w io.Writer) {
		line := func(name, format string, args ...any) {
			fmt.Fprintf(w, "  %-9s %s\n", name, fmt.Sprintf(format, args...))
		}
		fmt.Fprintf(w, "%s  %s\n", e.bold("job "+v.ID), v.Status)
		line("pipeline", "%s, revision %.12s", v.Pipeline, v.Revision)
		line("from", "%s", v.From)
		line("to", "%s", v.To)
		if v.Reason != "" {
			line("reason", "%s", v.Reason)
		}
		line("rows", "%s", jobRows(v))
		if v.Elapsed > 0 {
			rate := ""
			if v.Rows > 0 {
				rate = fmt.Sprintf(" (%s rows/s)", count(uint64(float64(v.Rows)/v.Elapsed)))
			}
			line("took", "%s%s", time.Duration(v.Elapsed*float64(time.Second)).Round(time.Millisecond), rate)
		}
		if left := jobLeft(v); left != "" {
			line("left", "%s", left)
		}
		if !v.EventTime.IsZero() {
			line("events", "done up to %s", v.EventTime.Format(time.RFC3339))
		}
		if len(v.Partitions) > 1 && !v.Final() {
			for _, p := range v.Partitions {
				at := "not begun"
				switch {
				case p.Left == 0:
					at = "done"
				case p.Next > p.First:
					at = "at " + strconv.FormatUint(p.Next, 10)
				}
				if p.EventLag > 0 {
					at += ", " + seconds(p.EventLag) + " of events left"
				}
				line("  part. "+strconv.Itoa(int(p.Partition)), "%d to %d, %s", p.First, p.Last, at)
			}
		}
		if v.Throttle > 0 {
			line("throttle", "%s rows/s", count(uint64(v.Throttle)))
		}
		if v.Environment.Runtime != "" {
			line("scored by", "%s on %s", v.Environment.Runtime, v.Environment.CPU)
		}
		if v.Rejected+v.Skipped > 0 {
			line("left out", "see %s", leftOut(v.To))
		}
	})
}

// leftOut is where a job lists the rows that are not in its sink (docs/jobs.md).
func leftOut(to string) string {
	if strings.HasPrefix(to, "topic:") {
		return to + ".rejected"
	}
	return to + ".rejected.ndjson"
}

// completeJobs offers the ids of jobs to the shell.
func (e *env) completeJobs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := e.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var l bulk.JobList
	if err := c.call(cmd.Context(), http.MethodGet, "/v1/jobs", nil, nil, &l); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []string
	for i := range l.Jobs {
		ids = append(ids, l.Jobs[i].ID+"\t"+string(l.Jobs[i].Status)+" "+l.Jobs[i].Pipeline)
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
