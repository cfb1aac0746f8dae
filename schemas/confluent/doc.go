// Package confluent reads records that were written with a schema registry, as Confluent's serializers and those that
// follow them write: a zero byte, the id of a schema in four bytes, for Protobuf the path of the message within its file,
// then the value.
//
// A Registry is asked for each id once, with its deadline, and remembers the answer: an id never changes its schema. Of
// callers that need the same id one asks and the others wait. An id that the registry does not have is Invalid, for the
// record can never be read; so is a schema that cannot be used. A registry that cannot be asked, whatever the reason, is
// Unavailable: the record is fine and is tried again. After such a failure the next question waits a moment, so that a
// topic's records do not each wait out the deadline.
//
// To find a codec may take a request to the registry; the codec itself is pure, as codecs are. One record is one row.
package confluent
