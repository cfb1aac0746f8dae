package document

import (
	"strconv"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// maxFaults bounds the answer to a document that is wrong everywhere.
const maxFaults = 64

// Fault is one thing that is wrong in a document.
type Fault struct {
	Path string // "route.model", "record.mask[1]"; "" for the document as a whole
	Line int    // from 1; 0 if it did not come from text
	Text string // what is wrong and what would be right
}

// String writes "line 7: route.model: ...".
func (f Fault) String() string {
	s := f.Text
	if f.Path != "" {
		s = f.Path + ": " + s
	}
	if f.Line > 0 {
		s = "line " + strconv.Itoa(f.Line) + ": " + s
	}
	return s
}

// Faults are all that is wrong, in the order found. As an error it has one line for each.
type Faults []Fault

// Error returns one line a fault.
func (fs Faults) Error() string {
	lines := make([]string, 0, len(fs))
	for i, f := range fs {
		if i == maxFaults {
			lines = append(lines, "and "+strconv.Itoa(len(fs)-i)+" more")
			break
		}
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// Err returns the faults as an Invalid error, nil if there are none. The Faults are found by errors.As.
func (fs Faults) Err(op string) error {
	if len(fs) == 0 {
		return nil
	}
	return &schemas.Error{Op: op, Kind: schemas.Invalid, Err: fs}
}

// Join returns a.b, or the one that is not empty; an index "[3]" joins without a dot.
func Join(a, b string) string {
	if a == "" || b == "" || b[0] == '[' {
		return a + b
	}
	return a + "." + b
}

// Index returns a[i].
func Index(a string, i int) string { return a + "[" + strconv.Itoa(i) + "]" }
