package pipeline

import (
	"os"
	"strings"
	"testing"
)

// drawnSpec has every kind of node, and text that a drawing has to quote.
const drawnSpec = head + `
columns: {note: string}
route:
  split:
    key: tail
    salt: "autumn\n2013"
    forced: true
    arms:
      - name: old
        weight: 9950
        switch:
          - {name: odd, when: "input.note == \"a|b\" && input.note != '<#>'", model: small@1}
          - {name: back, when: 'input.note.matches("^a\\.b")', model: small}
          - {name: even, when: "input.note.startsWith('this condition goes on and on beyond what is drawn of it')", model: small}
          - name: other
            cascade:
              - {name: first, accept: "max(output.p) >= 0.9", model: small@champion}
              - {name: last, model: large@7}
      - name: new
        weight: 50
        sequence:
          - {name: make, transform: {columns: {a: "1", b: "2", c: "3", d: "4", e: "5", f: "6", g: "7"}}}
          - name: ask
            ensemble:
              columns: {p: weighted_mean, label: max}
              quorum: 1
              members:
                - {name: one, weight: 1, model: small}
                - name: two
                  weight: 3
                  required: true
                  bandit:
                    policy: lin_thompson
                    reward: feedback.label == 1.0
                    context: [size, speed]
                    minimum_share: 0.025
                    arms: [{name: left, model: large}, {name: right, model: small}]
shadows:
  - {name: forest, model: large@7}
  - name: part
    sample: 0.25
    key: tail
    cascade: [{name: quick, accept: "output.p > 0.5", model: small}, {name: slow, model: large}]
`

func revisionOf(t *testing.T, text string) *Revision {
	t.Helper()
	specs, err := ParseSpec([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rev := &Revision{Spec: specs[0].Defaulted()}
	for _, path := range sortedKeys(rev.Spec.Refs()) {
		ref := rev.Spec.Refs()[path]
		name, tail, _ := strings.Cut(ref, "@")
		m := ResolvedModel{Node: path, Ref: ref, Name: name, Version: 4}
		if tail != "champion" {
			m.Version = int(tail[0] - '0')
		}
		rev.Models = append(rev.Models, m)
	}
	return rev
}

// The drawings are in testdata; all three were looked at in a terminal, Graphviz and Mermaid.
func TestDraw(t *testing.T) {
	rev := revisionOf(t, drawnSpec)
	for file, draw := range map[string]func(*Revision, *RouteStats) string{"draw.txt": Draw, "draw.dot": DrawDot, "draw.mmd": DrawMermaid} {
		want, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if got := draw(rev, nil); got != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", file, got, want)
		}
	}
}

// A route of one model is no graph.
func TestDrawOneModel(t *testing.T) {
	rev := revisionOf(t, minimal)
	for _, draw := range []func(*Revision, *RouteStats) string{Draw, DrawDot, DrawMermaid} {
		if got := draw(rev, nil); got != "" {
			t.Errorf("drew %q", got)
		}
	}
}
