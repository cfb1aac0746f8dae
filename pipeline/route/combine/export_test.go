package combine

import "testing"

// LowerMaxText lets a column hold no more than n bytes of text while the test runs.
func LowerMaxText(t *testing.T, n int) {
	old := maxText
	maxText = n
	t.Cleanup(func() { maxText = old })
}

// Projected returns the stack without its direct way, and whether it has one.
func (s *Stack) Projected() (*Stack, bool) {
	p := *s
	p.straight = nil
	return &p, s.straight != nil
}
