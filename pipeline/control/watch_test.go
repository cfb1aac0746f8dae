package control

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/pipeline"
)

// TestWatcherMissesNothing gives a watcher what a watch brings when values were replaced before they could be read: any
// part of control.change, and of the keys all but the last value of each.
func TestWatcherMissesNothing(t *testing.T) {
	value := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rev := func(id string) *pipeline.Revision { return &pipeline.Revision{Revision: id} }
	pending := func(epoch uint64, keys ...any) []byte {
		ch := change{Epoch: epoch, Pending: true}
		for i := 0; i < len(keys); i += 2 {
			ch.Writes = append(ch.Writes, write{Key: pipelinePrefix + keys[i].(string), Value: value(keys[i+1])})
		}
		return value(ch)
	}
	idle := func(epoch uint64) []byte { return value(change{Epoch: epoch}) }
	type seen struct {
		key   string
		value []byte
	}
	p := func(name string, r *pipeline.Revision) seen { return seen{pipelinePrefix + name, value(r)} }
	ch := func(b []byte) seen { return seen{changeKey, b} }
	begin := seen{}
	for _, c := range []struct {
		name string
		see  []seen
		want string
	}{
		{"all values", []seen{begin, ch(pending(1, "a", rev("a1"), "b", rev("b1"))), p("a", rev("a1")), p("b", rev("b1")), ch(idle(1))}, "0:all 1:a1 b1"},
		{"the decision replaced", []seen{begin, p("a", rev("a1")), p("b", rev("b1")), ch(idle(1))}, "0:all 1:a1 b1"},
		{"a deletion, its decision replaced", []seen{p("a", rev("a1")), begin, p("a", nil), ch(idle(2))}, "0:all a1 2:-a1"},
		{"the end replaced by the next decision", []seen{begin, p("b", rev("b1")), ch(pending(2, "a", rev("a2"))), p("a", rev("a2")), ch(idle(2))}, "0:all 2:a2 b1"},
		{"decided, then another change of the same key, neither its decision nor the end of the first seen",
			[]seen{begin, ch(pending(1, "a", rev("a1"))), p("a", rev("a2")), ch(idle(2))}, "0:all 1:a1 2:a2"},
		{"begun while a change is decided", []seen{p("a", rev("a1")), ch(pending(2, "a", rev("a2"), "b", rev("b2"))), begin, p("a", rev("a2")), p("b", rev("b2")), ch(idle(2))}, "2:all a2 b2"},
		{"begun in the midst of its keys", []seen{p("b", rev("b1")), ch(pending(2, "a", rev("a2"), "b", rev("b2"))), p("a", rev("a2")), begin, p("b", rev("b2")), ch(idle(2))}, "2:all a2 b2"},
		{"begun at rest", []seen{p("a", rev("a1")), p("b", rev("b1")), ch(idle(1)), begin}, "1:all a1 b1"},
	} {
		var got []string
		w := watcher{active: map[string]*pipeline.Revision{}, held: map[string]*pipeline.Revision{}, fn: func(u Update) error {
			s := fmt.Sprintf("%d:", u.Epoch)
			if u.All {
				s += "all "
			}
			for _, r := range u.Active {
				s += r.Revision + " "
			}
			for _, n := range u.Deleted {
				s += "-" + n + "1 "
			}
			got = append(got, strings.TrimSpace(s))
			return nil
		}}
		for _, s := range c.see {
			if err := w.see(s.key, s.value, false); err != nil {
				t.Fatal(c.name, err)
			}
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%s: %s, want %s", c.name, g, c.want)
		}
	}
}
