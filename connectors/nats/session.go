package nats

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// session keeps pull requests standing at one consumer and counts what they may still bring. Its owner guards it with
// a lock. A session is thrown away, never repaired: after a reconnect, a silence or an error its owner opens another.
type session struct {
	c       *Client
	subject string // of the requests
	sub     *nats.Subscription
	inbox   string
	request []byte
	batch   int
	left    int       // messages that standing requests may still bring
	heard   time.Time // last sign of life
	broken  bool
	next    uint64 // consumer sequence expected next; 0: any
}

const (
	pullExpires   = 30 * time.Second
	pullHeartbeat = 5 * time.Second
	// pullSilence is two heartbeats and a bit: nothing was heard, so the requests are lost.
	pullSilence = 2*pullHeartbeat + 2*time.Second
)

// openSession subscribes ch to a fresh inbox and sends the first request. ch must hold 2*batch messages and some more
// for each session on it: a full channel would lose messages.
func (c *Client) openSession(stream, consumer string, ch chan *nats.Msg, batch int) (*session, error) {
	s := &session{
		c: c, subject: apiPull + stream + "." + consumer, inbox: nats.NewInbox(), batch: batch, heard: time.Now(),
	}
	s.request = []byte(`{"batch":` + strconv.Itoa(batch) + `,"max_bytes":` + strconv.Itoa(max(c.cfg.PullBytes, c.MaxPayload())) +
		`,"expires":` + strconv.FormatInt(int64(pullExpires), 10) + `,"idle_heartbeat":` + strconv.FormatInt(int64(pullHeartbeat), 10) + `}`)
	sub, err := c.data.ChanSubscribe(s.inbox, ch)
	if err != nil {
		return nil, err
	}
	s.sub = sub
	if err := s.pull(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() {
	s.sub.Unsubscribe() // fails only where the subscription or the connection is gone already
}

// pull asks for more when half of what was asked for has come.
func (s *session) pull() error {
	if s.broken || s.left > s.batch/2 {
		return nil
	}
	if err := s.c.data.PublishRequest(s.subject, s.inbox, s.request); err != nil {
		s.broken = true
		return err
	}
	s.left += s.batch
	return nil
}

// silent reports whether the standing requests seem lost.
func (s *session) silent(now time.Time) bool { return now.Sub(s.heard) > pullSilence }

// take looks at a message of the session: data reports whether it is one of the stream, with its place. A session
// that missed one is broken.
func (s *session) take(m *nats.Msg) (at place, data bool) {
	s.heard = time.Now()
	if m.Reply != "" {
		at, ok := parsePlace(m.Reply)
		if ok {
			s.left--
			if s.next != 0 && at.consumer != s.next {
				s.broken = true
				return at, false
			}
			s.next = at.consumer + 1
			return at, true
		}
	}
	switch m.Header.Get("Status") {
	case "100": // heartbeat
	case "404", "408", "409":
		d := m.Header.Get("Description")
		n, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		if err != nil || d != "Request Timeout" && d != "Message Size Exceeds MaxBytes" && d != "No Messages" && d != "Batch Completed" {
			s.broken = true // the consumer is gone, its leader moved, the server goes down
			return place{}, false
		}
		s.left -= n
	default:
		s.broken = true
	}
	return place{}, false
}

// place is what the reply subject of a stream's message says.
type place struct {
	attempt  uint64
	stream   uint64 // sequence in the stream
	consumer uint64 // sequence of this consumer
	time     int64  // stored, Unix nanoseconds
	pending  uint64 // messages after this one
}

// apiPull asks a consumer for messages.
const apiPull = "$JS.API.CONSUMER.MSG.NEXT."

// ackPrefix begins the reply subject of a stream's message.
const ackPrefix = "$JS.ACK."

// parsePlace reads $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<attempt>.<stream seq>.<consumer seq>.<time>.<pending>
// and whatever a later server adds. It allocates nothing.
func parsePlace(reply string) (p place, ok bool) {
	if !strings.HasPrefix(reply, ackPrefix) {
		return p, false
	}
	dots := 0
	for i := 0; i < len(reply); i++ {
		if reply[i] == '.' {
			dots++
		}
	}
	skip := 4
	if dots >= 10 {
		skip = 6
	} else if dots != 8 {
		return p, false
	}
	i := 0
	for ; skip > 0; i++ {
		if reply[i] == '.' {
			skip--
		}
	}
	var v [5]uint64
	for k := range v {
		start := i
		for ; i < len(reply) && reply[i] != '.'; i++ {
			c := reply[i]
			if c < '0' || c > '9' {
				return p, false
			}
			v[k] = v[k]*10 + uint64(c-'0')
		}
		if i == start {
			return p, false
		}
		i++
		if i > len(reply) && k < len(v)-1 {
			return p, false
		}
	}
	return place{attempt: v[0], stream: v[1], consumer: v[2], time: int64(v[3]), pending: v[4]}, true
}
