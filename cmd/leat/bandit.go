package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/pipeline"
)

func banditCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bandit",
		Short: "See what the bandits of a pipeline have learnt",
		Long: `A bandit gives each row to one of its arms, and learns from feedback which of them
is the best. Each process that serves the pipeline learns it from the lineage.`,
		Example: "  leat bandit show flights-bandit",
	}
	cmd.AddCommand(&cobra.Command{
		Use: "show PIPELINE", Short: "Show each arm's rewards and share, and how far behind the lineage they are", Args: cobra.ExactArgs(1),
		Example:           "  leat bandit show flights-bandit",
		ValidArgsFunction: e.completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.dial()
			if err != nil {
				return err
			}
			var s pipeline.BanditStatus
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/pipelines/"+url.PathEscape(args[0])+"/bandits", nil, nil, &s); err != nil {
				return err
			}
			return e.print(s, func(w io.Writer) { printBandits(w, &s) })
		},
	})
	return cmd
}

func printBandits(w io.Writer, s *pipeline.BanditStatus) {
	for _, b := range s.Bandits {
		fmt.Fprintf(w, "%s  %s, %s\n", b.Node, b.Policy, many(b.Rewards, "reward"))
		var rows [][]string
		for _, a := range b.Arms {
			mean, share := "-", "by the row"
			if a.Rewards > 0 {
				mean = strconv.FormatFloat(a.Mean, 'g', 6, 64)
			}
			if a.Share != nil {
				share = strconv.FormatFloat(*a.Share*100, 'f', 1, 64) + " %"
			}
			rows = append(rows, []string{a.Arm, strconv.FormatUint(a.Rewards, 10), mean, share})
		}
		table(w, []string{"ARM", "REWARDS", "MEAN", "SHARE"}, rows)
		f := b.Feedback
		for _, x := range []struct {
			n    uint64
			what string
		}{
			{f.Replaced, "in the place of an earlier reward"}, {f.Waiting, "waiting for the decision"}, {f.Lost, "dropped: the decision never came"},
			{f.Refused, "refused: " + b.Policy + " does not take such a reward"}, {f.Unknown, "for an arm that is gone"}, {f.Silent, "without a reward"},
		} {
			if x.n > 0 {
				fmt.Fprintf(w, "%s: %s\n", many(x.n, "feedback"), x.what)
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, learntUpTo(s))
}

// learntUpTo says how far behind the lineage the bandits of a process are.
func learntUpTo(s *pipeline.BanditStatus) string {
	switch {
	case s.Error != "":
		return fmt.Sprintf("process %s cannot read the lineage and goes on with what it knows: %s", s.Process, s.Error)
	case s.Read >= s.Last:
		return fmt.Sprintf("process %s knows all that is in the lineage, up to position %d", s.Process, s.Read)
	}
	behind := time.Duration(s.Behind * float64(time.Second)).Round(time.Millisecond)
	return fmt.Sprintf("process %s has read the lineage up to position %d of %d, and is %v behind", s.Process, s.Read, s.Last, behind)
}

func many(n uint64, what string) string {
	if n == 1 || what == "feedback" {
		return fmt.Sprintf("%d %s", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
