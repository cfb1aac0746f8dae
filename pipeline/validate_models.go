package pipeline

import (
	"cmp"
	"context"
	"slices"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/schemas/document"
)

// Resolve validates the spec, finds the version of every model that it names and the pipeline's signature, and checks
// the spec against it and against what the server has. The models come sorted by node path. Everything wrong comes in
// one Invalid error; an error of the resolver other than NotFound is returned as it is.
func (s *Spec) Resolve(ctx context.Context, r Resolver, f Facts) ([]ResolvedModel, schemas.Signature, error) {
	const op = "pipeline.Spec.Resolve"
	var sig schemas.Signature
	if err := s.Validate(); err != nil {
		return nil, sig, err
	}
	c := &checker{text: s.text}
	c.server(s, f)
	refs, where := s.Refs(), map[string]string{}
	s.Walk(func(path, at string, _ *Node) { where[path] = at })
	sigs := map[string]schemas.Signature{}
	models := make([]ResolvedModel, 0, len(refs))
	for _, path := range sortedKeys(refs) {
		ref, err := schemas.ParseModelRef(refs[path])
		if err != nil { // Validate let it pass
			return nil, sig, err
		}
		v, err := r.Resolve(ctx, ref)
		if schemas.KindOf(err) == schemas.NotFound && err != nil {
			known, kerr := r.Known(ctx, ref.Name)
			if kerr != nil {
				return nil, sig, kerr
			}
			c.fault(document.Join(where[path], "model"), "no model %s%s", ref, document.Meant(ref.String(), known))
			continue
		}
		if err != nil {
			return nil, sig, err
		}
		models = append(models, ResolvedModel{Node: path, Ref: ref.String(), Name: v.Name, Version: v.Version, Digest: v.Digest})
		sigs[path] = v.Probed.Signature
	}
	var kept []*schemas.Schema // what is recorded of requests
	switch only, one := sigs[RootPath]; {
	case one && s.Route.Model != "" && len(s.Shadows) == 0 && !s.entityBeside(only.Inputs):
		sig = only
	case one || s.Route.Model == "":
		if g := buildGraph(c, s, sigs); g != nil {
			sig = schemas.Signature{Inputs: g.in, Outputs: g.out}
			c.shadowGraphs(s, sigs, g.in)
			for _, l := range g.lookups {
				kept = append(kept, l.recorded.out)
			}
		}
	}
	if len(ofRoute(models)) == 0 && len(c.faults) == 0 {
		c.fault(RootPath, "runs no model; a pipeline has at least one")
	}
	c.unread(s, sig)
	c.entity(s, sig)
	if sig.Inputs != nil && s.Input != nil {
		if in, err := codec.ParseInput(s.Input.Format, s.Input.Columns); err == nil {
			if err := in.Check(sig.Inputs); err != nil {
				e := schemas.AsError("", err)
				c.fault(cmp.Or(e.Field, "input.columns"), "%v", e.Err)
			}
		}
	}
	if sig.Inputs != nil && sig.Outputs != nil && s.Record != nil {
		kept = append(kept, sig.Inputs, sig.Outputs)
		c.columns("record.mask", s.Record.Mask, kept)
		c.columns("record.drop", s.Record.Drop, kept)
		if len(c.faults) == 0 {
			_, err := lineage.NewPolicy(s.Record.Mask, s.Record.Drop, kept...)
			c.err("record", err)
		}
	}
	return models, sig, c.faults.Err(op)
}

// unread checks that every column that the spec declares is read.
func (c *checker) unread(s *Spec, sig schemas.Signature) {
	if sig.Inputs == nil {
		return
	}
	for _, name := range sortedKeys(s.Columns) {
		if sig.Inputs.Index(name) < 0 {
			c.fault(document.Join("columns", name), "no node reads it; leave it out")
		}
	}
}

// columns checks that each name is a column of what is recorded, or an element of a packed tensor that names its elements.
func (c *checker) columns(path string, cols []string, kept []*schemas.Schema) {
	var known []string
	for _, s := range kept {
		for i := range s.Len() {
			known = append(append(known, s.Field(i).Name), s.Field(i).Features...)
		}
	}
	for i, col := range cols {
		if !slices.Contains(known, col) {
			c.fault(document.Index(path, i), "no column %.80q in the model's signature%s", col, document.Meant(col, known))
		}
	}
}
