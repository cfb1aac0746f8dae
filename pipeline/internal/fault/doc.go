// Package fault plants the faults that integration/crash must catch: each swaps two steps whose order a promise rests
// on. In a normal build all are false constants and nothing of them is left in the binary. With the build tag leatfault,
// which no release carries, the environment variable LEAT_FAULT names the one that is on.
//
// What never happens here: a fault that a normal build could be talked into.
package fault
