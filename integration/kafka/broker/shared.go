package broker

import (
	"flag"
	"sync"
	"testing"
)

// brokers lets the tests of a binary run on a real cluster: go test ./connectors/kafka -kafka.brokers 3.
var brokers = flag.Int("kafka.brokers", 1, "brokers of the cluster that the tests of a binary share")

// Count is how many brokers Shared has.
func Count() int { return *brokers }

var shared struct {
	sync.Mutex
	c   *Cluster
	err error
}

// Shared returns the broker, or brokers, that the tests of this binary share, started by the first of them. Its tests keep apart
// by the names of their topics and groups, and do it no harm. The binary's TestMain runs Main.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.c == nil && shared.err == nil {
		// Compaction is looked for often, so that tests need not wait 15 s for it.
		shared.c, shared.err = Launch(*brokers, Properties("log.cleaner.backoff.ms=100"))
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.c
}

// Main runs the tests of a binary and then ends what they shared. It stands where a *testing.M does:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }
type Main struct{ M *testing.M }

// Run returns what the tests' Run does.
func (m Main) Run() int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.c != nil {
			shared.c.Close()
			shared.c = nil
		}
	}()
	return m.M.Run()
}
