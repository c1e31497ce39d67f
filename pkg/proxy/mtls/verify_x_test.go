package mtls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
)

// alone leaves of a chain in PEM the first certificate.
func alone(chain []byte) []byte {
	end := []byte("-----END CERTIFICATE-----\n")
	return chain[:bytes.Index(chain, end)+len(end)]
}

// files writes a chain and its key.
func files(t *testing.T, chain, key []byte) []mesh.KeyPair {
	t.Helper()
	dir := t.TempDir()
	pair := mesh.KeyPair{Chain: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	mtlstest.Write(t, pair.Chain, chain)
	mtlstest.Write(t, pair.Key, key)
	return []mesh.KeyPair{pair}
}

// The same identity is shown by either side, and verified by the other, in each of the ways
// that there are: by name, by conditions, by the authority alone.
func TestAChainIsGoodIfItLeadsToTheAuthorityAndNothingInItIsFaulty(t *testing.T) {
	root := mtlstest.NewAuthority(t, "root")
	lower := root.Subordinate("lower")
	lowest := lower.Subordinate("lowest")
	stranger := mtlstest.NewAuthority(t, "root") // of the same name, and with another key
	past, future := mtlstest.Lasts(-9*time.Hour, -time.Hour), mtlstest.Lasts(time.Hour, 9*time.Hour)
	issued := func(a *mtlstest.Authority, options ...mtlstest.Option) []mesh.KeyPair {
		chain, key := issue(a, options...)
		return files(t, chain, key)
	}
	aloneBy := func(a *mtlstest.Authority) []mesh.KeyPair {
		chain, key := issue(a)
		return files(t, alone(chain), key)
	}
	for name, one := range map[string]struct {
		shown            []mesh.KeyPair
		asHost, asClient bool
	}{
		"of the root":                    {issued(root), true, true},
		"of an intermediate":             {issued(lower), true, true},
		"of two intermediates":           {issued(lowest), true, true},
		"the intermediate is not shown":  {aloneBy(lower), false, false},
		"one of two is not shown":        {aloneBy(lowest), false, false},
		"an intermediate of a stranger":  {issued(stranger.Subordinate("lower")), false, false},
		"of a stranger of the same name": {issued(stranger), false, false},
		"expired":                        {issued(lower, past), false, false},
		"not valid yet":                  {issued(lower, future), false, false},
		"the intermediate has expired":   {issued(root.Subordinate("lower", past)), false, false},
		"the intermediate is too new":    {issued(root.Subordinate("lower", future)), false, false},
		"for hosts only":                 {issued(lower, mtlstest.For(x509.ExtKeyUsageServerAuth)), true, false},
		"for clients only":               {issued(lower, mtlstest.For(x509.ExtKeyUsageClientAuth)), false, true},
		"for neither":                    {issued(lower, mtlstest.For(x509.ExtKeyUsageCodeSigning)), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			caFile := root.File(t.TempDir())
			k, _ := newKeeper(t, 0)
			host, _ := listen(t, server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: one.shown}}))
			for way, up := range map[string]mesh.UpstreamTLS{
				"by name":       {TLS: mesh.TLS{CA: caFile}, SNI: "app.example"},
				"by conditions": {TLS: mesh.TLS{CA: caFile, SANs: []mesh.SANMatch{dns(0, "app.example")}}},
				"by authority":  {TLS: mesh.TLS{CA: caFile}},
			} {
				_, err := call(t, client(t, k, up), host)
				if got := err == nil; got != one.asHost || !got && cause(err) != "certificate" {
					t.Errorf("a host, verified %s: %s: %v", way, cause(err), err)
				}
			}
			for way, conditions := range map[string][]mesh.SANMatch{"by authority": nil, "by conditions": {dns(0, "app.example")}} {
				at, outcomes := listen(t, server(t, k, mesh.DownstreamTLS{
					TLS: mesh.TLS{Certificates: []mesh.KeyPair{root.Pair(t.TempDir(), "app.example")}, CA: caFile, SANs: conditions}, RequireClientCertificate: true,
				}))
				_, _ = call(t, client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{Certificates: one.shown}}), at)
				o := <-outcomes
				if got := o.err == nil; got != one.asClient || !got && cause(o.err) != "certificate" {
					t.Errorf("a client, verified %s: %s: %v", way, cause(o.err), o.err)
				}
			}
		})
	}
}

func issue(a *mtlstest.Authority, options ...mtlstest.Option) (chain, key []byte) {
	return a.Issue("app.example", options...)
}

func TestTheCertificateOfAClusterIsShownWhateverAuthoritiesTheHostNames(t *testing.T) {
	ours, theirs := mtlstest.NewAuthority(t, "ours"), mtlstest.NewAuthority(t, "theirs")
	k, _ := newKeeper(t, 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	shown := make(chan int, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			shown <- -1
			return
		}
		defer func() { _ = nc.Close() }()
		c := tls.Server(nc, &tls.Config{ //nolint:gosec // a test
			Certificates: []tls.Certificate{theirs.Certificate("app.example")}, ClientCAs: theirs.Pool(), ClientAuth: tls.RequireAnyClientCert,
		})
		if c.Handshake() != nil {
			shown <- -1
			return
		}
		shown <- len(c.ConnectionState().PeerCertificates)
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	c := client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ours.Pair(t.TempDir(), "web.example")}}})
	if _, err := c.Handshake(context.Background(), nc, "h"); err != nil {
		t.Error(err)
	}
	if n := <-shown; n != 1 {
		t.Errorf("%d certificates were shown", n)
	}
}
