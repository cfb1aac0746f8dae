// Package connectortest proves that a transport keeps the contracts of connectors. An implementation states its powers
// in a Claims and hands over a way to open it; Run tests every claim, and that what is not claimed answers
// schemas.ErrUnsupported. It is imported by tests only.
//
// What a transport cannot carry as it is, such as an error over HTTP, its subject turns into what a caller of Leat would
// see; the suite itself has no exceptions.
//
// # Who claims what
//
// The table is made of the claims: Run fails where they differ, and prints it as it should be. A connector that is new
// gets its column that way, and docs/kafka.md its table (make generate). An embedded NATS server ends with its process, so its clients cannot outlive it; what it
// acknowledged is on disk like that of any other.
//
//	|                                            | memory | nats | nats embedded | gateway | files | kafka |
//	|--------------------------------------------|--------|------|---------------|---------|-------|-------|
//	| request and reply                          | yes    | yes  | yes           | yes     | -     | yes   |
//	| durable topics with groups                 | yes    | yes  | yes           | -       | -     | yes   |
//	| order per key, through retries             | yes    | yes  | yes           | -       | -     | yes   |
//	| retry                                      | yes    | yes  | yes           | -       | -     | yes   |
//	| repeats folded by id                       | yes    | yes  | yes           | -       | -     | -     |
//	| replay by sequence and time                | yes    | yes  | yes           | -       | -     | yes   |
//	| work queues of several processes           | -      | yes  | yes           | -       | -     | -     |
//	| outputs and settlements in one transaction | yes    | -    | -             | -       | -     | yes   |
//	| files, resumed by row, whole or absent     | -      | -    | -             | -       | yes   | -     |
//	| goes on through restarts of its server     | -      | yes  | -             | -       | -     | yes   |
package connectortest
