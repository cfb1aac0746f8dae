package broker

import (
	"sync"
	"testing"
)

var shared struct {
	sync.Mutex
	c   *Cluster
	err error
}

// Shared returns the one broker that the tests of this binary share, started by the first of them. Its tests keep apart
// by the names of their topics and groups, and do it no harm. The binary's TestMain runs Main.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.c == nil && shared.err == nil {
		// Compaction is looked for often, so that tests need not wait 15 s for it.
		shared.c, shared.err = start(1, Properties("log.cleaner.backoff.ms=100"))
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.c
}

// Main runs the tests of a binary and then ends the shared broker. It stands where a *testing.M does:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }
type Main struct{ M *testing.M }

// Run returns what the tests' Run does.
func (m Main) Run() int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.c != nil {
			shared.c.close()
			shared.c = nil
		}
	}()
	return m.M.Run()
}
