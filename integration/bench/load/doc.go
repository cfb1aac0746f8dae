// Package load drives a server in a closed loop and says how long it took to answer. Both sides of every comparison in
// integration/bench, the floor and the product, are driven by the same client of this package with the same payloads.
//
// Payloads flow out, answers flow in, latencies go into an HDR histogram. A client is lean, since it shares the cores
// with what it measures: it parses no more of an answer than says whether it is one, and allocates little. It never opens the loop: the next request of a slot leaves when the answer
// to the last one is there, so a slow server is asked less and its latency is that of the load it can carry.
package load
