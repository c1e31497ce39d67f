package upstream_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// connected is a stream to a real host, and the host's end.
func connected(t *testing.T) (*rig, upstream.Stream, net.Conn) {
	t.Helper()
	s := listen(t)
	r := start(t, mesh.Cluster{}, s.endpoint("i"))
	stream, peer := r.dial(s, r.host("i"))
	t.Cleanup(func() { _ = peer.Close() })
	return r, stream, peer
}

// say lets the host send.
func say(t *testing.T, peer net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(peer, text); err != nil {
		t.Fatal(err)
	}
}

const empty200 = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// Nobody has looked at a connection that is new, as at one of the pool.
func TestAnAnswerThatCameBeforeTheRequestOnANewConnectionIsNotMissed(t *testing.T) {
	for name, answer := range map[string]func(peer net.Conn){
		"whole":   func(peer net.Conn) { say(t, peer, empty200) },
		"the end": func(peer net.Conn) { _ = peer.(*net.TCPConn).CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			r, s, peer := connected(t)
			answer(peer)
			time.Sleep(50 * time.Millisecond) // until it is here
			request := wire.Head{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/"), ContentLength: wire.NoLength}
			s.SetDeadline(r.now() + int64(2*time.Second)) // which ends the test where it is missed
			if err := errors.Join(s.WriteHead(&request), s.EndBody(nil), s.Ask()); err != nil {
				t.Fatal(err)
			}
			var h wire.Head
			if err := s.ReadResponse(&h, false); errors.Is(err, os.ErrDeadlineExceeded) || err != nil && name == "whole" {
				t.Errorf("status %d, %v", h.Status, err)
			}
			s.Release(false, r.now())
		})
	}
}

func TestWhatComesBetweenALookAtTheConnectionAndTheRequestIsFoundByStirring(t *testing.T) {
	for name, answer := range map[string]func(peer net.Conn){
		"whole":   func(peer net.Conn) { say(t, peer, empty200) },
		"the end": func(peer net.Conn) { _ = peer.(*net.TCPConn).CloseWrite() },
		"later": func(peer net.Conn) {
			time.AfterFunc(300*time.Millisecond, func() { _, _ = io.WriteString(peer, empty200) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, s, peer := connected(t)
			s.Release(true, r.now())
			s = r.host("i").Take(r.now())
			answer(peer)
			time.Sleep(50 * time.Millisecond) // until it is here
			request := wire.Head{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/"), ContentLength: wire.NoLength}
			s.SetDeadline(r.now() + int64(2*time.Second)) // which ends the test where it is missed
			stir := time.AfterFunc(100*time.Millisecond, s.Stir)
			defer stir.Stop()
			if err := errors.Join(s.WriteHead(&request), s.EndBody(nil), s.Ask()); err != nil {
				t.Fatal(err)
			}
			var h wire.Head
			if err := s.ReadResponse(&h, false); errors.Is(err, os.ErrDeadlineExceeded) || err != nil && name != "the end" {
				t.Errorf("status %d, %v", h.Status, err)
			}
			s.Release(false, r.now())
		})
	}
}

func TestAStreamEndsAtItsDeadlineAndNotAtThatOfTheOneBefore(t *testing.T) {
	r, s, peer := connected(t)
	var h wire.Head
	s.SetDeadline(r.now() + int64(200*time.Millisecond))
	say(t, peer, empty200)
	if err := s.ReadResponse(&h, false); err != nil {
		t.Fatal(err)
	}
	s.Release(true, r.now())
	for name, deadline := range map[string]time.Duration{"later": time.Hour, "none": 0} {
		s := r.host("i").Take(r.now())
		at := int64(0)
		if deadline > 0 {
			at = r.now() + int64(deadline)
		}
		s.SetDeadline(at)
		answer := time.AfterFunc(300*time.Millisecond, func() { _, _ = io.WriteString(peer, empty200) })
		if err := s.ReadResponse(&h, false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		answer.Stop()
		s.SetDeadline(r.now() + int64(200*time.Millisecond)) // that the next one finds
		s.Release(true, r.now())
	}
	s = r.host("i").Take(r.now())
	s.SetDeadline(r.now() + int64(200*time.Millisecond))
	if err := s.ReadResponse(&h, false); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("its own: %v", err)
	}
	s.Release(false, r.now())
}

func TestABodyIsReadPastTheDeadlineOfTheRequestBefore(t *testing.T) {
	r, s, peer := connected(t)
	var h wire.Head
	s.SetDeadline(r.now() + int64(100*time.Millisecond))
	say(t, peer, empty200)
	if err := s.ReadResponse(&h, false); err != nil {
		t.Fatal(err)
	}
	s.Release(true, r.now())
	s = r.host("i").Take(r.now())
	s.SetDeadline(r.now() + int64(time.Hour))
	say(t, peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
	if err := s.ReadResponse(&h, false); err != nil {
		t.Fatal(err)
	}
	rest := time.AfterFunc(200*time.Millisecond, func() { _, _ = io.WriteString(peer, "ok") })
	defer rest.Stop()
	if p, err := s.Next(); string(p) != "ok" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	s.Release(false, r.now())
}

func TestAbortEndsReadingAndKeepsTheConnectionFromThePool(t *testing.T) {
	r, s, peer := connected(t)
	abort := time.AfterFunc(20*time.Millisecond, s.Abort)
	defer abort.Stop()
	if err := s.ReadResponse(&wire.Head{}, false); err == nil || errors.Is(err, upstream.ErrBegun) {
		t.Errorf("reading ended with %v", err)
	}
	s.Release(true, r.now())
	if n := r.status("i").Idle; n != 0 {
		t.Errorf("%d are idle", n)
	}
	wantEnd(t, peer)
}

func TestAbortAfterReleaseDoesNothing(t *testing.T) {
	r, s, peer := connected(t)
	s.Release(true, r.now())
	s.Abort()
	wantOpen(t, peer)
	if r.host("i").Take(r.now()) != s {
		t.Error("the connection is gone")
	}
	s.Release(false, r.now())
}

func TestAStreamInTheMiddleOfAResponseIsNotPooled(t *testing.T) {
	r, s, peer := connected(t)
	say(t, peer, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
	if err := s.ReadResponse(&wire.Head{}, false); err != nil {
		t.Fatal(err)
	}
	s.Release(true, r.now())
	if n := r.status("i").Idle; n != 0 {
		t.Errorf("%d are idle", n)
	}
	wantEnd(t, peer)
}

func TestAnEndBehindTheFirstByteSaysThatAResponseHadBegun(t *testing.T) {
	for came, begun := range map[string]bool{"": false, "H": true, "HTTP/1.1 200 OK\r\n": true, "HTTP/1.1 103 Early Hints\r\n\r\n": false} {
		r, s, peer := connected(t)
		say(t, peer, came)
		_ = peer.Close()
		h := wire.Head{Status: 100}
		var err error
		for h.Status/100 == 1 && err == nil {
			err = s.ReadResponse(&h, false)
		}
		if err == nil || errors.Is(err, upstream.ErrBegun) != begun {
			t.Errorf("%q: %v", came, err)
		}
		s.Release(false, r.now())
	}
}

func TestReadyTellsWhatCanBeReadWithoutWaiting(t *testing.T) {
	r, s, peer := connected(t)
	if s.Ready() {
		t.Error("ready before anything came")
	}
	say(t, peer, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe")
	var h wire.Head
	for _, want := range []int{103, 200} {
		if err := s.ReadResponse(&h, false); err != nil || h.Status != want {
			t.Fatal(h.Status, err)
		}
		if !s.Ready() {
			t.Errorf("not ready behind %d", want)
		}
	}
	if p, err := s.Next(); string(p) != "he" || err != nil {
		t.Fatalf("%q, %v", p, err)
	}
	if s.Ready() {
		t.Error("ready in the middle of the body")
	}
	say(t, peer, "re")
	if p, err := s.Next(); string(p) != "re" || err != nil {
		t.Fatalf("%q, %v", p, err)
	}
	if !s.Ready() {
		t.Error("not ready for the end")
	}
	if _, err := s.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	s.Release(true, r.now())
	if s = r.host("i").Take(r.now()); s.Ready() {
		t.Error("ready for the next head")
	}
	s.Release(false, r.now())
}
