package nats

import (
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// relay brings answers from one account to whoever asked in the other.
type relay struct {
	inbox string
	to    *nats.Conn
	fail  func(error)

	mu struct {
		sync.Mutex
		next    uint64
		waiting map[uint64]waitingFor
	}
}

type waitingFor struct {
	reply string // in the other account
	many  bool   // more than one answer may come
	until time.Time
}

func newRelay(inbox string, to *nats.Conn, fail func(error)) *relay {
	r := &relay{inbox: inbox, to: to, fail: fail}
	r.mu.waiting = map[uint64]waitingFor{}
	return r
}

// expect returns the subject that answers for reply are to be sent to; false if too many are waited for.
func (r *relay) expect(reply string, many bool, until time.Time) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.waiting) >= doorOnTheWay {
		return "", false
	}
	r.mu.next++
	r.mu.waiting[r.mu.next] = waitingFor{reply, many, until}
	return r.inbox + "." + strconv.FormatUint(r.mu.next, 36), true
}

// back handles an answer.
func (r *relay) back(m *nats.Msg) {
	id, err := strconv.ParseUint(m.Subject[len(r.inbox)+1:], 36, 64)
	if err != nil {
		return
	}
	r.mu.Lock()
	w, ok := r.mu.waiting[id]
	if ok && !w.many {
		delete(r.mu.waiting, id)
	}
	r.mu.Unlock()
	if !ok {
		return
	}
	// The reply subject of a stream's message is where the user acknowledges it: the door passes that too.
	if err := r.to.PublishMsg(&nats.Msg{Subject: w.reply, Reply: m.Reply, Header: m.Header, Data: m.Data}); err != nil {
		r.fail(err)
	}
}

func (r *relay) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, w := range r.mu.waiting {
		if now.After(w.until) {
			delete(r.mu.waiting, id)
		}
	}
}
