// Package floors measures what the parts that Leat stands on reach alone, on this machine, at this minute: NATS
// request-reply, JetStream appends, JetStream topic to topic, the same three over Kafka by kafka-go, ONNX Runtime, and
// net/http. integration/bench sets each figure of the product beside its floor, so that a figure says how much Leat adds
// and not how fast the machine is.
//
// A floor does the same work as the product's path through that part and nothing else: it records nothing, decides
// nothing, and is written as fast as its library's users know how. Check says when a floor is too slow to be one, by what
// FIELD-NOTES found such code to reach, scaled by the NATS echo of the run. What answers, answers from a process of its
// own; the rest runs in the benchmark's, beside the client that asks. Floors take no part in the product.
package floors
