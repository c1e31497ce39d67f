package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/certs"
)

func TestTheCertificateIsOfTheAuthorityAndForBothSides(t *testing.T) {
	dir := t.TempDir()
	authority, err := certs.NewAuthority("an authority")
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Write(dir, "a.example"); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(file) {
		t.Fatal("no authority")
	}
	if !roots.Equal(authority.Pool()) {
		t.Error("the file has another authority than the pool")
	}
	for _, files := range [][2]string{{"tls.crt", "tls.key"}, {"tls.pem", "tls.pem"}} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, files[0]), filepath.Join(dir, files[1]))
		if err != nil {
			t.Fatal(err)
		}
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "a.example", KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				t.Errorf("%v: usage %d: %v", files, usage, err)
			}
		}
	}
}
