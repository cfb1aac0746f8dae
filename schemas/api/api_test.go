package api

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

type request struct {
	Name  string    `path:"name"`
	Limit int       `query:"limit"`
	Since time.Time `query:"since"`
	Tags  []string  `query:"tag"`
	Note  string    `json:"note"`
}

type reply struct{ Said string }

func operation() Operation {
	return Op("things.do", "POST", "/v1/things/{name}", Admin, "Do it.", func(_ context.Context, r *request) (*reply, error) {
		return &reply{r.Name + r.Note}, nil
	})
}

func TestDecode(t *testing.T) {
	o := operation()
	q := url.Values{"limit": {"3"}, "since": {"2026-01-02T03:04:05Z"}, "tag": {"a", "b"}}
	v, err := o.Decode(func(string) string { return "x" }, q, strings.NewReader(`{"note":"n"}`))
	if err != nil {
		t.Fatal(err)
	}
	r := v.(*request)
	if r.Name != "x" || r.Limit != 3 || r.Since.Year() != 2026 || len(r.Tags) != 2 || r.Note != "n" {
		t.Fatalf("%+v", r)
	}
	out, err := o.Handle(t.Context(), r)
	if err != nil || out.(*reply).Said != "xn" {
		t.Fatalf("%v, %v", out, err)
	}
}

// Both ways of asking fill the same request.
func TestDecodeObject(t *testing.T) {
	o := operation()
	v, err := o.DecodeObject([]byte(`{"name":"x","limit":3,"tag":["a","b"],"note":"n"}`))
	if err != nil {
		t.Fatal(err)
	}
	if r := v.(*request); r.Name != "x" || r.Limit != 3 || len(r.Tags) != 2 || r.Note != "n" {
		t.Fatalf("%+v", r)
	}
}

func TestBadRequestsNameTheField(t *testing.T) {
	o := operation()
	for field, try := range map[string]func() error{
		"limit": func() error {
			_, err := o.Decode(func(string) string { return "x" }, url.Values{"limit": {"many"}}, nil)
			return err
		},
		"since": func() error {
			_, err := o.Decode(func(string) string { return "x" }, url.Values{"since": {"yesterday"}}, nil)
			return err
		},
		"color": func() error {
			_, err := o.Decode(func(string) string { return "x" }, url.Values{"color": {"red"}}, nil)
			return err
		},
	} {
		e := schemas.AsError("", try())
		if e == nil || e.Kind != schemas.Invalid || e.Field != field {
			t.Errorf("%s: %+v", field, e)
		}
	}
	for _, body := range []string{`{"nope":1}`, `{"note":7}`, `{`, `[]`} {
		if _, err := o.DecodeObject([]byte(body)); schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestMistakesPanic(t *testing.T) {
	mistake := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s passes", what)
			}
		}()
		f()
	}
	type unfit struct {
		C chan int `query:"c"`
	}
	mistake("a channel in the query", func() {
		Op("x", "GET", "/x", Read, "", func(context.Context, *unfit) (*reply, error) { return nil, nil })
	})
	mistake("a path without its segment", func() {
		Op("x", "GET", "/x", Read, "", func(context.Context, *request) (*reply, error) { return nil, nil })
	})
}
