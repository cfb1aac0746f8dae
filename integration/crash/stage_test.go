package crash

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/integration/child"
)

// life is one life of the server with the connections that belong to it.
type life struct {
	*child.Server
	over context.Context // ends with the life
	end  context.CancelFunc
	nc   *nats.Conn // of a user: account APP
	js   jetstream.JetStream
	http *http.Client
}

func newLife(ctx context.Context, s *child.Server) (*life, error) {
	nc, err := nats.Connect(s.NATS, nats.NoReconnect(), nats.Timeout(5*time.Second),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // a killed server's connection is told by its callers
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	l := &life{Server: s, nc: nc, js: js, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	l.over, l.end = context.WithCancel(ctx)
	return l, nil
}

// close is called when the server is gone.
func (l *life) close() {
	l.end()
	l.nc.Close()
	l.http.CloseIdleConnections()
}

// stage hands the present life to the loads. Safe for concurrent use.
type stage struct {
	mu      sync.Mutex
	now     *life
	changed chan struct{}
}

func newStage() *stage { return &stage{changed: make(chan struct{})} }

// set makes l the present life; nil: there is none.
func (s *stage) set(l *life) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = l
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns the present life, waiting for one; nil when ctx has ended.
func (s *stage) wait(ctx context.Context) *life {
	for {
		s.mu.Lock()
		l, changed := s.now, s.changed
		s.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if l != nil && l.over.Err() == nil {
			return l
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
