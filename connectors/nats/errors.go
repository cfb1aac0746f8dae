package nats

import (
	"context"
	"errors"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leatstream/leat/schemas"
)

// Error codes of JetStream's API (nats-server, server/errors.json).
const (
	codeWrongLastSequence = 10071 // expected last sequence per subject: somebody was there
	codeStoreFailed       = 10077 // maximum bytes, or messages per subject, exceeded
	codeInsufficient      = 10023 // no store left
	codeStorageExceeded   = 10047 // insufficient storage resources available
	codeAccountStorage    = 10060
	codeMessageTooLarge   = 10054
	codeStreamNotFound    = 10059
	codeStreamNameInUse   = 10058
	codeConsumerNotFound  = 10014
	codeMessageNotFound   = 10037
)

func apiCode(err error) int {
	var e *jetstream.APIError
	if errors.As(err, &e) {
		return int(e.ErrorCode)
	}
	return 0
}

// classify turns an error of the client libraries into ours. nil stays nil.
func classify(op, what string, err error) error {
	if err == nil {
		return nil
	}
	var own *schemas.Error
	if errors.As(err, &own) {
		return err
	}
	kind := schemas.Internal
	switch code := apiCode(err); {
	case code == codeStoreFailed, code == codeInsufficient, code == codeStorageExceeded, code == codeAccountStorage:
		return schemas.Errorf(schemas.Unavailable, op, "%s: %w: %w", what, schemas.ErrFull, err)
	case code == codeMessageTooLarge:
		kind = schemas.Invalid
	case code == codeStreamNotFound, code == codeConsumerNotFound, code == codeMessageNotFound:
		kind = schemas.NotFound
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		kind = schemas.Expired
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrBucketNotFound), errors.Is(err, jetstream.ErrConsumerNotFound),
		errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrObjectNotFound), errors.Is(err, jetstream.ErrMsgNotFound):
		kind = schemas.NotFound
	case errors.Is(err, nats.ErrMaxPayload):
		kind = schemas.Invalid
	case errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrAuthorization):
		kind = schemas.Denied
	case passing(err):
		kind = schemas.Unavailable
	}
	return schemas.Errorf(kind, op, "%s: %w", what, err)
}

// passing reports whether the server, not the request, is the trouble: worth trying again.
func passing(err error) bool {
	var e *jetstream.APIError
	if errors.As(err, &e) {
		return e.Code == 503 && apiCode(err) != codeStoreFailed || strings.Contains(e.Description, "temporarily")
	}
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionReconnecting) ||
		errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrReconnectBufExceeded) ||
		errors.Is(err, nats.ErrStaleConnection) || errors.Is(err, nats.ErrNoServers) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) ||
		errors.Is(err, nats.ErrConnectionDraining)
}

// oversize is the error of a message beyond the server's limit.
func oversize(op string, size, limit int) error {
	return schemas.Errorf(schemas.Invalid, op, "message of %d bytes with its headers: the server takes at most %d", size, limit)
}

// headerSize is what headers take on the wire.
func headerSize(h map[string][]string) int {
	if len(h) == 0 {
		return 0
	}
	n := len("NATS/1.0\r\n\r\n")
	for k, vs := range h {
		for _, v := range vs {
			n += len(k) + len(v) + 4
		}
	}
	return n
}
