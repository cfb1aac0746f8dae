package control

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
	"github.com/leatstream/leat/scorers"
)

// Page bounds of lists.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// Page asks for part of a list.
type Page struct {
	Limit  int    `query:"limit" doc:"entries at most; 100 if absent, up to 1000"`
	Cursor string `query:"cursor" doc:"next of the page before"`
}

// limit checks and defaults.
func (p Page) limit(op string) (int, error) {
	if p.Limit < 0 || p.Limit > maxLimit {
		return 0, schemas.FieldErrorf(schemas.Invalid, op, "limit", "%d: want 1 to %d", p.Limit, maxLimit)
	}
	if p.Limit == 0 {
		return defaultLimit, nil
	}
	return p.Limit, nil
}

// page cuts what comes after the cursor out of sorted names.
func (p Page) page(op string, names []string) (part []string, next string, err error) {
	n, err := p.limit(op)
	if err != nil {
		return nil, "", err
	}
	i, found := slices.BinarySearch(names, p.Cursor)
	if found {
		i++
	}
	names = names[i:]
	if len(names) > n {
		return names[:n], names[n-1], nil
	}
	return names, "", nil
}

// ModelRow is a line of models.list.
type ModelRow struct {
	Name        string         `json:"name"`
	Versions    int            `json:"versions"`
	Latest      int            `json:"latest"`
	Champion    int            `json:"champion,omitempty"`
	Aliases     map[string]int `json:"aliases,omitempty"`
	Runtime     string         `json:"runtime"`     // of the latest, as are the next three
	Description string         `json:"description"` //
	Size        int64          `json:"size"`        // bytes
	Created     time.Time      `json:"created"`
}

// ModelList is the reply of models.list.
type ModelList struct {
	Models []ModelRow `json:"models"`
	Next   string     `json:"next,omitempty"` // cursor of the next page
}

// VersionRow is a version with the aliases that point at it.
type VersionRow struct {
	scorers.Version
	Aliases []string `json:"aliases,omitempty"`
}

// ModelDetail is the reply of models.show: versions newest first.
type ModelDetail struct {
	Name      string         `json:"name"`
	Aliases   map[string]int `json:"aliases,omitempty"`
	Previous  []int          `json:"previous,omitempty"`  // earlier champions, newest last
	Pipelines []string       `json:"pipelines,omitempty"` // that run one of its versions
	Versions  []VersionRow   `json:"versions"`
	Next      string         `json:"next,omitempty"`
}

// PushReply is the reply of models.push.
type PushReply struct {
	Version scorers.Version `json:"version"`
	Created bool            `json:"created"` // false: the same was there already
	Result
}

// PipelineRow is a line of pipelines.list.
type PipelineRow struct {
	Name        string    `json:"name"`
	Models      []string  `json:"models"` // NAME@VERSION, each once, in the order of the paths of the nodes
	Input       string    `json:"input,omitempty"`
	Output      string    `json:"output,omitempty"`
	Lineage     string    `json:"lineage"`
	Revision    string    `json:"revision"`
	Created     time.Time `json:"created"` // of the revision
	Cause       string    `json:"cause"`
	Description string    `json:"description,omitempty"`
}

// PipelineList is the reply of pipelines.list.
type PipelineList struct {
	Pipelines []PipelineRow `json:"pipelines"`
	Next      string        `json:"next,omitempty"`
}

// PipelineDetail is the reply of pipelines.show.
type PipelineDetail struct {
	pipeline.Revision
	YAML string `json:"yaml"` // the spec, and what its references mean as comments
}

// HistoryReply is the reply of the history operations, newest first.
type HistoryReply struct {
	Entries []Entry `json:"entries"`
	Next    string  `json:"next,omitempty"`
}

// ExplainReply is one explanation for each pipeline and revision.
type ExplainReply struct {
	Explanations []Explanation `json:"explanations"`
}

type (
	nameRequest struct {
		Name string `path:"name"`
	}
	modelRequest struct {
		Name string `path:"name" doc:"NAME, or NAME@VERSION or NAME@ALIAS for that version only"`
		Page
	}
	pushRequest struct {
		Name        string    `query:"name" doc:"name of the model, if the package does not say or to override it"`
		Label       []string  `query:"label" doc:"KEY=VALUE, repeated"`
		Description string    `query:"description"`
		Runtime     string    `query:"runtime" doc:"if the file's ending does not tell"`
		File        string    `query:"file" doc:"the model's file in the tar, or the name of a bare file; model.onnx if absent"`
		Body        io.Reader `body:"application/x-tar"`
	}
	deleteModelRequest struct {
		Name    string `path:"name"`
		Version int    `query:"version" doc:"only this version; absent: the model with all its versions"`
	}
	aliasRequest struct {
		Name    string `path:"name"`
		Alias   string `path:"alias"`
		Version int    `json:"version"`
	}
	deleteAliasRequest struct {
		Name  string `path:"name"`
		Alias string `path:"alias"`
	}
	promoteRequest struct {
		Name    string `path:"name"`
		Version int    `json:"version"`
	}
	applyRequest struct {
		Spec   string `json:"spec" doc:"one or several pipelines as YAML or JSON text"`
		DryRun bool   `json:"dry_run,omitempty" doc:"change nothing; reply with what would change"`
	}
	explainRequest struct {
		RequestID string `path:"request_id"`
	}
	canaryRequest struct {
		Name string `path:"name"`
		CanaryChange
	}
	historyRequest struct {
		Name string `path:"name"`
		Page
	}
	schemaRequest struct{}
)

// Operations lists what control can be asked.
func (c *Control) Operations() []api.Operation {
	return []api.Operation{
		api.Op("models.list", "GET", "/v1/models", api.Read, "List the models.", c.opModels),
		api.Op("models.show", "GET", "/v1/models/{name}", api.Read, "Show a model, its aliases and versions.", c.opModel),
		api.Op("models.push", "POST", "/v1/models", api.Admin, "Store a model's next version: a tar of its folder, or one bare file.", c.opPush),
		api.Op("models.delete", "DELETE", "/v1/models/{name}", api.Admin, "Delete a version or a whole model that nothing refers to.", c.opDeleteModel),
		api.Op("models.alias.set", "PUT", "/v1/models/{name}/aliases/{alias}", api.Admin, "Point an alias at a version.", c.opSetAlias),
		api.Op("models.alias.delete", "DELETE", "/v1/models/{name}/aliases/{alias}", api.Admin, "Delete an alias that no pipeline names.", c.opDeleteAlias),
		api.Op("models.promote", "POST", "/v1/models/{name}/promote", api.Admin, "Make a version the champion.", c.opPromote),
		api.Op("models.demote", "POST", "/v1/models/{name}/demote", api.Admin, "Go back to the champion before.", c.opDemote),
		api.Op("models.history", "GET", "/v1/models/{name}/history", api.Read, "What happened to a model's aliases and versions.", c.opModelHistory),
		api.Op("pipelines.list", "GET", "/v1/pipelines", api.Read, "List the pipelines.", c.opPipelines),
		api.Op("pipelines.show", "GET", "/v1/pipelines/{name}", api.Read, "Show a pipeline's active revision.", c.opPipeline),
		api.Op("pipelines.history", "GET", "/v1/pipelines/{name}/history", api.Read, "What happened to a pipeline, with diffs.", c.opPipelineHistory),
		api.Op("pipelines.apply", "POST", "/v1/pipelines", api.Admin, "Make pipelines what their specs say: all or none.", c.opApply),
		api.Op("pipelines.delete", "DELETE", "/v1/pipelines/{name}", api.Admin, "Delete a pipeline.", c.opDeletePipeline),
		api.Op("pipelines.canary", "POST", "/v1/pipelines/{name}/canary", api.Admin, "Start a canary, change its share, promote or abort it: one revision.", c.opCanary),
		api.Op("lineage.explain", "GET", "/v1/lineage/{request_id}/route", api.Read, "Derive again how the rows of a request found their way.", c.opExplain),
		api.Op("pipelines.schema", "GET", "/v1/schemas/pipeline", api.Read, "The JSON Schema of a pipeline's spec, for editors.", c.opSchema),
	}
}

func (c *Control) opModels(ctx context.Context, r *Page) (*ModelList, error) {
	names, err := c.reg.Names(ctx)
	if err != nil {
		return nil, err
	}
	out := &ModelList{Models: []ModelRow{}}
	if names, out.Next, err = r.page("models.list", names); err != nil {
		return nil, err
	}
	s, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		vs, err := c.reg.Versions(ctx, name)
		if err != nil {
			if schemas.KindOf(err) == schemas.NotFound { // deleted since
				continue
			}
			return nil, err
		}
		last := vs[len(vs)-1]
		a := s.aliases[name].clone()
		out.Models = append(out.Models, ModelRow{
			Name: name, Versions: len(vs), Latest: last.Version, Champion: a.Aliases[schemas.Champion], Aliases: a.Aliases,
			Runtime: last.Manifest.Runtime, Description: last.Manifest.Description, Size: last.Size, Created: last.Created,
		})
	}
	return out, nil
}

func (c *Control) opModel(ctx context.Context, r *modelRequest) (*ModelDetail, error) {
	const op = "models.show"
	ref, err := schemas.ParseModelRef(r.Name)
	if err != nil {
		return nil, err
	}
	vs, err := c.versions(ctx, ref.Name)
	if err != nil {
		return nil, err
	}
	s, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	if strings.Contains(r.Name, "@") {
		v, err := c.resolve(ctx, s, ref)
		if err != nil {
			return nil, err
		}
		vs = []scorers.Version{v}
	}
	a := s.aliases[ref.Name].clone()
	d := &ModelDetail{Name: ref.Name, Aliases: a.Aliases, Previous: a.Previous, Versions: []VersionRow{}}
	for _, name := range slices.Sorted(maps.Keys(s.pipelines)) {
		if slices.ContainsFunc(s.pipelines[name].Models, func(m pipeline.ResolvedModel) bool { return m.Name == ref.Name }) {
			d.Pipelines = append(d.Pipelines, name)
		}
	}
	n, err := r.limit(op)
	if err != nil {
		return nil, err
	}
	before, err := number(op, r.Cursor)
	if err != nil {
		return nil, err
	}
	for _, v := range slices.Backward(vs) {
		if before > 0 && uint64(v.Version) >= before {
			continue
		}
		if len(d.Versions) == n {
			d.Next = strconv.Itoa(d.Versions[n-1].Version.Version)
			break
		}
		row := VersionRow{Version: v}
		for _, alias := range slices.Sorted(maps.Keys(a.Aliases)) {
			if a.Aliases[alias] == v.Version {
				row.Aliases = append(row.Aliases, alias)
			}
		}
		d.Versions = append(d.Versions, row)
	}
	return d, nil
}

func number(op, cursor string) (uint64, error) {
	if cursor == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(cursor, 10, 64)
	if err != nil {
		return 0, schemas.FieldErrorf(schemas.Invalid, op, "cursor", "%.40q is not the next of a page", cursor)
	}
	return n, nil
}

func (c *Control) opPush(ctx context.Context, r *pushRequest) (*PushReply, error) {
	const op = "models.push"
	if r.Body == nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "no body; want a tar of the model's folder, or one model file")
	}
	flags := scorers.Manifest{Name: r.Name, Description: r.Description, Runtime: r.Runtime, File: r.File}
	for i, l := range r.Label {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "label["+strconv.Itoa(i)+"]", "%.80q: want KEY=VALUE", l)
		}
		if flags.Labels == nil {
			flags.Labels = map[string]string{}
		}
		flags.Labels[k] = v
	}
	v, created, res, err := c.Push(ctx, r.Body, flags)
	if err != nil {
		return nil, err
	}
	return &PushReply{Version: v, Created: created, Result: res}, nil
}

func (c *Control) opDeleteModel(ctx context.Context, r *deleteModelRequest) (*Result, error) {
	const op = "models.delete"
	name := r.Name
	if strings.Contains(name, "@") {
		ref, err := schemas.ParseModelRef(name)
		if err != nil {
			return nil, err
		}
		if ref.Version == 0 || r.Version != 0 && r.Version != ref.Version {
			return nil, schemas.FieldErrorf(schemas.Invalid, op, "name", "%.80q: want NAME@VERSION, or NAME for the whole model", name)
		}
		name, r.Version = ref.Name, ref.Version
	}
	if r.Version < 0 {
		return nil, schemas.FieldErrorf(schemas.Invalid, op, "version", "%d: versions count from 1", r.Version)
	}
	return result(c.DeleteModel(ctx, name, r.Version))
}

func result(r Result, err error) (*Result, error) {
	if err != nil {
		return nil, err
	}
	if r.Changes == nil {
		r.Changes = []Change{}
	}
	return &r, nil
}

func (c *Control) opSetAlias(ctx context.Context, r *aliasRequest) (*Result, error) {
	return result(c.SetAlias(ctx, r.Name, r.Alias, r.Version))
}

func (c *Control) opDeleteAlias(ctx context.Context, r *deleteAliasRequest) (*Result, error) {
	return result(c.DeleteAlias(ctx, r.Name, r.Alias))
}

func (c *Control) opPromote(ctx context.Context, r *promoteRequest) (*Result, error) {
	if r.Version < 1 {
		return nil, schemas.FieldErrorf(schemas.Invalid, "models.promote", "version", "%d: want the number of a version, from 1", r.Version)
	}
	return result(c.Promote(ctx, r.Name, r.Version))
}

func (c *Control) opDemote(ctx context.Context, r *nameRequest) (*Result, error) {
	return result(c.Demote(ctx, r.Name))
}

func (c *Control) opModelHistory(ctx context.Context, r *historyRequest) (*HistoryReply, error) {
	return c.history(ctx, "models.history", "", r.Name, r.Page)
}

func (c *Control) opPipelineHistory(ctx context.Context, r *historyRequest) (*HistoryReply, error) {
	return c.history(ctx, "pipelines.history", r.Name, "", r.Page)
}

func (c *Control) history(ctx context.Context, op, pipe, model string, p Page) (*HistoryReply, error) {
	if err := schemas.CheckName(strings.TrimSuffix(op, "s.history"), pipe+model); err != nil {
		return nil, err
	}
	n, err := p.limit(op)
	if err != nil {
		return nil, err
	}
	before, err := number(op, p.Cursor)
	if err != nil {
		return nil, err
	}
	es, err := c.History(ctx, pipe, model, n+1, before)
	if err != nil {
		return nil, err
	}
	if len(es) == 0 && before == 0 {
		if pipe != "" {
			_, err = c.Pipeline(ctx, pipe)
		} else {
			_, err = c.versions(ctx, model)
		}
		if err != nil {
			return nil, err
		}
	}
	out := &HistoryReply{Entries: append([]Entry{}, es...)}
	if len(es) > n {
		out.Entries = out.Entries[:n]
		out.Next = strconv.FormatUint(es[n-1].Epoch, 10)
	}
	return out, nil
}

func (c *Control) opPipelines(ctx context.Context, r *Page) (*PipelineList, error) {
	s, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	out := &PipelineList{Pipelines: []PipelineRow{}}
	names, next, err := r.page("pipelines.list", slices.Sorted(maps.Keys(s.pipelines)))
	if err != nil {
		return nil, err
	}
	out.Next = next
	for _, name := range names {
		rev := s.pipelines[name]
		row := PipelineRow{
			Name: name, Lineage: string(rev.Spec.Lineage), Revision: rev.Revision, Created: rev.Created, Cause: rev.Cause,
			Description: rev.Spec.Description, Models: []string{},
		}
		for _, m := range rev.Models {
			if ref := (schemas.ModelRef{Name: m.Name, Version: m.Version}).String(); !slices.Contains(row.Models, ref) {
				row.Models = append(row.Models, ref)
			}
		}
		if in := rev.Spec.Input; in != nil && in.Topic != "" {
			row.Input = in.Topic
		} else if in != nil {
			row.Input = in.Stream + "/" + in.Subject
		}
		if rev.Spec.Output != nil {
			row.Output = rev.Spec.Output.Topic
		}
		out.Pipelines = append(out.Pipelines, row)
	}
	return out, nil
}

func (c *Control) opPipeline(ctx context.Context, r *nameRequest) (*PipelineDetail, error) {
	rev, err := c.Pipeline(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	text, err := Text(&rev)
	return &PipelineDetail{Revision: rev, YAML: text}, err
}

func (c *Control) opApply(ctx context.Context, r *applyRequest) (*Result, error) {
	specs, err := pipeline.ParseSpec([]byte(r.Spec))
	if err != nil {
		return nil, err
	}
	return result(c.Apply(ctx, specs, r.DryRun))
}

func (c *Control) opExplain(ctx context.Context, r *explainRequest) (*ExplainReply, error) {
	xs, err := c.Explain(ctx, r.RequestID)
	return &ExplainReply{Explanations: xs}, err
}

func (c *Control) opCanary(ctx context.Context, r *canaryRequest) (*Result, error) {
	return result(c.Canary(ctx, r.Name, r.CanaryChange))
}

func (c *Control) opDeletePipeline(ctx context.Context, r *nameRequest) (*Result, error) {
	return result(c.DeletePipeline(ctx, r.Name))
}

func (c *Control) opSchema(context.Context, *schemaRequest) (*map[string]any, error) {
	var m map[string]any
	if err := json.Unmarshal(pipeline.JSONSchema(), &m); err != nil {
		return nil, schemas.Errorf(schemas.Internal, "pipelines.schema", "%w", err)
	}
	return &m, nil
}
