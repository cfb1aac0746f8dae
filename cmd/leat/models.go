package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/pipeline/control"
	"github.com/leatstream/leat/schemas"
)

func modelsCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "models",
		Short: "Push, list, promote and delete models",
		Long: `Models have immutable versions, counted from 1 and named by digest. Aliases point
at versions; the alias champion is what a bare name means. Pushing the first
version of a model makes a pipeline of its name, so that it can be called at once.`,
	}
	cmd.AddCommand(modelsPush(e), modelsList(e), modelsShow(e), modelsMove(e), modelsDemote(e), modelsAlias(e), modelsDelete(e), modelsHistory(e))
	return cmd
}

func modelsPush(e *env) *cobra.Command {
	var name, description, runtime string
	var labels []string
	cmd := &cobra.Command{
		Use:   "push PATH",
		Short: "Store a model's next version: a folder with model.yaml, or one file",
		Example: `  leat models push examples/flights/flight-delay
  leat models push model.onnx --name churn --label team=growth`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			q := url.Values{}
			for k, v := range map[string]string{"name": name, "description": description, "runtime": runtime} {
				if v != "" {
					q.Set(k, v)
				}
			}
			q["label"] = labels
			info, err := os.Stat(args[0])
			if err != nil {
				return failed(err)
			}
			r, w := io.Pipe()
			go func() { w.CloseWithError(tarPath(w, args[0], info)) }()
			if !info.IsDir() {
				q.Set("file", filepath.Base(args[0]))
				if name == "" {
					q.Set("name", modelName(args[0]))
				}
			}
			resp, err := c.send(cmd.Context(), http.MethodPost, "/v1/models", q, http.Header{"Content-Type": {"application/x-tar"}}, r)
			r.CloseWithError(errors.New("the server has answered"))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			var p control.PushReply
			if err := decode(resp.Body, &p); err != nil {
				return err
			}
			return e.print(p, func(w io.Writer) { printPush(w, &p) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "name of the model (default: of model.yaml, or of the file)")
	f.StringVar(&description, "description", "", "one line about it")
	f.StringVar(&runtime, "runtime", "", "runtime, if the file's ending does not tell")
	f.StringArrayVar(&labels, "label", nil, "KEY=VALUE, may be repeated")
	return cmd
}

func printPush(w io.Writer, p *control.PushReply) {
	v := p.Version
	if !p.Created {
		fmt.Fprintf(w, "%s@%d is the same, nothing was stored\n", v.Name, v.Version)
	} else {
		fmt.Fprintf(w, "%s@%d  %s  %s\n", v.Name, v.Version, v.Digest[:12], size(uint64(v.Size)))
	}
	fmt.Fprintf(w, "  takes  %s\n  gives  %s\n  bits   %s", v.Probed.Signature.Inputs, v.Probed.Signature.Outputs, v.Probed.Class)
	if v.Probed.Tolerance > 0 {
		fmt.Fprintf(w, " (relative difference up to %.2g)", v.Probed.Tolerance)
	}
	fmt.Fprintln(w)
	for _, n := range v.Probed.Notes {
		fmt.Fprintf(w, "  note   %s\n", n)
	}
	printChanges(w, p.Changes)
}

// printChanges lists what a change did, with its diffs.
func printChanges(w io.Writer, changes []control.Change) {
	for _, c := range changes {
		what := "pipeline " + c.Pipeline
		if c.Model != "" {
			what = "model " + c.Model
		}
		fmt.Fprintf(w, "%s: %s", what, c.Action)
		if c.Note != "" {
			fmt.Fprintf(w, " (%s)", c.Note)
		}
		fmt.Fprintln(w)
		if c.Action != control.Created { // a new one is new in every line
			fmt.Fprint(w, c.Diff)
		}
	}
}

// modelName makes a name of a file's: "Churn_v2.onnx" -> "churn-v2".
func modelName(path string) string {
	base := strings.ToLower(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '.' || r == ' ' {
			return '-'
		}
		return r
	}, base)
}

// tarPath writes a folder's regular files, or one file, as a tar.
func tarPath(w io.Writer, path string, info fs.FileInfo) error {
	t := tar.NewWriter(w)
	add := func(name, file string) error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		i, err := f.Stat()
		if err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: i.Size(), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err = io.Copy(t, f)
		return err
	}
	if !info.IsDir() {
		if err := add(filepath.Base(path), path); err != nil {
			return err
		}
		return t.Close()
	}
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(path, p)
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is not a regular file: a model package holds nothing else", p)
		}
		return add(filepath.ToSlash(rel), p)
	})
	if err != nil {
		return err
	}
	return t.Close()
}

func modelsList(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List models", Args: cobra.NoArgs, Example: "  leat models list\n  leat models list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var all control.ModelList
			for q := (url.Values{}); ; q.Set("cursor", all.Next) {
				var page control.ModelList
				if err := c.call(cmd.Context(), http.MethodGet, "/v1/models", q, nil, &page); err != nil {
					return err
				}
				all.Models, all.Next = append(all.Models, page.Models...), page.Next
				if page.Next == "" {
					break
				}
			}
			return e.print(all, func(w io.Writer) {
				var rows [][]string
				for _, m := range all.Models {
					rows = append(rows, []string{m.Name, at(m.Champion), at(m.Latest), strconv.Itoa(m.Versions), m.Runtime, size(uint64(m.Size)), ago(m.Created), m.Description})
				}
				table(w, []string{"MODEL", "CHAMPION", "LATEST", "VERSIONS", "RUNTIME", "SIZE", "PUSHED", "DESCRIPTION"}, rows)
			})
		},
	}
}

func at(v int) string {
	if v == 0 {
		return "-"
	}
	return "@" + strconv.Itoa(v)
}

func modelsShow(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME[@VERSION|@ALIAS]", Short: "Show a model's signature, versions and aliases", Args: cobra.ExactArgs(1),
		Example:           "  leat models show flight-delay\n  leat models show flight-delay@2 --json",
		ValidArgsFunction: e.completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var d control.ModelDetail
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/models/"+url.PathEscape(args[0]), nil, nil, &d); err != nil {
				return err
			}
			return e.print(d, func(w io.Writer) { e.printModel(w, &d) })
		},
	}
}

func (e *env) printModel(w io.Writer, d *control.ModelDetail) {
	fmt.Fprintln(w, e.bold(d.Name))
	if len(d.Pipelines) > 0 {
		fmt.Fprintf(w, "pipelines  %s\n", strings.Join(d.Pipelines, ", "))
	}
	for _, v := range d.Versions {
		fmt.Fprintf(w, "\n%s", e.bold(fmt.Sprintf("%s@%d", v.Name, v.Version.Version)))
		if len(v.Aliases) > 0 {
			fmt.Fprintf(w, "  (%s)", strings.Join(v.Aliases, ", "))
		}
		p := v.Probed
		fmt.Fprintf(w, "\n  pushed   %s\n  digest   %s\n  size     %s\n  runtime  %s\n", v.Created.Local().Format(timeLayout), v.Digest, size(uint64(v.Size)), p.Runtime)
		fmt.Fprintf(w, "  takes    %s\n  gives    %s\n  bits     %s", p.Signature.Inputs, p.Signature.Outputs, p.Class)
		if p.Tolerance > 0 {
			fmt.Fprintf(w, " (relative difference up to %.2g)", p.Tolerance)
		}
		fmt.Fprintln(w)
		for _, f := range p.Signature.Inputs.Fields() {
			if f.Features != nil {
				fmt.Fprintf(w, "  %s = %s\n", f.Name, strings.Join(f.Features, ", "))
			}
		}
		var keys []string
		for k, val := range v.Manifest.Labels {
			keys = append(keys, k+"="+val)
		}
		slices.Sort(keys)
		if len(keys) > 0 {
			fmt.Fprintf(w, "  labels   %s\n", strings.Join(keys, " "))
		}
		for _, n := range p.Notes {
			fmt.Fprintf(w, "  note     %s\n", n)
		}
	}
}

// versionOf reads NAME@VERSION.
func versionOf(s string) (string, int, error) {
	r, err := schemas.ParseModelRef(s)
	if err != nil {
		return "", 0, err
	}
	if r.Version == 0 {
		return "", 0, &exitError{exitUsage, fmt.Errorf("%q: want NAME@VERSION", s)}
	}
	return r.Name, r.Version, nil
}

// change posts what moves something and prints what it did.
func (e *env) change(ctx context.Context, method, path string, q url.Values, body any) error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	var r control.Result
	if err := c.call(ctx, method, path, q, body, &r); err != nil {
		return err
	}
	return e.print(r, func(w io.Writer) {
		printChanges(w, r.Changes)
		if r.DryRun {
			fmt.Fprintln(w, "dry run: nothing was changed")
		}
	})
}

func modelsMove(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "promote NAME@VERSION", Short: "Make a version the champion; demote undoes it", Args: cobra.ExactArgs(1),
		Example:           "  leat models promote flight-delay@2",
		ValidArgsFunction: e.completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, v, err := versionOf(args[0])
			if err != nil {
				return err
			}
			return e.change(cmd.Context(), http.MethodPost, "/v1/models/"+name+"/promote", nil, map[string]int{"version": v})
		},
	}
}

func modelsDemote(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "demote NAME", Short: "Go back to the champion before", Args: cobra.ExactArgs(1),
		Example:           "  leat models demote flight-delay",
		ValidArgsFunction: e.completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.change(cmd.Context(), http.MethodPost, "/v1/models/"+url.PathEscape(args[0])+"/demote", nil, nil)
		},
	}
}

func modelsAlias(e *env) *cobra.Command {
	var remove bool
	cmd := &cobra.Command{
		Use: "alias NAME@VERSION ALIAS", Short: "Point an alias at a version, or delete it", Args: cobra.ExactArgs(2),
		Example:           "  leat models alias flight-delay@2 challenger\n  leat models alias flight-delay challenger --delete",
		ValidArgsFunction: e.completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			if remove {
				return e.change(cmd.Context(), http.MethodDelete, "/v1/models/"+url.PathEscape(args[0])+"/aliases/"+url.PathEscape(args[1]), nil, nil)
			}
			name, v, err := versionOf(args[0])
			if err != nil {
				return err
			}
			return e.change(cmd.Context(), http.MethodPut, "/v1/models/"+name+"/aliases/"+url.PathEscape(args[1]), nil, map[string]int{"version": v})
		},
	}
	cmd.Flags().BoolVar(&remove, "delete", false, "delete the alias of the model NAME")
	return cmd
}

func modelsDelete(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME[@VERSION]", Short: "Delete a version, or a model, that nothing refers to", Args: cobra.ExactArgs(1),
		Example:           "  leat models delete flight-delay@1\n  leat models delete flight-delay",
		ValidArgsFunction: e.completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version, has := strings.Cut(args[0], "@")
			q := url.Values{}
			if has {
				q.Set("version", version)
			}
			return e.change(cmd.Context(), http.MethodDelete, "/v1/models/"+url.PathEscape(name), q, nil)
		},
	}
}

func modelsHistory(e *env) *cobra.Command {
	return historyCommand(e, "models", "flight-delay", "What happened to a model's aliases and versions")
}

// historyCommand shows the history of a model or of a pipeline.
func historyCommand(e *env, what, example, short string) *cobra.Command {
	return &cobra.Command{
		Use: "history NAME", Short: short, Args: cobra.ExactArgs(1),
		Example: "  leat " + what + " history " + example,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var h control.HistoryReply
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/"+what+"/"+url.PathEscape(args[0])+"/history", nil, nil, &h); err != nil {
				return err
			}
			return e.print(h, func(w io.Writer) {
				for _, x := range h.Entries {
					fmt.Fprintf(w, "%s  #%d  %s: %s", x.Time.Local().Format(timeLayout), x.Epoch, x.Cause, x.Action)
					for _, m := range x.Models {
						fmt.Fprintf(w, "  %s = %s@%d", m.Node, m.Name, m.Version)
					}
					fmt.Fprintln(w)
					fmt.Fprint(w, x.Diff)
				}
			})
		},
	}
}

// completeModels offers the names of models to the shell.
func (e *env) completeModels(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := e.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var l control.ModelList
	if err := c.call(cmd.Context(), http.MethodGet, "/v1/models", nil, nil, &l); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, m := range l.Models {
		names = append(names, m.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
