package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leatstream/leat/schemas"
)

// classify turns an error of the library or a broker into ours, in one line. nil stays nil.
func classify(op, what string, err error) error {
	if err == nil {
		return nil
	}
	var own *schemas.Error
	if errors.As(err, &own) {
		return err
	}
	return schemas.Errorf(kindOf(err), op, "%s: %w", what, plainly(err))
}

func kindOf(err error) schemas.Kind {
	var code kafka.Error
	if errors.As(err, &code) {
		return kindOfCode(code)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return schemas.Expired
	case errors.Is(err, protocol.ErrNoTopic), errors.Is(err, protocol.ErrNoPartition):
		return schemas.NotFound
	case refusedBySecurity(err):
		return schemas.Denied
	case passing(err):
		return schemas.Unavailable
	}
	return schemas.Internal
}

func kindOfCode(code kafka.Error) schemas.Kind {
	switch code {
	case kafka.UnknownTopicOrPartition, kafka.GroupIdNotFound, kafka.ResourceNotFound, kafka.TransactionalIDNotFound, kafka.UnknownTopicID:
		return schemas.NotFound
	case kafka.TopicAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.SASLAuthenticationFailed,
		kafka.TransactionalIDAuthorizationFailed, kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState, kafka.DelegationTokenAuthorizationFailed,
		kafka.SecurityDisabled:
		return schemas.Denied
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidTopic, kafka.InvalidTimestamp, kafka.InvalidRecord,
		kafka.InvalidPartitionNumber, kafka.InvalidReplicationFactor, kafka.InvalidReplicaAssignment, kafka.InvalidConfiguration,
		kafka.PolicyViolation, kafka.InvalidSessionTimeout, kafka.InvalidGroupId, kafka.InvalidTransactionTimeout, kafka.UnsupportedVersion,
		kafka.TopicAlreadyExists, kafka.TopicDeletionDisabled:
		return schemas.Invalid
	}
	if passing(code) {
		return schemas.Unavailable
	}
	return schemas.Internal
}

// plainly says what a reader can act on where the library's own words do not.
func plainly(err error) error {
	var (
		code    kafka.Error
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
		record  tls.RecordHeaderError
		words   said
	)
	switch {
	case errors.As(err, &words):
		return oneLine(err)
	case errors.As(err, &code):
		return said{titleOf(code), err}
	case errors.As(err, &record):
		return said{"the broker does not speak TLS on this port: unset kafka.tls, or take the port of its TLS listener", err}
	case errors.Is(err, errWantsTLS):
		return said{errWantsTLS.Error(), err}
	case errors.As(err, &unknown):
		return said{"the broker's certificate is signed by an authority that is not known here: set kafka.tls.ca_file", err}
	case errors.As(err, &host):
		return said{host.Error() + ": set kafka.tls.server_name", err}
	case strings.Contains(err.Error(), "tls: bad certificate"), strings.Contains(err.Error(), "tls: certificate required"):
		return said{"the broker wants a client certificate, and another one than it got if any: set kafka.tls.cert_file and kafka.tls.key_file", err}
	}
	return oneLine(err)
}

// titleOf is what a broker means by a code, where the library's title does not say what to do.
func titleOf(code kafka.Error) string {
	switch code {
	case kafka.SASLAuthenticationFailed:
		return "authentication failed: check kafka.sasl.username and kafka.sasl.password_file"
	case kafka.IllegalSASLState:
		return "the broker wants no credentials on this port: unset kafka.sasl, or take the port of its SASL listener"
	case kafka.UnsupportedSASLMechanism:
		return "the broker does not offer this mechanism: change kafka.sasl.mechanism"
	case kafka.TopicAuthorizationFailed:
		return "no right to this topic, as the broker has it"
	case kafka.GroupAuthorizationFailed:
		return "no right to this group, as the broker has it"
	case kafka.ClusterAuthorizationFailed:
		return "no right to this on the cluster, as the broker has it"
	}
	return code.Title()
}

// hint adds to an error of Dial what is the likely cause of a connection that came up and brought nothing.
func (c *Config) hint(err error) error {
	switch {
	case errors.As(err, new(said)), errors.As(err, new(kafka.Error)), errors.As(err, new(*net.DNSError)), errors.Is(err, syscall.ECONNREFUSED):
		return err
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET):
		if outOfTime(err) {
			return said{"no answer in time: is it a Kafka broker, and is it well? (" + err.Error() + ")", err}
		}
		return err
	case c.TLS.enabled():
		return said{"the broker hung up: does it speak TLS on this port? If not, unset kafka.tls (" + err.Error() + ")", err}
	case c.SASL.Mechanism == "":
		return said{"the broker hung up: does it want TLS or credentials on this port? If so, set kafka.tls or kafka.sasl (" + err.Error() + ")", err}
	}
	return said{"the broker hung up: does it want TLS on this port? If so, set kafka.tls (" + err.Error() + ")", err}
}

// said has other words for an error.
type said struct {
	words string
	err   error
}

func (s said) Error() string { return s.words }
func (s said) Unwrap() error { return s.err }

func oneLine(err error) error {
	if s := err.Error(); strings.ContainsAny(s, "\r\n") {
		return said{strings.Join(strings.Fields(s), " "), err}
	}
	return err
}

// outOfTime reports whether all that is known is that it took too long.
func outOfTime(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// refusedBySecurity reports whether the two ends will never agree as they are set.
func refusedBySecurity(err error) bool {
	var (
		code    kafka.Error
		record  tls.RecordHeaderError
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		alert   tls.AlertError
	)
	switch {
	case errors.As(err, &code):
		return kindOfCode(code) == schemas.Denied
	case errors.As(err, &record), errors.As(err, &host), errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &alert):
		return true
	}
	return errors.Is(err, errWantsTLS) || strings.Contains(err.Error(), "remote error: tls:")
}

// passing reports whether the cluster, not the request, is the trouble: worth trying again, as long as the caller
// waits.
func passing(err error) bool {
	var code kafka.Error
	if errors.As(err, &code) {
		switch code {
		case kafka.InvalidMessage, kafka.UnknownTopicOrPartition, kafka.LeaderNotAvailable, kafka.NotLeaderForPartition, kafka.RequestTimedOut,
			kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.StaleControllerEpoch, kafka.NetworkException, kafka.GroupLoadInProgress,
			kafka.GroupCoordinatorNotAvailable, kafka.NotCoordinatorForGroup, kafka.NotEnoughReplicas, kafka.NotEnoughReplicasAfterAppend,
			kafka.NotController, kafka.ConcurrentTransactions, kafka.KafkaStorageError, kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch,
			kafka.OffsetNotAvailable, kafka.PreferredLeaderNotAvailable, kafka.UnstableOffsetCommit, kafka.ThrottlingQuotaExceeded,
			kafka.UnknownTopicID, kafka.InconsistentTopicID, kafka.FetchSessionIDNotFound, kafka.InvalidFetchSessionEpoch,
			kafka.ListenerNotFound, kafka.StaleBrokerEpoch:
			return true
		}
		return false
	}
	if refusedBySecurity(err) {
		return false
	}
	var op *net.OpError
	var dns *net.DNSError
	return errors.Is(err, protocol.ErrNoLeader) || errors.Is(err, protocol.ErrNoTopic) || errors.Is(err, protocol.ErrNoPartition) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		outOfTime(err) || errors.Is(err, context.Canceled) || errors.As(err, &op) || errors.As(err, &dns)
}

// codeError is the error of a code in an answer, nil for none.
func codeError(code int16) error {
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}
