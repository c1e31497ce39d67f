package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/knock"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
)

const (
	// maxDials is how many connections to one host may be opened at once. A host that is
	// called by thousands at the same moment takes them one after the other anyway; past
	// its backlog it drops them, which costs each a second.
	maxDials = 128
	// maxQueued is how many requests to one host may wait to open a connection: as many
	// as there can be on the connections that a listener takes by default.
	maxQueued = 10_000
	// keepAlive finds peers that vanished without a word.
	keepAlive = 30 * time.Second
)

// keepaliveOf fills in defaults: Go's for the interval, 15 s, and the probes, 9.
func keepaliveOf(k mesh.TCPKeepalive) net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: cmp.Or(k.Time, keepAlive), Interval: k.Interval, Count: int(k.Probes)}
}

// ErrBusy says that too many requests wait for a connection to the host already.
var ErrBusy = errors.New("too many requests wait for a connection to the host")

// ErrPending says that as many requests wait for a connection to a host of the cluster as its
// configuration allows. It is an ErrBusy.
var ErrPending = fmt.Errorf("%w of its cluster: there may be no more of them", ErrBusy)

// ErrNoSocket says that this process, or its machine, has nothing left to connect with:
// no file descriptor, no local port, no memory for a socket. It says nothing about the host.
var ErrNoSocket = errors.New("no file descriptor or local port is left to connect with")

// ErrLoop says that the host is this process itself, at a port that leads back here.
var ErrLoop = errors.New("the host is this process itself")

// ErrTLS says that the host was connected to, and the handshake of TLS with it failed.
var ErrTLS = errors.New("the TLS handshake failed")

// ErrNotDelivered says that the sidecar of an instance was connected to, and has not reached its
// application.
var ErrNotDelivered = errors.New("the sidecar of the host did not reach its application")

// ErrConnections says that there are as many connections to the hosts of the cluster as there may be,
// none of them idle, and that this host needs one more: it does not speak HTTP/2, or it is not known
// yet whether it does.
var ErrConnections = errors.New("there may be no more connections to the hosts of the cluster")

// errALPN says that the host chose a protocol that the cluster's configuration offered and
// does not speak.
var errALPN = errors.New("the host chose a protocol of alpn_protocols that is not the cluster's")

// errChanged says that a host that had chosen HTTP/2 by ALPN does not any more: who tries
// again calls it by HTTP/1.1.
var errChanged = errors.New("the host does not choose HTTP/2 by ALPN any more")

// errNoHTTP1 says that a host that chooses HTTP/2 of both chooses nothing of HTTP/1.1 alone. RFC 7301
// §3.2 wants it to end the handshake then, and not all do; some speak HTTP/1.1 all the same.
var errNoHTTP1 = errors.New("the host chooses HTTP/2 by ALPN, and not HTTP/1.1")

// Dial returns a stream on a new connection, within the cluster's connect timeout, which
// the handshake of TLS is part of; where that fails, the error is ErrTLS. It
// blocks. Where streams share connections, it is one on any connection, and who waits
// for the same one waits together. While very many connections to the host are being opened, it waits for its
// turn, and then takes one that has come back meanwhile, if there is one; it fails with
// ErrBusy if too many wait, at once with ErrPending if as many do as the cluster's configuration
// allows, and with ErrNoSocket for want of a descriptor or a port. A
// host at an address that the set was told to be its own is not connected to: ErrLoop.
//
// If the cluster has as many connections as it may, an idle one, of whatever host,
// makes room; if there is none, the one too many is not kept when it is released. So it is
// with those of the whole set, and where descriptors run out all the same.
func (h *Host) Dial(ctx context.Context) (Stream, error) {
	if h.cluster.set.isOwn(h.network) {
		return nil, ErrLoop
	}
	if !h.cluster.enqueue() {
		return nil, ErrPending
	}
	defer h.cluster.dequeue()
	ctx, cancel := context.WithTimeout(ctx, h.cluster.limits.Load().connectTimeout)
	defer cancel()
	if h.Shared() {
		return h.shared.await(ctx)
	}
	if h.Chooses() && !h.known.Load() {
		s, err := h.dialFirst(ctx)
		if s != nil || err != nil {
			return s, err
		}
		if h.Shared() {
			return h.shared.await(ctx)
		}
	}
	return h.dialHTTP1(ctx, true)
}

// dialFirst opens the first connection to a host that chooses what it speaks, one caller after the
// other: most hosts need no second one. It returns no stream, and no error, once it is known.
func (h *Host) dialFirst(ctx context.Context) (Stream, error) {
	defer h.queued.Add(-1)
	if h.queued.Add(1) > maxQueued {
		return nil, ErrBusy
	}
	select {
	case h.learning <- struct{}{}:
		defer func() { <-h.learning }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h.known.Load() {
		return nil, nil //nolint:nilnil // somebody else's turn was enough
	}
	return h.dialHTTP1(ctx, true)
}

// DialAlone is Dial of a stream with an HTTP/1 connection to itself, on which nothing was
// spoken yet, whatever others speak to the host: for a request of which a tunnel may come.
func (h *Host) DialAlone(ctx context.Context) (Stream, error) { return h.dialAlone(ctx, false) }

// DialUpgrade is DialAlone for a request that is written in HTTP/1, and fails with ErrTLS for a host
// that chooses HTTP/2, and of HTTP/1.1 alone nothing; unless it is known not to take such requests in
// HTTP/2 either.
func (h *Host) DialUpgrade(ctx context.Context) (Stream, error) {
	s, err := h.dialAlone(ctx, h.Chooses())
	if errors.Is(err, ErrTLS) && h.Chooses() {
		h.refusesHTTP1.Store(true)
		h.noConnect.Store(false)
	}
	return s, err
}

func (h *Host) dialAlone(ctx context.Context, careful bool) (Stream, error) {
	if h.cluster.set.isOwn(h.network) {
		return nil, ErrLoop
	}
	if !h.cluster.enqueue() {
		return nil, ErrPending
	}
	defer h.cluster.dequeue()
	ctx, cancel := context.WithTimeout(ctx, h.cluster.limits.Load().connectTimeout)
	defer cancel()
	if careful && !h.known.Load() {
		s, err := h.dialFirst(ctx)
		if _, alone := s.(*h1Stream); alone || err != nil {
			return s, err
		}
		if s != nil {
			s.Release(false, h.cluster.clock())
		}
	}
	s, err := h.dialHTTP1(ctx, false)
	if err != nil || !careful || !h.isHTTP2.Load() || h.noConnect.Load() || chosen(s.(*h1Stream).net) != "" {
		return s, err
	}
	s.Release(false, h.cluster.clock())
	return nil, fmt.Errorf("%w: %w", ErrTLS, errNoHTTP1)
}

// ErrNoProtocol says that a host that speaks HTTP/2 does not take CONNECT with a protocol.
var ErrNoProtocol = errors.New("the host does not announce SETTINGS_ENABLE_CONNECT_PROTOCOL")

// ErrNoSettings says that a host took a connection and has not said within the time to
// connect how it is to be used: its SETTINGS come first (RFC 9113 §3.4).
var ErrNoSettings = errors.New("the host has not sent its SETTINGS")

// DialProtocol is Dial of a stream on an HTTP/2 connection for a CONNECT with a protocol
// (RFC 8441), which the host must have announced: ErrNoProtocol if it has not, ErrNoSettings
// if it has not announced anything in time.
func (h *Host) DialProtocol(ctx context.Context) (Stream, error) {
	if h.cluster.set.isOwn(h.network) {
		return nil, ErrLoop
	}
	if !h.cluster.enqueue() {
		return nil, ErrPending
	}
	defer h.cluster.dequeue()
	ctx, cancel := context.WithTimeout(ctx, h.cluster.limits.Load().connectTimeout)
	defer cancel()
	s, err := h.shared.await(ctx)
	if err != nil {
		return nil, err
	}
	takes, err := s.(*h2Stream).TakesProtocol(ctx)
	switch {
	case err == nil && !takes:
		err = ErrNoProtocol
		h.noConnect.Store(true)
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%w: %w", ErrNoSettings, err)
	}
	if err != nil {
		s.Release(false, h.cluster.clock())
		return nil, err
	}
	return s, nil
}

// dialHTTP1 opens a connection that speaks HTTP/1. If it has to wait for its turn and may
// reuse, one that has come back meanwhile does as well.
func (h *Host) dialHTTP1(ctx context.Context, reuse bool) (Stream, error) {
	select {
	case h.dials <- struct{}{}:
	default:
		began := h.cluster.clock()
		if err := h.queue(ctx); err != nil {
			return nil, err
		}
		if reuse {
			if s := h.takeSince(began, h.cluster.clock()); s != nil {
				<-h.dials
				return s, nil
			}
		}
	}
	defer func() { <-h.dials }()
	if reuse && h.cluster.limits.Load().alpn {
		return h.dialEither(ctx)
	}
	nc, security, err := h.connect(ctx, "http/1.1")
	if err != nil {
		return nil, err
	}
	return newH1Stream(h, nc, security), nil
}

// chosen returns what the host has chosen by ALPN; "" for nothing.
func chosen(nc net.Conn) string {
	if secure, ok := nc.(*mtls.Conn); ok {
		return secure.ConnectionState().NegotiatedProtocol
	}
	return ""
}

// dialEither opens a connection that speaks what the host chooses by ALPN.
func (h *Host) dialEither(ctx context.Context) (Stream, error) {
	nc, security, isHTTP2, err := h.negotiate(ctx)
	if err != nil {
		return nil, err
	}
	if !isHTTP2 {
		return newH1Stream(h, nc, security), nil
	}
	h.shared.adopt(nc, security)
	return h.shared.await(ctx)
}

// negotiate opens a connection that speaks what the host chooses by ALPN, and remembers
// what that is. A host that chooses nothing speaks HTTP/1.1, as "the absence of ALPN" is
// taken by all who deploy HTTP/2 over TLS (RFC 9113 §3.2: it "MUST use" ALPN).
func (h *Host) negotiate(ctx context.Context) (nc net.Conn, security *mtls.Client, isHTTP2 bool, err error) {
	nc, security, err = h.connect(ctx, "h2", "http/1.1")
	if err != nil {
		return nil, nil, false, err
	}
	isHTTP2 = chosen(nc) == "h2"
	h.isHTTP2.Store(isHTTP2)
	h.known.Store(true)
	h.refusesHTTP1.Store(false) // it may be another by now
	h.noConnect.Store(false)
	return nc, security, isHTTP2, nil
}

// Connect returns a new connection for whoever relays bytes, within the same bounds as
// those of Dial. It blocks. Who closes it calls Disconnected.
func (h *Host) Connect(ctx context.Context) (net.Conn, error) {
	if h.cluster.set.isOwn(h.network) {
		return nil, ErrLoop
	}
	if !h.cluster.enqueue() {
		return nil, ErrPending
	}
	defer h.cluster.dequeue()
	limits := h.cluster.limits.Load()
	ctx, cancel := context.WithTimeout(ctx, limits.connectTimeout)
	defer cancel()
	select {
	case h.dials <- struct{}{}:
	default:
		if err := h.queue(ctx); err != nil {
			return nil, err
		}
	}
	defer func() { <-h.dials }()
	nc, _, err := h.connect(ctx)
	return nc, err
}

// Disconnected says that a connection of Connect was closed, once.
func (h *Host) Disconnected() { h.uncount() }

// uncount takes back what connect has counted of a connection.
func (h *Host) uncount() {
	h.cluster.open.Add(-1)
	h.cluster.set.open.Add(-1)
}

// connectHTTP2 opens a connection that speaks HTTP/2.
func (h *Host) connectHTTP2(ctx context.Context) (net.Conn, *mtls.Client, error) {
	limits := h.cluster.limits.Load()
	if !limits.alpn || limits.multiplexed {
		return h.connect(ctx, "h2")
	}
	nc, security, isHTTP2, err := h.negotiate(ctx)
	if err == nil && !isHTTP2 {
		_ = nc.Close() // nothing was sent on it
		h.uncount()
		return nil, nil, fmt.Errorf("%w: %w", ErrTLS, errChanged)
	}
	return nc, security, err
}

// connect opens a connection, for which an idle one may have to make room: one that speaks
// HTTP/2 and is shared, or one that speaks HTTP/1. speaks is which of them, as ALPN calls it
// (RFC 7301 §6, RFC 9113 §3.1), both where the host may choose, and nothing where whatever
// the configuration says will do. It returns what TLS it is made with, nil if it is in the clear. At a
// sidecar that relays to its application it waits until that has taken the connection.
//
// The connection is counted from its beginning on; who closes it calls uncount. Of a cluster whose
// hosts choose, one that may come to speak HTTP/1 is not opened beyond the limit: the others' limit is
// held by that of requests.
func (h *Host) connect(ctx context.Context, speaks ...string) (net.Conn, *mtls.Client, error) {
	limits := h.cluster.limits.Load()
	set := h.cluster.set
	all := set.open.Add(1)
	if n := h.cluster.open.Add(1); limits.connections > 0 && n > limits.connections && !h.cluster.closeOneIdle() &&
		limits.alpn && slices.Contains(speaks, "http/1.1") {
		h.uncount()
		h.cluster.refused.Store(h.cluster.clock())
		return nil, nil, ErrConnections
	}
	if set.limit > 0 && all > set.limit {
		set.makeRoom()
	}
	nc, security, err := h.open(ctx, limits, speaks)
	if err != nil {
		h.uncount()
	}
	return nc, security, err
}

// open is connect, without the counting.
func (h *Host) open(ctx context.Context, limits *limits, speaks []string) (net.Conn, *mtls.Client, error) {
	set := h.cluster.set
	d := net.Dialer{KeepAliveConfig: limits.keepalive}
	nc, err := d.DialContext(ctx, "tcp", h.address)
	if isDescriptors(err) && set.makeRoom() {
		nc, err = d.DialContext(ctx, "tcp", h.address)
	}
	knocks := h.Endpoint().Knocks
	switch {
	case knocks && errors.Is(err, syscall.ECONNRESET): // before connect(2) had returned
		return nil, nil, fmt.Errorf("%w: %w", ErrNotDelivered, err)
	case err != nil:
		return nil, nil, dialError(err)
	case knocks:
		if err := knock.Ask(ctx, nc.(*net.TCPConn)); err != nil {
			_ = nc.Close() // nothing of the client's was sent on it
			return nil, nil, unanswered(err)
		}
	}
	if limits.tls == nil {
		return nc, nil, nil
	}
	secure, err := limits.tls.Handshake(ctx, nc, h.address, speaks...)
	if err == nil && !suits(speaks, secure.ConnectionState().NegotiatedProtocol) {
		err = errALPN
	}
	if err != nil {
		_ = nc.Close() // nothing was sent on it
		return nil, nil, fmt.Errorf("%w: %w", ErrTLS, err)
	}
	return secure, limits.tls, nil
}

// unanswered tells a sidecar that ended the connection from one that said nothing in time.
func unanswered(err error) error {
	if errors.Is(err, knock.ErrRefused) {
		return fmt.Errorf("%w: %w", ErrNotDelivered, err)
	}
	return err
}

// suits reports whether a protocol that the host chose by ALPN is the one that it is called
// by. "" is that of a host without ALPN, of which it is known beforehand (RFC 9113 §3.3).
func suits(speaks []string, chosen string) bool {
	return len(speaks) != 1 || chosen == "" || (chosen == "h2") == (speaks[0] == "h2")
}

// isDescriptors reports whether the process or the machine has as many files open as it may.
func isDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// dialError tells what this side lacks from what is wrong with the host.
func dialError(err error) error {
	if isDescriptors(err) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) {
		return fmt.Errorf("%w: %w", ErrNoSocket, err)
	}
	return err
}

// queue waits until the caller may dial.
func (h *Host) queue(ctx context.Context) error {
	defer h.queued.Add(-1)
	if h.queued.Add(1) > maxQueued {
		return ErrBusy
	}
	select {
	case h.dials <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
