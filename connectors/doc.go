// Package connectors says what a transport must do for Leat; the packages beneath it do it, and connectortest proves it.
//
// A request, an event and a chunk of a job are the same thing here: a Delivery that is lent to whoever received it and
// settled once. A Source gives deliveries; a Publisher stores messages; a Requester asks and waits; a Responder
// answers; a Replayer reads a stored range again. An implementation provides what its transport can and returns
// schemas.ErrUnsupported for the rest.
//
// Connectors never look into a payload, know no models, pipelines or schemas, and never drop a message in silence.
package connectors
