package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/leatstream/leat/connectors/files"
	"github.com/leatstream/leat/connectors/gateway"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/bulk"
	"github.com/leatstream/leat/schemas"
)

// Model describes a pipeline as the Open Inference Protocol does: its name, the versions of its model, its signature.
func (a *app) Model(ctx context.Context, name, version string) (gateway.Metadata, error) {
	rev, err := a.control.Pipeline(ctx, name)
	if err != nil {
		return gateway.Metadata{}, err
	}
	m := rev.Models[0]
	md := gateway.Metadata{Name: name, Platform: "onnxruntime_onnx", Signature: rev.Signature}
	vs, err := a.registry.Versions(ctx, m.Name)
	if err != nil {
		return md, err
	}
	found := version == ""
	for _, v := range vs {
		s := strconv.Itoa(v.Version)
		md.Versions = append(md.Versions, s)
		if s == version {
			found = true
			md.Signature = v.Probed.Signature
		}
	}
	if !found {
		return md, schemas.Errorf(schemas.NotFound, "models", "model %s has no version %s", m.Name, version)
	}
	state, ok := a.host.State(name)
	md.Ready = ok && state.Ready
	return md, nil
}

// describe returns a schema as a model's signature knows it, with the names of packed tensors' features.
func (a *app) describe(id schemas.SchemaID) *schemas.Schema {
	return a.host.Describe(id)
}

// lineageFill is how full the stream of jobs' records is.
func (a *app) lineageFill(ctx context.Context) (float64, error) {
	logs, err := a.keeper.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, l := range logs {
		if l.Log == lineage.LogJobs {
			return l.Fill, nil
		}
	}
	return 0, nil
}

// jobUses tells control which jobs refer to a pipeline or to a version of a model.
func (a *app) jobUses(ctx context.Context, name, model string, version int) ([]string, error) {
	if a.jobs == nil {
		return nil, nil
	}
	return a.jobs.Uses(ctx, name, model, version)
}

// topicUses tells who reads or writes a topic: pipelines, and jobs that have not ended.
func (a *app) topicUses(ctx context.Context, topic string) ([]string, error) {
	revs, err := a.control.Pipelines(ctx)
	if err != nil {
		return nil, err
	}
	var by []string
	for i := range revs {
		s := &revs[i].Spec
		if s.Input != nil && a.topics.same(s.Input.Topic, topic) || s.Output != nil && a.topics.same(s.Output.Topic, topic) {
			by = append(by, "pipeline "+s.Name)
		}
	}
	jobs, err := a.jobs.List(ctx, &bulk.ListRequest{})
	if err != nil {
		return nil, err
	}
	for i := range jobs.Jobs {
		j := &jobs.Jobs[i]
		from, _, _ := strings.Cut(j.From, "@")
		uses := func(place string) bool {
			name, ok := strings.CutPrefix(place, "topic:")
			return ok && a.topics.same(name, topic)
		}
		if !j.Final() && (uses(from) || uses(j.To)) {
			by = append(by, "job "+j.ID)
		}
	}
	return by, nil
}

// jobFiles gives jobs the files of this machine.
type jobFiles struct{}

func (jobFiles) Open(ctx context.Context, path string, o bulk.FileOptions) (bulk.FileReader, error) {
	fo := files.Options{Columns: o.Columns, BatchRows: o.BatchRows, FromRow: o.FromRow, Want: o.Want}
	if o.OnRowError != nil {
		fo.OnRowError = func(e files.RowError) error { return o.OnRowError(e.Row, e.Err) }
	}
	return files.Open(ctx, path, fo)
}

func (jobFiles) Create(path string, s *arrow.Schema) (bulk.FileWriter, error) {
	if err := files.RemoveLeftovers(path); err != nil { // one job writes a file: what else lies there is of a dead process
		return nil, err
	}
	w, err := files.Create(path, s, files.WriterOptions{Overwrite: true})
	if err != nil {
		return nil, err // not a *files.Writer that is nil
	}
	return w, nil
}

func (jobFiles) CheckFormat(path string) error {
	_, err := files.FormatOf(path)
	return err
}
