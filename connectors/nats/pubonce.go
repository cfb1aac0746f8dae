package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// pubAck is JetStream's answer to a publish.
type pubAck struct {
	Stream    string              `json:"stream"`
	Sequence  uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
	Error     *jetstream.APIError `json:"error"`
}

// largeAppend is the size from which an append takes the connection of bulk data: a megabyte of a job's records in front
// of a request's append would hold it up for milliseconds.
const largeAppend = 64 << 10

// asker is a standing inbox for one question at a time. The connection's read loop hands the answer straight to who
// waits: the library's Request would go through one more goroutine and a map, and make a context for each question.
type asker struct {
	sub   *nats.Subscription
	inbox string // with the dot
	n     uint64 // of the last question: an answer to an earlier one comes too late
	ch    chan *nats.Msg
	timer *time.Timer
}

// askers are the idle ones of one connection: as many as questions were ever in flight at once.
type askers struct {
	sync.Mutex
	idle []*asker
}

func (as *askers) take(nc *nats.Conn) (*asker, error) {
	as.Lock()
	if n := len(as.idle); n > 0 {
		a := as.idle[n-1]
		as.idle = as.idle[:n-1]
		as.Unlock()
		return a, nil
	}
	as.Unlock()
	a := &asker{inbox: nats.NewInbox() + ".", ch: make(chan *nats.Msg, 16), timer: time.NewTimer(time.Hour)}
	a.timer.Stop()
	var err error
	a.sub, err = nc.ChanSubscribe(a.inbox+"*", a.ch)
	return a, err
}

func (as *askers) give(a *asker) {
	a.timer.Stop()
	as.Lock()
	as.idle = append(as.idle, a)
	as.Unlock()
}

// publishOnce stores one message and waits for the acknowledgement, at most CallTimeout. It asks once: the library's
// own PublishMsg would repeat on "no responders" with its own pauses. It sets m.Reply.
func (c *Client) publishOnce(ctx context.Context, m *nats.Msg) (pubAck, error) {
	nc, as := c.core, &c.coreAskers
	if len(m.Data) > largeAppend {
		nc, as = c.data, &c.dataAskers
	}
	standing := (*c.standing.Load()).Done() // the answer to what was asked before a disconnect never comes
	a, err := as.take(nc)
	if err != nil {
		return pubAck{}, err
	}
	defer as.give(a)
	a.n++
	a.timer.Reset(c.cfg.CallTimeout)
	m.Reply = a.inbox + strconv.FormatUint(a.n, 36)
	if err := nc.PublishMsg(m); err != nil {
		return pubAck{}, err
	}
	for {
		select {
		case r := <-a.ch:
			switch {
			case r.Subject != m.Reply:
			case len(r.Data) == 0 && r.Header.Get("Status") == "503":
				return pubAck{}, nats.ErrNoResponders
			default:
				return parseAck(r.Data)
			}
		case <-ctx.Done():
			return pubAck{}, ctx.Err()
		case <-standing:
			return pubAck{}, nats.ErrDisconnected
		case <-a.timer.C:
			return pubAck{}, nats.ErrTimeout
		}
	}
}

var (
	ackError = []byte(`"error"`)
	ackSeq   = []byte(`"seq":`)
)

// parseAck reads the server's own answer. The common form, {"stream":"S","seq":12}, costs a search and no allocation;
// the stream's name is left out then, since the caller knows it.
func parseAck(b []byte) (pubAck, error) {
	if i := bytes.Index(b, ackSeq); i >= 0 && !bytes.Contains(b, ackError) {
		var a pubAck
		digits := bytes.TrimLeft(b[i+len(ackSeq):], " ")
		for j := 0; j < len(digits) && digits[j] >= '0' && digits[j] <= '9'; j++ {
			a.Sequence = a.Sequence*10 + uint64(digits[j]-'0')
		}
		a.Duplicate = bytes.Contains(b, []byte(`"duplicate":true`)) || bytes.Contains(b, []byte(`"duplicate": true`))
		if a.Sequence > 0 {
			return a, nil
		}
	}
	var a pubAck
	if err := json.Unmarshal(b, &a); err != nil {
		return a, err
	}
	if a.Error != nil {
		return a, a.Error
	}
	return a, nil
}
