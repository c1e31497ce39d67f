package rest_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rest"
)

// stuck are sagas whose store takes nothing.
type stuck struct{ coordinator.Sagas }

func (stuck) Start(ctx context.Context, _ *saga.Definition) (*coordinator.View, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (stuck) Do(ctx context.Context, _ string, _ coordinator.Verb) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestWhoStartsOrDecidesIsNotKeptWaitingByAStoreThatTakesNothing(t *testing.T) {
	for path, body := range map[string]string{"/v1/sagas": definition("order-1"), "/v1/sagas/order-1:abort": "{}"} {
		synctest.Test(t, func(t *testing.T) {
			w := httptest.NewRecorder()
			rest.New(stuck{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", path, strings.NewReader(body)))
			if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "within 10s, and may yet") {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		})
	}
}
