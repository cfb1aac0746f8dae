// Command bench measures Leat beside its floors and its rivals, in one run, alternating round by round, and says whether
// each figure reaches what it should. It prints a table and writes it as JSON.
//
//	go run ./integration/bench                     # all figures, five rounds
//	go run ./integration/bench -only http -rounds 3
//	go run ./integration/bench -only ^kafka        # on a broker of its own: Java 17, and Maven the first time
//	go run ./integration/bench -floors             # floors and peers alone; needs no product
//	go run ./integration/bench -only 'synced.*alone' -cpuprofile bin/cpu
//
// What is measured stands in figures.go, how a number comes about in samples.go, the product in product.go. The same
// clients (package load) ask the floors (package floors), the Python peers (package peers) and the product. The
// product is a child process started from its binary, over loopback, in temporary folders; strict lineage always, which
// is on Kafka where the requests or topics are.
//
// Exit 0: all measured and all reached. Exit 1: all measured, something fell short. Exit 2: something could not be
// measured, or a floor was too slow to be one.
package main
