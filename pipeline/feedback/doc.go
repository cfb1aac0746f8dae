// Package feedback takes what comes to be known about decisions, true labels, rewards and comments, and has it recorded in
// the lineage: by the operation feedback.put, from requests and messages to leat.feedback.<pipeline> on NATS, and from topics of
// that name on Kafka.
//
// What flows through it: a door (or the operation) hands over JSON, lineage.ParseFeedback reads it, the lineage appends it, and
// only then is it answered, or its message accepted. What waits while an append is in flight goes into the next one together.
// A message is taken whole or not at all: one that cannot be read, or of a pipeline that does not exist, is answered with what is
// wrong, and put aside if it came from a durable topic.
//
// The package joins nothing: which decision is meant is found when the lineage is read.
package feedback
