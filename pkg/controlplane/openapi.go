package controlplane

import (
	"encoding/json"
	"fmt"
	"net/http"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rest"
)

// describe serves the description of all that is served as REST. Methods that it does not take are other's to answer.
func describe(other http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			other.ServeHTTP(w, r)
			return
		}
		text, err := description(meshv1.OpenAPI(), rest.OpenAPI())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // a client that went away
	})
}

// description returns a document of OpenAPI 2.0 with the tags, paths and definitions of another added to it. What both have is an error.
func description(document, added []byte) ([]byte, error) {
	var all, other map[string]json.RawMessage
	if err := json.Unmarshal(document, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(added, &other); err != nil {
		return nil, err
	}
	var tags, otherTags []json.RawMessage
	if err := json.Unmarshal(all["tags"], &tags); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(other["tags"], &otherTags); err != nil {
		return nil, err
	}
	var err error
	if all["tags"], err = json.Marshal(append(tags, otherTags...)); err != nil {
		return nil, err
	}
	for _, part := range []string{"paths", "definitions"} {
		var these, those map[string]json.RawMessage
		if err := json.Unmarshal(all[part], &these); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(other[part], &those); err != nil {
			return nil, err
		}
		for name, text := range those {
			if these[name] != nil {
				return nil, fmt.Errorf("%s: %s is described twice", part, name)
			}
			these[name] = text
		}
		if all[part], err = json.Marshal(these); err != nil {
			return nil, err
		}
	}
	return json.MarshalIndent(all, "", "  ")
}
