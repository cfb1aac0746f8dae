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

// The same rows in two runs at once are two marks: after a death one suspect, and no slot is given away twice.
func TestPoisonSameRowsTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "marks")
	p, err := OpenPoison(path)
	if err != nil {
		t.Fatal(err)
	}
	same := []mark{{1}}
	a, b := p.begin(same, nil), p.begin(same, nil)
	if a[0] == b[0] {
		t.Fatal("two runs share a slot")
	}
	// The process dies here: whoever opens the file finds both.
	q, err := OpenPoison(path)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if q.Suspects() != 1 || q.deaths(same[0]) != 1 || len(q.mu.free) != poisonSlots-1 {
		t.Fatalf("%d suspects, %d deaths, %d slots free", q.Suspects(), q.deaths(same[0]), len(q.mu.free))
	}
	slots := q.beginAlone(same[0], 1, nil)
	q.endAlone(slots)
	seen := map[int32]bool{}
	for _, i := range q.mu.free {
		if seen[i] {
			t.Fatalf("slot %d is free twice", i)
		}
		seen[i] = true
	}
	if len(seen) != poisonSlots || q.Suspects() != 0 {
		t.Fatalf("%d slots free, %d suspects", len(seen), q.Suspects())
	}
	p.end(a)
	p.end(b)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	slots = p.begin(same, nil) // a run that goes on after Close touches nothing
	p.end(slots)
	if err := p.Close(); err != nil || len(slots) != 0 {
		t.Fatalf("after Close: %d slots, %v", len(slots), err)
	}
}

// A row of a request that died inherits the request's death: its own first one is the second.
func TestPoisonRowInheritsDeaths(t *testing.T) {
	path := filepath.Join(t.TempDir(), "marks")
	p, err := OpenPoison(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	request, row := mark{1}, mark{2}
	p.begin([]mark{request}, nil)
	p, err = OpenPoison(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.beginAlone(row, p.deaths(request), nil)
	p, err = OpenPoison(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.deaths(row) != deadly || p.deaths(request) != 1 {
		t.Fatalf("%d deaths of the row, %d of its request", p.deaths(row), p.deaths(request))
	}
	p.pass(request)
	if p.Suspects() != 1 || p.deaths(request) != 0 {
		t.Fatalf("%d suspects", p.Suspects())
	}
}
