package upstream_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// h2peer is the host's end of a connection that speaks HTTP/2.
type h2peer struct {
	net.Conn
	*http2.Framer
}

// greet is what a host says first.
func greet(t *testing.T, nc net.Conn) h2peer {
	t.Helper()
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := nc.Read(make([]byte, len(http2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	p := h2peer{nc, http2.NewFramer(nc, nc)}
	if err := p.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := p.WritePing(false, [8]byte{}); err != nil {
		t.Fatal(err)
	}
	p.until(t, http2.FramePing) // the settings have been read
	return p
}

// until reads frames up to one of a type, and returns its stream.
func (p h2peer) until(t *testing.T, kind http2.FrameType) uint32 {
	t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header().Type == kind && (kind != http2.FramePing || f.Header().Flags.Has(http2.FlagPingAck)) {
			return f.Header().StreamID
		}
	}
}

// dialled is a stream on the one connection to a host, i, and the host's end of that.
func dialled(t *testing.T) (*rig, upstream.Stream, h2peer) {
	t.Helper()
	s := listen(t)
	r := start(t, mesh.Cluster{Protocol: mesh.ProtocolHTTP2}, s.endpoint("i"))
	stream, err := r.host("i").Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r, stream, greet(t, <-s.accepted)
}

// ask sends a request.
func ask(t *testing.T, s upstream.Stream) {
	t.Helper()
	h := wire.Head{Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("a"), Path: []byte("/")}
	if err := s.WriteHead(&h); err != nil {
		t.Fatal(err)
	}
	if err := s.EndBody(nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestConnectionsThatTheHostIsDoneWithMakeRoomForOthers(t *testing.T) {
	s := listen(t)
	r := start(t, mesh.Cluster{Protocol: mesh.ProtocolHTTP2, ConnectTimeout: time.Second}, s.endpoint("i"))
	for i := range 20 { // more than there may be to one host
		stream, err := r.host("i").Dial(t.Context())
		if err != nil {
			t.Fatalf("with %d requests that go on on connections of their own: %v", i, err)
		}
		defer stream.Release(false, 0)
		p := greet(t, <-s.accepted)
		ask(t, stream)
		// The request goes on, and the connection takes no other.
		if err := p.WriteGoAway(p.until(t, http2.FrameHeaders), http2.ErrCodeNo, nil); err != nil {
			t.Fatal(err)
		}
		if err := p.WritePing(false, [8]byte{}); err != nil {
			t.Fatal(err)
		}
		p.until(t, http2.FramePing)
	}
}

func TestARequestThatHasItsStreamIsSentThoughItsHostGoes(t *testing.T) {
	r, stream, p := dialled(t)
	unused := r.host("i").Take(r.now())
	r.assign()
	ask(t, stream)
	p.until(t, http2.FrameHeaders)
	stream.Release(false, 0)
	unused.Release(false, 0)
	p.until(t, http2.FrameRSTStream)
	wantEnd(t, p.Conn)
}

// The endpoint of an instance whose machine is gone is taken out before its connections are known to be dead.
func TestStreamsOfAHostThatHasGoneSilentlyEndThoughItIsNoneAnyMore(t *testing.T) {
	r, stream, p := dialled(t)
	defer stream.Release(false, 0)
	ask(t, stream)
	p.until(t, http2.FrameHeaders)
	if err := errors.Join(p.WriteSettingsAck(), p.WritePing(false, [8]byte{})); err != nil {
		t.Fatal(err)
	}
	p.until(t, http2.FramePing) // whose answer is behind what was heard
	r.assign()
	r.set.Look(r.now(), true)
	r.later(16 * time.Second)
	r.set.Look(r.now(), true)
	for asked := false; !asked; { // and is not answered
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		asked = f.Header().Type == http2.FramePing
	}
	r.later(16 * time.Second)
	r.set.Look(r.now(), true)
	var h wire.Head
	if err := stream.ReadResponse(&h, false); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stream goes on: %v", err)
	}
	for end := time.Now().Add(20 * time.Second); r.set.Parting() > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		r.set.Look(r.now(), true)
	}
	if n := r.set.Parting(); n > 0 {
		t.Errorf("%d hosts are looked after for ever", n)
	}
}

func TestAConnectionEndsWithTheStreamThatWasNotUsed(t *testing.T) {
	r, stream, p := dialled(t)
	r.assign()
	stream.Release(false, 0)
	for {
		if _, err := p.ReadFrame(); err != nil {
			if isTimeout(err) {
				t.Error("the connection is open")
			}
			return
		}
	}
}

func TestAConnectionCarriesSoManyRequestsAndNoMore(t *testing.T) {
	for name, protocol := range map[string]mesh.Protocol{"HTTP/1.1": mesh.ProtocolHTTP, "HTTP/2": mesh.ProtocolHTTP2} {
		t.Run(name, func(t *testing.T) {
			s := listen(t)
			r := start(t, mesh.Cluster{Protocol: protocol, MaxRequestsPerConnection: 2}, s.endpoint("i"))
			first, err := r.host("i").Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			peer := <-s.accepted
			t.Cleanup(func() { _ = peer.Close() })
			if protocol == mesh.ProtocolHTTP2 {
				greet(t, peer)
			}
			first.Release(true, r.now())
			second := r.host("i").Take(r.now())
			if second == nil {
				t.Fatal("the second does not get the connection of the first")
			}
			if third := r.host("i").Take(r.now()); third != nil {
				t.Error("a third gets it, too")
			}
			second.Release(true, r.now())
			if r.host("i").Take(r.now()) != nil {
				t.Error("a third gets it afterwards")
			}
			for end := time.Now().Add(10 * time.Second); ; {
				_ = peer.SetReadDeadline(end)
				if _, err := peer.Read(make([]byte, 1000)); err != nil {
					if isTimeout(err) {
						t.Error("the connection is open")
					}
					return
				}
			}
		})
	}
}

func TestStreamsKeepToALimitThatTheHostHasNotSaidYet(t *testing.T) {
	s := listen(t)
	r := start(t, mesh.Cluster{Protocol: mesh.ProtocolHTTP2, ConnectTimeout: 10 * time.Second}, s.endpoint("i"))
	first, err := r.host("i").Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if more := r.host("i").Take(r.now()); more != nil {
		t.Error("a second stream is opened before the host has said how many it takes")
		more.Release(false, 0)
	}
	waited := make(chan error, 1)
	go func() {
		second, err := r.host("i").Dial(t.Context())
		if err == nil {
			second.Release(false, 0)
		}
		waited <- err
	}()
	greet(t, <-s.accepted)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if len(s.accepted) != 0 {
		t.Error("who waits for the settings opens a connection of its own")
	}
	first.Release(false, 0)
}
