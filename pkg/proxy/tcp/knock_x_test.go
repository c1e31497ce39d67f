package tcp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/knock"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
)

// The bytes of a knock and of its answer, as they are on the wire: other versions must
// understand them.
const (
	theKnock  = "\xf8fairlead knock 1\r\n\x00"
	theAnswer = "\xf8fairlead answer 1\r\n\x00"
)

func knocking() setup { return setup{config: tcp.Config{Knocks: true}} }

func TestAKnockIsAnsweredOnceTheHostIsConnectedToAndIsNotPassedOn(t *testing.T) {
	r := start(t, knocking(), backend(t, echo))
	for _, pieces := range [][]string{
		{theKnock}, {theKnock + "hello"}, {theKnock[:1], theKnock[1:7], theKnock[7:] + "hel", "lo"},
	} {
		c := r.dial()
		for _, text := range pieces {
			send(t, c, text)
			time.Sleep(time.Millisecond) // so that they come one by one; nothing depends on it
		}
		receive(t, c, theAnswer)
		if len(pieces) == 1 && pieces[0] == theKnock {
			send(t, c, "hello")
		}
		receive(t, c, "hello")
		_ = c.CloseWrite()
		wantEnd(t, c)
	}
	for _, line := range r.lines(3) {
		if line["bytes_in"] != 5.0 || line["bytes_out"] != 5.0 || line["reason"] != nil {
			t.Errorf("%v", line)
		}
	}
}

func TestWhoDoesNotKnockIsRelayedAsEver(t *testing.T) {
	r := start(t, knocking(), backend(t, echo))
	for _, says := range []string{"hello", "\xf8", "\xf8fairlead", theKnock[:knock.Size-1], theKnock[:knock.Size-1] + "x", "GET / HTTP/1.1\r\n", ""} {
		c := r.dial()
		send(t, c, says)
		_ = c.CloseWrite()
		receive(t, c, says)
		wantEnd(t, c)
	}
}

func TestAHostThatSpeaksFirstIsNotWaitedForNorAnswered(t *testing.T) {
	r := start(t, knocking(), backend(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "220 ready\r\n")
		echo(nc)
	}))
	for name, says := range map[string]string{"who does not knock": "EHLO\r\n", "a knock that comes late": theKnock + "EHLO\r\n", "half a knock": theKnock[:9] + "EHLO\r\n"} {
		c := r.dial()
		receive(t, c, "220 ready\r\n")
		if name == "half a knock" {
			send(t, c, says[:9])
			time.Sleep(time.Millisecond)
			send(t, c, says[9:])
			receive(t, c, says)
		} else {
			send(t, c, says)
			receive(t, c, "EHLO\r\n")
		}
		_ = c.CloseWrite()
		wantEnd(t, c)
	}
}

func TestAKnockIsResetWhereTheHostCannotBeConnectedTo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	r := start(t, knocking(), l.Addr().(*net.TCPAddr).AddrPort())
	nc, err := net.Dial("tcp", r.address)
	if err == nil {
		defer func() { _ = nc.Close() }()
		err = knock.Ask(context.Background(), nc.(*net.TCPConn))
	}
	if !errors.Is(err, knock.ErrRefused) && !isReset(err) {
		t.Errorf("%v", err)
	}
	if got := r.reason(); got != "connect_failed" {
		t.Errorf("the reason is %v", got)
	}
}

// A host that only receives may end its side before the knock has come; how often it does here is chance.
func TestAHostThatEndsItsSideAtOnceIsNotTakenForOneThatIsNotThere(t *testing.T) {
	ended, heard := make(chan struct{}, 1), make(chan string, 1)
	with := setup{config: tcp.Config{Knocks: true, KnockTimeout: time.Hour}}
	r := start(t, with, backend(t, func(nc *net.TCPConn) {
		_ = nc.CloseWrite()
		ended <- struct{}{}
		all, _ := io.ReadAll(nc)
		heard <- string(all)
	}))
	for range 100 {
		c := r.dial()
		<-ended
		if err := knock.Ask(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		wantEnd(t, c)
		send(t, c, "hello")
		_ = c.CloseWrite()
		if all := <-heard; all != "hello" {
			t.Fatalf("it heard %q", all)
		}
	}
}

// Where the host ends before anybody has said anything, that is passed on.
func TestEndsArePassedOnThoughAKnockMayBeOnItsWay(t *testing.T) {
	r := start(t, setup{config: tcp.Config{Knocks: true, KnockTimeout: time.Millisecond}}, backend(t, func(*net.TCPConn) {}))
	wantEnd(t, r.dial())
	r = start(t, knocking(), backend(t, func(nc *net.TCPConn) { _ = nc.SetLinger(0) }))
	r.dialRefused()
	ended := make(chan error, 1)
	r = start(t, knocking(), backend(t, func(nc *net.TCPConn) {
		_, err := nc.Read(make([]byte, 1))
		ended <- err
	}))
	c := r.dial()
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-ended; !isReset(err) {
		t.Errorf("a client's reset comes as %v", err)
	}
}

func TestAConnectionThatEndedBeforeItWasHandedOnIsCountedOnce(t *testing.T) {
	routes := &tcp.Routes{}
	if err := routes.Add(tcp.Match{}, &tcp.Route{HTTP: func(net.Conn) { t.Error("it is handed on") }}); err != nil {
		t.Fatal(err)
	}
	r := start(t, setup{config: tcp.Config{Routes: routes}}, netip.MustParseAddrPort("127.0.0.1:1"))
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	c := r.relay.Accept(ours)
	c.Cut()
	c.Serve()
	if n := r.value("fairlead_tcp_connections_active", "web", "unknown"); n != 0 {
		t.Errorf("%v are active", n)
	}
	if n := r.value("fairlead_tcp_connections_opened_total", "web", "unknown"); n != 1 {
		t.Errorf("%v were opened", n)
	}
}
