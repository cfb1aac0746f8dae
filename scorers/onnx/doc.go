// Package onnx scores ONNX models with ONNX Runtime on the CPU.
//
// What flows through it: a package's verified bytes go into Prepare, Probe and Load; batches of typed rows go into a
// Scorer and as many rows come out, in order.
//
// # Models
//
// A model has one or more tensor inputs and outputs whose first dimension is the rows. The dimension may be dynamic, or
// fixed in all inputs: then rows run in pieces of that size, the last one padded with copies of its last row. The other
// dimensions are fixed by the file, or one of them by the feature names in model.yaml. [N] and [N,1] are scalar columns,
// [N,k] and [N,a,b] are packed tensors. Types are bool, int8..64, uint8..64, float16, float32, float64 and string.
//
// An output's shape is what comes out, never what the file declares. An output of rank 0 that no input reaches is a
// constant: it is given to every row. One that depends on the inputs mixes rows of a batch, which may belong to different
// callers, and is refused. An output with another number of rows than went in is refused.
//
// ZipMap before an output is removed by Prepare: the output becomes a float tensor [N, classes]. External data is read
// through the package's file system alone and put inside the file by Prepare; a path that is absolute, has "..", or is a
// link is refused, and so is external data that turns up at Load. Operators from custom libraries are refused.
//
// A null in a column that model.yaml calls nullable is NaN, or an empty string. Integers and bools cannot be nullable.
//
// # Runs
//
// Sessions run with one thread (intra-op and inter-op 1, no spinning); concurrency comes from concurrent runs, capped by
// scorers.Slots. A batch is cut into pieces of one constant size. Input is copied into tensors that are bound once and
// reused, so that a run allocates nothing in Go, strings apart. Against the binding alone, with tensors made beforehand, a
// score takes 0.9 to 1.05 times as long (BenchmarkScore); up to 1.2 for a lone row that is padded to two, which is the price
// of equal bits, and 1.3 where a row of the model itself takes 10 ns.
//
// # What can go wrong
//
// A model can kill the process: integer division of the smallest number by -1, or by 0, raises SIGFPE inside the library,
// and Go cannot recover it. Probe runs in this process and avoids such rows as far as it can (it sends integers from 1
// up), but a hostile model can still do it. Whoever serves rows marks them first (SEMANTICS 7).
//
// It never reads the environment, opens no file but through the package and the library's path, and starts no goroutine.
package onnx
