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

// entity is the column that feedback finds decisions by, "" if there is none.
func (s *Spec) entity() string {
	if s.Feedback == nil {
		return ""
	}
	return s.Feedback.Entity
}

// entityBeside reports whether the column of entities is declared, and none of a model's.
func (s *Spec) entityBeside(model *schemas.Schema) bool {
	e := s.entity()
	_, declared := s.Columns[e]
	return e != "" && declared && model.Index(e) < 0
}

// entity checks that the column of entities comes with requests, and can be written as text in one way.
func (c *checker) entity(s *Spec, sig schemas.Signature) {
	name := s.entity()
	if name == "" || sig.Inputs == nil {
		return
	}
	i := sig.Inputs.Index(name)
	if i < 0 {
		c.fault("feedback.entity", "no column %.80q in requests of this pipeline%s; say the type of one that nothing else reads under columns", name, document.Meant(name, namesOf(sig.Inputs)))
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
