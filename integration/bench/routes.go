package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/integration/bench/load"
)

// Routes of several nodes beside the single model, on one server, in turn. All models are the boosted one under names of
// their own, so that each is loaded for itself and costs the same.

// routeModels are pushed beside the boosted model.
var routeModels = []string{"bench-second", "bench-third"}

// bulkRows is how many rows the requests have that a cost per row is taken of; bulkBodies how many such requests differ.
const (
	bulkRows   = 1000
	bulkBodies = 4
)

// routesLab is the server with the routes applied.
type routesLab struct {
	*leatSide
	bulk  [][]byte // requests of bulkRows rows
	keyed [][]byte // the same with a key for each row
}

// routeSpecs are the routes by name. %s is the threshold above which the cascade's first stage accepts.
var routeSpecs = map[string]string{
	"single":   "{model: flight-boost@1}",
	"split":    "{split: {arms: [{name: a, weight: 50, model: flight-boost@1}, {name: b, weight: 50, model: bench-second@1}]}}",
	"keyed":    "{split: {key: k, arms: [{name: a, weight: 50, model: flight-boost@1}, {name: b, weight: 50, model: bench-second@1}]}}",
	"shadow":   "{model: flight-boost@1}\nshadows: [{name: other, model: bench-second@1}]",
	"ensemble": "{ensemble: {columns: {label: majority_vote, probabilities: mean}, members: [{name: a, model: flight-boost@1}, {name: b, model: bench-second@1}, {name: c, model: bench-third@1}]}}",
	"cascade":  `{cascade: [{name: small, accept: "max(output.probabilities) >= %s", model: flight-boost@1}, {name: large, model: bench-second@1}]}`,
}

// stopping is the part of the rows that the cascade answers in its first stage.
const stopping = 0.8

func (l *lab) theRoutes(ctx context.Context) (*routesLab, error) {
	if l.routes != nil {
		return l.routes, nil
	}
	s, err := l.startLeat(ctx, "leat-routes", unsynced)
	if err != nil {
		return nil, err
	}
	l.later(s.close)
	r := &routesLab{leatSide: s}
	for _, name := range routeModels {
		if err := s.cli(ctx, "models", "push", filepath.Join(l.c.example, boosted), "--name", name, "--label", "bench="+name); err != nil {
			return nil, err
		}
	}
	var rows [][]byte
	for _, b := range l.native {
		rows = append(rows, bytes.TrimSuffix(bytes.TrimPrefix(b, []byte(`{"rows":[`)), []byte(`]}`)))
	}
	for i := range bulkBodies {
		var some, keyed [][]byte
		for k := range bulkRows {
			row := rows[(i+k*bulkBodies)%len(rows)]
			some = append(some, row)
			keyed = append(keyed, slices.Concat([]byte(`{"k":"N`+strconv.Itoa(i*bulkRows+k)+`",`), row[1:]))
		}
		r.bulk = append(r.bulk, slices.Concat([]byte(`{"rows":[`), bytes.Join(some, []byte(",")), []byte(`]}`)))
		r.keyed = append(r.keyed, slices.Concat([]byte(`{"rows":[`), bytes.Join(keyed, []byte(",")), []byte(`]}`)))
	}
	threshold, err := r.threshold(ctx)
	if err != nil {
		return nil, err
	}
	for name, route := range routeSpecs {
		spec := "apiVersion: leat/v1\nkind: Pipeline\nname: bench-" + name + "\nlineage: strict\nroute: " + strings.Replace(route, "%s", threshold, 1) + "\n"
		if err := s.apply(ctx, s.dir, name, spec); err != nil {
			return nil, err
		}
		if err := l.sameAnswer(ctx, "bench-"+name, func(ctx context.Context, body []byte) ([]byte, error) {
			return ask(ctx, s.client, "leat.score.bench-"+name, body)
		}, l.native); err != nil {
			return nil, err
		}
	}
	l.routes = r
	return r, nil
}

// threshold returns what 80 % of the rows have as their likeliest class's probability at least.
func (r *routesLab) threshold(ctx context.Context) (string, error) {
	var sure []float64
	for _, body := range r.bulk {
		b, err := r.post(ctx, "/v1/pipelines/"+boosted+"/score", body)
		if err != nil {
			return "", err
		}
		var a struct {
			Rows []struct{ Probabilities []float64 }
		}
		if err := json.Unmarshal(b, &a); err != nil || len(a.Rows) != bulkRows {
			return "", fmt.Errorf("bench: %d rows in an answer to %d: %w", len(a.Rows), bulkRows, err)
		}
		for _, row := range a.Rows {
			sure = append(sure, slices.Max(row.Probabilities))
		}
	}
	slices.Sort(sure)
	return strconv.FormatFloat(sure[int(float64(len(sure))*(1-stopping))], 'g', 17, 64), nil
}

func (r *routesLab) post(ctx context.Context, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.http+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("bench: %s: status %d: %.200q", path, res.StatusCode, b)
	}
	return b, err
}

// leatRoute asks a route by requests of one row over NATS.
func leatRoute(ctx context.Context, l *lab, name string, n int) (numbers, error) {
	r, err := l.theRoutes(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.watched(ctx, l, "route/"+name+"/"+strconv.Itoa(n), func() (numbers, error) {
		return l.over(ctx, r.client, "leat.score.bench-"+name, n)
	})
	if err != nil {
		return nil, err
	}
	out["third"] = out["rate"] / 3 // what three models in turn would reach
	if name == "shadow" {
		s, err := r.spent(ctx, "bench-shadow")
		if err != nil {
			return nil, err
		}
		out["shed"], out["offered"] = s.shed, s.shed+s.scored
	}
	return out, nil
}

// leatRouteBulk asks a route by requests of many rows over HTTP, one after another. "cost" is what the server spent on a row
// between its first node and its last, in microseconds; "stopped" is the part of the rows that the first stage answered.
func leatRouteBulk(ctx context.Context, l *lab, name string) (numbers, error) {
	r, err := l.theRoutes(ctx)
	if err != nil {
		return nil, err
	}
	return r.watched(ctx, l, "route/"+name+"/rows", func() (numbers, error) {
		before, err := r.spent(ctx, "bench-"+name)
		if err != nil {
			return nil, err
		}
		bodies := r.bulk
		if name == "keyed" {
			bodies = r.keyed
		}
		lp := l.c.loop(1)
		lp.Warmup, lp.Answer = 0, hold
		out, err := of(load.NewHTTPClient(r.http).Run(ctx, "/v1/pipelines/bench-"+name+"/score", bodies, lp))
		if err != nil {
			return nil, err
		}
		after, err := r.spent(ctx, "bench-"+name)
		if err != nil {
			return nil, err
		}
		rows := after.rows - before.rows
		out["rate"] *= bulkRows
		out["cost"] = (after.seconds - before.seconds) / rows * 1e6
		out["rest"] = out["cost"] * (1 - stopping) // of a second model that gets what is left
		if name == "cascade" {
			if out["stopped"] = (after.first - before.first) / rows; math.Abs(out["stopped"]-stopping) > 0.02 {
				return nil, fmt.Errorf("bench: %.3f of the rows stop early, want %v", out["stopped"], stopping)
			}
		}
		return out, nil
	})
}

// spent is what came by the root of a route since the start, and what its shadow made of it.
type spent struct{ rows, seconds, first, shed, scored float64 }

func (r *routesLab) spent(ctx context.Context, pipeline string) (s spent, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.http+"/metrics", nil)
	if err != nil {
		return s, fmt.Errorf("bench: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return s, fmt.Errorf("bench: %w", err)
	}
	for series, v := range map[string]*float64{
		`leat_shadow_rows_total{outcome="shed",pipeline="` + pipeline + `",shadow="other"} `:   &s.shed,
		`leat_shadow_rows_total{outcome="scored",pipeline="` + pipeline + `",shadow="other"} `: &s.scored,
		`leat_node_rows_total{node="route",pipeline="` + pipeline + `"} `:                      &s.rows,
		`leat_node_seconds_sum{node="route",pipeline="` + pipeline + `"} `:                     &s.seconds,
		`leat_node_arm_rows_total{arm="small",node="route",pipeline="` + pipeline + `"} `:      &s.first,
	} {
		_, rest, found := strings.Cut(string(b), "\n"+series)
		if !found {
			continue // of another kind of route
		}
		line, _, _ := strings.Cut(rest, "\n")
		if *v, err = strconv.ParseFloat(line, 64); err != nil {
			return s, fmt.Errorf("bench: %s%s: %w", series, line, err)
		}
	}
	return s, nil
}
