package pipeline

import (
	"slices"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// maxWithin is the longest time after a decision in which feedback on its entity may mean it: a leap year.
const maxWithin = Duration(366 * 24 * time.Hour)

func (c *checker) feedback(s *Spec) {
	f := s.Feedback
	if f == nil {
		return
	}
	switch {
	case f.Within < 0 || f.Within > maxWithin:
		c.fault("feedback.within", "%v: want more than 0 and at most %v", time.Duration(f.Within), time.Duration(maxWithin))
	case f.Within > 0 && f.Entity == "":
		c.fault("feedback.within", "it is of feedback that names an entity: say which column that is, as entity")
	}
	if f.Entity == "" || s.Record == nil {
		return
	}
	for _, l := range []struct {
		key  string
		cols []string
	}{{"record.mask", s.Record.Mask}, {"record.drop", s.Record.Drop}} {
		if i := slices.Index(l.cols, f.Entity); i >= 0 {
			c.fault("feedback.entity", "column %q is not in the record (%s): decisions could not be found by it", f.Entity, document.Index(l.key, i))
		}
	}
}

// entity checks that the column of entities comes with requests, and can be written as text in one way.
func (c *checker) entity(s *Spec, sig schemas.Signature) {
	if s.Feedback == nil || s.Feedback.Entity == "" || sig.Inputs == nil {
		return
	}
	name := s.Feedback.Entity
	i := sig.Inputs.Index(name)
	if i < 0 {
		c.fault("feedback.entity", "no column %.80q in requests of this pipeline%s; one that a split's key or a condition reads is there too", name, document.Meant(name, namesOf(sig.Inputs)))
		return
	}
	f := sig.Inputs.Field(i)
	switch f.Type {
	case schemas.Float16, schemas.Float32, schemas.Float64, schemas.Binary:
	default:
		if !f.Tensor() {
			return
		}
	}
	c.fault("feedback.entity", "column %q is %s: want text, integers, booleans or times", name, typeText(f))
}
