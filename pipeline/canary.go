package pipeline

import (
	"math"
	"strconv"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// A canary is a split at the root of the route with two arms of these names.
const (
	Stable = "stable"
	Canary = "canary"
)

// canary returns the split of a running canary, nil if there is none.
func (s *Spec) canary() *Split {
	if x := s.Route.Split; x != nil && len(x.Arms) == 2 && x.Arms[0].Name == Stable && x.Arms[1].Name == Canary {
		return x
	}
	return nil
}

// StartCanary puts a split in the place of the route: what was there goes on as the arm stable, and a model gets a share
// of the rows as the arm canary. weight is the share in percent, with up to two decimals. key is the column whose values
// stick to their arm; "" is the request id. Invalid: a canary is running already, or the weight is none.
func (s *Spec) StartCanary(model, key, weight string) error {
	const op = "pipeline.StartCanary"
	if s.canary() != nil {
		return schemas.Errorf(schemas.Invalid, op, "pipeline %s has a canary already: set its weight, promote or abort it", s.Name)
	}
	parts, err := parseWeight(op, weight)
	if err != nil {
		return err
	}
	s.Route = Node{Split: &Split{Key: key, Arms: []Arm{
		{Name: Stable, Weight: fullWeight - parts, Node: s.Route},
		{Name: Canary, Weight: parts, Node: Node{Model: model}},
	}}}
	s.text = nil
	return nil
}

// SetCanary changes the canary's share. Raising it moves only the keys that must move.
func (s *Spec) SetCanary(weight string) error {
	const op = "pipeline.SetCanary"
	x := s.canary()
	if x == nil {
		return noCanary(op, s.Name)
	}
	parts, err := parseWeight(op, weight)
	if err != nil {
		return err
	}
	x.Arms[0].Weight, x.Arms[1].Weight = fullWeight-parts, parts
	s.text = nil
	return nil
}

// EndCanary leaves one of the arms as the whole route: Canary promotes, Stable aborts.
func (s *Spec) EndCanary(arm string) error {
	x := s.canary()
	if x == nil {
		return noCanary("pipeline.EndCanary", s.Name)
	}
	for i := range x.Arms {
		if x.Arms[i].Name == arm {
			s.Route = x.Arms[i].Node
		}
	}
	s.text = nil
	return nil
}

func noCanary(op, name string) error {
	return schemas.Errorf(schemas.Invalid, op, "pipeline %s has no canary: start one; it is a split at the root of the route with the arms %s and %s", name, Stable, Canary)
}

// parseWeight turns percent into parts.
func parseWeight(op, weight string) (int, error) {
	p, err := strconv.ParseFloat(strings.TrimSuffix(weight, "%"), 64)
	parts := math.Round(p * fullWeight / 100)
	if err != nil || p < 0 || p > 100 || math.Abs(parts-p*fullWeight/100) > 1e-9*fullWeight {
		return 0, schemas.FieldErrorf(schemas.Invalid, op, "weight", "%.40q: want a share in percent, 0 to 100, with at most two decimals", weight)
	}
	return int(parts), nil
}
