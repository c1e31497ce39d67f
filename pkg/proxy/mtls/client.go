package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxSessions bounds the sessions that a cluster keeps, one for each of its hosts; those
// that were not used for longest are forgotten.
const maxSessions = 1024

// Client is the TLS of the connections to a cluster's hosts.
type Client struct {
	*kept
	config  mesh.UpstreamTLS
	current atomic.Pointer[generation]
}

// generation is what was made of the files as they were at a time.
type generation struct {
	config   *tls.Config
	sessions tls.ClientSessionCache // by host
}

// Client loads the files of a cluster. name is for logs and errors.
func (k *Keeper) Client(name string, t mesh.UpstreamTLS) (*Client, error) {
	c := &Client{config: t}
	var err error
	if c.kept, err = k.keep(name, t.TLS, c.use); err != nil {
		return nil, err
	}
	if t.CA == "" {
		k.config.Log.Warn("the certificates of hosts are not verified: there is no trusted_ca", "tls", name)
	}
	return c, nil
}

// use makes the configuration. What crypto/tls verifies by itself is the chain and one
// name; all else is verified here.
func (c *Client) use(m *material) {
	config := newConfig(&c.config.TLS, m)
	config.ServerName = c.config.SNI
	config.RootCAs = m.authorities
	if len(m.certificates) > 0 {
		// Whatever authorities the host names: crypto/tls would show none where it does not
		// find its own among them, and the host could not say what it has against it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &m.certificates[0], nil }
	}
	switch {
	case m.authorities == nil:
		config.InsecureSkipVerify = true //nolint:gosec // as the configuration says, and Client warns
	case len(c.config.SANs) > 0 || c.config.SNI == "":
		config.InsecureSkipVerify = true //nolint:gosec // VerifyConnection does
		config.VerifyConnection = func(state tls.ConnectionState) error { return verifyHost(state, m.authorities, c.config.SANs) }
	}
	c.current.Store(&generation{config: config, sessions: tls.NewLRUClientSessionCache(maxSessions)})
}

// verifyHost verifies a host's chain, and its names if there are conditions. The chain of a
// resumed session was verified against the same authorities when the session began, for
// sessions end with them, and crypto/tls resumes none past the certificate's end.
func verifyHost(state tls.ConnectionState, authorities *x509.CertPool, conditions []mesh.SANMatch) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the host has shown no certificate")
	}
	leaf := state.PeerCertificates[0]
	if !state.DidResume {
		intermediates := x509.NewCertPool()
		for _, one := range state.PeerCertificates[1:] {
			intermediates.AddCert(one)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: authorities, Intermediates: intermediates}); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
	}
	if len(conditions) == 0 {
		return nil
	}
	return checkNames(leaf, conditions)
}

// hostSessions are a host's among the sessions of its cluster: no other could resume them.
type hostSessions struct {
	all  tls.ClientSessionCache
	host string
}

func (h hostSessions) Get(string) (*tls.ClientSessionState, bool) { return h.all.Get(h.host) }

func (h hostSessions) Put(_ string, s *tls.ClientSessionState) { h.all.Put(h.host, s) }

// Handshake does a handshake with a host on a connection to it, and resumes the host's
// last session if it can. host is its address; speaks is what it is offered by ALPN where the
// configuration says nothing. It blocks until ctx ends. The caller closes nc if it fails.
func (c *Client) Handshake(ctx context.Context, nc net.Conn, host string, speaks ...string) (*Conn, error) {
	g := c.current.Load()
	config := g.config.Clone()
	if len(config.NextProtos) == 0 {
		config.NextProtos = speaks
	}
	config.ClientSessionCache = hostSessions{g.sessions, host}
	sock := newSocket(nc)
	conn := newConn(tls.Client(sock, config), sock, c.kept)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn, nil
}
