package conformance_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1/http1test"
)

// The tables of raw messages are those of pkg/proxy/http1, each row below the sentence of an RFC that
// decides it.
const tables = root + "/pkg/proxy/http1/testdata/"

func TestTableOfRequests(t *testing.T) {
	wanted(t)
	rows := http1test.Read(t, tables+"requests.txt")
	o := newOrigin(t)
	s := sidecar(t, build(t, "./cmd/sidecar"), "", "", o.port)
	n := 0
	http1test.Requests(t, rows, func() net.Conn { return dial(t, s.port) }, func() []string {
		seen, faults := o.since(n)
		n += len(seen)
		for _, fault := range faults {
			t.Errorf("the origin was sent what no proxy should send: %s", fault)
		}
		var requests []string
		for _, request := range seen {
			request, _, _ = strings.Cut(request, `, "`) // its body
			requests = append(requests, request)
		}
		return requests
	})
	t.Logf("%d rows, of which %d requests reached the origin", len(rows), n)
}

func TestTableOfResponses(t *testing.T) {
	wanted(t)
	rows := http1test.Read(t, tables+"responses.txt")
	var answer atomic.Pointer[string]
	s := sidecar(t, build(t, "./cmd/sidecar"), onceEach, "", serving(t, func(nc net.Conn) {
		if err := http1test.AnswerAs(nc, *answer.Load()); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}))
	http1test.Responses(t, rows, func(t *testing.T, raw string) net.Conn {
		answer.Store(&raw)
		return dial(t, s.port)
	})
	t.Logf("%d rows", len(rows))
}

// onceEach lets no connection to the host carry a second request, since it ends behind the first without
// a word.
const onceEach = `
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {max_requests_per_connection: 1}
        explicit_http_config: {http_protocol_options: {}}`

func dial(t *testing.T, port int) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return nc
}
