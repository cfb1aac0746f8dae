// Package connectortest proves that a transport keeps the contracts of connectors. An implementation states its powers
// in a Claims and hands over a way to open it; Run tests every claim, and that what is not claimed answers
// schemas.ErrUnsupported. Table prints the claims of several transports for the docs.
//
// It is imported by tests only.
package connectortest
