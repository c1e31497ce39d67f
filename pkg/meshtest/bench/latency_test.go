package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestQuantilesAreByNearestRank(t *testing.T) {
	var all []time.Duration
	for i := 1000; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Microsecond)
	}
	if got := latenciesOf(all); got != (latencies{1000, 500, 990, 999}) {
		t.Errorf("%+v", got)
	}
	if got := latenciesOf([]time.Duration{7 * time.Microsecond}); got != (latencies{1, 7, 7, 7}) {
		t.Errorf("of one: %+v", got)
	}
}

// answerAll sends the answer for each request on each connection, the first after so long.
func answerAll(t *testing.T, answer string, first time.Duration) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 4<<10)
			for {
				if n, err := conn.Read(buffer); err != nil || !bytes.HasSuffix(buffer[:n], []byte("\r\n\r\n")) {
					break
				}
				time.Sleep(first)
				first = 0
				if _, err := io.WriteString(conn, answer); err != nil || answer == "" {
					break
				}
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().(*net.TCPAddr).Port
}

const answer200 = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// Ten requests at 1,000 a second on one connection, whose server thinks for 50 ms before the first answer: the last one
// was to begin after 9 ms, so it has waited for 41 at the least.
func TestRequestsThatAreHeldUpAreMeasuredFromTheirTime(t *testing.T) {
	w := latencyWork{port: answerAll(t, answer200, 50*time.Millisecond), path: "/", connections: 1, rate: 1000,
		response: int64(len(answer200)), duration: 10 * time.Millisecond}
	all, err := w.run()
	if err != nil || len(all) != 10 {
		t.Fatalf("%v, %v", all, err)
	}
	for i, d := range all {
		if least := 50*time.Millisecond - w.due(i); d < least {
			t.Errorf("request %d: %v; it waited for %v", i, d, least)
		}
	}
}

func TestOtherResponsesEndTheOpenLoop(t *testing.T) {
	for _, c := range []struct{ answer, want string }{
		{answer200, ""},
		{strings.Replace(answer200, "200", "503", 1), `a response is "HTTP/1.1 503`},
		{answer200 + "x", "has more than"},
		{"", "a connection was closed"},
	} {
		var out bytes.Buffer
		err := loadLatency(t.Context(), []string{"-port", strconv.Itoa(answerAll(t, c.answer, 0)), "-connections", "1",
			"-response", strconv.Itoa(len(answer200)), "-duration", "3ms"}, &out)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: %v; want %q", c.answer, err, c.want)
			}
			continue
		}
		var l latencies
		if err != nil || json.Unmarshal(out.Bytes(), &l) != nil || l.Requests != 3 {
			t.Errorf("%q: %+v, %v", c.answer, l, err)
		}
	}
}
