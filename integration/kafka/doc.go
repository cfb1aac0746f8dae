// Package kafka holds what starts a real Apache Kafka for tests, CI and the demo: kafka-dev.sh, and the pom.xml of the
// jars that it fetches once into the user's cache folder. Package broker beneath drives it from tests.
//
// Nothing of it is linked into the product, and nothing of Kafka is kept in the repository.
package kafka

import "embed"

// Files holds kafka-dev.sh and pom.xml, so that a test binary starts brokers wherever it runs.
//
//go:embed kafka-dev.sh pom.xml
var Files embed.FS
