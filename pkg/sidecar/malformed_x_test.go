package sidecar_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	frames "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// RFC 9113 §8.2.1: "When a request message violates one of these requirements, an implementation SHOULD generate a 400 (Bad
// Request) status code"; §8.1.1: malformed requests "MUST be treated as a stream error of type PROTOCOL_ERROR".
func TestAMalformedRequestOverHTTP2IsAnsweredAndItsStreamReset(t *testing.T) {
	var access lockedbuf.Buffer
	addresses, stop, ended := start(t, sidecar.Config{
		Bootstrap:       write(t, fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), freeport.For(t))),
		AccessLog:       &access,
		AccessLogFormat: accesslog.JSON,
	})
	for _, end := range []bool{true, false} {
		nc, err := net.Dial("tcp", addresses.Listeners["web"].String())
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
		p := h2Client(nc)
		p.head(1, end, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/hello", "connection", "close")
		frame, err := p.next()
		if h, ok := frame.(*frames.MetaHeadersFrame); !ok || h.PseudoValue("status") != "400" {
			t.Fatalf("instead of the head of an answer: %v, %v", frame, err)
		}
		frame, err = p.next()
		if d, ok := frame.(*frames.DataFrame); !ok || !d.StreamEnded() || !strings.Contains(string(d.Data()), "a field about the connection, which HTTP/2 does not have (bad_request)") {
			t.Fatalf("instead of its sentence: %v, %v", frame, err)
		}
		frame, err = p.next()
		if r, ok := frame.(*frames.RSTStreamFrame); !ok || r.ErrCode != frames.ErrCodeProtocol {
			t.Fatalf("instead of a reset: %v, %v", frame, err)
		}
		p.head(3, true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/hello")
		frame, err = p.next()
		if h, ok := frame.(*frames.MetaHeadersFrame); !ok || h.PseudoValue("status") != "200" {
			t.Fatalf("to the next request: %v, %v", frame, err)
		}
		_ = nc.Close()
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(access.String(), `"HTTP/2"`); n != 4 {
		t.Errorf("of four requests over HTTP/2 the access log says so of %d:\n%s", n, access.String())
	}
}
