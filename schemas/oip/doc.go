// Package oip reads inference requests of the Open Inference Protocol, version 2 (KServe, Triton), and writes its
// responses: as JSON, and with its binary tensor extension, where tensors follow the JSON as bytes and the header
// Inference-Header-Content-Length says how long the JSON is.
//
// An input of shape [N, ...] becomes N rows. A scalar column takes [N] or [N,1]; a tensor column [N, ...its shape]. Every
// column is given once by its name, a nullable one may be left out; a packed tensor may be given whole or as one input
// for each of its features. The datatype must be the column's: nothing is cast. Timestamps travel as INT64 nanoseconds,
// strings as BYTES, binary as BYTES whose JSON form is base64.
//
// Requested outputs filter the response; "binary_data" and "binary_data_output" ask for bytes. All bytes are taken for
// hostile, shapes too: nothing is allocated on the word of a shape. The protocol has no place for errors of single rows.
package oip
