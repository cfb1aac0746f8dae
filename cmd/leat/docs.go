package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

// docsCommand writes docs/cli.md, so that the page cannot differ from the commands.
func docsCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "docs", Short: "Print the reference of all commands as Markdown", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, err := reference(cmd.Root())
			if err != nil {
				return failed(err)
			}
			_, err = e.out.Write(page)
			return failed(err)
		},
	}
}

const referenceHead = `# Commands

Made by ` + "`make generate`" + ` from the commands themselves. ` + "`leat COMMAND --help`" + ` says the same.

Every command but ` + "`serve`, `doctor`, `openapi`, `pipelines schema`, `completion` and `version`" + ` talks to a running
server over its HTTP API. The server's address is, in this order: ` + "`--server`, `$LEAT_SERVER`" + `, the key ` + "`server`" + ` of the
client file, ` + "`http://127.0.0.1:8080`" + `. A token is, in the same order: ` + "`--token`, `$LEAT_TOKEN`" + `, the key ` + "`token`" + `;
the certificate that signed the server's: ` + "`--ca`, `$LEAT_CA`" + `, the key ` + "`ca`" + `. The client file is ` + "`leat/client.yaml`" + ` in your configuration folder (` + "`~/.config`" + ` on Linux).

Tables are for people and may change; ` + "`--json`" + ` is for programs. Colours and progress bars appear on a terminal
only; ` + "`NO_COLOR`" + ` turns colours off.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | it failed; one line on standard error says what |
| 2 | the command line is wrong |
| 3 | the job ended, but rows were rejected or skipped |
| 130 | interrupted |

`

const referenceConfig = `## The server's file

` + "`leat serve --config FILE`" + ` reads YAML. These are the keys with their defaults; a file states only what differs, and an
unknown key is an error. Times are written as ` + "`250ms`, `2s`, `5m0s`" + `; sizes are bytes. Flags go before the file.

` + "```yaml\n"

// reference writes the page from the tree of commands.
func reference(root *cobra.Command) ([]byte, error) {
	var w bytes.Buffer
	w.WriteString(referenceHead)
	fmt.Fprintf(&w, "Flags of every command:\n\n```\n%s```\n", root.PersistentFlags().FlagUsages())
	fmt.Fprintf(&w, "\n## Shell completion\n\n```sh\nsource <(leat completion bash)      # or zsh; for fish: leat completion fish | source\n```\n\nNames of models, pipelines, topics and jobs are completed by asking the server.\n")
	for _, g := range root.Groups() {
		for _, c := range root.Commands() {
			if c.GroupID == g.ID {
				document(&w, c, 2)
			}
		}
	}
	keys, err := yaml.Marshal(defaultConfig())
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&w, "\n%s%s```\n", referenceConfig, keys)
	return w.Bytes(), nil
}

// document writes a command and those below it.
func document(w io.Writer, c *cobra.Command, level int) {
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	fmt.Fprintf(w, "\n%s %s\n\n%s\n", strings.Repeat("#", level), c.CommandPath(), fenced(text))
	if c.Runnable() {
		fmt.Fprintf(w, "\n```\n%s\n```\n", c.UseLine())
	}
	if local := c.LocalNonPersistentFlags(); local.HasAvailableFlags() {
		fmt.Fprintf(w, "\n```\n%s```\n", local.FlagUsages())
	}
	if c.Example != "" {
		fmt.Fprintf(w, "\n```sh\n%s\n```\n", unindented(c.Example))
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			document(w, sub, level+1)
		}
	}
}

// fenced keeps aligned lines of a help text as they are: runs of indented lines become code.
func fenced(s string) string {
	var out []string
	code := false
	for _, l := range strings.Split(s, "\n") {
		is := strings.HasPrefix(l, "  ")
		if is != code {
			out = append(out, "```")
			code = is
		}
		out = append(out, l)
	}
	if code {
		out = append(out, "```")
	}
	return strings.Join(out, "\n")
}

func unindented(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}
