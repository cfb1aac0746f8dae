package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/schemas"
)

// Exit codes, beside 0.
const (
	exitFailed   = 1 // something went wrong; one line on standard error says what
	exitUsage    = 2 // the command line is wrong
	exitRejected = 3 // a job ended, but rows were rejected or skipped; or what should have held did not
)

// exitError ends the process with a code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// env is what a command works with: the process's streams and what every command's flags say.
type env struct {
	in       io.Reader
	out, err io.Writer
	json     bool
	server   string
	token    string
	ca       string
	color    bool
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	e := &env{in: in, out: out, err: errw, color: isTerminal(out) && os.Getenv("NO_COLOR") == ""}
	root := newRoot(e)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var x *exitError
	var s *schemas.Error
	code := exitUsage // cobra's own errors are all about the command line
	switch {
	case errors.As(err, &x):
		code = x.code
	case errors.As(err, &s):
		code = exitFailed
	case errors.Is(err, context.Canceled):
		code = 130
		err = errors.New("interrupted")
	}
	fmt.Fprintln(errw, "leat: "+err.Error())
	if code == exitUsage {
		fmt.Fprintf(errw, "Run '%s --help' to see how it is used.\n", cmd.CommandPath())
	}
	return code
}

// failed wraps the error of a command that was called rightly.
func failed(err error) error {
	if err == nil {
		return nil
	}
	var x *exitError
	var s *schemas.Error
	if errors.As(err, &x) || errors.As(err, &s) || errors.Is(err, context.Canceled) {
		return err
	}
	return &exitError{exitFailed, err}
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "leat",
		Short: "Score events with your models, and keep the record of every answer",
		Long: `Leat serves models over NATS and HTTP, scores topics continuously and files in
bulk, and records every input and output before anybody sees the answer.`,
		Example: `  leat serve                                    # a server on loopback, data in your data folder
  leat models push examples/flights/flight-delay
  leat score flight-delay examples/flights/flight.json
  leat lineage tail`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	f := root.PersistentFlags()
	f.BoolVar(&e.json, "json", false, "print JSON instead of tables")
	f.StringVar(&e.server, "server", "", "address of the server (default: $LEAT_SERVER, the client file, http://127.0.0.1:8080)")
	f.StringVar(&e.token, "token", "", "bearer token (default: $LEAT_TOKEN, the client file)")
	f.StringVar(&e.ca, "ca", "", "PEM file of the certificate that signed the server's (default: $LEAT_CA, the client file, the system's)")
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "use", Title: "Use:"}, &cobra.Group{ID: "look", Title: "Look:"})
	for _, c := range commands(e) {
		root.AddCommand(c)
	}
	return root
}
