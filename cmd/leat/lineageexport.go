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

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/leatstream/leat/lineage"
)

func lineageExport(e *env) *cobra.Command {
	var f lineageFilter
	var format, with string
	var overwrite bool
	cmd := &cobra.Command{
		Use: "export FILE", Short: "Export records to a Parquet or NDJSON file", Args: cobra.ExactArgs(1),
		Long: `Export records to FILE.parquet or FILE.ndjson. The file appears under its name when
it is whole and on disk. - writes to standard output.

An export to a file that is filtered by nothing but time is noted: what it covers
may then be deleted with 'leat lineage prune'. It holds all feedback of that time
too, in rows of its own (Parquet: column said; NDJSON: lines with feedback_id).
--with feedback adds to each record what counts of it.`,
		Example: `  leat lineage export records.parquet
  leat lineage export errors.ndjson --status error --since 24h
  leat lineage export labelled.parquet --pipeline flight-delay --with feedback
  leat lineage export - --format ndjson --pipeline flight-delay | head`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.query()
			if err != nil {
				return err
			}
			if err := exportFormat(q, args[0], format); err != nil {
				return err
			}
			if with != "" {
				q.Set("with", with)
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			if args[0] == "-" {
				_, err := c.download(cmd.Context(), q, e.out)
				return failed(err)
			}
			if _, err := os.Lstat(args[0]); err == nil && !overwrite {
				return failed(fmt.Errorf("%s exists: choose another name, or --overwrite", args[0]))
			}
			return failed(e.export(cmd.Context(), c, q, args[0]))
		},
	}
	f.flags(e, cmd)
	cmd.Flags().StringVar(&format, "format", "", "parquet or ndjson (default: by the file's ending)")
	withFlag(cmd, &with)
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace the file if it exists")
	return cmd
}

// exportFormat settles the format by flag or by the file's ending.
func exportFormat(q url.Values, path, format string) error {
	if format == "" {
		format = map[string]string{".parquet": lineage.FormatParquet, ".pq": lineage.FormatParquet, ".ndjson": lineage.FormatNDJSON, ".jsonl": lineage.FormatNDJSON}[strings.ToLower(filepath.Ext(path))]
	}
	if format != lineage.FormatParquet && format != lineage.FormatNDJSON {
		return fmt.Errorf("%s: want a file that ends in .parquet or .ndjson, or --format parquet or ndjson", path)
	}
	q.Set("format", format)
	return nil
}

// download writes an export to w.
func (c *client) download(ctx context.Context, q url.Values, w io.Writer) (int64, error) {
	r, err := c.send(ctx, http.MethodGet, "/v1/lineage/export", q, nil, nil)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	n, err := io.Copy(w, r.Body)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("after %s: %w", size(uint64(n)), err)
	}
	return n, err
}

// exported is what leat lineage export prints.
type exported struct {
	File     string         `json:"file"`
	Bytes    int64          `json:"bytes"`
	Prunable lineage.Ranges `json:"prunable,omitempty"` // what may be pruned now
}

// export writes the file whole or not at all, and then tells the server that it is safe.
func (e *env) export(ctx context.Context, c *client, q url.Values, path string) error {
	id := ulid.Make().String()
	q.Set("id", id)
	out := exported{File: path}
	err := lineage.WriteFile(path, func(w io.Writer) (err error) {
		if isTerminal(e.err) {
			b := newBytesBar(e.err, "exported")
			defer b.end()
			w = io.MultiWriter(w, b.p)
		}
		out.Bytes, err = c.download(ctx, q, w)
		return err
	})
	if err != nil {
		return err
	}
	note := "filtered by more than time: nothing of it may be pruned"
	if !filtered(q) {
		var r lineage.ConfirmReply
		if err := c.call(ctx, http.MethodPost, "/v1/lineage/confirm", nil, map[string]string{"id": id}, &r); err != nil {
			return fmt.Errorf("%s is whole, but the server does not know that: prune will ask for another export: %w", path, err)
		}
		out.Prunable, note = r.Ranges, "what it covers may be pruned: leat lineage prune --before TIME"
	}
	return e.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s; %s\n", path, size(uint64(out.Bytes)), note)
	})
}

// filtered reports whether a query leaves records out by more than their time.
func filtered(q url.Values) bool {
	for _, k := range []string{"pipeline", "model", "status", "role"} {
		if q.Has(k) {
			return true
		}
	}
	return q.Has("run") && q.Get("run") != lineage.RunNone
}

func lineageStatus(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say how full the lineage is and what of it is exported", Args: cobra.NoArgs, Example: "  leat lineage status",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var r lineage.StatusReply
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/lineage/status", nil, nil, &r); err != nil {
				return err
			}
			return e.print(r, func(w io.Writer) {
				var rows [][]string
				for _, l := range r.Logs {
					done := "-"
					if x := l.Exported; x != nil {
						done = fmt.Sprintf("%d to %d, %s", x.From, x.Through, ago(x.Time))
					}
					room := "-"
					if l.MaxBytes > 0 {
						room = fmt.Sprintf("%.1f%% of %s", 100*l.Fill, size(l.MaxBytes))
					}
					rows = append(rows, []string{l.Log, count(l.Messages), fmt.Sprintf("%d to %d", l.First, l.Last), size(l.Bytes), room, done})
				}
				table(w, []string{"LOG", "MESSAGES", "SEQUENCES", "SIZE", "FULL", "EXPORTED"}, rows)
			})
		},
	}
}

func lineagePrune(e *env) *cobra.Command {
	var before string
	cmd := &cobra.Command{
		Use: "prune --before TIME", Short: "Delete old records that were exported", Args: cobra.NoArgs,
		Long: `Delete records that were made before a time. What was not exported is never
deleted: the command is refused and names the export to run first.`,
		Example: "  leat lineage export records.parquet && leat lineage prune --before 30d",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if before == "" {
				return errors.New("--before is needed: a time, or so long ago, such as 30d")
			}
			t, err := parseTime(before, time.Now())
			if err != nil {
				return fmt.Errorf("--before %w", err)
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			var r lineage.PruneReply
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/lineage/prune", nil, map[string]any{"before": t.UTC()}, &r); err != nil {
				return err
			}
			return e.print(r, func(w io.Writer) {
				for _, p := range r.Logs {
					fmt.Fprintf(w, "%s: %s messages deleted, %s freed; it begins at sequence %d\n", p.Log, count(p.Messages), size(p.Bytes), p.Before)
				}
			})
		},
	}
	cmd.Flags().StringVar(&before, "before", "", "RFC 3339, a date, or so long ago, such as 30d")
	return cmd
}
