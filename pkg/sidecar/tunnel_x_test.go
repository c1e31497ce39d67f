package sidecar_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

func TestAFileOfEnvoysLetsWebSocketsThroughAndNoConnect(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		c, err := websocket.Accept(w, q, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.CloseNow() }()
		if kind, message, err := c.Read(q.Context()); err == nil {
			_ = c.Write(q.Context(), kind, message)
		}
		_ = c.Close(websocket.StatusNormalClosure, "")
	}))
	defer app.Close()
	text := fmt.Sprintf(bootstrap, 0, 0, app.Listener.Addr().(*net.TCPAddr).Port)
	text = strings.Replace(text, "          http_filters:", "          upgrade_configs: [{upgrade_type: websocket}]\n          http2_protocol_options: {allow_connect: true}\n          http_filters:", 1)
	addresses, cancel, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	web := addresses.Listeners["web"].String()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	c, _, err := websocket.Dial(ctx, "ws://"+web+"/chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, message, err := c.Read(ctx); string(message) != "hello" || err != nil {
		t.Errorf("%q, %v", message, err)
	}
	if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("it ends with %v", err)
	}
	_ = c.CloseNow()

	nc, err := net.Dial("tcp", web)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_, _ = io.WriteString(nc, "CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusNotImplemented {
		t.Errorf("CONNECT is answered with %d", resp.StatusCode)
	}
}
