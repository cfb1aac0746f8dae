// Package nats carries Leat's messages over NATS: an embedded server, and a client that implements the contracts of
// connectors and the ports of schemas on it, or on an external server.
//
// What flows through it: requests on leat.score.<pipeline> and their answers (core NATS, a queue group); events on
// topics (JetStream, partitioned by key, one owner a partition and group); work queues of jobs; the logs of the
// lineage; the control plane (KV, object store); the table of operations at leat.api.<operation>.
//
// # Two accounts
//
// LEAT holds everything internal: streams, KV, object store, fan-out. Only our own connections reach it: in-process, or
// over the network with random credentials that the server makes and keeps in its folder. APP is what users connect
// to. This package stands in the door between them. It answers leat.score.*, leat.api.* and $SRV.> inside APP with a
// connection of its own, stores what is published on leat.topic.<topic> and put into users' buckets ($KV.<bucket>.<key>), and
// passes the few JetStream calls that read topics and buckets (see OpenDoor). The only imports are
// those of consumers that a user made on a topic. So a pipeline that nobody
// serves has no subscriber in APP, and the server itself answers "no responders"; a request costs no account crossing;
// and there is no import through which a client of APP could name anything internal.
//
// It looks into no payload, knows no models and no schemas, and drops no message in silence. No other package imports
// the NATS libraries.
package nats
