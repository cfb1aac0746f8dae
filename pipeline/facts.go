package pipeline

import (
	"cmp"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// Facts are what a server is configured with, as far as it decides which specs can be applied. The zero Facts are a
// server with NATS alone.
type Facts struct {
	Transport string // where a topic lives that names no transport; "" is NATS
	Lineage   string // where the lineage lives; "" is NATS
	Kafka     bool   // Kafka is configured
	Registry  bool   // a schema registry is configured
}

// Topic returns where a topic lives, with its name there. A reference that cannot be read is a name.
func (f Facts) Topic(ref string) schemas.TopicRef {
	r, err := schemas.ParseTopicRef(ref)
	if err != nil {
		r = schemas.TopicRef{Name: ref}
	}
	r.Transport = cmp.Or(r.Transport, f.Transport, schemas.TransportNATS)
	return r
}

// reservedTopics begins the names of what Leat itself keeps on Kafka: lineage, dead letters, requests and replies.
const reservedTopics = "leat."

// checkReserved is Invalid for a topic that only Leat writes to.
func checkReserved(r schemas.TopicRef) error {
	if r.Transport == schemas.TransportKafka && strings.HasPrefix(r.Name, reservedTopics) {
		return schemas.Errorf(schemas.Invalid, "pipeline.Spec.Validate", "topic name %.80q: names on Kafka that begin with %q are Leat's own; choose another", r.Name, reservedTopics)
	}
	return nil
}
