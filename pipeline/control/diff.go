package control

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// Text writes a revision as its spec in YAML, followed by a comment for each model that says what its reference means.
// "" for nil.
func Text(rev *pipeline.Revision) (string, error) {
	if rev == nil {
		return "", nil
	}
	b, err := yaml.Marshal(rev.Spec)
	if err != nil {
		return "", schemas.Errorf(schemas.Internal, "control.Text", "%w", err)
	}
	var s strings.Builder
	s.Write(b)
	for _, m := range rev.Models {
		fmt.Fprintf(&s, "# %s: %s is %s@%d (%.12s)\n", m.Node, m.Ref, m.Name, m.Version, m.Digest)
	}
	return s.String(), nil
}

func textDiff(from, to *pipeline.Revision) (string, error) {
	a, err := Text(from)
	if err != nil {
		return "", err
	}
	b, err := Text(to)
	if err != nil {
		return "", err
	}
	name := func(r *pipeline.Revision) string {
		if r == nil {
			return "/dev/null"
		}
		return fmt.Sprintf("%s %.12s", r.Spec.Name, r.Revision)
	}
	return Diff(name(from), name(to), a, b), nil
}

// diffContext is how many equal lines a hunk shows around a difference.
const diffContext = 3

// maxDiffTable bounds the table of diffLines; beyond it all lines between the first and the last difference are shown
// as replaced.
const maxDiffTable = 4 << 20

// Diff returns the unified diff of two texts, "" if they are equal.
func Diff(fromName, toName, from, to string) string {
	if from == to {
		return ""
	}
	ops := diffLines(lines(from), lines(to))
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", fromName, toName)
	for i := 0; i < len(ops); {
		if ops[i].kind == ' ' {
			i++
			continue
		}
		start, end, equal := max(0, i-diffContext), i, 0
		for j := i; j < len(ops) && equal <= 2*diffContext; j++ {
			if ops[j].kind == ' ' {
				equal++
			} else {
				equal, end = 0, j+1
			}
		}
		i = min(len(ops), end+diffContext)
		hunk(&b, ops, start, i)
	}
	return b.String()
}

func hunk(b *strings.Builder, ops []diffOp, start, end int) {
	a, z := 0, 0 // lines before the hunk
	for _, o := range ops[:start] {
		if o.kind != '+' {
			a++
		}
		if o.kind != '-' {
			z++
		}
	}
	na, nz := 0, 0
	for _, o := range ops[start:end] {
		if o.kind != '+' {
			na++
		}
		if o.kind != '-' {
			nz++
		}
	}
	if na > 0 {
		a++
	}
	if nz > 0 {
		z++
	}
	fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n", a, na, z, nz)
	for _, o := range ops[start:end] {
		b.WriteByte(o.kind)
		b.WriteString(o.line)
		b.WriteByte('\n')
	}
}

type diffOp struct {
	kind byte // ' ', '-', '+'
	line string
}

// diffLines takes equal ends off and finds a longest common subsequence of the rest.
func diffLines(a, b []string) []diffOp {
	head, tail := 0, 0
	for head < min(len(a), len(b)) && a[head] == b[head] {
		head++
	}
	for tail < min(len(a), len(b))-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	ops := make([]diffOp, 0, len(a)+len(b))
	for _, l := range a[:head] {
		ops = append(ops, diffOp{' ', l})
	}
	ops = appendDiff(ops, a[head:len(a)-tail], b[head:len(b)-tail])
	for _, l := range a[len(a)-tail:] {
		ops = append(ops, diffOp{' ', l})
	}
	return ops
}

func appendDiff(ops []diffOp, a, b []string) []diffOp {
	if len(a)*len(b) > maxDiffTable {
		for _, l := range a {
			ops = append(ops, diffOp{'-', l})
		}
		for _, l := range b {
			ops = append(ops, diffOp{'+', l})
		}
		return ops
	}
	n := make([][]int, len(a)+1)
	for i := range n {
		n[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				n[i][j] = n[i+1][j+1] + 1
			} else {
				n[i][j] = max(n[i+1][j], n[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			ops = append(ops, diffOp{' ', a[i]})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || n[i+1][j] >= n[i][j+1]):
			ops = append(ops, diffOp{'-', a[i]})
			i++
		default:
			ops = append(ops, diffOp{'+', b[j]})
			j++
		}
	}
	return ops
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}
