// Package memory carries messages inside one process: requests from the gateway to a pipeline that this process runs,
// and topics for tests. A request takes the same way as over a network: the same Delivery, the same runner.
//
// What flows through it: Request puts a Delivery into the bounded queue of the group that serves the pipeline and waits;
// the runner receives, and answers through Respond. Topics keep their messages in memory, in partitions by key, with
// groups, replay and dead letters as the durable transports have them.
//
// It opens nothing, starts no goroutine, and forgets everything with the process.
package memory
