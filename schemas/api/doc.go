// Package api is the table of operations: what a Leat server can be asked beside scoring. A package that can do
// something for an operator exports Operations(); cmd joins them; connectors/gateway serves each at its method and
// path, connectors/nats at leat.api.<name>, the OpenAPI document and the CLI's calls come from the same table.
//
// An operation is a function of a request struct to a response struct. Fields of the request are filled by tag:
//
//	path:"name"     from a {name} segment of Path
//	query:"limit"   from the query string (HTTP); string, bool, int, int64, float64, time.Time (RFC 3339), []string
//	json:"..."      from the JSON body
//
// Over NATS all of them come from one JSON object, under the same names. A request field of type io.Reader tagged
// body:"content/type" takes the raw body instead of JSON; such operations are served over HTTP only. A response that
// implements Stream is written as it says.
//
// The package opens nothing and serves nothing itself.
package api
