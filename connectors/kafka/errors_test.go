package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leatstream/leat/schemas"
)

// TestClassify: each error has its kind, and is worth another try or not.
func TestClassify(t *testing.T) {
	refusedDial := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for _, k := range []struct {
		err  error
		kind schemas.Kind
		pass bool
	}{
		{kafka.UnknownTopicOrPartition, schemas.NotFound, true}, // it may have been made just now
		{kafka.LeaderNotAvailable, schemas.Unavailable, true},
		{kafka.NotLeaderForPartition, schemas.Unavailable, true},
		{kafka.RequestTimedOut, schemas.Unavailable, true},
		{kafka.GroupLoadInProgress, schemas.Unavailable, true},
		{kafka.GroupCoordinatorNotAvailable, schemas.Unavailable, true},
		{kafka.NotCoordinatorForGroup, schemas.Unavailable, true},
		{kafka.NotEnoughReplicas, schemas.Unavailable, true},
		{kafka.NotEnoughReplicasAfterAppend, schemas.Unavailable, true},
		{kafka.KafkaStorageError, schemas.Unavailable, true},
		{kafka.MessageSizeTooLarge, schemas.Invalid, false},
		{kafka.InvalidTopic, schemas.Invalid, false},
		{kafka.PolicyViolation, schemas.Invalid, false},
		{kafka.TopicAuthorizationFailed, schemas.Denied, false},
		{kafka.SASLAuthenticationFailed, schemas.Denied, false},
		{kafka.Unknown, schemas.Internal, false},
		{kafka.Error(9999), schemas.Internal, false},
		{fmt.Errorf("wrapped: %w", kafka.NotLeaderForPartition), schemas.Unavailable, true},
		{protocol.NewErrNoTopic("t"), schemas.NotFound, true},
		{refusedDial, schemas.Unavailable, true},
		{io.EOF, schemas.Unavailable, true},
		{net.ErrClosed, schemas.Unavailable, true},
		{context.DeadlineExceeded, schemas.Expired, true},
		{context.Canceled, schemas.Unavailable, true},
		{errors.New("remote error: tls: bad certificate"), schemas.Denied, false},
		{errWantsTLS, schemas.Denied, false},
		{errors.New("who knows"), schemas.Internal, false},
	} {
		err := classify("op", "what", k.err)
		if got := schemas.KindOf(err); got != k.kind || passing(k.err) != k.pass || !errors.Is(err, k.err) || !strings.HasPrefix(err.Error(), "what: ") {
			t.Errorf("%v: %v, worth another try %v, said as %q", k.err, got, passing(k.err), err)
		}
	}
	if classify("op", "what", nil) != nil {
		t.Error("nil is an error")
	}
	own := schemas.Errorf(schemas.Overloaded, "op", "mine")
	if classify("op", "what", own) != error(own) {
		t.Error("an error of ours was changed")
	}
	if s := classify("op", "what", errors.New("two\r\n  lines")).Error(); s != "what: two lines" {
		t.Errorf("%q", s)
	}
}

// TestPartitions: the vectors of Kafka's own UtilsTest.testMurmur2, and that a topic's partition is never out of range.
func TestPartitions(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(murmur2(key)); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
	for n := 1; n < 300; n++ {
		if p := partitionOf(fmt.Sprint("key", n), n); p < 0 || int(p) >= n {
			t.Errorf("partition %d of %d", p, n)
		}
	}
}
