package mtls

import (
	"crypto/tls"
	"net"
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Server is the TLS of a listener.
type Server struct {
	*kept
	config  mesh.DownstreamTLS
	base    *tls.Config // has the keys of tickets, and outlives changes of files
	current atomic.Pointer[tls.Config]
}

// Server loads the files of a listener. name is for logs and errors.
func (k *Keeper) Server(name string, t mesh.DownstreamTLS) (*Server, error) {
	s := &Server{config: t}
	s.base = &tls.Config{
		MinVersion:         version(t.MinVersion, tls.VersionTLS12),
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current.Load(), nil },
	}
	var err error
	if s.kept, err = k.keep(name, t.TLS, s.use); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) use(m *material) {
	c := newConfig(&s.config.TLS, m)
	c.ClientCAs = m.authorities
	switch {
	case s.config.RequireClientCertificate:
		c.ClientAuth = tls.RequireAndVerifyClientCert
	case m.authorities != nil:
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if conditions := s.config.SANs; len(conditions) > 0 {
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil // which ClientAuth has allowed
			}
			return checkNames(state.PeerCertificates[0], conditions)
		}
	}
	s.current.Store(c)
}

// Conn begins TLS on a connection that was accepted. Its Handshake is for the caller.
func (s *Server) Conn(nc net.Conn) *Conn {
	sock := newSocket(nc)
	sock.serves = true
	conn := newConn(tls.Server(sock, s.base), sock, s.kept)
	conn.serves, conn.quit = true, make(chan struct{})
	return conn
}

// newConfig makes what both sides have in common.
func newConfig(t *mesh.TLS, m *material) *tls.Config {
	return &tls.Config{
		Certificates: m.certificates,
		NextProtos:   t.ALPN,
		MinVersion:   version(t.MinVersion, tls.VersionTLS12),
		MaxVersion:   version(t.MaxVersion, tls.VersionTLS13),
		// Small records at the beginning of a connection cost a system call each.
		DynamicRecordSizingDisabled: true,
	}
}

func version(v mesh.TLSVersion, auto uint16) uint16 {
	switch v {
	case mesh.TLS12:
		return tls.VersionTLS12
	case mesh.TLS13:
		return tls.VersionTLS13
	default:
		return auto
	}
}
