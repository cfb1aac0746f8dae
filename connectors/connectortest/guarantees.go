package connectortest

import "strings"

// guaranteed are the transports of topics in the table for users: their columns of doc.go's table, and what users call them.
var guaranteed = []struct{ column, name string }{{"nats embedded", "NATS, embedded"}, {"nats", "NATS, a server of its own"}, {"kafka", "Kafka"}}

// Guarantees writes what the transports of topics guarantee as a table in Markdown, from the claims in doc.go, which Run
// holds against what the transports claim and do. What none of them claims has no line.
func Guarantees() string {
	var b strings.Builder
	b.WriteString("| |")
	for _, g := range guaranteed {
		b.WriteString(" " + g.name + " |")
	}
	b.WriteString(" what is tested |\n|---|" + strings.Repeat("---|", len(guaranteed)) + "---|\n")
	table := tableIn(doc)
	for _, r := range claimRows {
		line, any := "| "+r.what+" |", false
		for _, g := range guaranteed {
			cell := table.cell(r.what, g.column)
			any = any || cell != "-"
			line += " " + cell + " |"
		}
		if any {
			b.WriteString(line + " " + r.means + " |\n")
		}
	}
	return b.String()
}
