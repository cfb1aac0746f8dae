package main

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/pipeline/control"
)

func canaryCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "canary",
		Short: "Give a new model a share of a pipeline's rows, and promote or abort it",
		Long: `A canary is a split at the root of a pipeline's route: what was there goes on as
the arm stable, and a model gets a share of the rows as the arm canary. Each command
is one new revision; --dry-run shows it as a diff.`,
		Example: `  leat canary start flight-delay flight-forest@2 --weight 5 --key tailnum
  leat canary set flight-delay --weight 25
  leat canary promote flight-delay            # or: leat canary abort flight-delay`,
	}
	ch := control.CanaryChange{}
	weight := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVarP(&ch.Weight, "weight", "w", "", "share of the canary in percent, with at most two decimals")
		_ = c.MarkFlagRequired("weight") // the flag is there
		return c
	}
	start := weight(canaryAction(e, &ch, control.CanaryStart, "start PIPELINE MODEL", "Give a model a share of the rows", 2,
		"  leat canary start flight-delay flight-forest@2 --weight 5"))
	start.Flags().StringVar(&ch.Key, "key", "", "column whose values stick to their arm (default: the request id)")
	cmd.AddCommand(start,
		weight(canaryAction(e, &ch, control.CanarySet, "set PIPELINE", "Change the share; only the keys that must move do", 1, "  leat canary set flight-delay --weight 25")),
		canaryAction(e, &ch, control.CanaryPromote, "promote PIPELINE", "Make the canary the route", 1, "  leat canary promote flight-delay"),
		canaryAction(e, &ch, control.CanaryAbort, "abort PIPELINE", "Make what was there before the route again", 1, "  leat canary abort flight-delay"))
	return cmd
}

func canaryAction(e *env, ch *control.CanaryChange, action, use, short string, args int, example string) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.ExactArgs(args), ValidArgsFunction: e.completePipelines,
		RunE: func(cmd *cobra.Command, args []string) error {
			ch.Action = action
			if len(args) > 1 {
				ch.Model = args[1]
			}
			return e.change(cmd.Context(), http.MethodPost, "/v1/pipelines/"+url.PathEscape(args[0])+"/canary", nil, ch)
		},
	}
	cmd.Flags().BoolVar(&ch.DryRun, "dry-run", false, "change nothing; print what would change")
	return cmd
}
