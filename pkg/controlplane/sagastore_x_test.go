package controlplane_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
)

// What is wrong with the store of sagas is no matter of the mesh's: it is said to who asks for sagas, and they go on once it is mended.
func TestAStoreOfSagasThatDoesNotServeHoldsUpSagasAlone(t *testing.T) {
	for name, world := range map[string]func(t *testing.T, c *controlplane.Config) (mend func(), why string){
		"a cluster that is not there": func(t *testing.T, c *controlplane.Config) (func(), string) {
			address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freeport.For(t)))
			c.SagaEtcdEndpoints = []string{"http://" + address}
			return func() {
				server, err := etcdembed.Start(t.Context(), etcdembed.Config{DataDir: t.TempDir(), Listen: address})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = server.Stop() })
			}, "no answer from etcd"
		},
		"a directory that is none": func(t *testing.T, c *controlplane.Config) (func(), string) {
			dir := filepath.Join(c.DataDir, "sagas")
			if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir, []byte("in the way"), 0o600); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := os.Remove(dir); err != nil {
					t.Fatal(err)
				}
			}, "not a directory"
		},
	} {
		t.Run(name, func(t *testing.T) {
			egress := httptest.NewServer(&steps{})
			t.Cleanup(egress.Close)
			config := loopbackConfig(t)
			config.SagaEgress = egress.Listener.Addr().String()
			mend, why := world(t, &config)
			config.HTTPAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(freeport.For(t)))
			ask, _ := startSagas(t, config)
			// ask would ask again until it is there.
			once, err := http.Post("http://"+config.HTTPAddr+"/v1/sagas", "application/json", strings.NewReader(sagaOf("a", "/a")))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(once.Body)
			_ = once.Body.Close()
			if err != nil || once.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), why) || once.Header.Get("Retry-After") == "" {
				t.Errorf("%d %s %v", once.StatusCode, body, err)
			}
			if status, body := ask("GET", "/v1/services", ""); status != http.StatusOK {
				t.Errorf("the mesh: %d %s", status, body)
			}
			mend()
			if status, body := ask("POST", "/v1/sagas", sagaOf("a", "/a")); status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			if _, body := ask("GET", "/v1/sagas/a:wait?timeout=20s", ""); stateOf(t, body) != "completed" {
				t.Error(body)
			}
		})
	}
}
