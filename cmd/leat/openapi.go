package main

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/connectors/gateway"
)

// apiVersion stands in the document that is printed without a server, so that it changes only with the API.
const apiVersion = "v1"

func openapiCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "openapi",
		Short: "Print the OpenAPI document of the HTTP API",
		Long: `Print the OpenAPI 3.1 document of the HTTP API. It needs no server; a running one
answers with the same at /openapi.json.`,
		Example: "  leat openapi > openapi.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			doc, err := openapi()
			if err != nil {
				return failed(err)
			}
			_, err = e.out.Write(doc)
			return failed(err)
		},
	}
}

// openapi builds the routes of a server that serves nothing: the table of operations says what they are.
func openapi() ([]byte, error) {
	var none app
	g, err := gateway.New(gateway.Default(), gateway.Deps{
		Requester: doors{}, Models: &none, Operations: none.operations(), Metrics: http.NotFoundHandler(), Version: apiVersion,
	})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, g.OpenAPI(), "", " "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
