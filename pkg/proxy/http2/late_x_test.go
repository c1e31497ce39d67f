package http2_test

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// silentHost is a server's handler that answers all but what is sent to /given-up, and that after a while,
// if ever.
type silentHost struct {
	quiet
	after   time.Duration // 0: never
	interim int           // that many 103 before each answer
}

func (host silentHost) Request(s *http2.Stream, _ *wire.Error, _ *http2.Batch) {
	gone := make(chan struct{}, 1)
	s.User = gone
	go func() {
		defer s.Release()
		var h wire.Head
		h.Reset()
		switch err := s.ReadHead(&h); {
		case err != nil:
			return
		case string(h.Path) == "/given-up":
			var late <-chan time.Time
			if host.after > 0 {
				late = time.After(host.after)
			}
			select {
			case <-gone:
				return
			case <-late:
			}
		}
		h.Reset()
		h.Status = 103
		for range host.interim {
			_ = s.WriteHead(&h) // as below
		}
		h.Status = 200
		_ = errors.Join(s.WriteHead(&h), s.EndBody(nil), s.Flush()) // the client reads what is missing
	}()
}

func (silentHost) Cancelled(user any, _ uint32) {
	select {
	case user.(chan struct{}) <- struct{}{}:
	default:
	}
}

// A connection to a host carries many clients' requests, and hosts end it for too many resets.
func TestManyRequestsThatAreGivenUpAtOnceDoNotEndAConnectionThatOthersUse(t *testing.T) {
	for name, host := range map[string]silentHost{
		"of a host that does not answer them": {},
		"of one that does all the same":       {after: 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) { giveUp(t, host) })
	}
}

func giveUp(t *testing.T, host silentHost) {
	serveHost(t, host, func(client, server *http2.Conn, open func(string) *http2.Stream) {
		for n := range 4000 {
			s := open("/given-up")
			if n%2 == 0 {
				s.Abort()
			}
			s.Release()
			if n%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		s := open("/answered")
		var h wire.Head
		h.Reset()
		if err := s.ReadHead(&h); err != nil || h.Status != 200 {
			t.Errorf("the next is answered %d, %v", h.Status, err)
		}
		s.Release()
		time.Sleep(time.Second)
		if n := client.Active(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
		if n := server.Active(); n != 0 {
			t.Errorf("%d streams are left at the host", n)
		}
	})
}

// Those that were under way when one was too many belong to no request any more.
func TestMoreInterimResponsesThanAreReadDoNotEndAConnectionThatOthersUse(t *testing.T) {
	serveHost(t, silentHost{interim: 900}, func(_, _ *http2.Conn, open func(string) *http2.Stream) {
		for range 5 {
			s := open("/")
			time.Sleep(time.Second)
			s.Release()
		}
		_ = open("/")
	})
}

// serveHost lets do something with both ends of a connection, and with what sends a request on it.
func serveHost(t *testing.T, host silentHost, do func(client, server *http2.Conn, open func(string) *http2.Stream)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		config := http2.Config{Clock: func() int64 { return int64(time.Since(began)) + 1 }}
		ours, theirs := net.Pipe()
		client := http2.NewConn(ours, http2.Client, nil, quiet{}, config)
		server := http2.NewConn(theirs, http2.Server, nil, host, config)
		ended := make(chan error, 2)
		go func() { ended <- server.Serve() }()
		go func() { ended <- client.Serve() }()
		synctest.Wait()

		open := func(path string) *http2.Stream {
			s, err := client.Open()
			for ; errors.Is(err, http2.ErrRefused); s, err = client.Open() {
				time.Sleep(10 * time.Millisecond) // as many are open as may be
			}
			if err != nil {
				t.Fatal(err)
			}
			var h wire.Head
			h.Reset()
			h.Method, h.Path, h.Authority = []byte("GET"), []byte(path), []byte("a")
			if err := errors.Join(s.WriteHead(&h), s.EndBody(nil), s.Flush()); err != nil {
				t.Fatal(err)
			}
			return s
		}
		do(client, server, open)
		client.Cut()
		server.Cut()
		for range 2 {
			if err := <-ended; err == nil {
				t.Error("it ended without an error")
			}
		}
	})
}
