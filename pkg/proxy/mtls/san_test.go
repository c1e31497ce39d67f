package mtls

import (
	"crypto/x509"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func TestNamesAreMatchedByTypeAndKind(t *testing.T) {
	spiffe, err := url.Parse("spiffe://td/ns/default/sa/app")
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		DNSNames:    []string{"App.example.com", "*.wild.example", "*."},
		URIs:        []*url.URL{spiffe},
		IPAddresses: []net.IP{net.ParseIP("10.0.0.1"), net.ParseIP("fd00::1"), {1, 2, 3}},
	}
	c.Subject.CommonName = "common.example"
	for _, one := range []struct {
		m    mesh.SANMatch
		want bool
	}{
		{mesh.SANMatch{Value: "app.example.com"}, true},
		{mesh.SANMatch{Value: "APP.example.COM"}, true},
		{mesh.SANMatch{Value: "example.com"}, false},
		{mesh.SANMatch{Value: "common.example"}, false},
		{mesh.SANMatch{Value: "a.wild.example"}, true},
		{mesh.SANMatch{Value: "a.b.wild.example"}, false},
		{mesh.SANMatch{Value: ".wild.example"}, false},
		{mesh.SANMatch{Value: "wild.example"}, false},
		{mesh.SANMatch{Value: "*.wild.example"}, true},
		{mesh.SANMatch{Value: "*.example.com"}, false},
		{mesh.SANMatch{Value: "*a.wild.example"}, false},
		{mesh.SANMatch{Value: "app"}, false},
		{mesh.SANMatch{Value: "10.0.0.1"}, false},
		{mesh.SANMatch{Kind: mesh.MatchPrefix, Value: "app."}, true},
		{mesh.SANMatch{Kind: mesh.MatchPrefix, Value: "example"}, false},
		{mesh.SANMatch{Kind: mesh.MatchSuffix, Value: ".EXAMPLE.com"}, true},
		{mesh.SANMatch{Kind: mesh.MatchSuffix, Value: "App"}, false},
		{mesh.SANMatch{Kind: mesh.MatchSuffix, Value: ".wild.example"}, true},
		{mesh.SANMatch{Kind: mesh.MatchSuffix, Value: "a.wild.example"}, false},
		{mesh.SANMatch{Kind: 9, Value: "app.example.com"}, false},
		{mesh.SANMatch{Type: mesh.SANURI, Value: "spiffe://td/ns/default/sa/app"}, true},
		{mesh.SANMatch{Type: mesh.SANURI, Value: "spiffe://td/ns/default/sa/APP"}, false},
		{mesh.SANMatch{Type: mesh.SANURI, Kind: mesh.MatchPrefix, Value: "spiffe://td/ns/default/"}, true},
		{mesh.SANMatch{Type: mesh.SANURI, Kind: mesh.MatchPrefix, Value: "spiffe://td/ns/other/"}, false},
		{mesh.SANMatch{Type: mesh.SANURI, Kind: mesh.MatchSuffix, Value: "/sa/app"}, true},
		{mesh.SANMatch{Type: mesh.SANURI, Value: "app.example.com"}, false},
		{mesh.SANMatch{Type: mesh.SANIP, Value: "10.0.0.1"}, true},
		{mesh.SANMatch{Type: mesh.SANIP, Value: "::ffff:10.0.0.1"}, true},
		{mesh.SANMatch{Type: mesh.SANIP, Value: "fd00:0::1"}, true},
		{mesh.SANMatch{Type: mesh.SANIP, Value: "10.0.0.2"}, false},
		{mesh.SANMatch{Type: mesh.SANIP, Value: "10.0.0"}, false},
		{mesh.SANMatch{Type: 9, Value: "10.0.0.1"}, false},
	} {
		err := checkNames(c, []mesh.SANMatch{{Value: "another"}, one.m})
		if (err == nil) != one.want {
			t.Errorf("%+v: %v", one.m, err)
		}
	}
}

// Whatever a file holds, it is read without a panic, and what is taken is of use.
func FuzzParseCertificates(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nDEK-Info: x\n\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseCertificates(data)
		if (err == nil) != (len(all) > 0) {
			t.Errorf("%d certificates, %v", len(all), err)
		}
		if checkKey(data) == nil && !strings.Contains(string(data), "PRIVATE KEY") {
			t.Error("a key without one")
		}
	})
}

// Exact names of DNS are matched as crypto/x509 does it.
func FuzzMatchDNSIsThatOfX509(f *testing.F) {
	f.Add("app.example", "app.example")
	f.Add("*.example", "a.example")
	f.Add("*.example", "a.b.example")
	f.Add("*", "a")
	f.Fuzz(func(t *testing.T, name, want string) {
		if matchDNS(name, mesh.SANMatch{Value: want}) {
			return // more than x509 takes are names that no host has
		}
		c := &x509.Certificate{DNSNames: []string{name}}
		if net.ParseIP(strings.Trim(want, "[]")) == nil && !strings.HasSuffix(want, ".") && isASCII(name+want) && c.VerifyHostname(want) == nil {
			t.Errorf("%q is not matched by %q", want, name)
		}
	})
}

func isASCII(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0 }
