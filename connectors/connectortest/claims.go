package connectortest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/leatstream/leat/connectors"
)

// Claims says what a transport can do.
type Claims struct {
	Name     string
	Request  bool // request-reply: Requester, Serve, Responder
	Topics   bool // durable topics: Publisher, Topics, groups, dead letters
	Order    bool // order per key, also through retries
	Retry    bool // asking for a message again
	Dedup    bool // Message.ID folds repeats
	Replay   bool // reading a stored range again, by sequence and by time
	Queues   bool // work queues shared by processes
	Transact bool // storing messages and settling deliveries as one
	Files    bool // files of rows: read in order and resumed by row, written as a whole or not at all
	Restarts bool // goes on through restarts of its server without losing or reordering what was acknowledged
}

// Transport is one opened client of the transport under test. What is nil is not offered.
type Transport struct {
	Requester connectors.Requester
	Responder connectors.Responder
	Serve     func(ctx context.Context, pipeline, group string) (connectors.Source, error)
	Publisher connectors.Publisher
	Topics    connectors.Topics
	Replayer  connectors.Replayer
	Queues    connectors.Queues
	Files     Files
	// Transactor stores and settles as one. Revoke takes the partitions of a group from their owners, as from dead ones,
	// and gives them to the next, or back to an only one; nil: there is no way.
	Transactor connectors.Transactor
	Revoke     func(topic, group string)
	// Dead returns the dead letters of a topic so far.
	Dead func(ctx context.Context, topic string) ([]connectors.Delivery, error)
}

// Subject is a transport under test.
type Subject struct {
	Claims Claims
	Queue  int // bound of waiting requests
	Max    int // no message of this many bytes is taken
	// Formats are the files' formats; each is tested.
	Formats []FileFormat
	// Open starts the transport and returns a client; everything ends with the test. Further calls of again give
	// further clients of the same server; restart ends the server and starts it on the same data.
	Open func(t testing.TB) (first Transport, again func() Transport, restart func())
}

// Table prints what several transports claim, as Markdown.
func Table(all ...Claims) string {
	rows := []struct {
		what string
		of   func(Claims) bool
	}{
		{"request and reply", func(c Claims) bool { return c.Request }},
		{"durable topics with groups", func(c Claims) bool { return c.Topics }},
		{"order per key, through retries", func(c Claims) bool { return c.Order }},
		{"retry", func(c Claims) bool { return c.Retry }},
		{"repeats folded by id", func(c Claims) bool { return c.Dedup }},
		{"replay by sequence and time", func(c Claims) bool { return c.Replay }},
		{"work queues of several processes", func(c Claims) bool { return c.Queues }},
		{"outputs and settlements in one transaction", func(c Claims) bool { return c.Transact }},
		{"survives a restart of its server", func(c Claims) bool { return c.Restarts }},
	}
	var b strings.Builder
	b.WriteString("| |")
	for _, c := range all {
		fmt.Fprintf(&b, " %s |", c.Name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(all)) + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s |", r.what)
		for _, c := range all {
			if r.of(c) {
				b.WriteString(" yes |")
			} else {
				b.WriteString(" - |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
