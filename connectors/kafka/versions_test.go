package kafka

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leatstream/leat/integration/kafka/broker"
)

// TestBrokers: a real broker speaks all that is used, and says what it is.
func TestBrokers(t *testing.T) {
	bs, err := open(t).Brokers(within(t))
	must(t, err)
	if len(bs) != broker.Count() {
		t.Fatalf("%d brokers", len(bs))
	}
	for i, b := range bs {
		if b.ID != i+1 || b.Address != broker.Shared(t).Addr(i+1) || b.Err != nil || b.Calls != len(calls) || len(b.Lacks) != 0 || b.Release != "4.4" || b.Features["metadata.version"] < 31 {
			t.Errorf("%+v", b)
		}
	}
}

// TestBrokersAway: one that cannot be reached is told beside those that can.
func TestBrokersAway(t *testing.T) {
	b := broker.Start(t, 2)
	c := dialConfig(t, testConfig(b))
	b.Stop(t, 2) // the other may be no majority, and answers all the same
	defer b.Cont(t, 2)
	bs, err := c.Brokers(within(t))
	must(t, err)
	if len(bs) != 2 || bs[0].Err != nil || bs[0].Calls != len(calls) || bs[1].Err == nil || !strings.Contains(bs[1].Err.Error(), b.Addr(2)) {
		t.Fatalf("%+v", bs)
	}
}

func TestLacks(t *testing.T) {
	good := func() *brokerVersions {
		v := &brokerVersions{calls: map[protocol.ApiKey][2]int16{}}
		for _, s := range calls {
			v.calls[s.key] = [2]int16{s.min, s.max + 3}
		}
		return v
	}
	var b BrokerInfo
	good().tell(&b)
	if len(b.Lacks) != 0 || b.Calls != len(calls) || b.Release != "" {
		t.Fatalf("%+v", b)
	}
	for _, k := range []struct {
		have [2]int16
		gone bool
		want string
	}{
		{have: [2]int16{0, 6}, want: "OffsetFetch is spoken up to version 6, and 7 is needed, which came with Kafka 2.5"},
		{have: [2]int16{8, 12}, want: "OffsetFetch is spoken from version 8 on, and Leat speaks it up to 7: it is older than the broker"},
		{gone: true, want: "OffsetFetch is missing, which came with Kafka 2.5"},
	} {
		v := good()
		v.calls[protocol.OffsetFetch] = k.have
		if k.gone {
			delete(v.calls, protocol.OffsetFetch)
		}
		var b BrokerInfo
		v.tell(&b)
		if len(b.Lacks) != 1 || b.Lacks[0] != k.want || b.Calls != len(calls)-1 {
			t.Errorf("%+v, want %q", b, k.want)
		}
	}
	for level, want := range map[int]string{0: "", 6: "", 7: "3.3", 14: "3.6", 21: "3.9", 25: "4.0", 29: "4.2", 33: "4.4", 60: "4.4 or later"} {
		if got := releaseOf(level); got != want {
			t.Errorf("level %d is %q, want %q", level, got, want)
		}
	}
}

// TestOldBroker: a broker of before Kafka 2.4, which does not know the question, is asked in words that it knows. It is
// played by a connection that answers as such a broker does, between the client and a real one.
func TestOldBroker(t *testing.T) {
	c := testConfig(broker.Shared(t))
	c.dialer = oldBroker
	bs, err := dialConfig(t, c).Brokers(within(t))
	must(t, err)
	for _, b := range bs {
		if b.Err != nil || b.Release != "" || b.Calls != len(calls)-2 || len(b.Lacks) != 2 || !strings.HasPrefix(b.Lacks[0], "OffsetFetch is spoken up to version 6") {
			t.Fatalf("%+v", b)
		}
	}
}

// oldBroker is a connection to a broker whose answers about versions are those of Kafka 2.3.
func oldBroker(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	real, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	go func() {
		defer real.Close()
		defer far.Close()
		for {
			req, err := frame(far)
			if err != nil {
				return
			}
			key, version := protocol.ApiKey(binary.BigEndian.Uint16(req[4:])), binary.BigEndian.Uint16(req[6:])
			if key == protocol.ApiVersions && version > 2 {
				a := append(append(make([]byte, 4), req[8:12]...), 0, byte(kafka.UnsupportedVersion), 0, 0, 0, 1, 0, byte(protocol.ApiVersions), 0, 0, 0, 2)
				binary.BigEndian.PutUint32(a, uint32(len(a)-4))
				if _, err := far.Write(a); err != nil {
					return
				}
				continue
			}
			if _, err := real.Write(req); err != nil {
				return
			}
			a, err := frame(real)
			if err != nil {
				return
			}
			if key == protocol.ApiVersions {
				for at := 14; at+6 <= len(a); at += 6 {
					switch protocol.ApiKey(binary.BigEndian.Uint16(a[at:])) {
					case protocol.OffsetFetch:
						binary.BigEndian.PutUint16(a[at+4:], 6)
					case protocol.TxnOffsetCommit:
						binary.BigEndian.PutUint16(a[at+4:], 2)
					}
				}
			}
			if _, err := far.Write(a); err != nil {
				return
			}
		}
	}()
	return near, nil
}

// frame reads a request or an answer with its size.
func frame(r io.Reader) ([]byte, error) {
	b := make([]byte, 4)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	b = append(b, make([]byte, binary.BigEndian.Uint32(b))...)
	_, err := io.ReadFull(r, b[4:])
	return b, err
}

func FuzzVersions(f *testing.F) {
	f.Add([]byte{0, 0, 2, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0}, true)
	f.Add([]byte{0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2}, true)
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2}, false)
	f.Add([]byte{0, 0, 1, 0, 0, 0, 0, 1, 2, 9, 2, 2, 'm', 0, 4, 0, 1, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, flexible bool) {
		version := int16(0)
		if flexible {
			version = versionsVersion
		}
		if v, code, err := parseVersions(b, version); err == nil && code == 0 {
			v.tell(new(BrokerInfo))
		}
	})
}
