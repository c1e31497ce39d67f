package controlplane_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestWhatAParticipantSendsBehindItsAnswerIsOnlyInTheLogOfDebuggingAndInItsFormat(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer func() { _ = c.Close() }()
		r := bufio.NewReader(c)
		request, err := http.ReadRequest(r)
		if err == nil {
			_, _ = io.Copy(io.Discard, request.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}and more\n")
			_, err = r.ReadByte() // until it is given up
		}
		ended <- err
	}()
	httpAddr := freeAddress(t)
	stop := startCommand(t, httpAddr, "--data-dir", t.TempDir(), "--grpc-addr", freeAddress(t), "--http-addr", httpAddr, "--log-format", "json", "--log-level", "debug")
	port := l.Addr().(*net.TCPAddr).Port
	if !posted(t, "http://"+httpAddr+"/v1/namespaces/default/services/orders/instances", fmt.Sprintf(`{"id":"a1","address":"127.0.0.1","ports":[{"number":%d}]}`, port)) {
		t.Fatal("the instance is not registered")
	}
	if !posted(t, "http://"+httpAddr+"/v1/sagas", `{"id":"s","steps":[{"name":"a","action":{"service":"orders","path":"/"}}]}`) {
		t.Fatal("the saga is not started")
	}
	if err := <-ended; err == nil {
		t.Error("the connection was used again")
	}
	_, wrote := stop()
	said := 0
	for line := range strings.Lines(wrote) {
		var entry struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if strings.Contains(entry.Msg, "and more") {
			said++
			if entry.Level != "DEBUG" {
				t.Errorf("%q is of level %s", entry.Msg, entry.Level)
			}
		}
	}
	if said != 1 {
		t.Errorf("it is said %d times in %s", said, wrote)
	}
}
