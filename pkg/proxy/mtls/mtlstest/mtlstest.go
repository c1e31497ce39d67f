// Package mtlstest makes certificates for tests.
package mtlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Authority signs certificates.
type Authority struct {
	t    testing.TB
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// above is what has to be shown with a certificate for those to verify it who know the
	// root alone: this authority and those over it, but the root. In PEM.
	above []byte
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{t: t, name: name, key: newKey(t)}
	template := template(name)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	a.cert = a.sign(template, template, a.key)
	return a
}

// Subordinate makes an authority whose certificate this one has signed.
func (a *Authority) Subordinate(name string, options ...Option) *Authority {
	a.t.Helper()
	s := &Authority{t: a.t, name: name, key: newKey(a.t)}
	template := template(name)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	for _, o := range options {
		o(template)
	}
	s.cert = a.sign(template, a.cert, s.key)
	s.above = append(certificatePEM(s.cert), a.above...)
	return s
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func template(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(100 * 24 * time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func (a *Authority) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// PEM returns the authority's certificate.
func (a *Authority) PEM() []byte { return certificatePEM(a.cert) }

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Pool returns a pool with the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Option changes a certificate.
type Option func(*x509.Certificate)

// URI gives the certificate a name of this type.
func URI(t testing.TB, uri string) Option {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) { c.URIs = append(c.URIs, u) }
}

// IP gives the certificate a name of this type.
func IP(ip string) Option {
	return func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.ParseIP(ip)) }
}

// Lasts makes the certificate good from and until so long from now.
func Lasts(from, until time.Duration) Option {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(until) }
}

// For makes the certificate good for these uses only.
func For(uses ...x509.ExtKeyUsage) Option {
	return func(c *x509.Certificate) { c.ExtKeyUsage = uses }
}

// Issue returns a certificate with a DNS name, unless that is empty, and its key, in PEM. The
// certificates of subordinate authorities follow it.
func (a *Authority) Issue(name string, options ...Option) (chain, key []byte) {
	a.t.Helper()
	template := template(name)
	if name != "" {
		template.DNSNames = []string{name}
	}
	for _, o := range options {
		o(template)
	}
	k := newKey(a.t)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return append(certificatePEM(a.sign(template, a.cert, k)), a.above...), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Certificate is Issue for crypto/tls.
func (a *Authority) Certificate(name string, options ...Option) tls.Certificate {
	a.t.Helper()
	c, err := tls.X509KeyPair(a.Issue(name, options...))
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// Pair is Issue into files of dir, which are there whole or not at all.
func (a *Authority) Pair(dir, name string, options ...Option) mesh.KeyPair {
	a.t.Helper()
	chain, key := a.Issue(name, options...)
	pair := mesh.KeyPair{Chain: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	Write(a.t, pair.Chain, chain)
	Write(a.t, pair.Key, key)
	return pair
}

// File writes the authority's certificate into a file of dir, and returns its path.
func (a *Authority) File(dir string) string {
	a.t.Helper()
	path := filepath.Join(dir, a.name+".crt")
	Write(a.t, path, a.PEM())
	return path
}

// Write replaces a file.
func Write(t testing.TB, path string, data []byte) {
	t.Helper()
	err := os.WriteFile(path+".new", data, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}
