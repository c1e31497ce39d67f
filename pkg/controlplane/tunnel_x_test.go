package controlplane_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
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

// What the client and the application speak through the sidecars is between them.
func TestSidecarIsTheHTTPSProxyOfItsApplication(t *testing.T) {
	served := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, "o1 "+q.Proto) }))
	t.Cleanup(served.Close)
	addresses := runControlPlane(t)
	runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: served.Listener.Addr().String()})
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "orders") == "o1" })
	roots := x509.NewCertPool()
	roots.AddCert(served.Certificate())
	port := strings.TrimPrefix(served.Listener.Addr().String(), "127.0.0.1:")
	for name, c := range map[string]struct {
		allow bool
		want  string // of what is not in the mesh
	}{"kept to the mesh": {false, "Forbidden"}, "let outside": {true, "Bad Gateway Service Unavailable"}} {
		t.Run(name, func(t *testing.T) {
			shop := runSidecarWith(t, sidecar.Config{ControlPlane: addresses.GRPC.String(), Workload: sidecar.Workload{Service: "shop"}, AllowExternalConnect: c.allow})
			transport := &http.Transport{
				Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: shop.addresses.Listeners[sidecar.Outbound].String()}),
				TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"},
			}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
			for _, host := range []string{"orders", "orders.default", "orders.default.svc.cluster.local"} {
				resp, err := client.Get("https://" + host + ":" + port + "/")
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK || string(body) != "o1 HTTP/1.1" {
					t.Errorf("%s: %d %q", host, resp.StatusCode, body)
				}
			}
			for _, host := range []string{"www.no-such-name.invalid", "no-such-name.invalid"} { // the latter might be a service's name
				resp, err := client.Get("https://" + host + "/")
				if err == nil {
					_ = resp.Body.Close()
					t.Fatalf("%s answers %d", host, resp.StatusCode)
				}
				if why := err.Error()[strings.LastIndex(err.Error(), ": ")+2:]; !strings.Contains(c.want, why) {
					t.Errorf("%s: %v, want %s", host, err, c.want)
				}
			}
			if c.allow {
				return
			}
			// What is wrong about a service's name with a port that is not registered is the port.
			transport.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
				if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "or none with a port of this name or number") {
					t.Errorf("orders:443: %d %q", resp.StatusCode, body)
				}
				return errors.New("as it should be")
			}
			if resp, err := client.Get("https://orders/"); err == nil {
				_ = resp.Body.Close()
				t.Errorf("orders:443 answers %d", resp.StatusCode)
			}
		})
	}
}
