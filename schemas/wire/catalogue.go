package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/leatstream/leat/schemas"
)

// Catalogue keeps schemas under their ids, for whoever meets a Leat-Schema that it does not know. An id is the digest of
// what is stored under it, so entries are created once and never change. It is safe for concurrent use.
type Catalogue struct {
	kv    schemas.KV
	known sync.Map // schemas.SchemaID -> *schemas.Schema; only ids that the store has, so callers cannot fill it
}

// NewCatalogue returns a catalogue over a store whose keys are schema ids.
func NewCatalogue(kv schemas.KV) *Catalogue { return &Catalogue{kv: kv} }

// Put stores the schema's canonical JSON under its id, unless it is there. What is there and differs is an Internal
// error: one id would name two schemas.
func (c *Catalogue) Put(ctx context.Context, s *schemas.Schema) error {
	const op = "wire.Catalogue.Put"
	if _, ok := c.known.Load(s.ID()); ok {
		return nil
	}
	id := s.ID().String()
	_, err := c.kv.Create(ctx, id, s.Canonical())
	if errors.Is(err, schemas.ErrConflict) {
		var there []byte
		if there, _, err = c.kv.Get(ctx, id); err == nil && !bytes.Equal(there, s.Canonical()) {
			return schemas.Errorf(schemas.Internal, op, "the catalogue holds another schema under id %s", id)
		}
	}
	if err != nil {
		return err
	}
	_, err = c.keep(s.ID(), s.Canonical())
	return err
}

// Lookup returns the schema of an id; NotFound if nobody has put it. Feature names are not part of a schema's identity:
// what comes back has none.
func (c *Catalogue) Lookup(ctx context.Context, id schemas.SchemaID) (*schemas.Schema, error) {
	if s, ok := c.known.Load(id); ok {
		return s.(*schemas.Schema), nil
	}
	b, _, err := c.kv.Get(ctx, id.String())
	if err != nil {
		return nil, err
	}
	return c.keep(id, b)
}

// keep parses what is stored: also after Put, so that every process sees the same schema, without feature names.
func (c *Catalogue) keep(id schemas.SchemaID, stored []byte) (*schemas.Schema, error) {
	const op = "wire.Catalogue"
	s := new(schemas.Schema)
	if err := json.Unmarshal(stored, s); err != nil {
		return nil, schemas.Errorf(schemas.Internal, op, "what the catalogue holds under id %s is no schema: %w", id, err)
	}
	if s.ID() != id {
		return nil, schemas.Errorf(schemas.Internal, op, "the catalogue holds another schema under id %s", id)
	}
	v, _ := c.known.LoadOrStore(id, s)
	return v.(*schemas.Schema), nil
}
