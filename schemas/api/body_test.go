package api

import (
	"context"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
)

// Change is embedded: its name is no part of a field's path.
type Change struct {
	Weight string   `json:"weight"`
	Dry    bool     `json:"dry_run"`
	Share  float64  `json:"share"`
	From   struct{} `json:"from"`
	Carry  []string `json:"carry"`
	Deep   struct {
		Rows int `json:"rows"`
	} `json:"deep"`
}

type changed struct {
	Change
}

func TestBodiesAreToldInWordsOfJSON(t *testing.T) {
	o := Op("things.change", "POST", "/v1/things", Admin, "Change it.", func(context.Context, *changed) (*reply, error) { return &reply{}, nil })
	for body, want := range map[string][2]string{
		`{"weight":5}`:          {"weight", "want a string, got number"},
		`{"dry_run":"x"}`:       {"dry_run", "want true or false, got string"},
		`{"share":"x"}`:         {"share", "want a number, got string"},
		`{"from":1}`:            {"from", "want an object, got number"},
		`{"carry":{}}`:          {"carry", "want a list, got object"},
		`{"deep":{"rows":1.5}}`: {"deep.rows", "want a whole number, got number 1.5"},
		`[]`:                    {"", "body: want an object, got array"},
		`{"weight":`:            {"", "body: the JSON ends too early"},
		`{"nope":1}`:            {"", `body: unknown field "nope"`},
		`{"weight":"5"} x`:      {"", "body: something follows the object"},
		`{"weight":"5"} {}`:     {"", "body: something follows the object"},
		`nonsense`:              {"", "body: invalid character"},
	} {
		_, err := o.Decode(func(string) string { return "" }, nil, strings.NewReader(body))
		if e := schemas.AsError("", err); e == nil || e.Kind != schemas.Invalid || e.Field != want[0] || !strings.Contains(e.Error(), want[1]) || strings.Contains(e.Error(), "Go ") {
			t.Errorf("%s: %v", body, err)
		}
	}
	for _, body := range []string{"", "{}", " {\"share\":1}\n\n"} {
		if _, err := o.Decode(func(string) string { return "" }, nil, strings.NewReader(body)); err != nil {
			t.Errorf("%q: %v", body, err)
		}
	}
}
