package main

import "github.com/spf13/cobra"

// commands is the table of all commands.
func commands(e *env) []*cobra.Command {
	group := func(id string, cs ...*cobra.Command) []*cobra.Command {
		for _, c := range cs {
			c.GroupID = id
		}
		return cs
	}
	var all []*cobra.Command
	all = append(all, group("run", serveCommand(e), demoCommand(e), doctorCommand(e))...)
	all = append(all, group("use", modelsCommand(e), applyCommand(e), canaryCommand(e), banditCommand(e), pipelinesCommand(e), scoreCommand(e), jobCommand(e), topicsCommand(e), feedbackCommand(e), featuresCommand(e))...)
	all = append(all, group("look", lineageCommand(e), openapiCommand(e), versionCommand(e))...)
	return append(all, docsCommand(e)) // hidden
}
