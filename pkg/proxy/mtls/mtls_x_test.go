package mtls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newKeeper returns a keeper that looks at files very often, and its log.
func newKeeper(t testing.TB, every time.Duration) (*mtls.Keeper, *lockedbuf.Buffer) {
	t.Helper()
	log := &lockedbuf.Buffer{}
	k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.NewTextHandler(log, nil)), Every: every})
	t.Cleanup(k.Close)
	return k, log
}

// outcome is how a handshake went at the listener.
type outcome struct {
	state tls.ConnectionState
	err   error
}

// listen serves TLS until the test ends: each connection gets back what it sends.
func listen(t testing.TB, s *mtls.Server) (address string, outcomes <-chan outcome) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan outcome, 10_000)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				c := s.Conn(nc)
				defer func() { _ = c.Close() }()
				err := c.Handshake()
				all <- outcome{c.ConnectionState(), err}
				if err == nil {
					_, _ = io.Copy(c, c)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l.Addr().String(), all
}

// call does a handshake by a client, and checks that bytes come back.
func call(t testing.TB, c *mtls.Client, address string, speaks ...string) (tls.ConnectionState, error) {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	conn, err := c.Handshake(context.Background(), nc, address, speaks...)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = conn.Close() }()
	got := make([]byte, 5)
	if _, err = conn.Write([]byte("hello")); err == nil {
		_, err = io.ReadFull(conn, got)
	}
	if err == nil && string(got) != "hello" {
		t.Errorf("%q came back", got)
	}
	return conn.ConnectionState(), err
}

func server(t testing.TB, k *mtls.Keeper, config mesh.DownstreamTLS) *mtls.Server {
	t.Helper()
	s, err := k.Server("listener web", config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func client(t testing.TB, k *mtls.Keeper, config mesh.UpstreamTLS) *mtls.Client {
	t.Helper()
	c, err := k.Client("cluster app", config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func dns(kind mesh.MatchKind, value string) mesh.SANMatch {
	return mesh.SANMatch{Type: mesh.SANDNS, Kind: kind, Value: value}
}

func uri(kind mesh.MatchKind, value string) mesh.SANMatch {
	return mesh.SANMatch{Type: mesh.SANURI, Kind: kind, Value: value}
}

func TestHandshakesEndAsTheConfigurationsSay(t *testing.T) {
	ca, other := mtlstest.NewAuthority(t, "ca"), mtlstest.NewAuthority(t, "other")
	caFile, otherFile := ca.File(t.TempDir()), other.File(t.TempDir())
	pair := func(a *mtlstest.Authority, name string, options ...mtlstest.Option) []mesh.KeyPair {
		return []mesh.KeyPair{a.Pair(t.TempDir(), name, options...)}
	}
	app := pair(ca, "app.example", mtlstest.IP("127.0.0.1"), mtlstest.URI(t, "spiffe://td/ns/default/sa/app"))
	web := pair(ca, "web.example", mtlstest.URI(t, "spiffe://td/ns/default/sa/web"))
	wild := pair(ca, "*.example")
	plain := mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: app}}
	mutual := mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: app, CA: caFile}, RequireClientCertificate: true}
	shown := mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: app, CA: caFile}}
	trusting := mesh.UpstreamTLS{TLS: mesh.TLS{CA: caFile}, SNI: "app.example"}
	with := func(base mesh.DownstreamTLS, change func(*mesh.TLS)) mesh.DownstreamTLS {
		change(&base.TLS)
		return base
	}
	by := func(base mesh.UpstreamTLS, change func(*mesh.UpstreamTLS)) mesh.UpstreamTLS {
		change(&base)
		return base
	}
	shows := func(certificates []mesh.KeyPair) mesh.UpstreamTLS {
		return by(trusting, func(u *mesh.UpstreamTLS) { u.Certificates = certificates })
	}
	for name, one := range map[string]struct {
		server mesh.DownstreamTLS
		client mesh.UpstreamTLS
		// The causes at the listener and at the client; "" where all is well. A client of TLS 1.3
		// is through with its handshake before the listener has looked at its certificate.
		atServer, atClient string
	}{
		"the name is verified":        {plain, trusting, "", ""},
		"another name":                {plain, by(trusting, func(u *mesh.UpstreamTLS) { u.SNI = "web.example" }), "alert", "certificate"},
		"an address is a name too":    {plain, by(trusting, func(u *mesh.UpstreamTLS) { u.SNI = "127.0.0.1" }), "", ""},
		"a wildcard":                  {with(plain, func(s *mesh.TLS) { s.Certificates = wild }), trusting, "", ""},
		"another authority":           {plain, by(trusting, func(u *mesh.UpstreamTLS) { u.CA = otherFile }), "alert", "certificate"},
		"no authorities":              {plain, mesh.UpstreamTLS{}, "", ""},
		"no name to verify":           {plain, by(trusting, func(u *mesh.UpstreamTLS) { u.SNI = "" }), "", ""},
		"no name, another authority":  {plain, mesh.UpstreamTLS{TLS: mesh.TLS{CA: otherFile}}, "alert", "certificate"},
		"conditions instead":          {plain, by(trusting, func(u *mesh.UpstreamTLS) { u.SNI, u.SANs = "x", []mesh.SANMatch{dns(0, "app.example")} }), "", ""},
		"conditions are not met":      {plain, by(trusting, func(u *mesh.UpstreamTLS) { u.SANs = []mesh.SANMatch{dns(0, "web.example")} }), "alert", "name"},
		"conditions, bad authority":   {plain, by(trusting, func(u *mesh.UpstreamTLS) { u.CA, u.SANs = otherFile, []mesh.SANMatch{dns(0, "app.example")} }), "alert", "certificate"},
		"expired":                     {with(plain, func(s *mesh.TLS) { s.Certificates = pair(ca, "app.example", mtlstest.Lasts(-9*time.Hour, -time.Hour)) }), trusting, "alert", "certificate"},
		"expired, with conditions":    {with(plain, func(s *mesh.TLS) { s.Certificates = pair(ca, "app.example", mtlstest.Lasts(-9*time.Hour, -time.Hour)) }), by(trusting, func(u *mesh.UpstreamTLS) { u.SANs = []mesh.SANMatch{dns(0, "app.example")} }), "alert", "certificate"},
		"not valid yet":               {with(plain, func(s *mesh.TLS) { s.Certificates = pair(ca, "app.example", mtlstest.Lasts(time.Hour, 2*time.Hour)) }), trusting, "alert", "certificate"},
		"both sides":                  {mutual, shows(web), "", ""},
		"no client certificate":       {mutual, trusting, "no_certificate", "alert"},
		"client of another authority": {mutual, shows(pair(other, "web.example")), "certificate", "alert"},
		"client has expired":          {mutual, shows(pair(ca, "web.example", mtlstest.Lasts(-9*time.Hour, -time.Hour))), "certificate", "alert"},
		"client need not":             {shown, trusting, "", ""},
		"client need not, but may":    {shown, shows(web), "", ""},
		"client shows a bad one":      {shown, shows(pair(other, "web.example")), "certificate", "alert"},
		"client's name":               {with(mutual, func(s *mesh.TLS) { s.SANs = []mesh.SANMatch{uri(mesh.MatchPrefix, "spiffe://td/ns/default/")} }), shows(web), "", ""},
		"client's name is another":    {with(mutual, func(s *mesh.TLS) { s.SANs = []mesh.SANMatch{uri(mesh.MatchPrefix, "spiffe://td/ns/other/")} }), shows(web), "name", "alert"},
		"client without, conditions":  {with(shown, func(s *mesh.TLS) { s.SANs = []mesh.SANMatch{uri(0, "spiffe://x")} }), trusting, "", ""},
		"versions meet": {
			with(plain, func(s *mesh.TLS) { s.MaxVersion = mesh.TLS12 }), trusting, "", "",
		},
		"listener is too new": {
			with(plain, func(s *mesh.TLS) { s.MinVersion = mesh.TLS13 }), by(trusting, func(u *mesh.UpstreamTLS) { u.MaxVersion = mesh.TLS12 }), "version", "alert",
		},
		"client is too new": {
			with(plain, func(s *mesh.TLS) { s.MaxVersion = mesh.TLS12 }), by(trusting, func(u *mesh.UpstreamTLS) { u.MinVersion = mesh.TLS13 }), "version", "alert",
		},
		"no protocol in common": {
			with(plain, func(s *mesh.TLS) { s.ALPN = []string{"h2"} }), by(trusting, func(u *mesh.UpstreamTLS) { u.ALPN = []string{"spdy"} }), "alpn", "alert",
		},
		"no client certificate, TLS 1.2": {
			with(mutual, func(s *mesh.TLS) { s.MaxVersion = mesh.TLS12 }), trusting, "no_certificate", "alert",
		},
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := newKeeper(t, 0)
			address, outcomes := listen(t, server(t, k, one.server))
			_, err := call(t, client(t, k, one.client), address)
			if got := cause(err); got != one.atClient {
				t.Errorf("at the client %q, want %q: %v", got, one.atClient, err)
			}
			at := <-outcomes
			if got := cause(at.err); got != one.atServer {
				t.Errorf("at the listener %q, want %q: %v", got, one.atServer, at.err)
			}
		})
	}
}

func cause(err error) string {
	if err == nil {
		return ""
	}
	return mtls.Cause(err)
}

func TestEveryCauseIsListed(t *testing.T) {
	for _, err := range []error{
		context.DeadlineExceeded, os.ErrDeadlineExceeded, context.Canceled, io.EOF, net.ErrClosed, tls.RecordHeaderError{},
		&tls.CertificateVerificationError{Err: io.EOF}, errors.New("what nobody knows"),
		errors.New("tls: no cipher suite supported by both client and server"),
	} {
		if c := mtls.Cause(err); !slices.Contains(mtls.Causes(), c) {
			t.Errorf("%v: %q is not listed", err, c)
		}
	}
	if got := mtls.Cause(&tls.CertificateVerificationError{Err: io.EOF}); got != "certificate" {
		t.Errorf("a certificate without more: %s", got)
	}
}

func TestTheFirstProtocolOfTheListenerThatBothSpeakIsChosen(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	app := mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}
	for _, one := range []struct {
		listens, configured, speaks []string
		want                        string
	}{
		{[]string{"h2", "http/1.1"}, nil, []string{"http/1.1"}, "http/1.1"},
		{[]string{"h2", "http/1.1"}, []string{"http/1.1", "h2"}, []string{"x"}, "h2"},
		{[]string{"http/1.1", "h2"}, []string{"h2", "http/1.1"}, nil, "http/1.1"},
		{nil, []string{"h2"}, nil, ""},
		{[]string{"h2"}, nil, nil, ""},
	} {
		k, _ := newKeeper(t, 0)
		down := app
		down.ALPN = one.listens
		address, outcomes := listen(t, server(t, k, mesh.DownstreamTLS{TLS: down}))
		state, err := call(t, client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{ALPN: one.configured}}), address, one.speaks...)
		at := <-outcomes
		if err != nil || state.NegotiatedProtocol != one.want || at.state.NegotiatedProtocol != one.want {
			t.Errorf("%v: %q and %q, %v", one, state.NegotiatedProtocol, at.state.NegotiatedProtocol, err)
		}
	}
}

func TestVersionsAreAtLeast12AndTheNewestOfBoth(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	address, _ := listen(t, server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}}))
	for limit, want := range map[mesh.TLSVersion]uint16{mesh.TLSAuto: tls.VersionTLS13, mesh.TLS12: tls.VersionTLS12, mesh.TLS13: tls.VersionTLS13} {
		state, err := call(t, client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{MaxVersion: limit}}), address)
		if err != nil || state.Version != want {
			t.Errorf("%d: %x, %v", limit, state.Version, err)
		}
	}
	old, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}) //nolint:gosec // which is tried
	if err == nil {
		_ = old.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

func TestTheCertificateThatTheClientAsksForIsShown(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	caFile := ca.File(t.TempDir())
	k, _ := newKeeper(t, 0)
	address, _ := listen(t, server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{
		ca.Pair(t.TempDir(), "a.example"), ca.Pair(t.TempDir(), "b.example"),
	}}}))
	for _, name := range []string{"a.example", "b.example"} {
		if _, err := call(t, client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{CA: caFile}, SNI: name}), address); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSessionsAreResumed(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	dir := t.TempDir()
	caFile := ca.File(dir)
	for _, version := range []mesh.TLSVersion{mesh.TLS12, mesh.TLS13} {
		for name, up := range map[string]mesh.UpstreamTLS{
			"by name":        {TLS: mesh.TLS{CA: caFile, MaxVersion: version}, SNI: "app.example"},
			"by conditions":  {TLS: mesh.TLS{CA: caFile, MaxVersion: version, SANs: []mesh.SANMatch{dns(0, "app.example")}}},
			"by nothing":     {TLS: mesh.TLS{MaxVersion: version}},
			"with one's own": {TLS: mesh.TLS{CA: caFile, MaxVersion: version, Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "web.example")}}, SNI: "app.example"},
		} {
			k, _ := newKeeper(t, 0)
			down := mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(dir, "app.example")}, CA: caFile}}
			address, outcomes := listen(t, server(t, k, down))
			c := client(t, k, up)
			for i := range 3 {
				state, err := call(t, c, address)
				at := <-outcomes
				if err != nil || state.DidResume != (i > 0) || at.state.DidResume != (i > 0) {
					t.Errorf("%s, version %d: handshake %d: resumed %t and %t, %v", name, version, i, state.DidResume, at.state.DidResume, err)
				}
				if len(up.Certificates) > 0 && len(at.state.PeerCertificates) == 0 {
					t.Errorf("%s: handshake %d: the listener does not know the client", name, i)
				}
			}
			other, _ := listen(t, server(t, k, down))
			if state, err := call(t, c, other); err != nil || state.DidResume {
				t.Errorf("%s: at another host: resumed %t, %v", name, state.DidResume, err)
			}
			if state, err := call(t, c, address); err != nil || !state.DidResume {
				t.Errorf("%s: the other host took the session's place: %v", name, err)
			}
		}
	}
}

func TestHandshakesAreCountedByHowTheyEnd(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	address, outcomes := listen(t, server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}}))
	good := client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(t.TempDir())}, SNI: "app.example"})
	bad, err := k.Client("cluster wrong", mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(t.TempDir())}, SNI: "other.example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*mtls.Client{good, good, good, bad, bad} {
		_, _ = call(t, c, address)
		<-outcomes
	}
	want := map[string]map[string]uint64{
		"listener web":  {"ok": 1, "resumed": 2, "alert": 2},
		"cluster app":   {"ok": 1, "resumed": 2},
		"cluster wrong": {"certificate": 2},
	}
	for _, s := range k.Status() {
		if !maps.Equal(s.Handshakes, want[s.Name]) {
			t.Errorf("%s: %v", s.Name, s.Handshakes)
		}
	}
}

// await waits until the keeper has taken, or refused, what the files hold.
func await(t *testing.T, k *mtls.Keeper, name string, done func(mtls.Status) bool) {
	t.Helper()
	for range 10_000 {
		for _, s := range k.Status() {
			if s.Name == name && done(s) {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("it does not come to be: %+v", k.Status())
}

func reloads(n uint64) func(mtls.Status) bool {
	return func(s mtls.Status) bool { return s.Reloads >= n && s.Err == nil }
}

func TestChangedFilesTakeEffectWhileHandshakesRun(t *testing.T) {
	dir, caDir := t.TempDir(), t.TempDir()
	ca := mtlstest.NewAuthority(t, "ca")
	down := mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(dir, "app.example")}, CA: ca.File(caDir)}, RequireClientCertificate: true}
	up := mesh.UpstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "web.example")}, CA: ca.File(caDir)}, SNI: "app.example"}
	k, _ := newKeeper(t, 5*time.Millisecond)
	s, c := server(t, k, down), client(t, k, up)
	address, _ := listen(t, s)
	var calls atomic.Int64
	var calling sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		calling.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := call(t, c, address); err != nil {
					t.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	serials := map[string]bool{}
	for n := range uint64(20) {
		ca.Pair(dir, "app.example")
		await(t, k, "listener web", reloads(n+1))
		fresh := client(t, k, up)
		state, err := call(t, fresh, address)
		fresh.Close()
		if err != nil {
			t.Fatal(err)
		}
		serials[state.PeerCertificates[0].SerialNumber.String()] = true
	}
	close(stop)
	calling.Wait()
	if len(serials) != 20 || calls.Load() == 0 {
		t.Errorf("%d certificates were seen in %d handshakes beside", len(serials), calls.Load())
	}
}

func TestTicketsOutliveAChangeOfTheListenersCertificate(t *testing.T) {
	dir, caDir := t.TempDir(), t.TempDir()
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 5*time.Millisecond)
	address, _ := listen(t, server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(dir, "app.example")}}}))
	c := client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(caDir)}, SNI: "app.example"})
	if _, err := call(t, c, address); err != nil {
		t.Fatal(err)
	}
	ca.Pair(dir, "app.example")
	await(t, k, "listener web", reloads(1))
	if state, err := call(t, c, address); err != nil || !state.DidResume {
		t.Errorf("resumed %t, %v", state.DidResume, err)
	}
}

// A session would let in who is not trusted any more, and show hosts who one was.
func TestSessionsDoNotOutliveTheTrustThatTheyBeganWith(t *testing.T) {
	ca, other := mtlstest.NewAuthority(t, "ca"), mtlstest.NewAuthority(t, "ca")
	setup := func(t *testing.T) (k *mtls.Keeper, c *mtls.Client, address, serverDir, clientDir string) {
		serverDir, clientDir = t.TempDir(), t.TempDir()
		k, _ = newKeeper(t, 5*time.Millisecond)
		address, _ = listen(t, server(t, k, mesh.DownstreamTLS{
			TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(serverDir, "app.example")}, CA: ca.File(serverDir)}, RequireClientCertificate: true,
		}))
		c = client(t, k, mesh.UpstreamTLS{
			TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(clientDir, "web.example")}, CA: ca.File(clientDir), SANs: []mesh.SANMatch{dns(0, "app.example")}},
		})
		for i := range 2 {
			if state, err := call(t, c, address); err != nil || state.DidResume != (i > 0) {
				t.Fatalf("resumed %t, %v", state.DidResume, err)
			}
		}
		return k, c, address, serverDir, clientDir
	}
	t.Run("the listener trusts others", func(t *testing.T) {
		k, c, address, serverDir, _ := setup(t)
		other.File(serverDir)
		await(t, k, "listener web", reloads(1))
		if _, err := call(t, c, address); cause(err) != "alert" {
			t.Errorf("it is let in: %v", err)
		}
	})
	t.Run("the client trusts others", func(t *testing.T) {
		k, c, address, _, clientDir := setup(t)
		other.File(clientDir)
		await(t, k, "cluster app", reloads(1))
		if _, err := call(t, c, address); cause(err) != "certificate" {
			t.Errorf("it goes on: %v", err)
		}
	})
	t.Run("the client is another", func(t *testing.T) {
		k, c, address, _, clientDir := setup(t)
		ca.Pair(clientDir, "new.example")
		await(t, k, "cluster app", reloads(1))
		if state, err := call(t, c, address); err != nil || state.DidResume {
			t.Errorf("resumed %t, %v", state.DidResume, err)
		}
	})
}

func TestFilesThatCannotBeUsedAreRefusedByFieldFileAndCause(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	chain, key := ca.Issue("app.example")
	_, anotherKey := ca.Issue("app.example")
	const encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
	for name, one := range map[string]struct {
		chain, key, ca []byte // nil: there is no file
		want           string
	}{
		"no chain":             {nil, key, ca.PEM(), "tls_certificates[0].certificate_chain.filename DIR/chain: no such file"},
		"chain is not PEM":     {[]byte("x"), key, ca.PEM(), "tls_certificates[0].certificate_chain.filename DIR/chain: is not PEM"},
		"chain is empty":       {[]byte{}, key, ca.PEM(), "tls_certificates[0].certificate_chain.filename DIR/chain: is not PEM"},
		"chain is a key":       {key, key, ca.PEM(), "tls_certificates[0].certificate_chain.filename DIR/chain: has no certificate in it"},
		"chain is malformed":   {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), key, ca.PEM(), "DIR/chain: certificate 1 is malformed"},
		"chain is huge":        {bytes.Repeat([]byte("\n"), 1<<20+1), key, ca.PEM(), "DIR/chain: is larger than 1048576 bytes"},
		"no key":               {chain, nil, ca.PEM(), "tls_certificates[0].private_key.filename DIR/key: no such file"},
		"key is not PEM":       {chain, []byte("x"), ca.PEM(), "tls_certificates[0].private_key.filename DIR/key: is not PEM"},
		"key is a certificate": {chain, chain, ca.PEM(), "tls_certificates[0].private_key.filename DIR/key: has no private key in it"},
		"key is encrypted":     {chain, []byte(encrypted), ca.PEM(), "DIR/key: is encrypted"},
		"key of another":       {chain, anotherKey, ca.PEM(), "tls_certificates[0].private_key.filename DIR/key: with the certificate of DIR/chain: tls: private key does not match public key"},
		"no authorities":       {chain, key, nil, "validation_context.trusted_ca.filename DIR/ca: no such file"},
		"authorities are none": {chain, key, key, "validation_context.trusted_ca.filename DIR/ca: has no certificate in it"},
		"second is malformed":  {chain, key, append(ca.PEM(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...), "DIR/ca: certificate 2 is malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, data := range map[string][]byte{"chain": one.chain, "key": one.key, "ca": one.ca} {
				if data != nil {
					mtlstest.Write(t, filepath.Join(dir, file), data)
				}
			}
			config := mesh.TLS{Certificates: []mesh.KeyPair{{Chain: filepath.Join(dir, "chain"), Key: filepath.Join(dir, "key")}}, CA: filepath.Join(dir, "ca")}
			want := "common_tls_context." + strings.ReplaceAll(one.want, "DIR", dir)
			if !strings.HasPrefix(one.want, "tls_") && !strings.HasPrefix(one.want, "validation_") {
				want = strings.ReplaceAll(one.want, "DIR", dir)
			}
			k, _ := newKeeper(t, 0)
			_, err := k.Server("listener web", mesh.DownstreamTLS{TLS: config})
			if err == nil || !strings.HasPrefix(err.Error(), "listener web: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%v\nwant %s", err, want)
			}
			if _, err = k.Client("cluster app", mesh.UpstreamTLS{TLS: config}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v\nwant %s", err, want)
			}
			if n := len(k.Status()); n != 0 {
				t.Errorf("%d are looked after", n)
			}
		})
	}
	k, _ := newKeeper(t, 0)
	if _, err := k.Client("c", mesh.UpstreamTLS{TLS: mesh.TLS{CA: t.TempDir()}}); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("a directory: %v", err)
	}
}

// With a clock of its own: what is looked at when, and said how often.
func TestAReloadThatFailsKeepsWhatIsThereAndIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca := mtlstest.NewAuthority(t, "ca")
		down := mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(dir, "app.example")}}}
		log := &lockedbuf.Buffer{}
		k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.NewTextHandler(log, nil))})
		defer k.Close()
		server(t, k, down)
		looks := func(n int) mtls.Status {
			time.Sleep(time.Duration(n) * 2 * time.Second)
			synctest.Wait()
			return k.Status()[0]
		}
		first := looks(1)
		if first.Err != nil || first.Reloads != 0 || len(first.Certificates) != 1 || log.String() != "" {
			t.Fatalf("%+v\n%s", first, log)
		}
		chain, key := ca.Issue("app.example")
		mtlstest.Write(t, down.Certificates[0].Chain, chain)
		if s := looks(1); s.Err == nil || s.Failures != 1 || !s.Certificates[0].NotAfter.Equal(first.Certificates[0].NotAfter) || log.String() != "" {
			t.Errorf("between two files: %+v\n%s", s, log)
		}
		mtlstest.Write(t, down.Certificates[0].Key, key)
		if s := looks(1); s.Err != nil || s.Reloads != 1 || strings.Contains(log.String(), "ERROR") || strings.Count(log.String(), "certificates have changed") != 1 {
			t.Errorf("both files: %+v\n%s", s, log)
		}
		mtlstest.Write(t, down.Certificates[0].Key, []byte("x"))
		if s := looks(5); s.Err == nil || !strings.Contains(s.Err.Error(), "is not PEM") || s.Failures != 2 || s.Reloads != 1 || strings.Count(log.String(), "ERROR") != 1 {
			t.Errorf("a bad file: %+v\n%s", s, log)
		}
		if err := os.Remove(down.Certificates[0].Chain); err != nil {
			t.Fatal(err)
		}
		if s := looks(5); s.Err == nil || s.Failures != 2 || strings.Count(log.String(), "ERROR") != 2 {
			t.Errorf("another fault: %+v\n%s", s, log)
		}
		mtlstest.Write(t, down.Certificates[0].Chain, chain)
		mtlstest.Write(t, down.Certificates[0].Key, key)
		if s := looks(1); s.Err != nil || s.Reloads != 1 {
			t.Errorf("as it was: %+v", s)
		}
		if err := os.Remove(down.Certificates[0].Chain); err != nil {
			t.Fatal(err)
		}
		if s := looks(5); s.Err == nil || s.Failures != 3 || strings.Count(log.String(), "ERROR") != 3 {
			t.Errorf("the same fault again: %+v\n%s", s, log)
		}
	})
}

// A fault is told at the second look, though the files are as they were at the first.
func TestAFaultOfFilesThatStayAsTheyAreIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca := mtlstest.NewAuthority(t, "ca")
		down := mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(dir, "app.example")}}}
		age := func(hours int) { // before the test's clock, so that no look takes them for new
			for _, path := range []string{down.Certificates[0].Chain, down.Certificates[0].Key} {
				at := time.Now().Add(-time.Duration(hours) * time.Hour)
				if err := os.Chtimes(path, at, at); err != nil {
					t.Fatal(err)
				}
			}
		}
		age(2)
		log := &lockedbuf.Buffer{}
		k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.NewTextHandler(log, nil))})
		defer k.Close()
		server(t, k, down)
		mtlstest.Write(t, down.Certificates[0].Key, []byte("x"))
		age(1)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := k.Status()[0]; s.Err == nil || s.Failures != 1 || strings.Count(log.String(), "ERROR") != 1 {
			t.Errorf("%+v\n%s", s, log)
		}
	})
}

func TestFilesInKubernetesFashionAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca := mtlstest.NewAuthority(t, "ca")
		link := func(to, name string) {
			if err := errors.Join(os.Symlink(to, filepath.Join(dir, name+".new")), os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name))); err != nil {
				t.Fatal(err)
			}
		}
		put := func(version string) {
			at := filepath.Join(dir, version)
			if err := os.Mkdir(at, 0o700); err != nil {
				t.Fatal(err)
			}
			ca.Pair(at, "app.example")
			link(version, "..data")
		}
		put("..1")
		link("..data/tls.crt", "tls.crt")
		link("..data/tls.key", "tls.key")
		k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler)})
		defer k.Close()
		server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{{Chain: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}}}})
		for n, version := range []string{"..2", "..3"} {
			put(version)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if s := k.Status()[0]; s.Reloads != uint64(n+1) || s.Failures != 0 {
				t.Errorf("%s: %+v", version, s)
			}
		}
	})
}

func TestAClosedConfigurationIsNotLookedAfter(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	s := server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}})
	c := client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(t.TempDir())}})
	if all := k.Status(); len(all) != 2 || all[0].Name != "cluster app" || all[1].Name != "listener web" {
		t.Errorf("%+v", all)
	}
	s.Close()
	c.Close()
	if all := k.Status(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func TestCertificatesSayHowLongTheyAreGood(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k, log := newKeeper(t, 0)
	server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{
		Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "a", mtlstest.Lasts(-48*time.Hour, 36*time.Hour)), ca.Pair(t.TempDir(), "b", mtlstest.Lasts(-48*time.Hour, -24*time.Hour)),
			ca.Pair(t.TempDir(), "c", mtlstest.Lasts(24*time.Hour, 48*time.Hour))},
		CA: ca.File(t.TempDir()),
	}})
	shown := k.Status()[0].Certificates
	if len(shown) != 4 || shown[0].Authority || shown[1].Authority || shown[2].Authority || !shown[3].Authority {
		t.Fatalf("%+v", shown)
	}
	for i, want := range []float64{1.5, -1, 2, 100} {
		if got := shown[i].DaysLeft(time.Now()); got > want || got < want-0.1 {
			t.Errorf("certificate %d: %v days, want %v", i, got, want)
		}
	}
	warned := strings.Split(log.String(), "\n")
	if len(warned) != 3 || !strings.Contains(warned[0], "certificate has expired") || !strings.Contains(warned[0], shown[1].File) ||
		!strings.Contains(warned[1], "certificate is not valid yet") || !strings.Contains(warned[1], shown[2].File) {
		t.Errorf("the log: %s", log)
	}
	client(t, k, mesh.UpstreamTLS{})
	if !strings.Contains(log.String(), "certificates of hosts are not verified") {
		t.Errorf("the log: %s", log)
	}
}
