package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConnectionsAreCountedByWhatComesBackOnThem(t *testing.T) {
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "addresses.txt")
	if err := os.WriteFile(file, []byte("# where\n"+local(ports[0])+"\n"+local(ports[1])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveTCP(ctx, []string{file}, io.Discard) }()
	for _, port := range ports {
		for listens(t.Context(), port) != nil {
			if len(done) > 0 {
				t.Fatal(<-done)
			}
		}
	}
	for _, bulk := range []string{"-bulk=false", "-bulk=true"} {
		var out bytes.Buffer
		if err := loadTCP(t.Context(), []string{"-target", local(ports[1]), "-connections", "3", "-message", "500000", bulk}, &out); err != nil {
			t.Fatal(err)
		}
		var l load
		if err := json.Unmarshal(out.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Requests != 3 || l.check(500_000, 0) != nil {
			t.Errorf("%s: %+v", bulk, l)
		}
	}
	for _, streamed := range []bool{false, true} {
		if n, err := probeTCP(t.Context(), ports[0], workload{body: 100, streamed: streamed}); err != nil || n != 100 {
			t.Errorf("streamed %t: %d, %v", streamed, n, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAConnectionThatBringsOtherBytesIsRefused(t *testing.T) {
	for answer, want := range map[string]string{"01234X6789": "other bytes came", "01234": "after 0 responses: unexpected EOF"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = io.ReadFull(conn, make([]byte, 11)) // the question and the ping
				_, _ = conn.Write([]byte(answer))
				err = conn.Close()
			}
			done <- err
		}()
		_, err = probeTCP(t.Context(), l.Addr().(*net.TCPAddr).Port, workload{body: 10})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", answer, err, want)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
