package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/feedback"
)

func feedbackCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "feedback",
		Short: "Say what became of decisions: true labels, rewards, comments",
		Long: `Feedback says of a decision what was true (a label), what it was worth (a reward), or
a comment. It names the request and its row, or the entity that was decided about and
a time, where the pipeline says which column that is. It may come before its decision
or long after it; of several on one decision the last label, reward and comment count,
and all are kept.`,
	}
	cmd.AddCommand(feedbackPut(e), feedbackList(e), feedbackImport(e))
	return cmd
}

// putFlags are the flags of leat feedback put.
type putFlags struct {
	row                                            int32
	entity, time, node, label, comment, reward, id string
	text                                           bool
}

func feedbackPut(e *env) *cobra.Command {
	var f putFlags
	cmd := &cobra.Command{
		Use: "put PIPELINE [REQUEST_ID]", Short: "Record one piece of feedback", Args: cobra.RangeArgs(1, 2),
		Long: `Record feedback on the decision of a request, or, with --entity, on the latest one
about that entity at or before --time. It is recorded when the command ends.

A label true or false is a boolean and one that is a number is a number, unless --text.
The same feedback again is a repeat and changes nothing; say --id or --time if you mean
it anew.`,
		Example: `  leat feedback put flight-delay 01K0W6M1C2X3 --label true
  leat feedback put flight-delay 01K0W6M1C2X3 --row 3 --reward 12.5 --comment "called back"
  leat feedback put flight-delay --entity N12345 --time 2026-11-23T08:00:00Z --label late`,
		ValidArgsFunction: e.completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := f.input(args, cmd.Flags().Changed("label"))
			if err != nil {
				return err
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			var r feedback.Reply
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/feedback", nil, in, &r); err != nil {
				return err
			}
			return e.print(r, func(w io.Writer) { fmt.Fprintf(w, "recorded as %s\n", r.IDs[0]) })
		},
	}
	fs := cmd.Flags()
	fs.Int32Var(&f.row, "row", 0, "row of the request, from 0")
	fs.StringVar(&f.entity, "entity", "", "what was decided about, in place of a request id")
	fs.StringVar(&f.time, "time", "", "when what is said was so: RFC 3339, or so long ago, such as 2h")
	fs.StringVar(&f.node, "node", "", "path of the node whose decision is meant (default: the answer)")
	fs.StringVar(&f.label, "label", "", "what was true")
	fs.BoolVar(&f.text, "text", false, "take the label as text, whatever it looks like")
	fs.StringVar(&f.reward, "reward", "", "what the decision was worth: a number")
	fs.StringVar(&f.comment, "comment", "", "a comment")
	fs.StringVar(&f.id, "id", "", "the same id again is a repeat (default: made from what is said)")
	return cmd
}

// input is what the flags say.
func (f *putFlags) input(args []string, labelled bool) (*lineage.FeedbackInput, error) {
	in := &lineage.FeedbackInput{Pipeline: args[0], Row: f.row, Entity: f.entity, Node: f.node, Comment: f.comment, ID: f.id}
	if len(args) > 1 {
		in.RequestID = args[1]
	}
	if (in.RequestID == "") == (f.entity == "") {
		return nil, errors.New("say which decision: REQUEST_ID, or --entity and --time")
	}
	if f.time != "" {
		t, err := parseTime(f.time, time.Now())
		if err != nil {
			return nil, fmt.Errorf("--time %w", err)
		}
		in.Time = t.UTC().Format(time.RFC3339Nano)
	}
	if f.reward != "" {
		v, err := strconv.ParseFloat(f.reward, 64)
		if err != nil {
			return nil, fmt.Errorf("--reward %q: want a number", f.reward)
		}
		in.Reward = &v
	}
	if labelled {
		in.Label = f.label
		if v, err := strconv.ParseFloat(f.label, 64); err == nil && !f.text {
			in.Label = v
		} else if (f.label == "true" || f.label == "false") && !f.text {
			in.Label = f.label == "true"
		}
	}
	if _, err := json.Marshal(in); err != nil {
		return nil, errors.New("--label and --reward want finite numbers")
	}
	return in, nil
}

func feedbackList(e *env) *cobra.Command {
	var request, entity, since, until string
	var all, unknown bool
	var limit int
	cmd := &cobra.Command{
		Use: "list [PIPELINE]", Short: "List feedback with the decisions that it is about, oldest first", Args: cobra.MaximumNArgs(1),
		Long: `List what was said, oldest first, a line each, with the decision that it is about.
Feedback whose decision is not in the lineage is marked unknown: it may come yet, or has
been pruned. With --json, one JSON object a line.`,
		Example: `  leat feedback list flight-delay
  leat feedback list flight-delay --unknown
  leat feedback list --request-id 01K0W6M1C2X3 --all`,
		ValidArgsFunction: e.completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return fmt.Errorf("--limit %d: want 0 for all, or more", limit)
			}
			q := url.Values{}
			if len(args) > 0 {
				q.Set("pipeline", args[0])
			}
			for k, v := range map[string]string{"request_id": request, "entity": entity} {
				if v != "" {
					q.Set(k, v)
				}
			}
			for k, v := range map[string]bool{"all": all, "unknown": unknown} {
				if v {
					q.Set(k, "true")
				}
			}
			if err := setTime(q, "since", since); err != nil {
				return err
			}
			if err := setTime(q, "until", until); err != nil {
				return err
			}
			return e.listFeedback(cmd, q, limit)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&request, "request-id", "", "only feedback that names this request")
	fs.StringVar(&entity, "entity", "", "only feedback that names this entity")
	fs.StringVar(&since, "since", "", "recorded at or after: RFC 3339, or so long ago, such as 2h")
	fs.StringVar(&until, "until", "", "recorded before: RFC 3339, or so long ago")
	fs.BoolVar(&all, "all", false, "repeats too")
	fs.BoolVar(&unknown, "unknown", false, "only feedback whose decision is not known")
	fs.IntVar(&limit, "limit", 100, "at most so many; 0: all")
	return cmd
}

func (e *env) listFeedback(cmd *cobra.Command, q url.Values, limit int) error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	for left := limit; ; {
		n := 10_000
		if limit > 0 {
			n = min(n, left)
		}
		q.Set("limit", strconv.Itoa(n))
		var r lineage.FeedbackListReply
		if err := c.call(cmd.Context(), http.MethodGet, "/v1/feedback", q, nil, &r); err != nil {
			return err
		}
		for i := range r.Feedback {
			if err := e.printFeedback(&r.Feedback[i]); err != nil {
				return failed(err)
			}
		}
		left -= len(r.Feedback)
		if r.Next == "" {
			return nil
		}
		if limit > 0 && left <= 0 {
			e.thereIsMore(cmd, limit)
			return nil
		}
		q.Set("cursor", r.Next)
	}
}

// printFeedback prints a piece of feedback on one line.
func (e *env) printFeedback(v *lineage.FeedbackView) error {
	if e.json {
		enc := json.NewEncoder(e.out)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	_, err := fmt.Fprintf(e.out, "%s  %s  %s\n", v.Appended.Local().Format("2006-01-02 15:04:05"), v.Pipeline, e.feedbackText(v))
	return err
}

// feedbackText is what feedback says of what.
func (e *env) feedbackText(v *lineage.FeedbackView) string {
	s := v.Entity
	if v.Row != nil {
		s = fmt.Sprintf("%s/%d", v.RequestID, *v.Row)
	} else {
		s += " at " + v.Time.UTC().Format(time.RFC3339)
	}
	if v.Node != "" {
		s += " " + v.Node
	}
	s += "  " + saidText(v.Label, v.Reward, v.Comment)
	if by := cmp.Or(v.Principal, v.Via); by != "" {
		s += "  by " + by
	}
	switch {
	case v.Superseded:
		s += "  repeat"
	case v.Unknown:
		s += "  " + e.red("unknown")
	case v.Entity != "" && v.Decision != nil:
		s += fmt.Sprintf("  of %s/%d", v.Decision.RequestID, v.Decision.Row)
	}
	return s
}

// saidText is a label, a reward and a comment, those that there are.
func saidText(label any, reward *float64, comment string) string {
	s := ""
	add := func(name string, v any) {
		if s != "" {
			s += " "
		}
		b, _ := json.Marshal(v) // numbers, texts and booleans always marshal
		s += name + " " + string(b)
	}
	if label != nil {
		add("label", label)
	}
	if reward != nil {
		add("reward", *reward)
	}
	if comment != "" {
		add("comment", comment)
	}
	return s
}
