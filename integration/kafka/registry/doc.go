// Package registry gives tests a real schema registry: Apicurio Registry in memory, which speaks the REST API of
// Confluent's (that one is not on Maven Central). registry-dev.sh fetches it once into the user's cache folder (142 MB)
// and runs it; it is up in some seconds, with 250 MB of memory.
//
// The registry listens on a free port of loopback and ends with the test, or with the test's process however that ends.
// Where java (17 or newer) or, for the first start, mvn is missing, tests fail with one line that says what to install.
package registry
