package sidecar_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	frames "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// withOptions runs a sidecar whose listener has these fields too, and returns its address.
func withOptions(t *testing.T, options string) string {
	t.Helper()
	file := strings.Replace(bootstrap, "stat_prefix: web\n", "stat_prefix: web\n          "+options+"\n", 1)
	file = strings.NewReplacer("admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}\n", "", "%d", "0").Replace(file)
	file = strings.Replace(file, `address: 127.0.0.1, port_value: 0}}}}]}]`, `address: 127.0.0.1, port_value: 1}}}}]}]`, 1)
	a, cancel, ended := start(t, sidecar.Config{Bootstrap: write(t, file)})
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a.Listeners["web"].String()
}

// hello asks for /hello over a version of HTTP.
func hello(t *testing.T, addr string, http2 bool) (status int, last bool) {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	defer transport.CloseIdleConnections()
	a, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://" + addr + "/hello")
	if err != nil {
		return 0, true
	}
	defer func() { _ = a.Body.Close() }()
	_, _ = io.Copy(io.Discard, a.Body)
	return a.StatusCode, a.Close
}

func TestListenerTakesTheVersionsOfItsCodecType(t *testing.T) {
	for options, takes := range map[string][2]bool{
		"codec_type: AUTO":  {true, true},
		"codec_type: HTTP1": {true, false},
		"codec_type: HTTP2": {false, true},
	} {
		addr := withOptions(t, options)
		for version, want := range takes {
			if status, _ := hello(t, addr, version == 1); (status == 200) != want {
				t.Errorf("%s: HTTP/%d is answered with %d", options, version+1, status)
			}
		}
	}
}

func TestListenerEndsConnectionsAsItsOptionsSay(t *testing.T) {
	addr := withOptions(t, "common_http_protocol_options: {max_requests_per_connection: 1}")
	if status, last := hello(t, addr, false); status != 200 || !last {
		t.Errorf("%d, the last of its connection: %t", status, last)
	}
	addr = withOptions(t, "common_http_protocol_options: {idle_timeout: 0.1s}")
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := nc.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection: %d, %v", n, err)
	}
}

func TestListenerWaitsForHeadsAsItsOptionsSay(t *testing.T) {
	nc, err := net.Dial("tcp", withOptions(t, "request_headers_timeout: 0.1s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetReadDeadline(time.Now().Add(9 * time.Second)) // before the default would be over
	_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: ")
	if b, err := io.ReadAll(nc); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 408 ") {
		t.Errorf("a head that stops: %q, %v", b, err)
	}
}

func TestListenerTellsHTTP2ClientsItsBounds(t *testing.T) {
	nc, err := net.Dial("tcp", withOptions(t, "http2_protocol_options: {max_concurrent_streams: 7, initial_stream_window_size: 70000}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(nc, frames.ClientPreface)
	f, err := frames.NewFramer(nc, nc).ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := f.(*frames.SettingsFrame)
	if !ok {
		t.Fatalf("%v", f)
	}
	if streams, _ := settings.Value(frames.SettingMaxConcurrentStreams); streams != 7 {
		t.Errorf("%d streams", streams)
	}
}
