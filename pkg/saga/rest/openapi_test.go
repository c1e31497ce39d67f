package rest

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
)

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Enum                 []string
	Required             []string
	Properties           map[string]schema
	Items                *schema
	AdditionalProperties json.RawMessage
	Maximum              int
	MaxLength, MaxItems  int
	MaxProperties        int
}

type described struct {
	Paths map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Parameters  []struct {
			Name, In string
			Required bool
		}
		Responses map[string]struct {
			Description string
			Schema      schema
			Headers     map[string]any
		}
	}
	Definitions map[string]schema
}

func description(t *testing.T) (d described) {
	t.Helper()
	if err := json.Unmarshal(OpenAPI(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// fields returns the names that JSON has for the fields of a struct, those that may be missing apart.
func fields(of reflect.Type) (always, all []string) {
	for _, f := range reflect.VisibleFields(of) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, name)
		if !strings.Contains(options, "omit") {
			always = append(always, name)
		}
	}
	slices.Sort(always)
	slices.Sort(all)
	return always, all
}

func TestTheDescriptionHasTheFieldsThatThereAre(t *testing.T) {
	d := description(t)
	for name, of := range map[string]reflect.Type{
		"sagaDefinition": reflect.TypeFor[saga.Definition](),
		"sagaStep":       reflect.TypeFor[saga.Step](),
		"sagaCall":       reflect.TypeFor[saga.Call](),
		"sagaRetry":      reflect.TypeFor[saga.Retry](),
		"saga":           reflect.TypeFor[view](),
		"sagaStepView":   reflect.TypeFor[step](),
		"sagaAttempt":    reflect.TypeFor[attempt](),
		"sagaVerb":       reflect.TypeFor[coordinator.Verb](),
		"sagaResolve":    reflect.TypeFor[verb](),
		"sagaSummary":    reflect.TypeFor[coordinator.Summary](),
		"sagaList":       reflect.TypeFor[page](),
		"sagaError":      reflect.TypeFor[failure](),
		"sagaFault":      reflect.TypeFor[fault](),
	} {
		always, all := fields(of)
		if got := slices.Sorted(maps.Keys(d.Definitions[name].Properties)); !slices.Equal(got, all) {
			t.Errorf("%s is described with %v, and has %v", name, got, all)
		}
		if name == "sagaResolve" {
			continue // what there must be depends on the verb: verb.check
		}
		if got := slices.Sorted(slices.Values(d.Definitions[name].Required)); !slices.Equal(got, always) {
			t.Errorf("%s is described to have at least %v, and has %v", name, got, always)
		}
	}
}

func TestTheDescriptionHasTheBoundsThatThereAre(t *testing.T) {
	d := description(t).Definitions
	for what, pair := range map[string][2]int{
		"steps":         {d["sagaDefinition"].Properties["steps"].MaxItems, saga.MaxSteps},
		"id":            {d["sagaDefinition"].Properties["id"].MaxLength, saga.MaxNameBytes},
		"labels":        {d["sagaDefinition"].Properties["labels"].MaxProperties, saga.MaxLabels},
		"after":         {d["sagaStep"].Properties["after"].MaxItems, saga.MaxSteps},
		"path":          {d["sagaCall"].Properties["path"].MaxLength, saga.MaxPathBytes},
		"method":        {d["sagaCall"].Properties["method"].MaxLength, saga.MaxMethodBytes},
		"headers":       {d["sagaCall"].Properties["headers"].MaxProperties, saga.MaxHeaders},
		"note":          {d["sagaNote"].Properties["note"].MaxLength, coordinator.MaxNoteBytes},
		"states":        {len(d["saga"].Properties["state"].Enum), 5},
		"step's states": {len(d["sagaStepView"].Properties["state"].Enum), 7},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %d is described, and it is %d", what, pair[0], pair[1])
		}
	}
	for _, state := range d["saga"].Properties["state"].Enum {
		if _, err := coordinator.ParseState(state); err != nil {
			t.Error(err)
		}
	}
}

func TestTheDescriptionIsWhole(t *testing.T) {
	d := description(t)
	used := map[string]bool{}
	for _, ref := range regexp.MustCompile(`"\$ref":\s*"#/definitions/([^"]*)"`).FindAllSubmatch(OpenAPI(), -1) {
		used[string(ref[1])] = true
	}
	if all := slices.Sorted(maps.Keys(d.Definitions)); !slices.Equal(all, slices.Sorted(maps.Keys(used))) {
		t.Errorf("%v are defined, and %v are used", all, slices.Sorted(maps.Keys(used)))
	}
	var named []string
	for path, operations := range d.Paths {
		for method, o := range operations {
			named = append(named, method+" "+strings.TrimPrefix(path, "/v1/sagas"))
			if strings.Contains(path, "{id}") != slices.ContainsFunc(o.Parameters, func(p struct {
				Name, In string
				Required bool
			}) bool {
				return p.Name == "id" && p.In == "path" && p.Required
			}) {
				t.Errorf("%s %s: its id is not described", method, path)
			}
			for _, code := range []string{"200", "400", "405", "501", "503", "default"} {
				if o.Responses[code].Description == "" {
					t.Errorf("%s %s: %s is not described", method, path, code)
				}
			}
			for code, r := range o.Responses {
				if (r.Schema.Ref == "#/definitions/sagaError") != (code != "200") {
					t.Errorf("%s %s: %s is %s", method, path, code, r.Schema.Ref)
				}
				if waits := code == "429" || code == "503"; waits != (r.Headers["Retry-After"] != nil) {
					t.Errorf("%s %s: %s has %v", method, path, code, r.Headers)
				}
			}
		}
	}
	slices.Sort(named)
	if got := strings.Join(named, ", "); got != "get , get /{id}, get /{id}:wait, post , post /{id}:abort, post /{id}:resolve, post /{id}:resume, post /{id}:retry, post /{id}:skip" {
		t.Error(got)
	}
}
