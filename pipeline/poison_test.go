package pipeline

import (
	"path/filepath"
	"testing"
)

// A death is a Poison that is left without end and opened again: the page cache holds what a killed process wrote.
func TestPoisonCountsDeaths(t *testing.T) {
	path := filepath.Join(t.TempDir(), "marks")
	open := func() *Poison {
		p, err := OpenPoison(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	bad, good := mark{1}, mark{2}

	p := open()
	if p.Suspects() != 0 {
		t.Fatalf("a new file has %d suspects", p.Suspects())
	}
	p.end(p.begin([]mark{good}, nil))
	p.begin([]mark{bad, good}, nil) // the process dies

	p = open()
	if p.Suspects() != 2 || p.deaths(bad) != 1 || p.deaths(good) != 1 {
		t.Fatalf("after one death: %d suspects, deaths %d and %d", p.Suspects(), p.deaths(bad), p.deaths(good))
	}
	p.end(p.begin([]mark{good}, nil)) // alone, it passes
	if p.deaths(good) != 0 {
		t.Fatal("what passed is still suspected")
	}
	p.begin([]mark{bad}, nil) // and dies again

	p = open()
	if p.deaths(bad) != deadly || p.Suspects() != 1 {
		t.Fatalf("after two deaths: %d deaths, %d suspects", p.deaths(bad), p.Suspects())
	}
	p = open() // a clean restart forgets nothing
	if p.deaths(bad) != deadly {
		t.Fatalf("a restart without a run changed the count to %d", p.deaths(bad))
	}
}

func TestPoisonGoesUnmarkedWhenFull(t *testing.T) {
	p, err := OpenPoison(filepath.Join(t.TempDir(), "marks"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	many := make([]mark, poisonSlots+10)
	for i := range many {
		many[i] = mark{byte(i), byte(i >> 8), byte(i >> 16), 7}
	}
	slots := p.begin(many, nil)
	if len(slots) != poisonSlots || p.mu.missed != 10 {
		t.Fatalf("%d slots, %d missed", len(slots), p.mu.missed)
	}
	p.end(slots)
	if len(p.mu.free) != poisonSlots {
		t.Fatalf("%d slots free after the run", len(p.mu.free))
	}
}
