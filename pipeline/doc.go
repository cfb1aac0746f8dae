// Package pipeline is the path that every row takes: a delivery is decoded, scored along a route, recorded, answered
// and settled, in that order, whichever of the three ways in it came by (request, topic, job).
//
// It holds the specification that a user writes (spec.go), what is wrong with one (validate.go), its compiled graph
// (compile.go; graph*.go for a route of several nodes, whose decisions derive.go makes again from the record; the tables
// that lookups read are package lookup's), the batcher of
// each loaded model or graph (batcher.go), the doors by which rows come in (door.go, scored.go), the
// unit of commit (commit.go) and the two ways to make it durable (ordered.go, transact.go), what the lineage knows after
// a crash (recover.go), and the rows that kill (poison.go). A Host (host.go) runs one processor for each pipeline
// (processor.go, topic.go). It imports the contracts of connectors, scorers and lineage, never an implementation; cmd
// wires those.
package pipeline
