package mgmt

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Credentials wraps those of the server that the API is registered with, so that a
// stream can tell a peer whose process ended from one that is not heard any more:
// gRPC has one error for both.
func Credentials(inner credentials.TransportCredentials) credentials.TransportCredentials {
	return listening{inner}
}

type listening struct {
	credentials.TransportCredentials
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c listening) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	heard := &heardConn{Conn: conn}
	return heard, heardInfo{info, heard}, nil
}

// Clone implements [credentials.TransportCredentials].
func (c listening) Clone() credentials.TransportCredentials {
	return listening{c.TransportCredentials.Clone()}
}

// heardInfo is what a call knows of its connection.
type heardInfo struct {
	credentials.AuthInfo
	conn *heardConn
}

// heardConn remembers which end closed it first.
type heardConn struct {
	net.Conn
	closed atomic.Int32
}

const (
	stillOpen int32 = iota
	closedByPeer
	closedHere // for want of an answer to a ping, or by the kernel for want of any
)

// Read implements [net.Conn].
func (c *heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		c.closed.CompareAndSwap(stillOpen, closedByPeer)
	}
	return n, err
}

// Close implements [net.Conn]. gRPC calls it before it ends the connection's streams.
func (c *heardConn) Close() error {
	c.closed.CompareAndSwap(stillOpen, closedHere)
	return c.Conn.Close()
}

// peerFellSilent reports, once a stream has ended, whether its connection did for lack
// of a sign of life, and not because the peer closed it or gave up the stream alone.
func peerFellSilent(stream context.Context) bool {
	p, ok := peer.FromContext(stream)
	if !ok {
		return false
	}
	info, ok := p.AuthInfo.(heardInfo)
	return ok && info.conn.closed.Load() == closedHere
}
