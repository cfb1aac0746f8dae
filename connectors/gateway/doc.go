// Package gateway is the HTTP door: the Open Inference Protocol V2, native scoring, the table of operations and the
// OpenAPI document that describes them all.
//
// What flows through it: a body of at most Config.MaxBody bytes goes, untouched but for a content encoding, to a
// connectors.Requester as a message on the topic of the pipeline's name; the answer comes back as the runner gave it.
// So HTTP is one more caller: the same delivery, the same runner, the same record as over any other transport.
//
// It never looks into a payload, scores nothing, keeps nothing, and trusts no header that says who the caller is.
// Beyond loopback it serves with TLS and tokens only.
package gateway
