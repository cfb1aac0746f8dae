package kafka

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/listgroups"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	meta "github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/connectors"
)

// own begins the names of what Leat keeps for itself: requests, answers, lineage, dead letters. It is not listed among
// users' topics.
const own = "leat."

// describing bounds the calls that a description has under way at once.
const describing = 8

// Topic implements connectors.Topics. Messages counts offsets: the markers of transactions and what compaction took are
// among them.
func (c *Client) Topic(ctx context.Context, name string) (connectors.TopicInfo, error) {
	const op = "kafka.Topic"
	if err := checkTopicName(op, name); err != nil {
		return connectors.TopicInfo{}, err
	}
	if _, err := c.meta.fresh(ctx, op, c.name(name)); err != nil {
		return connectors.TopicInfo{}, err
	}
	l, err := c.describeTopics(ctx, op, []string{c.name(name)})
	if err != nil {
		return connectors.TopicInfo{}, err
	}
	if len(l) != 1 {
		return connectors.TopicInfo{}, noTopic(op, name)
	}
	c.times(ctx, l[0])
	return l[0].info, nil
}

// ListTopics implements connectors.Topics: all topics whose names carry the prefix, but Kafka's own and Leat's own.
func (c *Client) ListTopics(ctx context.Context) ([]connectors.TopicInfo, error) {
	l, err := c.describeTopics(ctx, "kafka.ListTopics", nil)
	if err != nil {
		return nil, err
	}
	out := make([]connectors.TopicInfo, len(l))
	for i, t := range l {
		out[i] = t.info
	}
	return out, nil
}

// described is a topic while what is known of it is put together.
type described struct {
	topic       string // in the cluster
	leaders     []int32
	first, ends []int64
	info        connectors.TopicInfo
}

// describeTopics describes topics by their names in the cluster, nil meaning all that are listed, in order of names.
// What a partition without a leader holds is not counted.
func (c *Client) describeTopics(ctx context.Context, op string, topics []string) ([]*described, error) {
	cluster, err := c.lookAll(ctx, op, topics)
	if err != nil {
		return nil, err
	}
	var out []*described
	by := map[string]*described{}
	for i := range cluster.Topics {
		t := &cluster.Topics[i]
		name, ok := c.userName(t.Name)
		if !ok || t.ErrorCode != 0 || topics == nil && (t.IsInternal || strings.HasPrefix(name, own)) {
			continue
		}
		d := &described{topic: t.Name, leaders: make([]int32, len(t.Partitions)), first: make([]int64, len(t.Partitions)), ends: make([]int64, len(t.Partitions))}
		for _, p := range t.Partitions {
			if int(p.PartitionIndex) < len(d.leaders) {
				d.leaders[p.PartitionIndex] = p.LeaderID
			}
		}
		d.info = connectors.TopicInfo{Name: name, Partitions: len(t.Partitions)}
		out = append(out, d)
		by[t.Name] = d
	}
	slices.SortFunc(out, func(a, b *described) int { return strings.Compare(a.info.Name, b.info.Name) })
	if len(out) == 0 {
		return nil, nil
	}
	if err := c.ranges(ctx, op, out, by); err != nil {
		return nil, err
	}
	if err := c.groupLags(ctx, op, cluster.Brokers, by); err != nil {
		return nil, err
	}
	c.sizes(ctx, cluster.Brokers, out, by)
	return out, nil
}

// lookAll asks any broker about topics, nil meaning all, until one answers.
func (c *Client) lookAll(ctx context.Context, op string, topics []string) (*meta.Response, error) {
	for tries := 0; ; tries++ {
		r, err := c.ask(ctx, anyBroker, &meta.Request{TopicNames: topics})
		if err == nil {
			return r.(*meta.Response), nil
		}
		if err := c.again(ctx, op, "topics", tries, err); err != nil {
			return nil, err
		}
	}
}

// ranges asks each leader for the first and the last stable offsets of what it leads.
func (c *Client) ranges(ctx context.Context, op string, all []*described, by map[string]*described) error {
	asks := map[int32][]listoffsets.RequestTopic{}
	for _, d := range all {
		of := map[int32][]listoffsets.RequestPartition{}
		for p, l := range d.leaders {
			of[l] = append(of[l], listoffsets.RequestPartition{Partition: int32(p), CurrentLeaderEpoch: -1})
		}
		for l, ps := range of {
			asks[l] = append(asks[l], listoffsets.RequestTopic{Topic: d.topic, Partitions: ps})
		}
	}
	for leader, ts := range asks {
		if leader < 0 {
			continue
		}
		for _, at := range []int64{fromFirst, fromEnd} {
			for i := range ts {
				for j := range ts[i].Partitions {
					ts[i].Partitions[j].Timestamp = at
				}
			}
			r, err := c.ask(ctx, leader, &listoffsets.Request{ReplicaID: -1, IsolationLevel: int8(kafka.ReadCommitted), Topics: ts})
			if err != nil {
				if ctx.Err() != nil || !passing(err) {
					return classify(op, "topics", err)
				}
				c.log.Warn("offsets of topics", "broker", leader, "error", err)
				break
			}
			for _, t := range r.(*listoffsets.Response).Topics {
				d := by[t.Topic]
				for _, p := range t.Partitions {
					if d == nil || p.ErrorCode != 0 || int(p.Partition) >= len(d.ends) {
						continue
					}
					if at == fromFirst {
						d.first[p.Partition] = p.Offset
					} else {
						d.ends[p.Partition] = max(p.Offset, d.first[p.Partition])
					}
				}
			}
		}
	}
	for _, d := range all {
		for p := range d.ends {
			d.info.Messages += uint64(max(d.ends[p]-d.first[p], 0))
		}
	}
	return nil
}

// groupLags adds the groups that have read a topic. Each broker tells of the groups that it coordinates.
func (c *Client) groupLags(ctx context.Context, op string, brokers []meta.ResponseBroker, by map[string]*described) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(describing)
	for _, b := range brokers {
		r, err := c.ask(ctx, b.NodeID, &listgroups.Request{})
		if err == nil {
			err = codeError(r.(*listgroups.Response).ErrorCode)
		}
		if err != nil {
			if ctx.Err() != nil || !passing(err) {
				return classify(op, "groups", err)
			}
			c.log.Warn("groups", "broker", b.NodeID, "error", err)
			continue
		}
		for _, lg := range r.(*listgroups.Response).Groups {
			name, ok := c.userName(lg.GroupID)
			if !ok || lg.ProtocolType != "consumer" && lg.ProtocolType != "" || strings.HasPrefix(name, ledgerPrefix) {
				continue
			}
			g.Go(func() error {
				r, err := c.ask(ctx, b.NodeID, &offsetfetch.Request{GroupID: lg.GroupID})
				if err != nil {
					if passing(err) && ctx.Err() == nil {
						return nil // moving to another broker: not listed now
					}
					return classify(op, "group "+name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				addGroup(by, name, r.(*offsetfetch.Response))
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, d := range by {
		slices.SortFunc(d.info.Groups, func(a, b connectors.Group) int { return strings.Compare(a.Name, b.Name) })
	}
	return nil
}

func addGroup(by map[string]*described, name string, r *offsetfetch.Response) {
	for _, t := range r.Topics {
		d := by[t.Name]
		if d == nil {
			continue
		}
		at := slices.Clone(d.first)
		for _, p := range t.Partitions {
			if int(p.PartitionIndex) < len(at) && p.CommittedOffset >= 0 {
				at[p.PartitionIndex] = max(at[p.PartitionIndex], p.CommittedOffset)
			}
		}
		group := connectors.Group{Name: name}
		for p := range at {
			group.Lag += uint64(max(d.ends[p]-at[p], 0))
		}
		d.info.Groups = append(d.info.Groups, group)
	}
}

// sizes adds the bytes that leaders keep on their disks. Who may not ask that gets none.
func (c *Client) sizes(ctx context.Context, brokers []meta.ResponseBroker, all []*described, by map[string]*described) {
	for _, b := range brokers {
		m, err := c.trip(ctx, c.cfg.CallTimeout, &call{key: protocol.DescribeLogDirs, broker: b.NodeID, exchange: func(rw io.ReadWriter, _ int16) (protocol.Message, error) {
			if _, err := rw.Write(logDirsRequest(c.cfg.ClientID, b.NodeID, all)); err != nil {
				return nil, err
			}
			a, err := readAnswer(rw)
			if err != nil {
				return nil, err
			}
			return parseLogDirs(a)
		}})
		if err != nil {
			c.log.Debug("sizes of topics", "broker", b.NodeID, "error", err)
			continue
		}
		for _, s := range *m.(*logSizes) {
			if d := by[s.topic]; d != nil && int(s.partition) < len(d.leaders) && d.leaders[s.partition] == b.NodeID {
				d.info.Bytes += uint64(max(s.bytes, 0))
			}
		}
	}
}

// logDirsVersion is one that every broker from Kafka 2.0 on knows; the library has no such call.
const logDirsVersion = 1

func logDirsRequest(clientID string, broker int32, all []*described) []byte {
	w := newRequest(protocol.DescribeLogDirs, logDirsVersion, clientID)
	w.int32(int32(len(all)))
	for _, d := range all {
		w.string(d.topic)
		n := 0
		for _, l := range d.leaders {
			n += b2i(l == broker)
		}
		w.int32(int32(n))
		for p, l := range d.leaders {
			if l == broker {
				w.int32(int32(p))
			}
		}
	}
	return w.done()
}

// logSizes is what a broker has on its disks.
type logSizes []logSize

type logSize struct {
	topic     string
	partition int32
	bytes     int64
}

// ApiKey implements protocol.Message.
func (*logSizes) ApiKey() protocol.ApiKey { return protocol.DescribeLogDirs }

func parseLogDirs(b []byte) (*logSizes, error) {
	r := answerReader{b: b}
	var out logSizes
	r.int32() // throttle
	for range r.count(8) {
		r.int16() // a disk that failed has no topics
		r.string()
		for range r.count(6) {
			topic := r.string()
			for range r.count(21) {
				s := logSize{topic: topic, partition: r.int32(), bytes: r.int64()}
				r.int64() // how far behind
				if future := r.take(1); len(future) == 1 && future[0] == 0 {
					out = append(out, s)
				}
			}
		}
	}
	if r.bad {
		return nil, fmt.Errorf("log directories: %w", errCut)
	}
	return &out, nil
}

// times adds when the oldest and the newest message were stored, as far as the leaders tell now.
func (c *Client) times(ctx context.Context, d *described) {
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(describing)
	see := func(p int32, offset int64, add func(first, last time.Time)) {
		g.Go(func() error {
			a, err := c.fetch(ctx, d.leaders[p], 0, d.topic, p, offset, 1)
			if err != nil {
				c.log.Debug("times of a topic", "topic", d.topic, "partition", p, "error", err)
				return nil
			}
			if s, _, ok, err := nextBatch(a.records); err == nil && ok && s.old == nil {
				from := s.firstTime
				if s.appendTime {
					from = s.maxTime
				}
				mu.Lock()
				defer mu.Unlock()
				add(time.UnixMilli(from), time.UnixMilli(s.maxTime))
			}
			return nil
		})
	}
	for p := range d.ends {
		if d.ends[p] <= d.first[p] || d.leaders[p] < 0 {
			continue
		}
		see(int32(p), d.first[p], func(first, _ time.Time) {
			if d.info.First.IsZero() || first.Before(d.info.First) {
				d.info.First = first
			}
		})
		see(int32(p), d.ends[p]-1, func(_, last time.Time) {
			if last.After(d.info.Last) {
				d.info.Last = last
			}
		})
	}
	g.Wait() // no call returns an error
}

// again is nil, after a pause, when err is worth another try, and else what to tell the caller.
func (c *Client) again(ctx context.Context, op, what string, tries int, err error) error {
	switch {
	case ctx.Err() != nil || c.closing.Err() != nil:
		return c.late(ctx, op, what, err)
	case !passing(err):
		return classify(op, what, err)
	case sleep(ctx, min(retryPause<<min(tries, 4), time.Second/4)) != nil:
		return c.late(ctx, op, what, err)
	}
	return nil
}
