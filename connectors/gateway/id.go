package gateway

import (
	crand "crypto/rand"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// maxRequestID is the longest request id taken from a caller, in bytes.
const maxRequestID = 128

// idSource makes ULIDs that rise within a millisecond. Its randomness only keeps ids of different processes apart: an id
// is no secret.
type idSource struct {
	mu      sync.Mutex
	entropy *ulid.MonotonicEntropy // guarded by mu; nil before the first id
}

func (s *idSource) next() string {
	now := ulid.Timestamp(time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entropy == nil {
		var seed [32]byte
		_, _ = crand.Read(seed[:]) // never fails
		s.entropy = ulid.Monotonic(rand.NewChaCha8(seed), 0)
	}
	id, err := ulid.New(now, s.entropy)
	if err != nil { // the 2^80 ids of this millisecond are used up from where it began: begin elsewhere
		s.entropy = ulid.Monotonic(crand.Reader, 0)
		id = ulid.MustNew(now, s.entropy)
	}
	return id.String()
}
