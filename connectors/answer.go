package connectors

import (
	"encoding/json"
	"strconv"

	"github.com/leatstream/leat/schemas"
)

// Headers by which any NATS tool knows an error; the same on every transport.
const (
	HeaderServiceError     = "Nats-Service-Error"
	HeaderServiceErrorCode = "Nats-Service-Error-Code"
)

type errorBody struct {
	Kind    string `json:"kind"`
	ID      string `json:"id,omitempty"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

// ErrorAnswer is an error as a caller sees it (SEMANTICS 2): headers and the JSON body {"kind","id","message","field"}.
// An Internal error shows its id and nothing else.
func ErrorAnswer(e *schemas.Error) (schemas.Header, []byte) {
	b := errorBody{Kind: e.Kind.String(), ID: e.ID, Message: e.Error(), Field: e.Field}
	if e.Kind == schemas.Internal {
		b.Message = "internal error"
	}
	body, err := json.Marshal(b)
	if err != nil {
		body = []byte(`{"kind":"internal","message":"internal error"}`) // strings always marshal
	}
	return schemas.Header{
		schemas.HeaderContentType: {"application/json"},
		schemas.HeaderErrorKind:   {b.Kind},
		HeaderServiceError:        {b.Kind},
		HeaderServiceErrorCode:    {strconv.Itoa(e.Kind.HTTPStatus())},
	}, body
}
