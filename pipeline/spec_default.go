package pipeline

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
)

// DefaultDeadline is the deadline of a request that brings none to a pipeline that states none: what NATS's own
// command line waits for an answer.
const DefaultDeadline = Duration(5 * time.Second)

// DefaultWithin is how long after a decision feedback on its entity may mean it, where the spec does not say.
const DefaultWithin = Duration(24 * time.Hour)

// Defaulted returns a copy with every default filled in: lineage, deadline, how long feedback may mean a decision about its
// entity, a bare model name as NAME@champion, weights of a split in parts, the quorum of an ensemble, the parameters of a
// bandit, what a lookup answers of a key that is missing, and concurrency and budget of a shadow. The
// default of delivery is that it is absent, as in specs that are older than the field. Two specs that mean the same are
// equal after it. It shares no map or slice with s.
func (s Spec) Defaulted() Spec {
	s.text = nil
	s.Columns = maps.Clone(s.Columns)
	if len(s.Columns) == 0 {
		s.Columns = nil
	}
	s.Labels = maps.Clone(s.Labels)
	if len(s.Labels) == 0 {
		s.Labels = nil
	}
	if s.Input != nil {
		in := *s.Input
		in.Columns = slices.Clone(in.Columns)
		if in.Format == codec.JSON {
			in.Format = ""
		}
		s.Input = &in
	}
	if s.Output != nil {
		out := *s.Output
		s.Output = &out
	}
	if s.Delivery == AtLeastOnce {
		s.Delivery = ""
	}
	if s.Lineage == "" {
		s.Lineage = Strict
	}
	if s.Deadline == 0 {
		s.Deadline = DefaultDeadline
	}
	if r := s.Record; r != nil {
		s.Record = nil
		if len(r.Mask)+len(r.Drop) > 0 {
			s.Record = &Record{Mask: slices.Clone(r.Mask), Drop: slices.Clone(r.Drop)}
		}
	}
	if f := s.Feedback; f != nil {
		s.Feedback = &Feedback{Entity: f.Entity, Within: f.Within}
		if f.Entity != "" && f.Within == 0 {
			s.Feedback.Within = DefaultWithin
		}
	}
	fill := func(n Node) Node {
		if ref, err := schemas.ParseModelRef(n.Model); err == nil {
			n.Model = ref.String()
		}
		if n.Split != nil {
			n.Split.inParts()
		}
		if n.Ensemble != nil {
			n.Ensemble.fill()
		}
		if n.Bandit != nil {
			n.Bandit.fill()
		}
		if n.Lookup != nil && n.Lookup.Missing == "" {
			n.Lookup.Missing = MissingNull
		}
		return n
	}
	s.Route = s.Route.rewrite(fill)
	s.Shadows = slices.Clone(s.Shadows)
	for i := range s.Shadows {
		x := &s.Shadows[i]
		x.Node = x.Node.rewrite(fill)
		if x.Sample != nil && *x.Sample == 1 {
			x.Sample = nil
		}
		x.Concurrency, x.Budget = cmp.Or(x.Concurrency, 1), cmp.Or(x.Budget, DefaultShadowBudget)
	}
	if len(s.Shadows) == 0 {
		s.Shadows = nil
	}
	return s
}

// inParts turns percent into parts.
func (s *Split) inParts() {
	sum := 0
	for _, a := range s.Arms {
		sum += a.Weight
	}
	if sum == 100 {
		for i := range s.Arms {
			s.Arms[i].Weight *= fullWeight / 100
		}
	}
}

func (e *Ensemble) fill() {
	if e.Quorum == 0 {
		e.Quorum = len(e.Members)
	}
}
