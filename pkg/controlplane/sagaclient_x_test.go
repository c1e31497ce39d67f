package controlplane_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/client"
)

func TestAServiceInGoHasAnAnswerThoughTheControlPlaneThatItAskedIsKilled(t *testing.T) {
	called := &steps{hold: make(chan struct{})}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	etcd := sharedEtcd(t)
	first, kill := startOwner(t, etcd, egress.Listener.Addr().String())
	other := startPeer(t, etcd, egress.Listener.Addr().String())
	sagas, err := client.New(client.Config{Addresses: []string{first, other.at.HTTP.String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sagas.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	order := func(id, path string) *saga.Definition {
		return &saga.Definition{ID: id, Steps: []saga.Step{{Name: "s0", Action: saga.Call{Service: "orders.shop", Path: path}}}}
	}
	if _, err := sagas.Start(ctx, order("held", "/hold")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its step is called", func() bool { return strings.Contains(called.String(), "held/s0/action") })
	ended := make(chan struct{})
	var got *client.Saga
	var waitErr, startErr error
	go func() {
		defer close(ended)
		got, waitErr = sagas.Wait(ctx, "held")
		_, startErr = sagas.Start(ctx, order("held", "/hold"))
	}()
	kill()
	if _, err := sagas.Start(ctx, order("next", "/a")); err != nil { // while nobody owns the shard
		t.Error(err)
	}
	close(called.hold)
	<-ended
	if waitErr != nil || startErr != nil || got.State != saga.Completed || got.Step("s0").Attempts != 2 || len(got.Step("s0").Timeline) != 2 {
		t.Error(got, waitErr, startErr)
	}
	if s, err := sagas.Wait(ctx, "next"); err != nil || s.State != saga.Completed {
		t.Error(s, err)
	}
	if _, err := sagas.Start(ctx, order("held", "/other")); !errors.Is(err, client.ErrConflict) {
		t.Error(err)
	}
	if _, err := sagas.Abort(ctx, "held", client.Note{By: "ada"}); !errors.Is(err, client.ErrVerb) {
		t.Error(err)
	}
	var ids []string
	for s, err := range sagas.List(ctx, client.Query{Page: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	if strings.Join(ids, " ") != "held next" {
		t.Error(ids)
	}
}
