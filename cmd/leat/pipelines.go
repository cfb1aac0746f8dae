package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/control"
)

func pipelinesCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pipelines",
		Short: "List, show and delete pipelines",
		Long: `A pipeline is what callers address: a name, a signature and a route over models.
'leat apply' makes pipelines; pushing a model makes one of its name.`,
	}
	cmd.AddCommand(pipelinesList(e), pipelinesShow(e), pipelinesDelete(e), pipelinesSchema(e),
		historyCommand(e, "pipelines", "flight-delay", "What happened to a pipeline, with diffs"))
	return cmd
}

func pipelinesList(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List pipelines", Args: cobra.NoArgs, Example: "  leat pipelines list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var all control.PipelineList
			for q := (url.Values{}); ; q.Set("cursor", all.Next) {
				var page control.PipelineList
				if err := c.call(cmd.Context(), http.MethodGet, "/v1/pipelines", q, nil, &page); err != nil {
					return err
				}
				all.Pipelines, all.Next = append(all.Pipelines, page.Pipelines...), page.Next
				if page.Next == "" {
					break
				}
			}
			return e.print(all, func(w io.Writer) {
				var rows [][]string
				for _, p := range all.Pipelines {
					way := "-"
					if p.Input != "" {
						way = p.Input + " -> " + p.Output
					}
					rows = append(rows, []string{p.Name, strings.Join(p.Models, " "), way, p.Lineage, p.Revision[:12], ago(p.Created), p.Cause})
				}
				table(w, []string{"PIPELINE", "MODELS", "TOPICS", "LINEAGE", "REVISION", "SINCE", "CAUSE"}, rows)
			})
		},
	}
}

// shown is a pipeline, and what comes by its nodes, if the process that answers serves it.
type shown struct {
	control.PipelineDetail
	Live    *pipeline.RouteStats   `json:"live,omitempty"`
	Bandits *pipeline.BanditStatus `json:"bandits,omitempty"`
}

func pipelinesShow(e *env) *cobra.Command {
	var dot, mermaid, live bool
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show a pipeline's spec, signature, route and what its references mean now", Args: cobra.ExactArgs(1),
		Long: `Print the pipeline as a file that leat apply takes: its spec with defaults filled in,
and as comments what its references mean now, the columns of requests and answers,
and the route drawn as a tree, with what came by each node within the last minute (or,
if nothing did, since the start) in the process that answers: rows a second, the share
of the rows of the node above, the time of a batch at the node and below it, and rows
without an answer from it.

--dot and --mermaid write the route alone, for Graphviz and for Mermaid; with --live
they have shares and rates too.`,
		Example: `  leat pipelines show flight-delay
  leat pipelines show flight-delay > p.yaml   # edit, then leat apply p.yaml
  leat pipelines show flights-cascade --dot --live | dot -Tsvg > route.svg`,
		ValidArgsFunction: e.completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			if e.json && (dot || mermaid) {
				return &exitError{exitUsage, errors.New("--json shows the whole pipeline, --dot and --mermaid draw its route: give one of them")}
			}
			if live && !dot && !mermaid {
				return &exitError{exitUsage, errors.New("--live is for --dot and --mermaid; without them it is shown anyway")}
			}
			c, err := e.dial()
			if err != nil {
				return err
			}
			var d shown
			path := "/v1/pipelines/" + url.PathEscape(args[0])
			if err := c.call(cmd.Context(), http.MethodGet, path, nil, nil, &d.PipelineDetail); err != nil {
				return err
			}
			var notLive error
			if drawing := dot || mermaid; live || !drawing {
				d.Live = &pipeline.RouteStats{}
				if notLive = c.call(cmd.Context(), http.MethodGet, path+"/stats", nil, nil, d.Live); notLive != nil {
					d.Live = nil
				}
				if drawing && notLive != nil {
					return notLive
				}
			}
			if notLive == nil && !dot && !mermaid && hasBandit(&d.Spec) {
				d.Bandits = &pipeline.BanditStatus{}
				if err := c.call(cmd.Context(), http.MethodGet, path+"/bandits", nil, nil, d.Bandits); err != nil {
					return err
				}
			}
			if dot || mermaid {
				draw := pipeline.DrawDot
				if mermaid {
					draw = pipeline.DrawMermaid
				}
				text := draw(&d.Revision, d.Live)
				if text == "" {
					return failed(fmt.Errorf("pipeline %s has nothing to draw: its route is one model, %s", d.Spec.Name, d.Spec.Route.Model))
				}
				_, err := io.WriteString(e.out, text)
				return failed(err)
			}
			return e.print(d, func(w io.Writer) {
				fmt.Fprint(w, d.YAML)
				fmt.Fprintf(w, "# takes %s\n# gives %s\n", d.Signature.Inputs, d.Signature.Outputs)
				if d.Bandits != nil {
					fmt.Fprintf(w, "# bandits: %s (leat bandit show %s)\n", learntUpTo(d.Bandits), d.Spec.Name)
				}
				if tree := pipeline.Draw(&d.Revision, d.Live); tree != "" {
					fmt.Fprintf(w, "#\n# %s\n", strings.ReplaceAll(strings.TrimSuffix(tree, "\n"), "\n", "\n# "))
				}
				switch {
				case notLive != nil:
					fmt.Fprintf(w, "# no figures: %v\n", notLive)
				case d.Live.Idle():
					fmt.Fprintf(w, "# since %s, in process %s; nothing came within the last minute\n", d.Live.Since.Local().Format(time.DateTime), d.Live.Process)
				default:
					fmt.Fprintf(w, "# the last %.0f s, in process %s\n", math.Ceil(d.Live.Window), d.Live.Process)
				}
				if d.Live != nil {
					for line := range strings.Lines(d.Live.Savings(&d.Revision)) {
						fmt.Fprint(w, "# ", line)
					}
				}
			})
		},
	}
	cmd.Flags().BoolVar(&dot, "dot", false, "write the route for Graphviz")
	cmd.Flags().BoolVar(&mermaid, "mermaid", false, "write the route for Mermaid")
	cmd.Flags().BoolVar(&live, "live", false, "with --dot or --mermaid: write what comes by, too")
	cmd.MarkFlagsMutuallyExclusive("dot", "mermaid")
	return cmd
}

// hasBandit reports whether a route has a bandit anywhere.
func hasBandit(s *pipeline.Spec) (has bool) {
	s.Route.Walk(pipeline.RootPath, pipeline.RootPath, func(_, _ string, n *pipeline.Node) { has = has || n.Bandit != nil })
	return has
}

func pipelinesDelete(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a pipeline; its records stay", Args: cobra.ExactArgs(1),
		Example:           "  leat pipelines delete flight-late",
		ValidArgsFunction: e.completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.change(cmd.Context(), http.MethodDelete, "/v1/pipelines/"+url.PathEscape(args[0]), nil, nil)
		},
	}
}

func pipelinesSchema(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of a pipeline's file, for editors", Args: cobra.NoArgs,
		Example: "  leat pipelines schema > pipeline.schema.json",
		RunE: func(*cobra.Command, []string) error {
			_, err := e.out.Write(pipeline.JSONSchema())
			return failed(err)
		},
	}
}

func applyCommand(e *env) *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "apply FILE...",
		Short: "Make pipelines what their files say: all of them or none",
		Long: `Apply one or several pipelines, from YAML or JSON files; a file may hold several
documents, and - is standard input. Every fault is reported with its line, its
path and what would be right. Nothing is half applied.`,
		Example: `  leat apply pipeline.yaml
  leat apply pipeline.yaml --dry-run          # what would change, as a diff
  cat *.yaml | leat apply -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var docs []string
			for _, path := range args {
				b, err := e.readAll(path)
				if err != nil {
					return failed(err)
				}
				docs = append(docs, string(b))
			}
			spec := docs[0]
			if len(docs) > 1 {
				spec = strings.Join(docs, "\n---\n")
			}
			if _, err := pipeline.ParseSpec([]byte(spec)); err != nil {
				return failed(err) // told without a server
			}
			return e.change(cmd.Context(), http.MethodPost, "/v1/pipelines", nil, map[string]any{"spec": spec, "dry_run": dry})
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "change nothing; print what would change")
	return cmd
}

// readAll reads a file, or standard input for "-".
func (e *env) readAll(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(e.in)
	}
	return os.ReadFile(path)
}

// completePipelines offers the names of pipelines to the shell.
func (e *env) completePipelines(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	c, err := e.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var l control.PipelineList
	if err := c.call(cmd.Context(), http.MethodGet, "/v1/pipelines", nil, nil, &l); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, p := range l.Pipelines {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
