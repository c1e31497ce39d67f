package mgmt

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
)

// paths says which methods the paths of the API take, by the API's own description.
type paths map[string][]string // "/v1/namespaces/{namespace}/…": "GET", "HEAD"

func describedPaths() (paths, error) {
	var description struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(meshv1.OpenAPI(), &description); err != nil {
		return nil, err
	}
	all := paths{}
	for path, methods := range description.Paths {
		for method := range methods {
			all[path] = append(all[path], strings.ToUpper(method))
			if method == "get" {
				all[path] = append(all[path], http.MethodHead)
			}
		}
	}
	return all, nil
}

// allow returns the value of the Allow header for a path (RFC 9110 §10.2.1).
func (p paths) allow(path string) string {
	var allowed []string
	for template, methods := range p {
		if matches(template, path) {
			allowed = append(allowed, methods...)
		}
	}
	slices.Sort(allowed)
	return strings.Join(slices.Compact(allowed), ", ")
}

// matches reports whether a path is one of a template, whose variables are whole
// segments, or all of one but its verb.
func matches(template, path string) bool {
	of, is := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(of, is, func(of, is string) bool {
		if !strings.HasPrefix(of, "{") {
			return of == is
		}
		_, verb, _ := strings.Cut(of, "}")
		return len(is) > len(verb) && strings.HasSuffix(is, verb)
	})
}
