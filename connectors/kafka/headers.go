package kafka

import (
	"slices"

	"github.com/segmentio/kafka-go"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/schemas"
)

// headerID carries Message.ID: Kafka folds nothing, readers may.
const headerID = "Leat-Id"

// headerRoom is where the headers of many messages lie, so that each does not take memory of its own.
type headerRoom struct {
	headers []kafka.Header
	text    []byte
}

// reserve makes room for n messages like m.
func (a *headerRoom) reserve(n int, m *schemas.Message) {
	headers, text := 1, len(m.ID)
	for _, vs := range m.Header {
		headers += len(vs)
		for _, v := range vs {
			text += len(v)
		}
	}
	a.headers, a.text = slices.Grow(a.headers, n*headers), slices.Grow(a.text, n*text)
}

func (a *headerRoom) add(k, v string) {
	at := len(a.text)
	a.text = append(a.text, v...)
	a.headers = append(a.headers, kafka.Header{Key: k, Value: a.text[at:len(a.text):len(a.text)]})
}

// of returns a message's headers as a record has them: one for each value, by name, so that equal messages are equal
// bytes. Leat-Key is the record's key and not repeated.
func (a *headerRoom) of(m *schemas.Message) []kafka.Header {
	n := 0
	for k, vs := range m.Header {
		if k != schemas.HeaderKey && k != headerID {
			n += len(vs)
		}
	}
	if n == 0 && m.ID == "" {
		return nil
	}
	at := len(a.headers)
	for k, vs := range m.Header {
		if k == schemas.HeaderKey || k == headerID {
			continue
		}
		for _, v := range vs {
			a.add(k, v)
		}
	}
	slices.SortStableFunc(a.headers[at:], func(a, b kafka.Header) int {
		switch {
		case a.Key < b.Key:
			return -1
		case a.Key > b.Key:
			return 1
		}
		return 0
	})
	if m.ID != "" {
		a.add(headerID, m.ID)
	}
	return a.headers[at:len(a.headers):len(a.headers)]
}

// header is the inverse of headerRoom.of. Values may be any bytes.
func header(hs []kafka.Header) (h schemas.Header, id string) {
	if len(hs) == 0 {
		return nil, ""
	}
	h = make(schemas.Header, len(hs))
	values := make([]string, len(hs)) // one allocation for the values of all names that come once
	for i := range hs {
		k := hs[i].Key
		if k == headerID {
			id = string(hs[i].Value)
			continue
		}
		values[i] = string(hs[i].Value)
		if old, ok := h[k]; ok {
			h[k] = append(old, values[i])
		} else {
			h[k] = values[i : i+1 : i+1]
		}
	}
	return h, id
}

// delivery makes a delivery of a record, without a settler. topic is the user's name of it. The payload shares the
// memory of what was fetched with it.
func delivery(topic string, partition int32, r *fetched) connectors.Delivery {
	d := connectors.Delivery{
		Message: schemas.Message{Topic: topic, Key: string(r.key), Payload: r.value, Time: r.time},
		From:    schemas.Position{Stream: topic, Partition: partition, Sequence: uint64(r.offset) + 1},
		Attempt: 1,
	}
	d.Header, d.ID = header(r.headers)
	return d
}
