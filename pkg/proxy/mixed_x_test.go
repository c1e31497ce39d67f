package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// ownOnly says what of a message belongs to another exchange than the one that its token names:
// the token is in the fields, in a field's name, in the body and in the trailers.
func ownOnly(token string, h, trailers http.Header, body []byte) error {
	for _, fields := range []http.Header{h, trailers} {
		for name, values := range fields {
			if strings.HasPrefix(name, "X-Only-") && name != http.CanonicalHeaderKey("X-Only-"+token) {
				return fmt.Errorf("the field %s came with %s", name, token)
			}
			if name == "X-Token" && len(values) > 0 && (len(values) != 1 || values[0] != token) { // a trailer that did not come has none
				return fmt.Errorf("the tokens %v came with %s", values, token)
			}
		}
	}
	if rest := bytes.ReplaceAll(body, []byte(token+";"), nil); !strings.HasPrefix(token+";", string(rest)) {
		return fmt.Errorf("the body %.200q came with %s", body, token)
	}
	return nil
}

// moodyEcho answers with what it was sent, or breaks off somewhere, as it likes.
func moodyEcho(t *testing.T, w http.ResponseWriter, q *http.Request) {
	token := strings.TrimPrefix(q.URL.Path, "/")
	w.Header().Set("X-Only-"+token, "1")
	w.Header().Set("X-Token", token)
	mood := rand.IntN(10)
	if q.Header.Get("Upgrade") != "" && mood < 7 {
		nc, in, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = nc.Close() }()
		_, _ = fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %s\r\nX-Token: %s\r\n\r\n", q.Header.Get("Upgrade"), token)
		_, _ = io.Copy(nc, io.LimitReader(in, int64(len(token)+1)))
		return
	}
	switch mood {
	case 0:
		panic(http.ErrAbortHandler)
	case 1: // early
		w.WriteHeader(http.StatusForbidden)
		return
	case 2:
		for range 3 {
			w.WriteHeader(http.StatusEarlyHints)
		}
	case 3:
		_, _ = io.WriteString(w, token+";")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return // the client broke it off
	}
	if err := ownOnly(token, q.Header, q.Trailer, body); err != nil {
		t.Errorf("the instance: %v", err)
	}
	if q.Header.Get("X-Token") == "" {
		t.Errorf("the instance: no token with %s: %v", token, q.Header)
	}
	if ct := q.Header.Get("Content-Type"); ct != "" && !strings.Contains(ct, token[:1]) && !strings.HasPrefix(ct, "application/grpc") {
		t.Errorf("the instance: content type %s", ct)
	}
	if q.Context().Err() != nil {
		return // net/http may still be writing the header of a stream that was reset
	}
	w.Header().Set("Trailer", "X-Token")
	_, _ = w.Write(body)
}

// mixedClient sends exchanges of all kinds on one connection until it ends.
func mixedClient(t *testing.T, addr string, next *atomic.Int64, answered *atomic.Int64) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(nc)
	for range 6 {
		if rand.IntN(6) == 0 {
			time.Sleep(400 * time.Millisecond) // it rests
		}
		var tokens []string
		var out bytes.Buffer
		upgrades := false
		many := 1
		if rand.IntN(3) == 0 {
			many = 3
		}
		for range many {
			token := fmt.Sprintf("T%dT", next.Add(1))
			tokens = append(tokens, token)
			body := strings.Repeat(token+";", rand.IntN(3)*rand.IntN(4000))
			kind := rand.IntN(9)
			if kind == 7 && many > 1 {
				kind = 0
			}
			fields := fmt.Sprintf("Host: a\r\nX-Token: %s\r\nX-Only-%s: 1\r\n", token, token)
			switch kind {
			case 0, 1:
				fmt.Fprintf(&out, "GET /%s HTTP/1.1\r\n%s\r\n", token, fields)
			case 2:
				fmt.Fprintf(&out, "PUT /%s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", token, fields, len(body), body)
			case 3:
				fmt.Fprintf(&out, "POST /%s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\nTrailer: X-Only-%s\r\n\r\n", token, fields, token)
				if len(body) > 0 {
					fmt.Fprintf(&out, "%x\r\n%s\r\n", len(body), body)
				}
				fmt.Fprintf(&out, "0\r\nX-Only-%s: 2\r\n\r\n", token)
			case 4:
				fmt.Fprintf(&out, "POST /%s HTTP/1.1\r\n%sContent-Type: application/grpc-web+T\r\nContent-Length: %d\r\n\r\n%s", token, fields, len(body), body)
			case 5:
				fmt.Fprintf(&out, "GET /%s HTTP/1.0\r\n%sConnection: keep-alive\r\n\r\n", token, fields)
			case 6:
				fmt.Fprintf(&out, "POST /%s HTTP/1.1\r\n%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", token, fields, len(body), body)
			case 7:
				fmt.Fprintf(&out, "GET /%s HTTP/1.1\r\n%sConnection: upgrade\r\nUpgrade: foo\r\n\r\n%s;", token, fields, token)
				upgrades = true
			case 8: // what is left of it must be nobody's
				fmt.Fprintf(&out, "POST /%s HTTP/1.1\r\n%sX-Only-%s: 2\r\nBad Name: x\r\n\r\n", token, fields, token)
			}
			if kind == 8 {
				break
			}
		}
		raw := out.Bytes()
		broken := rand.IntN(8) == 0
		if broken {
			raw = raw[:rand.IntN(len(raw))]
		}
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = nc.Write(raw)
		}()
		if broken {
			<-written
			if rand.IntN(2) == 0 {
				_ = nc.(*net.TCPConn).SetLinger(0)
			}
			return
		}
		ok := true
		for _, token := range tokens {
			if ok = ok && mixedAnswer(t, in, token, upgrades); ok {
				answered.Add(1)
			}
		}
		if !ok || upgrades {
			_ = nc.Close()
			<-written
			return
		}
		<-written
	}
}

// mixedAnswer reads an answer, and reports whether another may follow.
func mixedAnswer(t *testing.T, in *bufio.Reader, token string, upgraded bool) bool {
	a, err := http.ReadResponse(in, nil)
	for err == nil && a.StatusCode < 200 && a.StatusCode != 101 {
		if err := ownOnly(token, a.Header, nil, nil); err != nil {
			t.Errorf("the client, of an interim response: %v", err)
		}
		a, err = http.ReadResponse(in, nil)
	}
	if err != nil {
		return false
	}
	if a.StatusCode == 101 {
		got := make([]byte, len(token)+1)
		if _, err := io.ReadFull(in, got); err == nil && string(got) != token+";" {
			t.Errorf("the client: %q in the tunnel of %s", got, token)
		}
		return false
	}
	body, err := io.ReadAll(a.Body)
	if a.Header.Get("Fairlead-Reason") != "" {
		return err == nil && !a.Close
	}
	if a.Header.Get("X-Token") == "" {
		t.Errorf("the client: no token with %s: %v", token, a.Header)
	}
	if strings.HasPrefix(a.Header.Get("Content-Type"), "application/grpc") {
		return err == nil && !a.Close
	}
	if err := ownOnly(token, a.Header, a.Trailer, body); err != nil {
		t.Errorf("the client: %v", err)
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	return err == nil && !a.Close && !upgraded
}

func TestNothingOfAnExchangeGoesIntoAnother(t *testing.T) {
	for name, test := range map[string]struct{ http2 bool }{
		"hosts that speak HTTP/1.1": {false},
		"hosts that speak HTTP/2":   {true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { moodyEcho(t, w, q) }))
			app.Config.ErrorLog = log.New(io.Discard, "", 0)
			app.Config.Protocols = new(http.Protocols)
			app.Config.Protocols.SetHTTP1(!test.http2)
			app.Config.Protocols.SetUnencryptedHTTP2(test.http2)
			app.Start()
			t.Cleanup(app.Close)
			r := startWith(t, restless, []string{app.Listener.Addr().String()}, func(c *mesh.Cluster, _ *mesh.Route) {
				if test.http2 {
					c.Protocol = mesh.ProtocolHTTP2
				}
			})
			var next, answered atomic.Int64
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					for next.Load() < 1200 && !t.Failed() {
						mixedClient(t, r.addr, &next, &answered)
					}
				})
			}
			all.Wait()
			if answered.Load() < 200 {
				t.Errorf("only %d exchanges were answered", answered.Load())
			}
		})
	}
}
