package upstream_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// secure is start with a cluster that has TLS.
func secure(t *testing.T, config mesh.Cluster, endpoints ...mesh.Endpoint) (*rig, *mtls.Keeper) {
	t.Helper()
	r := &rig{TB: t, began: time.Now()}
	r.set = upstream.NewSet(r.now, slog.New(slog.DiscardHandler))
	t.Cleanup(r.set.Close)
	k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(k.Close)
	r.set.UseTLS(k)
	r.cluster = r.apply(config)
	r.assign(endpoints...)
	return r, k
}

// serveTLS answers every request until the test ends; what it accepts, it keeps.
func serveTLS(t *testing.T, config *tls.Config) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{listener: l, accepted: make(chan net.Conn, 2000)}
	s.done.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted <- nc
			s.done.Go(func() {
				c := tls.Server(nc, config)
				defer func() { _ = c.Close() }()
				for r := bufio.NewReader(c); ; {
					request, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, request.Body)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		for len(s.accepted) > 0 {
			_ = (<-s.accepted).Close()
		}
		s.done.Wait()
	})
	return s
}

// exchange sends a request and reads its answer.
func exchange(up upstream.Stream, request, response *wire.Head) error {
	if err := errors.Join(up.WriteHead(request), up.EndBody(nil), up.Flush()); err != nil {
		return err
	}
	if err := up.ReadResponse(response, false); err != nil {
		return err
	}
	for {
		if _, err := up.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func getRequest() *wire.Head {
	return &wire.Head{Method: []byte("GET"), Authority: []byte("app"), Path: []byte("/"), ContentLength: -1}
}

func TestRequestsGoOverTLSOnConnectionsThatAreKept(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Certificate("app.example")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(), MaxVersion: version}) //nolint:gosec // a test
		r, _ := secure(t, mesh.Cluster{TLS: &mesh.UpstreamTLS{
			TLS: mesh.TLS{CA: ca.File(t.TempDir()), Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "web.example")}}, SNI: "app.example",
		}}, s.endpoint("i"))
		up, err := r.host("i").Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		request, response := getRequest(), &wire.Head{}
		for range 5 {
			up.SetDeadline(r.now() + int64(time.Minute))
			if err := exchange(up, request, response); err != nil || response.Status != 200 {
				t.Fatal(response.Status, err)
			}
			up.Release(true, r.now())
			if up = r.host("i").Take(r.now()); up == nil {
				t.Fatal("the connection was not kept")
			}
		}
		up.Release(true, r.now())
		_ = (<-s.accepted).Close()
		for range 10_000 { // until the end is here
			if up = r.host("i").Take(r.now()); up == nil {
				break
			}
			up.Release(true, r.now())
			time.Sleep(time.Millisecond)
		}
		if up != nil {
			t.Error("a connection that its host has closed is taken for good")
		}
	}
}

func TestADeadlineOverTLSIsTheRequestsOwn(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	s := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Certificate("app.example")}}) //nolint:gosec // a test
	r, _ := secure(t, mesh.Cluster{TLS: &mesh.UpstreamTLS{}}, s.endpoint("i"))
	up, err := r.host("i").Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// One that passes while the connection lies idle is another request's.
	up.SetDeadline(r.now() + int64(20*time.Millisecond))
	if err := exchange(up, getRequest(), &wire.Head{}); err != nil {
		t.Fatal(err)
	}
	up.Release(true, r.now())
	time.Sleep(30 * time.Millisecond)
	if up = r.host("i").Take(r.now()); up == nil {
		t.Fatal("the connection was not kept")
	}
	up.SetDeadline(r.now() + int64(time.Minute))
	if err := exchange(up, getRequest(), &wire.Head{}); err != nil {
		t.Error(err)
	}
	up.Release(false, r.now())
}

func TestAHandshakeThatFailsIsToldFromAConnectionThatDoes(t *testing.T) {
	ca, other := mtlstest.NewAuthority(t, "ca"), mtlstest.NewAuthority(t, "other")
	caFile := ca.File(t.TempDir())
	good := &tls.Config{Certificates: []tls.Certificate{ca.Certificate("app.example")}} //nolint:gosec // a test
	named := mesh.UpstreamTLS{TLS: mesh.TLS{CA: caFile}, SNI: "app.example"}
	for name, one := range map[string]struct {
		host    *tls.Config // nil: one that speaks in the clear
		cluster mesh.UpstreamTLS
		want    string
	}{
		"another name":      {good, mesh.UpstreamTLS{TLS: mesh.TLS{CA: caFile}, SNI: "web.example"}, "the certificate is not of the name web.example"},
		"another condition": {good, mesh.UpstreamTLS{TLS: mesh.TLS{CA: caFile, SANs: []mesh.SANMatch{{Value: "web.example"}}}}, "the certificate has none of the names that match_typed_subject_alt_names ask for"},
		"another authority": {&tls.Config{Certificates: []tls.Certificate{other.Certificate("app.example")}}, named, "no authority of trusted_ca has signed the certificate"},                                   //nolint:gosec // a test
		"expired":           {&tls.Config{Certificates: []tls.Certificate{ca.Certificate("app.example", mtlstest.Lasts(-9*time.Hour, -time.Hour))}}, named, "the certificate has expired, or is not valid yet"}, //nolint:gosec // a test
		"in the clear":      {nil, named, "the instance does not speak TLS"},
		"older":             {&tls.Config{Certificates: good.Certificates, MaxVersion: tls.VersionTLS12}, mesh.UpstreamTLS{TLS: mesh.TLS{MinVersion: mesh.TLS13}}, "the instance refused: tls: protocol version not supported"}, //nolint:gosec // a test
		"other protocols":   {&tls.Config{Certificates: good.Certificates, NextProtos: []string{"h3"}}, named, "the instance refused: tls: no application protocol"},                                                            //nolint:gosec // a test
		"HTTP/2":            {&tls.Config{Certificates: good.Certificates, NextProtos: []string{"h2"}}, mesh.UpstreamTLS{TLS: mesh.TLS{ALPN: []string{"h2", "http/1.1"}}}, "what the instance sent could not be accepted"},      //nolint:gosec // a test
	} {
		t.Run(name, func(t *testing.T) {
			var s *server
			if one.host != nil {
				s = serveTLS(t, one.host)
			} else {
				s = listen(t)
				s.done.Go(func() {
					c := <-s.accepted
					_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
					_, _ = io.Copy(io.Discard, c)
					_ = c.Close()
				})
			}
			r, _ := secure(t, mesh.Cluster{TLS: &one.cluster}, s.endpoint("i"))
			up, err := r.host("i").Dial(t.Context())
			if err == nil {
				up.Release(false, r.now())
			}
			if !errors.Is(err, upstream.ErrTLS) || mtls.Explain(err) != one.want {
				t.Errorf("%v: %s", err, mtls.Explain(err))
			}
		})
	}
}

func TestTheHandshakeIsPartOfTheConnectTimeout(t *testing.T) {
	s := listen(t)
	r, _ := secure(t, mesh.Cluster{TLS: &mesh.UpstreamTLS{}, ConnectTimeout: 20 * time.Millisecond}, s.endpoint("i"))
	_, err := r.host("i").Dial(t.Context())
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Error(err)
	}
	if n := r.host("i").DialsUnderWay(); n != 0 {
		t.Errorf("%d turns to dial are held", n)
	}
}

func TestAChangeOfTLSLeavesNoConnectionOfTheOldOneInUse(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	s := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{ca.Certificate("app.example")}}) //nolint:gosec // a test
	config := mesh.Cluster{TLS: &mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(t.TempDir())}, SNI: "app.example"}}
	r, k := secure(t, config, s.endpoint("i"))
	dial := func() upstream.Stream {
		up, err := r.host("i").Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return up
	}
	idle, used := dial(), dial()
	idle.Release(true, r.now())
	same := *config.TLS
	config.TLS, config.MaxRequests = &same, 7
	r.apply(config)
	if len(k.Status()) != 1 || r.host("i").Take(r.now()) != idle {
		t.Error("TLS that did not change was made anew")
	}
	idle.Release(true, r.now())

	config.TLS = &mesh.UpstreamTLS{TLS: mesh.TLS{CA: config.TLS.CA, SANs: []mesh.SANMatch{{Value: "app.example"}}}}
	r.apply(config)
	if r.host("i").Take(r.now()) != nil {
		t.Error("an idle connection of the TLS that was is used")
	}
	used.Release(true, r.now())
	if r.host("i").Take(r.now()) != nil {
		t.Error("a connection of the TLS that was is kept")
	}
	if all := k.Status(); len(all) != 1 || all[0].Name != "cluster c" {
		t.Errorf("%+v", all)
	}
	config.TLS = nil
	r.apply(config)
	if len(k.Status()) != 0 {
		t.Error("files are looked at that are of no use")
	}
	config.TLS = &same
	r.apply(config)
	r.set.Remove("c")
	if len(k.Status()) != 0 {
		t.Error("files of a cluster that is gone are looked at")
	}
}

func TestAClusterWhoseFilesAreMissingIsNotTaken(t *testing.T) {
	r, _ := secure(t, mesh.Cluster{})
	if _, err := r.set.Apply(mesh.Cluster{Name: "new", TLS: &mesh.UpstreamTLS{TLS: mesh.TLS{CA: "/nowhere/ca.pem"}}}); err == nil {
		t.Error("it is taken")
	}
	if n := len(r.set.Clusters()); n != 1 {
		t.Errorf("there are %d clusters", n)
	}
	bare := start(t, mesh.Cluster{})
	if _, err := bare.set.Apply(mesh.Cluster{Name: "c", TLS: &mesh.UpstreamTLS{}}); err == nil {
		t.Error("TLS is left out in silence")
	}
}

// What a host is offered by ALPN is what it is called by; one that chooses something else
// cannot be.
func TestALPNIsAsTheHostIsCalled(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	for name, one := range map[string]struct {
		protocol mesh.Protocol
		sidecar  bool
		offers   []string // by the configuration
		host     []string
		want     string // what the host has chosen; "-": the handshake fails
	}{
		"HTTP/1":                     {0, false, nil, []string{"h2", "http/1.1"}, "http/1.1"},
		"HTTP/2":                     {mesh.ProtocolHTTP2, false, nil, []string{"http/1.1", "h2"}, "h2"},
		"gRPC":                       {mesh.ProtocolGRPC, false, nil, []string{"http/1.1", "h2"}, "h2"},
		"a sidecar":                  {mesh.ProtocolHTTP, true, nil, []string{"http/1.1", "h2"}, "h2"},
		"without ALPN":               {mesh.ProtocolHTTP2, false, nil, nil, ""},
		"HTTP/2 is not spoken":       {mesh.ProtocolHTTP2, false, nil, []string{"spdy"}, "-"},
		"HTTP/1 is chosen":           {mesh.ProtocolHTTP2, false, []string{"http/1.1"}, []string{"http/1.1"}, "-"},
		"HTTP/2 is chosen":           {mesh.ProtocolHTTP, false, []string{"h2", "http/1.1"}, []string{"h2"}, "-"},
		"something else is as it is": {mesh.ProtocolHTTP, false, []string{"istio"}, []string{"istio"}, "istio"},
	} {
		t.Run(name, func(t *testing.T) {
			chosen := make(chan string, 1)
			s := serveTLS(t, &tls.Config{ //nolint:gosec // a test
				Certificates: []tls.Certificate{ca.Certificate("app.example")}, NextProtos: one.host,
				VerifyConnection: func(state tls.ConnectionState) error { chosen <- state.NegotiatedProtocol; return nil },
			})
			endpoint := s.endpoint("i")
			endpoint.Sidecar = one.sidecar
			r, _ := secure(t, mesh.Cluster{Protocol: one.protocol, TLS: &mesh.UpstreamTLS{TLS: mesh.TLS{ALPN: one.offers}}}, endpoint)
			r.set.Multiplex()
			up, err := r.host("i").Dial(t.Context())
			if err == nil {
				up.Release(false, r.now())
			}
			if (one.want == "-") != errors.Is(err, upstream.ErrTLS) {
				t.Fatal(err)
			}
			if one.want != "-" {
				if got := <-chosen; got != one.want || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
}
