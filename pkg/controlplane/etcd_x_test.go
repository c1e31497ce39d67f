package controlplane_test

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// etcdctl is a client of the embedded etcd, as an operator's is.
func etcdctl(t *testing.T, addresses controlplane.Addresses) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addresses.Etcd}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// put writes a key under a lease, 0 for none, and returns the revision.
func put(t *testing.T, c *clientv3.Client, lease clientv3.LeaseID, key, value string) int64 {
	t.Helper()
	written, err := c.Put(t.Context(), key, value, clientv3.WithLease(lease))
	if err != nil {
		t.Fatal(err)
	}
	return written.Header.GetRevision()
}

// awaitRevision waits until what was written is in force: the API may tell of it a
// little before the data planes are told, and one that asks too early remembers for
// ten seconds that there is no such service.
func awaitRevision(t *testing.T, addresses controlplane.Addresses, revision int64) {
	t.Helper()
	eventually(t, "what was written is in force", func() bool { return metric(t, addresses, "fairlead_store_revision") >= float64(revision) })
}

func grant(t *testing.T, c *clientv3.Client) clientv3.LeaseID {
	t.Helper()
	lease, err := c.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	return lease.ID
}

// metric reads one that has no labels.
func metric(t *testing.T, addresses controlplane.Addresses, name string) float64 {
	t.Helper()
	for line := range strings.Lines(ask("http://" + addresses.HTTP.String() + "/metrics")) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// withEtcdctl runs a control plane whose etcd the test may write to.
func withEtcdctl(t *testing.T) (controlplane.Addresses, *clientv3.Client) {
	t.Helper()
	config := loopbackConfig(t)
	config.EtcdListen = "127.0.0.1:0"
	addresses, _ := runControlPlaneAt(t, config)
	return addresses, etcdctl(t, addresses)
}

// documented is the value that docs/registry.md shows.
func documented(port int) string {
	return fmt.Sprintf(`{"instance":{"address":"127.0.0.1","ports":[{"name":"http","number":%d}]}}`, port)
}

func portOf(a net.Addr) int { return a.(*net.TCPAddr).Port }

func TestInstanceWrittenIntoEtcdIsCalledForAsLongAsItsLeaseLives(t *testing.T) {
	addresses, etcd := withEtcdctl(t)
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	first, second := grant(t, etcd), grant(t, etcd)
	awaitRevision(t, addresses, put(t, etcd, first, "/fairlead/v1/instances/default/orders/a1", documented(portOf(app(t, "a1").Listener.Addr()))))
	if got := registered(t, addresses, "orders"); got != "a1" {
		t.Errorf("registered: %q", got)
	}
	if status, reason, body := shop.through("orders", "/"); status != 200 || body != "a1" {
		t.Errorf("%d %s %q", status, reason, body)
	}
	put(t, etcd, second, "/fairlead/v1/instances/default/orders/a2", documented(portOf(app(t, "a2").Listener.Addr())))
	eventually(t, "another one is called", func() bool {
		_, _, body := shop.through("orders", "/")
		return body == "a2"
	})
	if _, err := etcd.Revoke(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes with its lease", func() bool { return registered(t, addresses, "orders") == "a1" })
	if _, err := etcd.Revoke(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service is known and has no instance", func() bool {
		status, reason, _ := shop.through("orders", "/")
		return status == 503 && reason == "no_endpoints"
	})
}

func TestValueInEtcdThatCannotBeReadIsSetAsideAndCounted(t *testing.T) {
	addresses, etcd := withEtcdctl(t)
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	const key = "/fairlead/v1/instances/default/orders/a1"
	good := documented(portOf(app(t, "a1").Listener.Addr()))
	lease := grant(t, etcd)
	awaitRevision(t, addresses, put(t, etcd, lease, key, good))
	for _, bad := range []string{
		"", "{}", "no JSON", `{"instance":{"address":"127.0.0.1"}}`, `{"instance":{"address":"here","ports":[{"number":1}]}}`,
		`{"instance":{"id":"a2","address":"127.0.0.1","ports":[{"number":1}]}}`, good + "x", `{"unheardOf":1,` + good[1:],
	} {
		put(t, etcd, lease, key, bad)
		eventually(t, "what cannot be read is counted: "+bad, func() bool { return metric(t, addresses, "fairlead_registry_faulty_keys") == 1 })
		if status, reason, body := shop.through("orders", "/"); status != 200 || body != "a1" {
			t.Errorf("with %s set aside: %d %s %q", bad, status, reason, body)
		}
		put(t, etcd, lease, key, good)
		eventually(t, "it can be read again", func() bool { return metric(t, addresses, "fairlead_registry_faulty_keys") == 0 })
	}
	put(t, etcd, 0, "/fairlead/v1/instances/default/NOT A LABEL/a1", good)
	put(t, etcd, 0, "/fairlead/v1/policies/default/orders", "no JSON")
	eventually(t, "a key that no instance can have is counted", func() bool { return metric(t, addresses, "fairlead_registry_faulty_keys") >= 1 })
	if status, reason, _ := shop.through("orders", "/"); status != 200 {
		t.Errorf("after a policy that cannot be read: %d %s", status, reason)
	}
}

func TestRemovalThroughTheAPILeavesTheLeasesOfOthers(t *testing.T) {
	addresses, etcd := withEtcdctl(t)
	lease := grant(t, etcd)
	put(t, etcd, lease, "/fairlead/v1/instances/default/orders/a1", documented(9000))
	put(t, etcd, lease, "/not/ours", "kept by the same lease")
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "orders") == "a1" })
	call(t, http.MethodDelete, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances/a1", "")
	if got := registered(t, addresses, "orders"); got != "" {
		t.Errorf("registered: %q", got)
	}
	if other, err := etcd.Get(t.Context(), "/not/ours"); err != nil || other.Count != 1 {
		t.Errorf("the other key of the lease: %v %v", other, err)
	}
}
