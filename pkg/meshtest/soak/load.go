package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// clientPatience bounds a short exchange. It is more than any timeout of the mesh, which is to
// answer before.
const clientPatience = 30 * time.Second

// load sends short exchanges of all kinds, until it is stopped.
type load struct {
	world  *world
	ledger *ledger

	stop    chan struct{}
	running sync.WaitGroup
	close   []func() // what is to be done when nothing runs any more
}

// startLoad starts all kinds. Each worker does one exchange after the other, some per second.
func startLoad(w *world, l *ledger) (*load, error) {
	ld := &load{world: w, ledger: l, stop: make(chan struct{})}
	for n, s := range w.clients {
		h1, h2, ws := httpClient(false, nil), httpClient(true, nil), connectingClient()
		conn, err := dialGRPC(s.outbound)
		if err != nil {
			return nil, err
		}
		ld.close = append(ld.close, h1.CloseIdleConnections, h2.CloseIdleConnections, ws.CloseIdleConnections, func() { _ = conn.Close() })
		url := "http://" + s.outbound + "/echo"
		ld.start(4, 15, func(ctx context.Context) { ld.get(ctx, "HTTP/1.1 GET", h1, url, web) })
		ld.start(4, 15, func(ctx context.Context) { ld.get(ctx, "HTTP/2 GET", h2, url, web) })
		ld.start(2, 8, func(ctx context.Context) { ld.post(ctx, "HTTP/1.1 POST", h1, url, web) })
		ld.start(2, 8, func(ctx context.Context) { ld.post(ctx, "HTTP/2 POST", h2, url, web) })
		ld.start(2, 8, func(ctx context.Context) { ld.get(ctx, "HTTP/1.1 GET (steady)", h1, url, steady) })
		for kind, client := range map[string]*http.Client{"HTTP/1.1 1 MB": h1, "HTTP/2 1 MB": h2} {
			ld.start(1, 2, func(ctx context.Context) { ld.large(ctx, kind, client, url) })
		}
		ld.start(4, 15, func(ctx context.Context) { ld.call(ctx, conn) })
		ld.start(1, 3, func(ctx context.Context) { ld.session(ctx, "gRPC stream", grpcTalk(conn, rpc)) })
		ld.start(1, 3, func(ctx context.Context) { ld.session(ctx, "WebSocket", webSocket(s.outbound, web)) })
		ld.start(1, 3, func(ctx context.Context) {
			ld.session(ctx, "WebSocket over HTTP/2", webSocketOver(ws, s.outbound, web))
		})
		ld.start(2, 4, func(ctx context.Context) { ld.session(ctx, "TCP", relayed(s.cache, cache)) })
		ld.start(1, 3, func(ctx context.Context) { ld.session(ctx, "CONNECT", tunnel(s.outbound, web, w.ports.http)) })
		for kind, open := range map[string]opener{
			"HTTP/1.1": ticking(h1, s.outbound, web), "HTTP/2": ticking(h2, s.outbound, web), "gRPC": grpcTalk(conn, rpc),
			"WebSocket": webSocket(s.outbound, web), "CONNECT": tunnel(s.outbound, web, w.ports.http), "TCP": relayed(s.cache, cache),
			"WebSocket over HTTP/2": webSocketOver(ws, s.outbound, web), "TCP over mutual TLS": relayedDirectly(w.edge.secureTCP),
		} {
			ld.start(1, 3, func(ctx context.Context) { ld.abandon(ctx, "client that gives up, "+kind, open) })
		}
		ld.start(1, 3, func(ctx context.Context) { ld.breakOff(ctx, "client that gives up, in its body", s.outbound) })
		if n == 0 {
			ld.start(2, 4, func(ctx context.Context) {
				ld.session(ctx, "TCP without a mesh", relayedDirectly(w.edge.tcp))
			})
			ld.start(2, 4, func(ctx context.Context) {
				ld.session(ctx, "TCP over mutual TLS", relayedDirectly(w.edge.secureTCP))
			})
		}
	}
	security := &tls.Config{RootCAs: w.authority.Pool(), ServerName: serverName, MinVersion: tls.VersionTLS12}
	t1, t2 := httpClient(false, security), httpClient(true, security)
	fresh := httpClient(false, security)
	fresh.Transport.(*http.Transport).DisableKeepAlives = true
	ld.close = append(ld.close, t1.CloseIdleConnections, t2.CloseIdleConnections)
	url := "https://" + w.edge.secure + "/echo"
	ld.start(2, 10, func(ctx context.Context) { ld.get(ctx, "TLS HTTP/1.1 GET", t1, url, web) })
	ld.start(2, 10, func(ctx context.Context) { ld.get(ctx, "TLS HTTP/2 GET", t2, url, web) })
	ld.start(1, 5, func(ctx context.Context) { ld.get(ctx, "TLS handshake and GET", fresh, url, web) })
	return ld, nil
}

// end stops all and waits for what is under way.
func (ld *load) end() {
	close(ld.stop)
	ld.running.Wait()
	for _, do := range ld.close {
		do()
	}
}

// start lets workers do something so many times a second each, at most.
func (ld *load) start(workers, rate int, do func(context.Context)) {
	for range workers {
		ld.running.Go(func() {
			for {
				select {
				case <-ld.stop:
					return
				case <-time.After(time.Duration((0.5 + rand.Float64()) * float64(time.Second) / float64(rate))):
				}
				ctx, cancel := context.WithTimeout(context.Background(), clientPatience)
				do(ctx)
				cancel()
			}
		})
	}
}

// httpClient speaks HTTP/1.1 or HTTP/2, in the clear or not.
func httpClient(two bool, security *tls.Config) *http.Client {
	t := &http.Transport{TLSClientConfig: security.Clone(), MaxIdleConnsPerHost: 64, Protocols: new(http.Protocols)}
	switch {
	case !two:
		t.Protocols.SetHTTP1(true)
	case security == nil:
		t.Protocols.SetUnencryptedHTTP2(true)
	default:
		t.Protocols.SetHTTP2(true)
	}
	return &http.Client{Transport: t}
}

func dialGRPC(outbound string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+outbound, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// once is a body that is sent once: with it net/http does not repeat a request by itself, which
// would hide that the sidecar did not.
type once struct{ io.Reader }

func (once) Close() error { return nil }

func (ld *load) get(ctx context.Context, kind string, client *http.Client, url, service string) {
	n := rand.IntN(8 << 10)
	ld.exchange(ctx, failure{kind: kind, service: service, idempotent: true, direct: strings.HasPrefix(kind, "TLS")}, client, http.MethodGet, fmt.Sprintf("%s?n=%d", url, n), nil, n)
}

// large gets and posts a body that takes many windows.
func (ld *load) large(ctx context.Context, kind string, client *http.Client, url string) {
	const size = 1 << 20
	ld.exchange(ctx, failure{kind: kind + " down", service: web, idempotent: true}, client, http.MethodGet, fmt.Sprintf("%s?n=%d", url, size), nil, size)
	body := make([]byte, size)
	_, _ = new(pattern).Read(body)
	ld.exchange(ctx, failure{kind: kind + " up", service: web, large: true}, client, http.MethodPost, url, body, size)
}

// kept is how much of a body sidecars keep for a second attempt.
const kept = 16 << 10

func (ld *load) post(ctx context.Context, kind string, client *http.Client, url, service string) {
	body := make([]byte, rand.IntN(64<<10))
	_, _ = new(pattern).Read(body)
	ld.exchange(ctx, failure{kind: kind, service: service, large: len(body) > kept}, client, http.MethodPost, url, body, len(body))
}

// exchange sends a request, and wants so many bytes of the pattern for an answer.
func (ld *load) exchange(ctx context.Context, f failure, client *http.Client, method, url string, body []byte, want int) {
	f.began = time.Now()
	r, err := http.NewRequestWithContext(ctx, method, url, once{bytes.NewReader(body)})
	if err != nil {
		ld.ledger.failed(f, err)
		return
	}
	r.Host = f.service
	if len(body) > 0 {
		r.ContentLength = int64(len(body))
	}
	if err := ask(client, r, &f, want); err != nil {
		ld.ledger.failed(f, err)
		return
	}
	ld.ledger.succeeded(f.kind, 1)
}

// ask fills in what is known of the response, should it be a failure.
func ask(client *http.Client, r *http.Request, f *failure, want int) error {
	a, err := client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = a.Body.Close() }()
	f.instance, f.reason = a.Header.Get(instanceField), a.Header.Get("fairlead-reason")
	if a.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(a.Body, 300))
		return fmt.Errorf("%s: %s", a.Status, text)
	}
	f.begun = true
	got, err := io.ReadAll(io.LimitReader(a.Body, 2<<20))
	if err != nil {
		return err
	}
	expected := make([]byte, want)
	_, _ = new(pattern).Read(expected)
	if !bytes.Equal(got, expected) {
		return fmt.Errorf("%w: %d bytes, not the %d that were to come", errOther, len(got), want)
	}
	return nil
}

func (ld *load) call(ctx context.Context, conn *grpc.ClientConn) {
	f := failure{kind: "gRPC unary", service: rpc, began: time.Now()}
	message := wrapperspb.Bytes(bytes.Repeat([]byte{'x'}, rand.IntN(4<<10)))
	answer := new(wrapperspb.BytesValue)
	var header, trailer metadata.MD
	err := conn.Invoke(metadata.NewOutgoingContext(ctx, metadata.MD{}), callPath, message, answer,
		grpc.Header(&header), grpc.Trailer(&trailer), grpc.CallAuthority(rpc))
	if err == nil && !bytes.Equal(answer.GetValue(), message.GetValue()) {
		err = errOther
	}
	if err != nil {
		f.instance, f.reason = first(header, instanceField), reasonOf(header, trailer)
		f.begun = f.instance != "" && status.Code(err) == codes.Unavailable
		ld.ledger.failed(f, err)
		return
	}
	ld.ledger.succeeded(f.kind, 1)
}

func first(md metadata.MD, name string) string {
	return strings.Join(md.Get(name), ",")
}

func reasonOf(all ...metadata.MD) string {
	for _, md := range all {
		if r := first(md, "fairlead-reason"); r != "" {
			return r
		}
	}
	return ""
}

// talk is a stream, a tunnel or a relayed connection that is open. Its methods are called by
// one goroutine.
type talk interface {
	// step says something and wants it back.
	step(ctx context.Context, n int) error
	// end ends it, and reports whether the other side ended it as it should.
	end(ctx context.Context) error
	// cut gives up what there is.
	cut()
}

// opener opens a talk, and notes in f what is known of it: the service, the instance, and why it
// could not be opened.
type opener func(ctx context.Context, f *failure) (talk, error)

// sessionSteps is how many steps a short session has.
const sessionSteps = 10

// session opens a talk, takes steps and ends it.
func (ld *load) session(ctx context.Context, kind string, open opener) {
	f := failure{kind: kind, began: time.Now()}
	if err := converse(ctx, &f, sessionSteps, open); err != nil {
		ld.ledger.failed(f, err)
		return
	}
	ld.ledger.succeeded(kind, 1)
}

// abandon begins something and drops it, at any time: that is the client's fault, and no failure.
// What it leaves behind is looked for at the end.
func (ld *load) abandon(ctx context.Context, kind string, open opener) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(200*time.Millisecond))))
	defer cancel()
	f := failure{}
	if t, err := open(ctx, &f); err == nil {
		_ = t.step(ctx, 0)
		t.cut()
	}
	ld.ledger.succeeded(kind, 1)
}

// breakOff breaks a request off in the middle of its body.
func (ld *load) breakOff(ctx context.Context, kind, outbound string) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", outbound)
	if err != nil {
		return
	}
	if rand.IntN(2) == 0 {
		_ = c.(*net.TCPConn).SetLinger(0) // which makes the end a reset
	}
	_, _ = fmt.Fprintf(c, "POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: 100000\r\n\r\n%s", web, make([]byte, rand.IntN(99_000)))
	_ = c.Close()
	ld.ledger.succeeded(kind, 1)
}

func converse(ctx context.Context, f *failure, steps int, open opener) error {
	t, err := open(ctx, f)
	if err != nil {
		return err
	}
	defer t.cut()
	for n := range steps {
		if err := t.step(ctx, n); err != nil {
			return fmt.Errorf("in step %d: %w", n, err)
		}
	}
	return t.end(ctx)
}
