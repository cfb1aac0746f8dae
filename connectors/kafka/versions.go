package kafka

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"golang.org/x/sync/errgroup"
)

// spoken is a call of Kafka's protocol with the versions that are spoken here.
type spoken struct {
	key      protocol.ApiKey
	min, max int16
	since    string // the release of Kafka that brought the least of them
}

// calls are all that this package makes, by itself or through the library. A broker that has none of a call's versions
// cannot be worked with: the library would send what the broker does not read.
var calls = []spoken{
	{protocol.Metadata, 1, 8, "0.10"},
	{protocol.Produce, 3, 8, "0.11"},
	{protocol.Fetch, 4, 11, "0.11"},
	{protocol.ListOffsets, 1, 5, "0.10.1"},
	{protocol.FindCoordinator, 1, 2, "0.11"},
	{protocol.JoinGroup, 1, 2, "0.10.1"},
	{protocol.SyncGroup, 0, 0, "0.9"},
	{protocol.Heartbeat, 0, 0, "0.9"},
	{protocol.LeaveGroup, 1, 1, "0.11"},
	{protocol.OffsetCommit, 2, 7, "0.9"},
	{protocol.OffsetFetch, offsetFetchVersion, offsetFetchVersion, "2.5"},
	{protocol.DescribeGroups, 0, 5, "0.9"},
	{protocol.ListGroups, 0, 2, "0.9"},
	{protocol.DeleteGroups, 0, 2, "1.1"},
	{protocol.CreateTopics, 1, 5, "0.10.2"},
	{protocol.DeleteTopics, 0, 3, "0.10.1"},
	{protocol.DescribeConfigs, 0, 3, "0.11"},
	{protocol.IncrementalAlterConfigs, 0, 0, "2.3"},
	{protocol.DeleteRecords, deleteRecordsVersion, deleteRecordsVersion, "2.0"},
	{protocol.DescribeLogDirs, logDirsVersion, logDirsVersion, "2.0"},
	{protocol.InitProducerId, 0, 4, "0.11"},
	{protocol.AddPartitionsToTxn, 0, 3, "0.11"},
	{protocol.AddOffsetsToTxn, 0, 3, "0.11"},
	{protocol.TxnOffsetCommit, 3, 3, "2.5"},
	{protocol.EndTxn, 0, 3, "0.11"},
}

// Oldest is the first release of Kafka that has all that is used here.
const Oldest = "2.5"

// BrokerInfo is a broker as this client reaches it.
type BrokerInfo struct {
	ID      int
	Address string // host:port, as the broker gives it to clients
	Release string // of the cluster's metadata, such as "4.2"; "" if the broker does not tell, as before 3.3 or with ZooKeeper
	// Features are those that the cluster has agreed on, with their levels: metadata.version, transaction.version.
	Features map[string]int
	Calls    int      // calls that are used here, and spoken by both
	Lacks    []string // those that are not: what the broker speaks, and what is needed
	Err      error    // it was not reached, or did not answer
}

// Brokers asks every broker of the cluster what it speaks, in order of ids. An error means that none told which there are.
func (c *Client) Brokers(ctx context.Context) ([]BrokerInfo, error) {
	const op = "kafka.Brokers"
	cluster, err := c.meta.look(ctx, nil)
	if err != nil {
		return nil, classify(op, "brokers", err)
	}
	out := make([]BrokerInfo, len(cluster.Brokers))
	var g errgroup.Group
	g.SetLimit(describing)
	var once sync.Once
	for i, b := range cluster.Brokers {
		out[i] = BrokerInfo{ID: int(b.NodeID), Address: b.Host + ":" + strconv.Itoa(int(b.Port))}
		g.Go(func() error {
			v, err := c.versions(ctx, b.NodeID)
			if err != nil && passing(err) { // the library may not have heard of it
				once.Do(func() { _ = c.rediscover(ctx) }) // what fails shows in the next line
				v, err = c.versions(ctx, b.NodeID)
			}
			if err != nil {
				out[i].Err = classify(op, "broker "+out[i].Address, err)
				return nil
			}
			v.tell(&out[i])
			return nil
		})
	}
	_ = g.Wait() // no call returns an error
	slices.SortFunc(out, func(a, b BrokerInfo) int { return a.ID - b.ID })
	return out, nil
}

// brokerVersions is what a broker says of itself.
type brokerVersions struct {
	calls    map[protocol.ApiKey][2]int16
	features map[string]int
}

// ApiKey implements protocol.Message.
func (*brokerVersions) ApiKey() protocol.ApiKey { return protocol.ApiVersions }

func (v *brokerVersions) tell(b *BrokerInfo) {
	b.Features = v.features
	b.Release = releaseOf(v.features["metadata.version"])
	for _, s := range calls {
		have, ok := v.calls[s.key]
		switch {
		case !ok:
			b.Lacks = append(b.Lacks, fmt.Sprintf("%s is missing, which came with Kafka %s", s.key, s.since))
		case have[1] < s.min:
			b.Lacks = append(b.Lacks, fmt.Sprintf("%s is spoken up to version %d, and %d is needed, which came with Kafka %s", s.key, have[1], s.min, s.since))
		case have[0] > s.max:
			b.Lacks = append(b.Lacks, fmt.Sprintf("%s is spoken from version %d on, and Leat speaks it up to %d: it is older than the broker", s.key, have[0], s.max))
		default:
			b.Calls++
		}
	}
}

// releases are the first levels of metadata.version of Kafka's releases.
var releases = []struct {
	level int
	name  string
}{{7, "3.3"}, {8, "3.4"}, {9, "3.5"}, {12, "3.6"}, {15, "3.7"}, {20, "3.8"}, {21, "3.9"}, {22, "4.0"}, {26, "4.1"}, {28, "4.2"}, {30, "4.3"}, {31, "4.4"}}

func releaseOf(level int) (name string) {
	for _, r := range releases {
		if level >= r.level {
			name = r.name
		}
	}
	if level > releases[len(releases)-1].level+3 { // a release has a few levels
		name += " or later"
	}
	return name
}

// versionsVersion is that of the request whose answer has the cluster's features. Brokers before Kafka 2.4 refuse it in
// the words of version 0, which they are then asked in.
const versionsVersion = 3

// versions asks a broker what it speaks. The library does so too, and tells nobody.
func (c *Client) versions(ctx context.Context, broker int32) (*brokerVersions, error) {
	m, err := c.trip(ctx, c.cfg.CallTimeout, &call{key: protocol.ApiVersions, broker: broker, exchange: func(rw io.ReadWriter, _ int16) (protocol.Message, error) {
		for _, version := range []int16{versionsVersion, 0} {
			if _, err := rw.Write(versionsRequest(version, c.cfg.ClientID)); err != nil {
				return nil, err
			}
			b, err := readAnswer(rw)
			if err != nil {
				return nil, err
			}
			v, code, err := parseVersions(b, version)
			if err != nil {
				return nil, err
			}
			if err := codeError(code); err == nil {
				return v, nil
			} else if kafka.Error(code) != kafka.UnsupportedVersion {
				return nil, err
			}
		}
		return nil, kafka.UnsupportedVersion
	}})
	if err != nil {
		return nil, err
	}
	return m.(*brokerVersions), nil
}

func versionsRequest(version int16, clientID string) []byte {
	w := newRequest(protocol.ApiVersions, version, clientID)
	if version >= 3 {
		w.tags()
		w.compact("leat")
		w.compact("0")
		w.tags()
	}
	return w.done()
}

// parseVersions reads an answer. One with an error code is that of version 0, whatever was asked.
func parseVersions(b []byte, version int16) (*brokerVersions, int16, error) {
	r := answerReader{b: b}
	v := &brokerVersions{calls: map[protocol.ApiKey][2]int16{}, features: map[string]int{}}
	code := r.int16()
	if code != 0 {
		return nil, code, nil
	}
	flexible := version >= 3
	n := 0
	if flexible {
		n = r.compactCount(7)
	} else {
		n = r.count(6)
	}
	for range n {
		key := protocol.ApiKey(r.int16())
		v.calls[key] = [2]int16{r.int16(), r.int16()}
		if flexible {
			r.tags()
		}
	}
	if flexible {
		r.int32() // throttle
		for range min(r.uvarint(), uint64(len(r.b))) {
			tag, size := r.uvarint(), r.uvarint()
			if size > uint64(len(r.b)) {
				r.bad = true
				break
			}
			body := answerReader{b: r.take(int(size))}
			if tag != 2 { // the features that are finalized; others: those supported, their epoch
				continue
			}
			for range body.compactCount(6) {
				name, level := body.compact(), int(body.int16())
				body.int16() // the least level
				body.tags()
				v.features[name] = level
			}
			r.bad = r.bad || body.bad
		}
	}
	if r.bad {
		return nil, 0, fmt.Errorf("versions: %w", errCut)
	}
	return v, 0, nil
}
