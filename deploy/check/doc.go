// Package check holds the tests of what Prometheus and Grafana load: that the rules of deploy/prometheus are rules, that each
// alert fires at the series of leat.rules.test.yaml where it should and nowhere else, and that rules and dashboard ask only for
// metrics and labels that docs/operations.md lists. integration/clients holds that list against a running server.
//
// It is a module of its own, so that Prometheus' packages, with all that they bring, are no dependencies of Leat
// (docs/decisions/0021-alert-rules.md).
package check
