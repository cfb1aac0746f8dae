package load

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// NATSClient asks a subject over one connection. All answers come to one wildcard inbox; the last token of its subject
// is the slot. A NATSClient runs one loop at a time.
//
// Callers is the client of the figures: each slot is a caller of its own that sleeps until its answer is there, as the
// users of a connection do. Requests is the same through the library's Request. Pipelined is one program that holds many requests under way: the answer's callback sends the next
// one, so that both sides read and write many messages with one system call. It reaches twice as much with the
// same server, and says where the limit of the server is rather than of its callers.
type NATSClient struct {
	nc    *nats.Conn
	inbox string                            // with the trailing dot
	take  atomic.Pointer[func(m *nats.Msg)] // the loop that runs; nil: late answers of a run that was given up
}

// DialNATS connects to a server's client address.
func DialNATS(url string, opts ...nats.Option) (*NATSClient, error) {
	opts = append([]nats.Option{nats.Name("leat-bench"), nats.NoReconnect(), nats.Timeout(5 * time.Second)}, opts...)
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return nil, fmt.Errorf("load: connect to %s: %w", url, err)
	}
	c := &NATSClient{nc: nc, inbox: nats.NewInbox() + "."}
	sub, err := nc.Subscribe(c.inbox+"*", func(m *nats.Msg) {
		if take := c.take.Load(); take != nil {
			(*take)(m)
		}
	})
	if err == nil {
		err = sub.SetPendingLimits(-1, -1) // bounded by the slots: one answer each
	}
	if err == nil {
		err = nc.FlushTimeout(5 * time.Second)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("load: subscribe to the inbox: %w", err)
	}
	return c, nil
}

// Close closes the connection.
func (c *NATSClient) Close() { c.nc.Close() }

// Conn returns the connection, for what is not measured.
func (c *NATSClient) Conn() *nats.Conn { return c.nc }

// slot returns the slot that m answers, -1 for what is none of 0..n-1.
func (c *NATSClient) slot(m *nats.Msg, n int) int {
	i, err := strconv.Atoi(m.Subject[len(c.inbox):])
	if err != nil || i < 0 || i >= n {
		return -1
	}
	return i
}

// begin makes take the receiver of answers until the returned function is called.
func (c *NATSClient) begin(take func(m *nats.Msg)) (end func(), err error) {
	if !c.take.CompareAndSwap(nil, &take) {
		return nil, errors.New("load: a loop is running on this client")
	}
	return func() { c.take.Store(nil) }, nil
}

// failure says why m is no answer.
func failure(m *nats.Msg, check Check) error {
	if len(m.Header) > 0 {
		if m.Header.Get("Status") == "503" {
			return nats.ErrNoResponders
		}
		if k := m.Header.Get("Leat-Error-Kind"); k != "" {
			return fmt.Errorf("%s: %s", k, clip(m.Data))
		}
	}
	if check != nil {
		return check(m.Data)
	}
	return nil
}

// Callers keeps l.InFlight callers asking, each on a goroutine of its own, taking the payloads in turn. It returns when
// the loop is over and the last answers are in. Answers that say a failure are counted in the Result; an error means
// that the run is worth nothing.
func (c *NATSClient) Callers(ctx context.Context, subject string, payloads [][]byte, l Loop) (*Result, error) {
	answers := make([]chan *nats.Msg, max(0, l.InFlight))
	inboxes := make([]string, len(answers))
	for i := range answers {
		answers[i] = make(chan *nats.Msg, 1) // one request a slot is under way, so one answer
		inboxes[i] = c.inbox + strconv.Itoa(i)
	}
	var twice atomic.Int64
	end, err := c.begin(func(m *nats.Msg) {
		if i := c.slot(m, len(answers)); i >= 0 {
			select {
			case answers[i] <- m:
			default:
				twice.Add(1)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	defer end()
	r, err := closedLoop(ctx, payloads, l, func(ctx context.Context, slot int, payload []byte) (error, error) {
		if err := c.nc.PublishRequest(subject, inboxes[slot], payload); err != nil {
			return nil, err
		}
		select {
		case m := <-answers[slot]:
			return failure(m, l.Answer), nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	if n := twice.Load(); err == nil && n > 0 {
		return nil, fmt.Errorf("load: %s: %d requests were answered twice", subject, n)
	}
	return r, err
}

// Requests is Callers through the client library's own Request, as most programs are written: a sixth less, and a timer and a map each.
func (c *NATSClient) Requests(ctx context.Context, subject string, payloads [][]byte, l Loop) (*Result, error) {
	return closedLoop(ctx, payloads, l, func(ctx context.Context, _ int, payload []byte) (error, error) {
		m, err := c.nc.RequestWithContext(ctx, subject, payload)
		if errors.Is(err, nats.ErrNoResponders) {
			return err, nil
		}
		if err != nil {
			return nil, err
		}
		return failure(m, l.Answer), nil
	})
}

// Pipelined keeps l.InFlight requests under way from one goroutine, the inbox's callback. Returns as Callers does.
func (c *NATSClient) Pipelined(ctx context.Context, subject string, payloads [][]byte, l Loop) (*Result, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	r := &pipelined{c: c, subject: subject, payloads: payloads, loop: l, tally: newTally(time.Now(), l), open: l.InFlight,
		asked: make([]time.Time, l.InFlight), inbox: make([]string, l.InFlight), done: make(chan struct{})}
	for i := range r.inbox {
		r.inbox[i] = c.inbox + strconv.Itoa(i)
	}
	end, err := c.begin(r.take)
	if err != nil {
		return nil, err
	}
	defer end()
	r.start()
	limit := time.NewTimer(l.Warmup + l.Duration + giveUp)
	defer limit.Stop()
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-limit.C:
		return nil, fmt.Errorf("load: %s: requests unanswered %v after the end of the loop", subject, giveUp)
	}
	if r.err != nil {
		return nil, r.err
	}
	return r.tally.close(), nil
}

// pipelined is one loop. The inbox's callback runs it; the mutex keeps it waiting until all slots have asked once.
type pipelined struct {
	mu       sync.Mutex
	c        *NATSClient
	subject  string
	payloads [][]byte
	loop     Loop
	tally    *tally
	asked    []time.Time // by slot
	inbox    []string    // by slot
	next     int         // payload
	sent     int64
	open     int // slots that wait
	done     chan struct{}
	err      error
}

func (r *pipelined) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.asked {
		r.ask(i, time.Now())
	}
}

func (r *pipelined) take(m *nats.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	if i := r.c.slot(m, len(r.asked)); i >= 0 {
		now := time.Now()
		r.tally.answered(r.asked[i], now, failure(m, r.loop.Answer))
		r.ask(i, now)
	}
}

// ask sends the slot's next request, or closes the slot when the loop is over.
func (r *pipelined) ask(slot int, now time.Time) {
	if r.err != nil {
		return
	}
	if now.After(r.tally.end) || r.loop.Requests > 0 && r.sent >= r.loop.Requests {
		if r.open--; r.open == 0 {
			close(r.done)
		}
		return
	}
	p := r.payloads[r.next]
	if r.next++; r.next == len(r.payloads) {
		r.next = 0
	}
	r.sent++
	r.asked[slot] = now
	if err := r.c.nc.PublishRequest(r.subject, r.inbox[slot], p); err != nil {
		r.err = fmt.Errorf("load: publish: %w", err)
		close(r.done)
	}
}

func clip(b []byte) string {
	const most = 200
	if len(b) > most {
		return string(b[:most]) + "..."
	}
	return string(b)
}
