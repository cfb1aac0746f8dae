package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/control"
)

func lineageCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lineage",
		Short: "Follow, look up, count, export and prune the record of every answer",
		Long: `The lineage holds a record of every input and output: who asked, which version of
which model answered, what went in and out, and when. Repeats of one record are
folded to the first; --all shows them too.`,
	}
	cmd.AddCommand(lineageTail(e), lineageGet(e), lineageExplain(e), lineageList(e), lineageCount(e), lineageExport(e), lineageStatus(e), lineagePrune(e))
	return cmd
}

// lineageFilter is the flags that select records.
type lineageFilter struct {
	pipeline, model, status, role, run, since, until string
	all                                              bool
}

func (l *lineageFilter) flags(e *env, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.pipeline, "pipeline", "", "only records of this pipeline")
	f.StringVar(&l.model, "model", "", "only records of this model: NAME or NAME@VERSION")
	f.StringVar(&l.status, "status", "", "only ok, error or late")
	f.StringVar(&l.role, "role", "", "only this role: primary, shadow, member, stage, arm or combiner")
	f.StringVar(&l.run, "run", "", "only records of this job; - for records that no job made")
	f.StringVar(&l.since, "since", "", "recorded at or after: RFC 3339, or so long ago, such as 2h")
	if cmd.Name() != "tail" { // which has no end
		f.StringVar(&l.until, "until", "", "recorded before: RFC 3339, or so long ago")
	}
	f.BoolVar(&l.all, "all", false, "repeats of a record too")
	_ = cmd.RegisterFlagCompletionFunc("pipeline", func(cmd *cobra.Command, _ []string, s string) ([]string, cobra.ShellCompDirective) {
		return e.completePipelines(cmd, nil, s)
	})
	for name, words := range map[string][]string{"status": {"ok", "error", "late"}, "role": {"primary", "shadow", "member", "stage", "arm", "combiner"}} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
}

func (l *lineageFilter) query() (url.Values, error) {
	q := url.Values{}
	for k, v := range map[string]string{"pipeline": l.pipeline, "model": l.model, "status": l.status, "role": l.role, "run": l.run} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if err := setTime(q, "since", l.since); err != nil {
		return nil, err
	}
	if err := setTime(q, "until", l.until); err != nil {
		return nil, err
	}
	if l.all {
		q.Set("all", "true")
	}
	return q, nil
}

func lineageTail(e *env) *cobra.Command {
	var f lineageFilter
	cmd := &cobra.Command{
		Use: "tail", Short: "Follow records as they are made", Args: cobra.NoArgs,
		Long: `Print a line for each record as it is made, until Ctrl-C. With --since, begin with
the records since then. With --json, one JSON object a line.`,
		Example: `  leat lineage tail
  leat lineage tail --pipeline flight-delay --status error
  leat lineage tail --since 10m --json | jq .output`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			return e.stream(cmd.Context(), "/v1/lineage/tail", q, e.printRecordLine)
		},
	}
	f.flags(e, cmd)
	return cmd
}

func lineageList(e *env) *cobra.Command {
	var f lineageFilter
	var limit int
	var with string
	cmd := &cobra.Command{
		Use: "list", Short: "List records, oldest first", Args: cobra.NoArgs,
		Long: `List records that are there, oldest first, a line each. With --json, one JSON object
a line. --with feedback shows what was said of each.`,
		Example: `  leat lineage list --since 1h --status error
  leat lineage list --run 01k0w6m1c2x3 --limit 20`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return fmt.Errorf("--limit %d: want 0 for all, or more", limit)
			}
			q, err := f.query()
			if err != nil {
				return err
			}
			if with != "" {
				q.Set("with", with)
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			const page = 1000
			left := limit
			for {
				n := page
				if limit > 0 {
					n = min(n, left)
				}
				q.Set("limit", strconv.Itoa(n))
				var r struct {
					Records []json.RawMessage `json:"records"`
					Next    string            `json:"next"`
				}
				if err := c.call(cmd.Context(), http.MethodGet, "/v1/lineage", q, nil, &r); err != nil {
					return err
				}
				for _, rec := range r.Records {
					if e.json {
						_, err = fmt.Fprintf(e.out, "%s\n", rec)
					} else {
						err = e.printRecordLine(rec)
					}
					if err != nil {
						return failed(err)
					}
				}
				left -= len(r.Records)
				if r.Next == "" {
					return nil
				}
				if limit > 0 && left <= 0 {
					e.thereIsMore(cmd, limit)
					return nil
				}
				q.Set("cursor", r.Next)
			}
		},
	}
	f.flags(e, cmd)
	cmd.Flags().IntVar(&limit, "limit", 100, "records at most; 0: all")
	withFlag(cmd, &with)
	return cmd
}

// withFlag asks for more than the records.
func withFlag(cmd *cobra.Command, with *string) {
	cmd.Flags().StringVar(with, "with", "", "feedback: what was said of each record, too")
	_ = cmd.RegisterFlagCompletionFunc("with", cobra.FixedCompletions([]string{"feedback"}, cobra.ShellCompDirectiveNoFileComp))
}

// printRecordLine prints a record on one line.
func (e *env) printRecordLine(b []byte) error {
	var v lineage.View
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	model := v.Pipeline
	if v.Model != "" {
		model += " " + madeBy(v.Model, v.Version)
	}
	what := string(v.Output)
	if v.ErrorKind != "" {
		what = e.red(v.ErrorKind + ": " + v.Error)
	}
	flags := ""
	if v.Status == lineage.StatusLate {
		flags += " late"
	}
	if v.Superseded {
		flags += " superseded"
	}
	if v.IDReused {
		flags += " id-reused"
	}
	if o := v.Feedback; o != nil {
		flags += "  <- " + saidText(o.Label, o.Reward, o.Comment)
	}
	via := v.Via
	if v.Role != "" && v.Role != lineage.RolePrimary {
		via += "/" + v.Role
	}
	_, err := fmt.Fprintf(e.out, "%s  %s  %s  %s/%d  %s  %s%s\n", v.Scored.Local().Format("15:04:05.000"), model, via, v.RequestID, v.Row,
		micros(time.Duration(v.QueueNS+v.ScoreNS)), what, flags)
	return err
}

// madeBy names what answered: a model's version, or a pipeline in which several models have a part in the answer.
func madeBy(name string, version int) string {
	if version == 0 {
		return name
	}
	return name + "@" + strconv.Itoa(version)
}

// micros writes a short time.
func micros(d time.Duration) string {
	if d < time.Millisecond {
		return d.Round(time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func (e *env) red(s string) string {
	if !e.color {
		return s
	}
	return "\x1b[31m" + s + "\x1b[0m"
}

func lineageGet(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "get REQUEST_ID", Short: "Show all records of a request", Args: cobra.ExactArgs(1),
		Long: `Show all records of a request in full: of every row, node and job, repeats
included, and all feedback on it. The id is what the answer's Leat-Request-Id said.`,
		Example: "  leat lineage get 01K0W6M1C2X3",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var r lineage.GetReply
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/lineage/"+url.PathEscape(args[0]), nil, nil, &r); err != nil {
				return err
			}
			return e.print(r, func(w io.Writer) {
				for i := range r.Records {
					if i > 0 {
						fmt.Fprintln(w)
					}
					e.printRecord(w, &r.Records[i])
				}
				if len(r.Feedback) > 0 {
					if len(r.Records) > 0 {
						fmt.Fprintln(w)
					}
					fmt.Fprintln(w, e.bold("feedback"))
				}
				for i := range r.Feedback {
					fmt.Fprintf(w, "  %s  %s\n", r.Feedback[i].Appended.Local().Format("2006-01-02 15:04:05"), e.feedbackText(&r.Feedback[i]))
				}
			})
		},
	}
}

func lineageExplain(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "explain-route REQUEST_ID", Short: "Derive again how the rows of a request found their way", Args: cobra.ExactArgs(1),
		Long: `Derive every decision of a request's route again, from what is recorded: splits by
their recorded seed, conditions by the recorded input and by what the models have
answered. No model is run. Exit status 1 if a decision does not come out as recorded.`,
		Example: "  leat lineage explain-route 01K0W6M1C2X3",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var r control.ExplainReply
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/lineage/"+url.PathEscape(args[0])+"/route", nil, nil, &r); err != nil {
				return err
			}
			if err := e.print(r, func(w io.Writer) { printExplanations(w, r.Explanations) }); err != nil {
				return err
			}
			for _, x := range r.Explanations {
				if !x.Equal {
					return failed(fmt.Errorf("a decision of pipeline %s does not come out as recorded", x.Pipeline))
				}
			}
			return nil
		},
	}
}

func printExplanations(w io.Writer, xs []control.Explanation) {
	for _, x := range xs {
		fmt.Fprintf(w, "%s, revision %.12s\n", x.Pipeline, x.Revision)
		if len(x.Decisions) == 0 {
			fmt.Fprintln(w, "  nothing was to be decided")
			continue
		}
		var rows [][]string
		for _, d := range x.Decisions {
			how := "equal"
			switch {
			case !d.Equal:
				how = "NOT EQUAL"
			case d.Propensity == 0:
				how = "forced by the caller"
			}
			rows = append(rows, []string{strconv.Itoa(int(d.Row)), d.Node, cmp.Or(d.Recorded, "-"), cmp.Or(d.Derived, "-"),
				strconv.FormatFloat(d.Propensity, 'g', 4, 64), how})
		}
		table(w, []string{"ROW", "NODE", "RECORDED", "DERIVED", "PROPENSITY", ""}, rows)
	}
}

// printRecord prints a record in full.
func (e *env) printRecord(w io.Writer, v *lineage.View) {
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Local().Format("2006-01-02 15:04:05.000000Z07:00")
	}
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-12s %s\n", name, value)
		}
	}
	status := v.Status
	if v.Status != lineage.StatusOK {
		status = e.red(v.Status)
	}
	fmt.Fprintf(w, "%s  %s\n", e.bold(fmt.Sprintf("request %s, row %d", v.RequestID, v.Row)), status)
	if v.ErrorKind != "" {
		line("error", v.ErrorKind+": "+v.Error)
		line("error id", v.ErrorID)
	}
	line("pipeline", fmt.Sprintf("%s, revision %.12s", v.Pipeline, v.Revision))
	if v.Digest != "" {
		line("model", fmt.Sprintf("%s, digest %.12s", madeBy(v.Model, v.Version), v.Digest))
	} else {
		line("model", madeBy(v.Model, v.Version))
	}
	node := v.Node
	if v.Role != "" {
		node += " (" + v.Role + ")"
	}
	line("node", node)
	switch p := v.Propensity; {
	case v.Arm == "" || p == 1:
		line("arm", v.Arm)
	case p == 0:
		line("arm", v.Arm+", forced by the caller")
	default:
		line("arm", fmt.Sprintf("%s, chosen with probability %v", v.Arm, p))
	}
	line("caller", strings.TrimSpace(v.Principal+" via "+v.Via))
	line("from", v.From)
	line("job", v.Run)
	line("trace", v.TraceID)
	line("parent", v.ParentID)
	line("event time", at(v.EventTime))
	line("received", at(v.Received))
	line("scored", at(v.Scored)+fmt.Sprintf("  (queue %s, score %s, row %d of a batch of %d, attempt %d)",
		micros(time.Duration(v.QueueNS)), micros(time.Duration(v.ScoreNS)), v.BatchRow, v.BatchSize, v.Attempt))
	line("appended", at(v.Appended)+"  "+v.Position+", index "+strconv.Itoa(v.Index))
	line("by", strings.TrimSpace(v.Runtime+" on "+v.CPU))
	line("record", v.RecordID)
	line("input", v.InputDigest+" (digest)")
	if v.Superseded {
		line("superseded", "a record of the same id stands before it")
	}
	if v.IDReused {
		line("id reused", "this request id came with another input too")
	}
	line("masked", strings.Join(v.Masked, ", "))
	line("dropped", strings.Join(v.Dropped, ", "))
	sideBySide(w, v.Input, v.Output)
}

// sideBySide prints two JSON objects as lists of their members, in their order.
func sideBySide(w io.Writer, input, output json.RawMessage) {
	in, out := membersOf(input), membersOf(output)
	if len(in)+len(out) == 0 {
		return
	}
	var rows [][]string
	for i := range max(len(in), len(out)) {
		r := []string{"", "", "", "", "", ""}
		if i < len(in) {
			r[1], r[2] = in[i][0], in[i][1]
		}
		if i < len(out) {
			r[4], r[5] = out[i][0], out[i][1]
		}
		rows = append(rows, r)
	}
	fmt.Fprintln(w)
	grid(w, []string{"", "INPUT", "VALUE", "", "OUTPUT", "VALUE"}, rows)
}

// membersOf lists an object's members as text.
func membersOf(doc json.RawMessage) [][2]string {
	d := json.NewDecoder(strings.NewReader(string(doc)))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	var all [][2]string
	for d.More() {
		k, err := d.Token()
		var v json.RawMessage
		if err == nil {
			err = d.Decode(&v)
		}
		if err != nil {
			return all
		}
		value := string(v)
		var s string
		switch {
		case value == "null":
			value = "-"
		case json.Unmarshal(v, &s) == nil:
			value = s
		}
		all = append(all, [2]string{fmt.Sprint(k), value})
	}
	return all
}

func lineageCount(e *env) *cobra.Command {
	var f lineageFilter
	cmd := &cobra.Command{
		Use: "count", Short: "Count records", Args: cobra.NoArgs,
		Example: "  leat lineage count\n  leat lineage count --pipeline flight-delay --since 24h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			var t lineage.Totals
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/lineage/count", q, nil, &t); err != nil {
				return err
			}
			return e.print(t, func(w io.Writer) {
				n := func(v int64) string { return count(uint64(v)) }
				grid(w, []string{"RECORDS", "OK", "ERRORS", "LATE", "SUPERSEDED", "ID REUSED"}, [][]string{{n(t.Records), n(t.OK), n(t.Errors), n(t.Late), n(t.Superseded), n(t.IDReused)}})
			})
		},
	}
	f.flags(e, cmd)
	return cmd
}

// thereIsMore says that a list ends at a limit that nobody asked for, on standard error: what is piped on stays as it is.
func (e *env) thereIsMore(cmd *cobra.Command, limit int) {
	if !cmd.Flags().Changed("limit") {
		fmt.Fprintf(e.err, "... the first %d (--limit 0 prints all)\n", limit)
	}
}
