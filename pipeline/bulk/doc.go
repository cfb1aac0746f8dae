// Package bulk runs jobs: it scores a whole range (a file, a stored topic, the lineage) along a pipeline's pinned revision
// and writes a file or a topic, each row exactly once, whatever crashes.
//
// What flows through it: the coordinator of a job (one process, by a lease) reads the source, cuts it into numbered
// chunks that a rerun would cut in the same way, and puts each as one Arrow batch message into the job's queue. The
// workers of all processes take chunks from there, score them in pieces of a fixed size, append the lineage records, and
// insert each result once for ever under the chunk's subject of the job's result log. The coordinator follows that log
// and writes the sink in the order of the chunks. Only what lies in the result log counts: whoever dies, the next one
// reads the log, feeds the chunks that have no result, and writes the file again from the results, or goes on with the
// topic: behind the last chunk that was stored as one with the job's progress where the topic's transport has transactions
// (Ledger), else with what a look at the topic finds missing.
//
// It never scores beside the pipeline's bulk lane, never lets a result out before its lineage records are acknowledged,
// never compares clocks of two machines, and imports contracts only: cmd hands it the stores and the files.
package bulk
