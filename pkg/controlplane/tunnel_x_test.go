package controlplane_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// Between sidecars requests are multiplexed over HTTP/2, which has no Upgrade.
func TestAWebSocketGoesThroughBothSidecars(t *testing.T) {
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/chat" {
			_, _ = io.WriteString(w, "o1")
			return
		}
		c, err := websocket.Accept(w, q, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, message, err := c.Read(q.Context())
			if err != nil {
				return
			}
			_ = c.Write(q.Context(), kind, append(message, "?"...))
		}
	}))
	t.Cleanup(served.Close)
	addresses := runControlPlane(t)
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: served.Listener.Addr().String()})
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "orders") == "o1" })
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop", InstanceID: "s1"})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 3 {
		if status, _, body := shop.through("orders", "/"); status != http.StatusOK || body != "o1" {
			t.Errorf("%d %q", status, body)
		}
		c, _, err := websocket.Dial(ctx, "ws://"+shop.addresses.Listeners[sidecar.Outbound].String()+"/chat", &websocket.DialOptions{Host: "orders"})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Write(ctx, websocket.MessageText, []byte("well")); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); string(got) != "well?" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	}
}
