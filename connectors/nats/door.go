package nats

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// Bounds of the door.
const (
	doorOnTheWay = 64 << 10         // publishes and calls of users that wait for the store's answer
	doorAnswer   = 10 * time.Second // how long a single answer is waited for
	doorUnknown  = time.Second      // how long a topic is remembered as unknown
)

// OpenDoor lets users of APP write and read topics, until the client is closed. One process opens it: the one that runs
// the embedded server (two would lose the order of a user's publishes). This is all that passes:
//
//	leat.topic.<topic>              stored in the partition of its Leat-Key; the store's acknowledgement comes back
//	leat.topic.<topic>.<partition>  the same, where the user has computed the partition (SEMANTICS 3)
//	$JS.API.STREAM.INFO, DIRECT.GET, CONSUMER.CREATE, INFO, DELETE, MSG.NEXT and $JS.ACK
//	                                on streams LEAT_T_* and, for consumers, on names that begin with "app-"
//
//	$KV.<bucket>.<key>              a put, a deletion or a purge of a key, in a user's bucket: one that is not LEAT_*
//
// Of such a bucket's stream, STREAM.INFO and DIRECT.GET pass too, so that a KV client can open it, put and get; it is not
// watched from outside.
//
// A user's consumer may only be pulled from: one that pushes could be told to write anywhere in LEAT. Groups of
// pipelines have other names, so no user can take, settle or skip their messages. Pull requests and acknowledgements of
// a user's consumer are service imports of their own, added when it is made; the server refuses reply subjects that
// would name something in LEAT.
//
// Of the headers that the server acts on, only the message id and the expectations about the last sequence pass:
// Nats-Trace-Dest, for one, would let a user publish into LEAT.
func (c *Client) OpenDoor(ctx context.Context) error {
	const op = "nats.OpenDoor"
	if c.cfg.Server == nil {
		return schemas.Errorf(schemas.Invalid, op, "only the process of the embedded server has a door; on an external server its operator grants what users may do")
	}
	d := &door{c: c, inbox: "_INBOX.door." + randomHex(8)}
	d.front = newRelay(d.inbox, c.front, func(err error) { c.log.Debug("door", "error", err) })
	d.unknown = map[string]time.Time{}
	for _, l := range []struct {
		nc      *nats.Conn
		subject string
		fn      nats.MsgHandler
	}{
		{c.core, d.inbox + ".*", d.front.back},
		{c.front, subjectTopic + ">", d.publish},
		{c.front, subjectBucket + ">", d.put},
		{c.front, subjectDoor + ">", d.call},
	} {
		if err := c.listen(ctx, op, l.subject, l.nc, l.fn); err != nil {
			return err
		}
	}
	c.wg.Add(1)
	go d.sweep()
	return d.reopen(ctx)
}

type door struct {
	c       *Client
	inbox   string
	front   *relay
	unknown map[string]time.Time // topics that were not there; of the goroutine that publishes
}

// reopen lets users go on with consumers that they made before the server was restarted.
func (d *door) reopen(ctx context.Context) error {
	const op = "nats.OpenDoor"
	call, cancel := d.c.call(ctx)
	defer cancel()
	streams := d.c.js.StreamNames(call)
	for name := range streams.Name() {
		if !topicOnly(name) {
			continue
		}
		s, err := d.c.js.Stream(call, name)
		if err != nil {
			return classify(op, name, err)
		}
		names := s.ConsumerNames(call)
		for cons := range names.Name() {
			if strings.HasPrefix(cons, userConsumer) {
				if err := d.c.cfg.Server.door.openConsumer(name, cons); err != nil {
					return schemas.Errorf(schemas.Internal, op, "%s: %w", cons, err)
				}
			}
		}
		if err := names.Err(); err != nil {
			return classify(op, name, err)
		}
	}
	return classify(op, "streams", streams.Err())
}

// sweep forgets answers that nobody gave.
func (d *door) sweep() {
	defer d.c.wg.Done()
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-d.c.closing.Done():
			return
		case now := <-t.C:
			d.front.sweep(now)
		}
	}
}

// publish stores what a user published on a topic. One goroutine runs it, so a user's order is kept.
func (d *door) publish(m *nats.Msg) {
	topic, p := strings.TrimPrefix(m.Subject, subjectTopic), -1
	if i := strings.LastIndexByte(topic, '.'); i > 0 && topic[i+1] >= '0' && topic[i+1] <= '9' {
		n, err := strconv.Atoi(topic[i+1:])
		if err != nil || strconv.Itoa(n) != topic[i+1:] {
			d.refuse(m, 400, "no such partition")
			return
		}
		topic, p = topic[:i], n
	}
	n, err := d.partitions(topic)
	switch {
	case schemas.KindOf(err) == schemas.NotFound || schemas.KindOf(err) == schemas.Invalid:
		d.refuse(m, 404, "no topic "+oneLine(topic, 200))
		return
	case err != nil:
		d.refuse(m, 503, "the store cannot be reached, try again")
		return
	case p >= n:
		d.refuse(m, 400, "topic "+topic+" has "+strconv.Itoa(n)+" partitions")
		return
	}
	q := &nats.Msg{Header: userHeader(m.Header), Data: m.Data}
	if size, limit := len(q.Data)+headerSize(q.Header), d.c.MaxPayload()-deadRoom; size > limit {
		d.refuse(m, 400, "message of "+strconv.Itoa(size)+" bytes with its headers: at most "+strconv.Itoa(limit))
		return
	}
	if p < 0 {
		if k := schemas.Header(m.Header).Get(schemas.HeaderKey); k != "" {
			p = partitionOf(k, n)
		} else {
			p = int(d.c.robin.Add(1) % uint64(n))
		}
	}
	q.Subject = partitionSubject(topic, p)
	d.forward(m, q, false, doorAnswer)
}

func (d *door) partitions(topic string) (int, error) {
	if at, ok := d.unknown[topic]; ok && time.Since(at) < doorUnknown {
		return 0, schemas.Errorf(schemas.NotFound, "nats.door", "no topic")
	}
	n, err := d.c.partitions(d.c.closing, topic)
	if schemas.KindOf(err) == schemas.NotFound && err != nil {
		if len(d.unknown) > 1000 { // a user that tries names must not fill the memory
			clear(d.unknown)
		}
		d.unknown[topic] = time.Now()
	} else {
		delete(d.unknown, topic)
	}
	return n, err
}

// userHeader keeps what a user may say.
func userHeader(h nats.Header) nats.Header {
	out := make(nats.Header, len(h))
	for k, v := range h {
		if k == schemas.HeaderPrincipal || !utterable(k) {
			continue
		}
		out[k] = v
	}
	return out
}

// put stores what a user set in a bucket. One goroutine runs it, so a user's order is kept.
func (d *door) put(m *nats.Msg) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(m.Subject, subjectBucket), ".")
	if schemas.CheckBucket(bucket) != nil || key == "" {
		d.refuse(m, 403, "not open to users: only buckets of features are, and their names do not begin with LEAT_")
		return
	}
	q := &nats.Msg{Subject: m.Subject, Header: userHeader(m.Header), Data: m.Data}
	if m.Header.Get(jetstream.MsgRollup) == jetstream.MsgRollupSubject { // a purge of the key; the other one is of the bucket
		q.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	}
	if ttl := m.Header.Get(jetstream.MsgTTLHeader); ttl != "" {
		q.Header.Set(jetstream.MsgTTLHeader, ttl)
	}
	if size, limit := len(q.Data)+headerSize(q.Header), d.c.MaxPayload(); size > limit {
		d.refuse(m, 400, "value of "+strconv.Itoa(size)+" bytes with its headers: at most "+strconv.Itoa(limit))
		return
	}
	d.forward(m, q, false, doorAnswer)
}

// utterable: of the headers that the server acts on, those of a publish that touch only the message itself.
func utterable(k string) bool {
	if len(k) < 5 || !strings.EqualFold(k[:5], "nats-") {
		return true
	}
	switch k {
	case jetstream.MsgIDHeader, jetstream.ExpectedLastSeqHeader, jetstream.ExpectedLastSubjSeqHeader, jetstream.ExpectedLastMsgIDHeader:
		return true
	}
	return false
}

// forward sends q into LEAT; the answers go to whoever sent m.
func (d *door) forward(m, q *nats.Msg, many bool, wait time.Duration) {
	if m.Reply != "" {
		var ok bool
		if q.Reply, ok = d.front.expect(m.Reply, many, time.Now().Add(wait)); !ok {
			d.refuse(m, 503, "too much is on the way, try again")
			return
		}
	}
	if err := d.c.core.PublishMsg(q); err != nil {
		d.refuse(m, 503, "the store cannot be reached, try again")
	}
}

// refuse answers as JetStream does.
func (d *door) refuse(m *nats.Msg, code int, text string) {
	if m.Reply == "" {
		return
	}
	var body struct {
		Error jetstream.APIError `json:"error"`
	}
	body.Error = jetstream.APIError{Code: code, Description: text}
	switch code {
	case 404:
		body.Error.ErrorCode = codeStreamNotFound
	case 403:
		body.Error.ErrorCode = 10000 // none of JetStream's own codes says "denied"
	default:
		body.Error.ErrorCode = 10003 // bad request
	}
	b, err := json.Marshal(body)
	if err == nil {
		err = m.Respond(b)
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		d.c.log.Debug("door", "error", err)
	}
}

// userConsumer is the prefix of the names of users' consumers.
const userConsumer = "app-"

// call passes the calls of JetStream's API that read topics.
func (d *door) call(m *nats.Msg) {
	rest := strings.TrimPrefix(m.Subject, subjectDoor)
	t := strings.Split(rest, ".")
	q := &nats.Msg{Subject: "$JS.API." + rest, Data: m.Data}
	ok, many := false, false
	switch {
	case len(t) == 3 && t[0] == "STREAM" && t[1] == "INFO":
		ok = topicOnly(t[2]) || bucketOnly(t[2])
	case len(t) >= 3 && t[0] == "DIRECT" && t[1] == "GET":
		ok, many = topicOnly(t[2]) || bucketOnly(t[2]), true
	case len(t) >= 3 && t[0] == "CONSUMER" && t[1] == "CREATE":
		if ok = topicOnly(t[2]); ok {
			create, name, err := userCreate(t[2:], m.Data)
			if err == nil {
				err = d.c.cfg.Server.door.openConsumer(t[2], name)
			}
			if err != nil {
				d.refuse(m, 400, oneLine(err.Error(), 300))
				return
			}
			q = create
		}
	case len(t) == 4 && t[0] == "CONSUMER" && (t[1] == "INFO" || t[1] == "DELETE"):
		ok = topicOnly(t[2]) && strings.HasPrefix(t[3], userConsumer)
	case len(t) == 5 && t[0] == "CONSUMER" && t[1] == "MSG" && t[2] == "NEXT":
		if ok = topicOnly(t[3]) && strings.HasPrefix(t[4], userConsumer); ok {
			return // the server itself passes it, if there is such a consumer: see openConsumer
		}
	}
	if !ok {
		d.refuse(m, 403, notOpen)
		return
	}
	d.forward(m, q, many, doorAnswer)
}

func topicOnly(stream string) bool { return strings.HasPrefix(stream, streamTopic) }

func bucketOnly(stream string) bool {
	_, ok := bucketOfStream(stream)
	return ok
}

const notOpen = "not open to users: values of buckets may be put and got, and topics may be read by consumers whose names begin with " + userConsumer

// plainName keeps out what JSON would write in another way than the subject does, such as bytes that are no UTF-8.
func plainName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// userCreate rebuilds a request to make a consumer from what a user may ask for. t is stream[.name[.filter...]].
func userCreate(t []string, body []byte) (m *nats.Msg, name string, err error) {
	var r struct {
		Stream string                   `json:"stream_name"`
		Config jetstream.ConsumerConfig `json:"config"`
		Action string                   `json:"action,omitempty"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, "", err
	}
	name = r.Config.Name
	if r.Config.Durable != "" {
		name = r.Config.Durable
	}
	if len(t) > 1 {
		name = t[1]
	}
	if name == "" {
		name = userConsumer + randomHex(6)
	}
	if err := checkToken("nats.door", "consumer", name); err != nil {
		return nil, "", err
	}
	switch in := &r.Config; {
	case !plainName(name):
		return nil, "", errors.New("consumer name: want letters, digits, '-' and '_' only")
	case !strings.HasPrefix(name, userConsumer):
		return nil, "", errors.New("consumer " + name + ": a user's consumer has a name that begins with " + userConsumer)
	case in.DeliverSubject != "" || in.DeliverGroup != "" || in.FlowControl || in.IdleHeartbeat != 0:
		return nil, "", errors.New("consumer " + name + ": a user's consumer is pulled from, it cannot push")
	case r.Stream != "" && r.Stream != t[0]:
		return nil, "", errors.New("consumer " + name + ": the request names two streams")
	}
	in := r.Config
	durable := ""
	if in.Durable != "" {
		durable = name
	}
	r.Stream = t[0]
	r.Config = jetstream.ConsumerConfig{
		Name: name, Durable: durable, DeliverPolicy: in.DeliverPolicy, OptStartSeq: in.OptStartSeq, OptStartTime: in.OptStartTime,
		AckPolicy: in.AckPolicy, AckWait: in.AckWait, MaxDeliver: in.MaxDeliver, BackOff: in.BackOff, FilterSubject: in.FilterSubject,
		FilterSubjects: in.FilterSubjects, ReplayPolicy: in.ReplayPolicy, MaxAckPending: in.MaxAckPending,
		InactiveThreshold: in.InactiveThreshold, MaxRequestBatch: in.MaxRequestBatch, Replicas: in.Replicas, HeadersOnly: in.HeadersOnly,
		MaxWaiting: in.MaxWaiting, MaxRequestExpires: in.MaxRequestExpires, MaxRequestMaxBytes: in.MaxRequestMaxBytes,
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, "", err
	}
	subject := "$JS.API.CONSUMER.CREATE." + t[0] + "." + name
	if f := r.Config.FilterSubject; f != "" {
		subject += "." + f
	}
	return &nats.Msg{Subject: subject, Data: b}, name, nil
}
