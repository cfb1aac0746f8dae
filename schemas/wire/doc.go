// Package wire turns batches into Arrow bytes and back: between our own processes as one encapsulated RecordBatch
// message without its schema (Content-Type application/vnd.leat.batch, the schema named by the header Leat-Schema), and
// at the edge as a self-describing Arrow IPC stream (application/vnd.apache.arrow.stream).
//
// What flows through it: AppendBatch writes rows of a batch by patching a template that is made once for a schema;
// AppendRows reads them into typed columns; Codec and StreamCodec do so for messages; a Catalogue keeps schemas under
// their ids. The form is SEMANTICS 2: continuation marker, length, metadata V5, body, buffers on 8-byte boundaries, no
// compression, no dictionaries, nothing after it. A tensor of any rank is a flat FixedSizeList.
//
// Every byte that comes in is taken for hostile. All lengths, offsets and counts are checked against the bytes that are
// really there, by code of this package: no reader of the Arrow library sees them. Text is checked to be UTF-8. What is
// allocated is bounded by a small multiple of what came in.
//
// It never compresses, never keeps a payload, starts no goroutine, and takes no schema from the wire on trust.
package wire
