package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/connectors"
)

func topicsCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "Make, fill, read and delete topics",
		Long: `A topic is a durable stream of events, cut into partitions by key: events of one
key stay in order. Pipelines with input.topic score a topic continuously; jobs
read and write topics too.`,
	}
	cmd.AddCommand(topicsList(e), topicsShow(e), topicsCreate(e), topicsPublish(e), topicsRead(e), topicsDelete(e))
	return cmd
}

func topicsList(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List topics", Args: cobra.NoArgs, Example: "  leat topics list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var r connectors.TopicsReply
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/topics", nil, nil, &r); err != nil {
				return err
			}
			return e.print(r, func(w io.Writer) {
				var rows [][]string
				for _, t := range r.Topics {
					var groups []string
					for _, g := range t.Groups {
						groups = append(groups, fmt.Sprintf("%s (lag %s)", g.Name, count(g.Lag+g.Pending)))
					}
					rows = append(rows, []string{t.Name, strconv.Itoa(t.Partitions), count(t.Messages), size(t.Bytes), ago(t.Last), orDash(strings.Join(groups, ", "))})
				}
				table(w, []string{"TOPIC", "PARTITIONS", "MESSAGES", "SIZE", "LAST", "GROUPS"}, rows)
			})
		},
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func topicsShow(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a topic and how far its groups are", Args: cobra.ExactArgs(1),
		Example:           "  leat topics show flights.departures",
		ValidArgsFunction: e.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var t connectors.TopicInfo
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/topics/"+url.PathEscape(args[0]), nil, nil, &t); err != nil {
				return err
			}
			return e.print(t, func(w io.Writer) { e.printTopic(w, &t) })
		},
	}
}

func (e *env) printTopic(w io.Writer, t *connectors.TopicInfo) {
	fmt.Fprintf(w, "%s\n  partitions  %d\n  messages    %s (%s)\n", e.bold(t.Name), t.Partitions, count(t.Messages), size(t.Bytes))
	if !t.First.IsZero() {
		fmt.Fprintf(w, "  first       %s\n  last        %s\n", t.First.Local().Format(timeLayout), t.Last.Local().Format(timeLayout))
	}
	for _, g := range t.Groups {
		fmt.Fprintf(w, "  group       %s: %s to come, %s at work\n", g.Name, count(g.Lag), count(g.Pending))
	}
}

func topicsCreate(e *env) *cobra.Command {
	var partitions int
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a topic, or check that it is as wanted", Args: cobra.ExactArgs(1),
		Long: `Make a topic. The number of partitions never changes afterwards: it bounds how many
processes can share the topic. A topic that exists with the same number is fine.`,
		Example: "  leat topics create flights.departures --partitions 8",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var t connectors.TopicInfo
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/topics", nil, map[string]any{"name": args[0], "partitions": partitions}, &t); err != nil {
				return err
			}
			return e.print(t, func(w io.Writer) { e.printTopic(w, &t) })
		},
	}
	cmd.Flags().IntVar(&partitions, "partitions", 0, fmt.Sprintf("number of partitions (default %d)", connectors.DefaultPartitions))
	return cmd
}

func topicsDelete(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a topic with all its events", Args: cobra.ExactArgs(1),
		Long: `Delete a topic with all its events. One that a pipeline reads or writes is refused:
delete or change the pipeline first. Records of what was scored stay in the lineage.`,
		Example:           "  leat topics delete flights.departures",
		ValidArgsFunction: e.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var t connectors.TopicInfo
			if err := c.call(cmd.Context(), http.MethodDelete, "/v1/topics/"+url.PathEscape(args[0]), nil, nil, &t); err != nil {
				return err
			}
			return e.print(t, func(w io.Writer) {
				fmt.Fprintf(w, "topic %s: deleted with %s messages (%s)\n", t.Name, count(t.Messages), size(t.Bytes))
			})
		},
	}
}

func topicsRead(e *env) *cobra.Command {
	var follow bool
	var from uint64
	var since string
	var limit int
	cmd := &cobra.Command{
		Use: "read NAME", Short: "Print what a topic holds, or follow it", Args: cobra.ExactArgs(1),
		Long: `Print stored events, partition by partition, a line each: partition/sequence, time,
key and value. With --json, one JSON object a line, as 'leat topics publish' and
POST /v1/topics/{name}/messages take them.`,
		Example: `  leat topics read flights.delay-scores --limit 5
  leat topics read flights.delay-scores --follow --since 0s
  leat topics read flights.departures --since 2h --json > events.ndjson`,
		ValidArgsFunction: e.completeTopics,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if from > 0 {
				q.Set("from", strconv.FormatUint(from, 10))
			}
			if err := setTime(q, "since", since); err != nil {
				return err
			}
			if limit < 0 {
				return fmt.Errorf("--limit %d: want 0 for all, or more", limit)
			}
			if limit > 0 {
				q.Set("limit", strconv.Itoa(limit))
			}
			if follow {
				q.Set("follow", "true")
			}
			return e.stream(cmd.Context(), "/v1/topics/"+url.PathEscape(args[0])+"/messages", q, func(line []byte) error {
				var l connectors.TopicLine
				if err := json.Unmarshal(line, &l); err != nil {
					return err
				}
				value := string(l.Value)
				if l.Value == nil {
					value = fmt.Sprintf("(%d bytes)", len(l.Payload))
				}
				_, err := fmt.Fprintf(e.out, "%d/%d  %s  %s  %s\n", l.Partition, l.Sequence, l.Time.Local().Format("2006-01-02 15:04:05.000"), orDash(l.Key), value)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&follow, "follow", false, "go on with new events until Ctrl-C")
	f.Uint64Var(&from, "from", 0, "first sequence, in every partition")
	f.StringVar(&since, "since", "", "first time: RFC 3339, or so long ago, such as 2h")
	f.IntVar(&limit, "limit", 0, "events at most (default: all)")
	return cmd
}

// setTime sets a query's time from a flag: RFC 3339, or a duration, which means so long ago.
func setTime(q url.Values, flag, s string) error {
	if s == "" {
		return nil
	}
	t, err := parseTime(s, time.Now())
	if err != nil {
		return fmt.Errorf("--%s %w", flag, err)
	}
	q.Set(flag, t.UTC().Format(time.RFC3339Nano))
	return nil
}

// parseTime reads RFC 3339, a date, or a duration before now; days are written 3d.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		return t, nil
	}
	text := s
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil {
			text = strconv.FormatFloat(24*n, 'f', -1, 64) + "h"
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, errors.New(strconv.Quote(s) + ": want a time such as 2026-05-01T00:00:00Z or 2026-05-01, or so long ago, such as 90m or 7d")
	}
	return now.Add(-d), nil
}

// completeTopics offers the names of topics to the shell.
func (e *env) completeTopics(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	c, err := e.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var l connectors.TopicsReply
	if err := c.call(cmd.Context(), http.MethodGet, "/v1/topics", nil, nil, &l); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, t := range l.Topics {
		names = append(names, t.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
