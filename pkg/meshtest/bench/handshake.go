package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// handshakeSuite is connections that do a handshake of TLS 1.3 and end: ECDSA P-256, X25519, no client certificate. Its figure is
// how many the proxy does in a second of CPU time, what accepting and closing cost included.
func handshakeSuite() suite {
	return suite{
		name: "handshakes", title: "TLS handshakes", unit: "handshakes per CPU second", rate: "handshakes/s",
		backend:   nginxProgram("http1/backend.conf"),
		generator: "bench",
		proxies: []proxy{
			fairlead(traceBy(getHTTPS), "tls/fairlead.yaml"),
			nginx("tls/nginx.conf"),
			haproxy("tls/haproxy.cfg"),
			envoy("tls/envoy.yaml"),
		},
		subject: "fairlead", reference: "haproxy", right: "full handshakes, or resumed ones, as they were to be",
		workloads: []workload{
			{name: "full-16c", connections: 16, streams: 1, body: 100, bars: []bar{{than: "haproxy", must: 0.8, aim: 1, least: true}}},
			{name: "resumed-16c", connections: 16, streams: 1, body: 100, resumed: true},
		},
		probe:        probeHandshake,
		probeBackend: probeBy(getHTTP1),
		load:         runHandshakes,
		value:        func(cpuMicros float64, l load) float64 { return float64(l.Requests) / (cpuMicros / 1e6) },
	}
}

// serverName is the name in the certificate that all programs show.
const serverName = "service.bench"

// clientTLS is how all loads speak TLS. Who the server is has been settled: it is on a port that the run has
// given away. X25519 alone, for not all peers have hybrids with ML-KEM.
func clientTLS(cache tls.ClientSessionCache) *tls.Config {
	return &tls.Config{
		ServerName: serverName, InsecureSkipVerify: true, ClientSessionCache: cache,
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{"http/1.1"},
	}
}

// probeHandshake wants a response over TLS: a proxy that does handshakes and nothing else is not measured. No bytes
// are counted.
func probeHandshake(ctx context.Context, port int, _ workload) (int64, error) {
	_, _, err := getHTTPS(ctx, port, "/100")
	return 0, err
}

// handshakeWork is a closed loop of handshakes.
type handshakeWork struct {
	target      string
	connections int  // at a time, at least 1
	resumed     bool // each resumes the session of the one before; else all are full
}

// run goes on until d is over, and waits for the handshakes that are under way then; 0 is one each.
func (w handshakeWork) run(ctx context.Context, d time.Duration) (load, error) {
	return closedLoops(ctx, w.connections, d, w.loop)
}

// loop counts handshakes, one after the other.
func (w handshakeWork) loop(ctx context.Context, until time.Time, n *int64) error {
	config := clientTLS(nil)
	if w.resumed {
		config = clientTLS(tls.NewLRUClientSessionCache(1))
		if _, err := handshake(ctx, w.target, config); err != nil { // the one whose session is resumed
			return err
		}
	}
	for ok := true; ok; ok = time.Now().Before(until) {
		resumed, err := handshake(ctx, w.target, config)
		if err != nil {
			return fmt.Errorf("after %d handshakes: %w", *n, err)
		}
		if resumed != w.resumed {
			return fmt.Errorf("after %d handshakes one was resumed: %t", *n, resumed)
		}
		*n++
	}
	return nil
}

// handshake makes a connection, says good-bye on it and reads to its end: then the server has done its part, and
// what it sent for resumption is in the cache.
func handshake(ctx context.Context, target string, config *tls.Config) (resumed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	socket, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		return false, err
	}
	defer func() { _ = socket.Close() }()
	deadline, _ := ctx.Deadline()
	conn := tls.Client(socket, config)
	if err := errors.Join(socket.SetDeadline(deadline), conn.HandshakeContext(ctx)); err != nil {
		return false, err
	}
	if err := conn.CloseWrite(); err != nil {
		return false, err
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return false, err
	}
	return conn.ConnectionState().DidResume, nil
}

// runHandshakes drives the connections from a process with one core.
func runHandshakes(ctx context.Context, t tools, cores string, port int, w workload, d time.Duration) (load, error) {
	var l load
	err := t.runRole(ctx, cores, &l, handshakeLoad, "-target", local(port), "-connections", strconv.Itoa(w.connections),
		"-resumed="+strconv.FormatBool(w.resumed), "-duration", d.String())
	return l, err
}

// loadHandshakes works as its flags say, and writes the load as JSON.
func loadHandshakes(ctx context.Context, args []string, out io.Writer) error {
	var w handshakeWork
	set := flag.NewFlagSet(handshakeLoad, flag.ContinueOnError)
	set.SetOutput(io.Discard) // the error says it
	set.StringVar(&w.target, "target", "", "")
	set.IntVar(&w.connections, "connections", 1, "")
	set.BoolVar(&w.resumed, "resumed", false, "")
	d := set.Duration("duration", 0, "")
	if err := set.Parse(args); err != nil {
		return err
	}
	l, err := w.run(ctx, *d)
	if err != nil {
		return err
	}
	return writeLoad(out, l)
}
