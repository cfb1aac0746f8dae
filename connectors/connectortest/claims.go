package connectortest

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/connectors"
)

// Claims says what a transport can do. Its Name heads its column of the table in doc.go.
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

// claimRows are the lines of the table in doc.go, with what of it is tested, in words for users.
var claimRows = []struct {
	what  string
	means string
	of    func(Claims) bool
}{
	{"request and reply", "each caller gets its own answer, or an error at its deadline; too many, too large and nobody there are told at once; members share", func(c Claims) bool { return c.Request }},
	{"durable topics with groups", "what is acknowledged is received and settled once; a member that goes hands the rest back; what is rejected is a dead letter first", func(c Claims) bool { return c.Topics }},
	{"order per key, through retries", "several publishers at once; a record that is tried again holds those behind it, and no other partition", func(c Claims) bool { return c.Order }},
	{"retry", "a record that is asked for again comes again, after the time asked for", func(c Claims) bool { return c.Retry }},
	{"repeats folded by id", "a message that is published again under its id is stored once", func(c Claims) bool { return c.Dedup }},
	{"replay by sequence and time", "a range that is stored is read again, each partition in order, each message once", func(c Claims) bool { return c.Replay }},
	{"work queues of several processes", "bounded; each entry to one, settled once and gone; what a dead process had goes to another", func(c Claims) bool { return c.Queues }},
	{"outputs and settlements in one transaction", "seen whole or not at all; through calls cut short, owners that give up, die or lose the partition, each message once and in order", func(c Claims) bool { return c.Transact }},
	{"files, resumed by row, whole or absent", "rows in order and once, from any position; a file is complete or not there", func(c Claims) bool { return c.Files }},
	{"goes on through restarts of its server", "three restarts under load: nothing acknowledged is lost, keys keep their order, requests succeed again", func(c Claims) bool { return c.Restarts }},
}

//go:embed doc.go
var doc string

// documented checks the column that doc.go's table has for the claims. The error has the table as it should be.
func documented(t *testing.T, c Claims) {
	if have, want := tableIn(doc), tableIn(doc).with(c); !slices.EqualFunc(have, want, slices.Equal) {
		t.Errorf("the claims differ from the table in connectortest/doc.go, which should be\n\n%s", want)
	}
}

// docTable is lines of cells, at least one; the first has the transports' names, the first column what they claim.
type docTable [][]string

// tableMark begins a line of the table: a code block in a comment.
const tableMark = "//\t|"

func tableIn(text string) docTable {
	var tb docTable
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, tableMark); ok && !strings.HasPrefix(rest, "-") {
			cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(rest), "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			tb = append(tb, cells)
		}
	}
	if len(tb) == 0 {
		return docTable{{""}}
	}
	return tb
}

// cell returns what stands in the line and column of these names, "-" if nothing does.
func (tb docTable) cell(line, column string) string {
	at := slices.Index(tb[0], column)
	for _, cells := range tb[1:] {
		if at > 0 && cells[0] == line && at < len(cells) {
			return cells[at]
		}
	}
	return "-"
}

// with returns the table with a column of these claims, in its place or as the last one.
func (tb docTable) with(c Claims) docTable {
	names := slices.Clone(tb[0])
	if !slices.Contains(names, c.Name) {
		names = append(names, c.Name)
	}
	out := docTable{names}
	for _, r := range claimRows {
		cells := []string{r.what}
		for _, name := range names[1:] {
			cell := tb.cell(r.what, name)
			if name == c.Name {
				cell = map[bool]string{true: "yes", false: "-"}[r.of(c)]
			}
			cells = append(cells, cell)
		}
		out = append(out, cells)
	}
	return out
}

// String writes the table as Markdown in a comment.
func (tb docTable) String() string {
	width := make([]int, len(tb[0]))
	for _, cells := range tb {
		for i, c := range cells {
			width[i] = max(width[i], len(c))
		}
	}
	var b strings.Builder
	for n, cells := range tb {
		b.WriteString(tableMark)
		for i, c := range cells {
			fmt.Fprintf(&b, " %-*s |", width[i], c)
		}
		b.WriteString("\n")
		if n == 0 {
			b.WriteString(tableMark)
			for _, w := range width {
				b.WriteString(strings.Repeat("-", w+2) + "|")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
