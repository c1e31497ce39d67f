package mtls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxFile bounds a file of certificates: the authorities of all the world are 200 kB.
const maxFile = 1 << 20

// material is what the files of a mesh.TLS hold.
type material struct {
	certificates []tls.Certificate
	authorities  *x509.CertPool // nil: peers are not verified
	shown        []Certificate
	sum          [sha256.Size]byte // of the files
}

// Certificate says how long the certificate in a file is good.
type Certificate struct {
	File      string
	NotBefore time.Time
	NotAfter  time.Time // of an authorities' file, that of the one that is good for longest
	Authority bool
	Subject   string
	Serial    string   // in hexadecimal digits
	Names     []string // of a certificate that is shown, of all kinds
}

// DaysLeft returns how many days the certificate is good for, negative past its end.
func (c Certificate) DaysLeft(now time.Time) float64 { return c.NotAfter.Sub(now).Hours() / 24 }

// loader reads files, and notes what they are like.
type loader struct {
	files  []file
	inline map[string][]byte // instead of files, by name
	sum    hash.Hash
}

// file is what a file was like when it was read.
type file struct {
	path string
	info os.FileInfo
	at   time.Time // when it was looked at
}

// load reads the files of t. The error names the field and the file. The files are
// returned in any case, as far as they were read. Those of inline are none.
func load(t *mesh.TLS, inline map[string][]byte) (*material, []file, error) {
	l := &loader{inline: inline, sum: sha256.New()}
	m := &material{}
	for i, pair := range t.Certificates {
		if err := l.pair(m, fmt.Sprintf("tls_certificates[%d]", i), pair); err != nil {
			return nil, l.files, err
		}
	}
	if t.CA != "" {
		if err := l.authorities(m, t.CA); err != nil {
			return nil, l.files, err
		}
	}
	l.sum.Sum(m.sum[:0])
	return m, l.files, nil
}

// fileError is what is wrong with a file, and which field of the configuration names it.
func fileError(field, path string, err error) error {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err // which would say the path again
	}
	return fmt.Errorf("%s.filename %s: %w", field, path, err)
}

func (l *loader) pair(m *material, field string, pair mesh.KeyPair) error {
	chain, err := l.read(pair.Chain)
	if err == nil {
		_, err = parseCertificates(chain)
	}
	if err != nil {
		return fileError(field+".certificate_chain", pair.Chain, err)
	}
	key, err := l.read(pair.Key)
	if err == nil {
		err = checkKey(key)
	}
	if err != nil {
		return fileError(field+".private_key", pair.Key, err)
	}
	c, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fileError(field+".private_key", pair.Key, fmt.Errorf("with the certificate of %s: %w", pair.Chain, err))
	}
	m.certificates = append(m.certificates, c)
	m.shown = append(m.shown, describe(pair.Chain, c.Leaf))
	return nil
}

func (l *loader) authorities(m *material, path string) error {
	data, err := l.read(path)
	var all []*x509.Certificate
	if err == nil {
		all, err = parseCertificates(data)
	}
	if err != nil {
		return fileError("validation_context.trusted_ca", path, err)
	}
	m.authorities = x509.NewCertPool()
	longest := all[0]
	for _, c := range all {
		m.authorities.AddCert(c)
		if c.NotAfter.After(longest.NotAfter) {
			longest = c
		}
	}
	shown := describe(path, longest)
	shown.Authority, shown.Names = true, nil
	m.shown = append(m.shown, shown)
	return nil
}

func describe(path string, c *x509.Certificate) Certificate {
	d := Certificate{
		File: path, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		Subject: c.Subject.String(), Serial: c.SerialNumber.Text(16), Names: slices.Clone(c.DNSNames),
	}
	for _, u := range c.URIs {
		d.Names = append(d.Names, u.String())
	}
	for _, ip := range c.IPAddresses {
		d.Names = append(d.Names, ip.String())
	}
	return d
}

// read reads a file whole. What is no plain file could keep the reader waiting.
func (l *loader) read(path string) ([]byte, error) {
	if data, ok := l.inline[path]; ok {
		if len(data) > maxFile {
			return nil, fmt.Errorf("is larger than %d bytes", maxFile)
		}
		return data, nil
	}
	info, err := os.Stat(path)
	l.files = append(l.files, file{path: path, info: info, at: time.Now()})
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("is larger than %d bytes", maxFile)
	}
	_, _ = fmt.Fprintf(l.sum, "%d:%s%d:", len(path), path, len(data)) // a hash does not fail
	_, _ = l.sum.Write(data)
	return data, nil
}

// parseCertificates reads the certificates of PEM data, at least one. Blocks of other types are
// passed over, as all who read such files do.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	blocks := 0
	for rest := data; ; blocks++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d is malformed: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	switch {
	case blocks == 0:
		return nil, errNotPEM
	case len(all) == 0:
		return nil, errors.New("has no certificate in it")
	}
	return all, nil
}

// checkKey finds what tls.X509KeyPair would say less plainly.
func checkKey(data []byte) error {
	block, rest := pem.Decode(data)
	if block == nil {
		return errNotPEM
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return errors.New("is encrypted, and nobody is here to give the password: openssl pkey -in FILE -out FILE decrypts it")
		case block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY"):
			return nil
		}
	}
	return errors.New("has no private key in it")
}

var errNotPEM = errors.New("is not PEM (-----BEGIN …)")

// hasChanged reports whether what lies at the path may be other than what was read. A
// path through symbolic links, as Kubernetes keeps them, leads to another file when
// one of the links changes. A file that was changed shortly before it was read may have
// been changed again within the resolution of its time.
func (f *file) hasChanged(resolution time.Duration) bool {
	info, err := os.Stat(f.path)
	if err != nil || f.info == nil {
		return true
	}
	return !os.SameFile(info, f.info) || info.Size() != f.info.Size() || !info.ModTime().Equal(f.info.ModTime()) ||
		f.at.Sub(f.info.ModTime()) < resolution
}
