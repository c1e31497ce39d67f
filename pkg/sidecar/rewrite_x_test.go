package sidecar_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// clientTo makes requests over HTTP/1.1, or over HTTP/2 with prior knowledge, wherever they are addressed to.
func clientTo(t *testing.T, address string, overHTTP2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}}
	transport.Protocols.SetHTTP1(!overHTTP2)
	transport.Protocols.SetUnencryptedHTTP2(overHTTP2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestRoutesOfAFileRewriteTheHostAndThePath(t *testing.T) {
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s", r.Host, r.RequestURI)
	}))
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetHTTP1(true)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	t.Cleanup(app.Close)
	routes := `
              - {match: {path: "/exact"}, route: {cluster: app, prefix_rewrite: /other}}
              - {match: {prefix: "/both/"}, route: {cluster: app, host_rewrite_literal: "b.example:81", prefix_rewrite: /}}
              - {match: {prefix: "/host"}, route: {cluster: app, host_rewrite_literal: b.example}}
              - {match: {prefix: "/"}, route: {cluster: app}}`
	for _, protocol := range []string{"http_protocol_options", "http2_protocol_options"} {
		var access lockedbuf.Buffer
		text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), app.Listener.Addr().(*net.TCPAddr).Port)
		text = strings.Replace(text, "\n              - {match: {prefix: \"/\"}, route: {cluster: app}}", routes, 1)
		text = strings.Replace(text, "\n    connect_timeout: 1s", strings.Replace(clusterOverHTTP2, "http2_protocol_options", protocol, 1), 1)
		addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text), AccessLog: &access, AccessLogFormat: accesslog.JSON})
		for _, overHTTP2 := range []bool{false, true} {
			client := clientTo(t, addresses.Listeners["web"].String(), overHTTP2)
			for asked, want := range map[string]string{
				"/exact?a=b":     "a.example /other?a=b",
				"/exact":         "a.example /other",
				"/exactly":       "a.example /exactly",
				"/both/a?b=/c":   "b.example:81 /a?b=/c",
				"/both/":         "b.example:81 /",
				"/host/%2f/?a=b": "b.example /host/%2f/?a=b",
				"/else":          "a.example /else",
			} {
				resp, err := client.Get("http://a.example" + asked)
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(b) != want {
					t.Errorf("%s, HTTP/2 of the client %t: %s is %q, want %q", protocol, overHTTP2, asked, b, want)
				}
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if log := access.String(); strings.Contains(log, "b.example") || strings.Count(log, `"/exact?a=b"`) != 2 {
			t.Errorf("the log does not say what was asked for:\n%s", log)
		}
	}
}
