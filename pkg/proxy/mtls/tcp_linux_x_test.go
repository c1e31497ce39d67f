//go:build linux && (amd64 || arm64)

package mtls_test

import (
	"crypto/tls"
	"sync"
	"syscall"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
)

// Nobody answers a client's last flight, and a client may wait for its acknowledgement with
// its request.
func TestAListenerAcknowledgesTheLastFlightAtOnce(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	s := server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		accepted, dialled := pair(t)
		var peer sync.WaitGroup
		peer.Go(func() {
			_ = tls.Client(dialled, &tls.Config{RootCAs: ca.Pool(), ServerName: "app.example", MaxVersion: version}).Handshake() //nolint:gosec // a test
		})
		if err := s.Conn(accepted).Handshake(); err != nil {
			t.Fatal(err)
		}
		peer.Wait()
		raw, err := accepted.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		quick := 0
		if cerr := raw.Control(func(fd uintptr) {
			quick, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK)
		}); cerr != nil || err != nil || quick != 1 {
			t.Errorf("%s: %d, %v, %v", tls.VersionName(version), quick, cerr, err)
		}
		_, _ = accepted.Close(), dialled.Close()
	}
}
