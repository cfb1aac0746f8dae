package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

// options are what the command line says.
type options struct {
	url    string // of the server
	data   string // folder of the flights and their models
	spec   string // the pipeline, for all seeds but for its name
	seeds  int
	perDay int
	days   int
}

func main() {
	o := options{}
	flag.StringVar(&o.url, "server", "http://127.0.0.1:8080", "address of the server")
	flag.StringVar(&o.data, "flights", "examples/flights", "folder of the departures and their models")
	flag.StringVar(&o.spec, "pipeline", "examples/bandit/bandit.yaml", "the pipeline, of which each seed gets one")
	flag.IntVar(&o.seeds, "seeds", 20, "pipelines, which draw differently")
	flag.IntVar(&o.perDay, "per-day", 150, "departures of each day, of some 900")
	flag.IntVar(&o.days, "days", 122, "days to replay, from the first of September 2013 on")
	flag.Parse()
	if o.seeds < 1 || o.perDay < 1 || o.days < 1 {
		fmt.Fprintln(os.Stderr, "bandit: -seeds, -per-day and -days want at least 1")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bandit:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	days, err := readDays(o)
	if err != nil {
		return err
	}
	s := &server{url: o.url}
	names, err := s.prepare(ctx, o)
	if err != nil {
		return err
	}
	result, err := replay(ctx, s, names, days)
	if err != nil {
		return err
	}
	result.print(os.Stdout)
	return nil
}
