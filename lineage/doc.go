// Package lineage writes and reads the record of every scored row: who asked, which version, what went in and out.
//
// The pipeline fills Records with what it scored and appends them; the acknowledgement is the moment from which an
// answer may be seen. Readers fold duplicates to the canonical record (the lowest stream position), filter, tail, count
// and export. The same streams are the write-ahead log: what is recorded is never scored again.
//
// What flows through it: Records.Add copies a row, Stream.Append cuts and encodes what was added and makes it durable
// (the form of a message is in encode.go), StreamReader decodes, folds, filters, counts and exports, WriteAhead finds what
// a checkpoint does not cover, and Keeper deletes what an export holds. Identity: SEMANTICS 1 and 4.
//
// What somebody comes to know of a decision later, Feedback, lies in the same log and is joined when it is read.
//
// The package settles nothing, answers nobody, and reaches its streams only through schemas.Log.
package lineage
