package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // as RFC 6455 §4.2.2 has it
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// saying is what is said in a step.
func saying(n int) []byte { return fmt.Appendf(nil, "step %d of a stream that goes on", n) }

// errOther is what nothing explains.
var errOther = errors.New("something else came back")

// grpcTalk opens bidirectional streams of gRPC.
func grpcTalk(conn *grpc.ClientConn, service string) opener {
	return func(ctx context.Context, f *failure) (talk, error) {
		f.service = service
		ctx, cancel := context.WithCancel(ctx)
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, talkPath, grpc.CallAuthority(service))
		if err != nil {
			cancel()
			return nil, err
		}
		header, err := s.Header()
		f.instance = first(header, instanceField)
		if err != nil || f.instance == "" { // without an answer of the instance, the header is that of the status
			err = s.RecvMsg(new(wrapperspb.BytesValue))
			f.reason = reasonOf(header, s.Trailer())
			cancel()
			return nil, fmt.Errorf("not opened: %w", err)
		}
		f.begun = true
		return &grpcStream{s, cancel}, nil
	}
}

type grpcStream struct {
	grpc.ClientStream
	cancel context.CancelFunc
}

func (s *grpcStream) step(_ context.Context, n int) error {
	if err := s.SendMsg(wrapperspb.Bytes(saying(n))); err != nil && !errors.Is(err, io.EOF) { // then the status comes below
		return err
	}
	answer := new(wrapperspb.BytesValue)
	if err := s.RecvMsg(answer); err != nil {
		// What an instance that has gone leaves behind is UNAVAILABLE, by whatever it went.
		if code := status.Code(err); code != codes.Unavailable {
			return fmt.Errorf("%w: %w", errOther, err)
		}
		return err
	}
	if !bytes.Equal(answer.GetValue(), saying(n)) {
		return errOther
	}
	return nil
}

func (s *grpcStream) end(context.Context) error {
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := s.RecvMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("at its end: %w", err)
	}
	return nil
}

func (s *grpcStream) cut() { s.cancel() }

// webSocket opens WebSockets over HTTP/1.1.
func webSocket(outbound, service string) opener {
	return func(ctx context.Context, f *failure) (talk, error) {
		f.idempotent = true // to open one is a GET
		return dialWebSocket(ctx, http.DefaultClient, outbound, service, f)
	}
}

// webSocketOver opens them over HTTP/2, by a client of connectingClient: to open one is a CONNECT.
func webSocketOver(client *http.Client, outbound, service string) opener {
	return func(ctx context.Context, f *failure) (talk, error) {
		return dialWebSocket(ctx, client, outbound, service, f)
	}
}

func dialWebSocket(ctx context.Context, client *http.Client, outbound, service string, f *failure) (talk, error) {
	f.service = service
	c, a, err := websocket.Dial(ctx, "ws://"+outbound+"/ws", &websocket.DialOptions{Host: service, HTTPClient: client}) //nolint:bodyclose // its body is the connection's
	if err != nil {
		if a != nil {
			f.reason = a.Header.Get("fairlead-reason")
		}
		return nil, err
	}
	f.instance, f.begun = a.Header.Get(instanceField), true
	return socket{c}, nil
}

// connectingClient speaks HTTP/2 in the clear and opens WebSockets.
func connectingClient() *http.Client {
	return &http.Client{Transport: connecting{&http2.Transport{ //nolint:staticcheck // that of net/http sends no CONNECT with a protocol
		AllowHTTP: true, //nolint:staticcheck // as above
		DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) { //nolint:staticcheck // as above
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}}
}

// connecting asks by HTTP/2's CONNECT with a protocol (RFC 8441) for what it is asked for by HTTP/1.1's
// Upgrade, and answers as HTTP/1.1 does: the library of WebSocket speaks that only.
type connecting struct {
	two interface {
		http.RoundTripper
		CloseIdleConnections()
	}
}

// CloseIdleConnections is what http.Client calls.
func (c connecting) CloseIdleConnections() { c.two.CloseIdleConnections() }

// RoundTrip is http.RoundTripper's.
func (c connecting) RoundTrip(r *http.Request) (*http.Response, error) {
	body, in := io.Pipe()
	q := r.Clone(r.Context())
	q.Method, q.Body = http.MethodConnect, body
	q.Header[":protocol"] = []string{"websocket"}
	for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Key"} {
		q.Header.Del(name)
	}
	a, err := c.two.RoundTrip(q)
	if err != nil || a.StatusCode != http.StatusOK {
		_ = in.Close()
		return a, err
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as RFC 6455 §4.2.2 has it
	a.StatusCode = http.StatusSwitchingProtocols
	a.Header.Set("Connection", "Upgrade")
	a.Header.Set("Upgrade", "websocket")
	a.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	a.Body = bothWays{a.Body, in}
	return a, nil
}

// bothWays is a response's body and its request's.
type bothWays struct {
	io.ReadCloser
	in *io.PipeWriter
}

func (b bothWays) Write(p []byte) (int, error) { return b.in.Write(p) }
func (b bothWays) Close() error                { return errors.Join(b.in.Close(), b.ReadCloser.Close()) }

type socket struct{ *websocket.Conn }

func (s socket) step(ctx context.Context, n int) error {
	if err := s.Write(ctx, websocket.MessageText, saying(n)); err != nil {
		return err
	}
	_, got, err := s.Read(ctx)
	if err == nil && !bytes.Equal(got, saying(n)) {
		err = errOther
	}
	return err
}

func (s socket) end(context.Context) error { return s.Close(websocket.StatusNormalClosure, "") }
func (s socket) cut()                      { _ = s.CloseNow() }

// tunnel opens tunnels by CONNECT to an instance's HTTP port, which is then asked for things.
func tunnel(outbound, service, port string) opener {
	return func(ctx context.Context, f *failure) (talk, error) {
		f.service = service
		c, err := new(net.Dialer).DialContext(ctx, "tcp", outbound)
		if err != nil {
			return nil, err
		}
		t := &tunnelled{c: c, in: bufio.NewReader(c), f: f}
		t.patience(ctx)
		if _, err := fmt.Fprintf(c, "CONNECT %[1]s:%[2]s HTTP/1.1\r\nHost: %[1]s:%[2]s\r\n\r\n", service, port); err != nil {
			t.cut()
			return nil, err
		}
		a, err := http.ReadResponse(t.in, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // it has none
		if err != nil {
			t.cut()
			return nil, err
		}
		if a.StatusCode != http.StatusOK {
			f.reason = a.Header.Get("fairlead-reason")
			t.cut()
			return nil, errors.New(a.Status)
		}
		f.begun = true
		return t, nil
	}
}

type tunnelled struct {
	c  net.Conn
	in *bufio.Reader
	f  *failure
}

func (t *tunnelled) patience(ctx context.Context) {
	if at, ok := ctx.Deadline(); ok {
		_ = t.c.SetDeadline(at) // of an open connection
	}
}

func (t *tunnelled) step(ctx context.Context, n int) error {
	t.patience(ctx)
	if _, err := fmt.Fprintf(t.c, "POST /echo HTTP/1.1\r\nHost: soak\r\nContent-Length: %d\r\n\r\n%s", len(saying(n)), saying(n)); err != nil {
		return err
	}
	a, err := http.ReadResponse(t.in, nil)
	if err != nil {
		return err
	}
	defer func() { _ = a.Body.Close() }()
	t.f.instance = a.Header.Get(instanceField)
	got, err := io.ReadAll(a.Body)
	if err == nil && !bytes.Equal(got, saying(n)) {
		err = errOther
	}
	return err
}

// end ends the sending side: the instance answers with its end.
func (t *tunnelled) end(ctx context.Context) error { return endOfSending(ctx, t.c, t.in) }
func (t *tunnelled) cut()                          { _ = t.c.Close() }

func endOfSending(ctx context.Context, c net.Conn, in io.Reader) error {
	if at, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(at)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, in); n > 0 || err != nil {
		return fmt.Errorf("%d bytes came behind its end, %w", n, err)
	}
	return nil
}

// relayed opens connections of TCP that the mesh relays to instances of a service.
func relayed(address, service string) opener {
	return func(ctx context.Context, f *failure) (talk, error) {
		f.relayed = true
		return relayTo(ctx, address, service, f)
	}
}

// relayedDirectly opens those that a sidecar relays to applications of web.
func relayedDirectly(address string) opener {
	return func(ctx context.Context, f *failure) (talk, error) {
		f.direct = true
		return relayTo(ctx, address, web, f)
	}
}

func relayTo(ctx context.Context, address, service string, f *failure) (talk, error) {
	f.service, f.idempotent = service, true
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		f.begun = errors.Is(err, syscall.ECONNRESET) // it was taken, and reset before this side came to see that it was
		return nil, err
	}
	r := &relay{c: c, in: bufio.NewReader(c)}
	if at, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(at)
	}
	f.begun = true // a client of TCP sees no difference between what has begun and what has not
	line, err := r.in.ReadString('\n')
	if err != nil {
		r.cut()
		return nil, fmt.Errorf("no greeting: %w", err)
	}
	f.instance = strings.TrimSpace(line)
	return r, nil
}

type relay struct {
	c  net.Conn
	in *bufio.Reader
}

func (r *relay) step(ctx context.Context, n int) error {
	if at, ok := ctx.Deadline(); ok {
		_ = r.c.SetDeadline(at)
	}
	if _, err := r.c.Write(saying(n)); err != nil {
		return err
	}
	got := make([]byte, len(saying(n)))
	if _, err := io.ReadFull(r.in, got); err != nil {
		return err
	}
	if !bytes.Equal(got, saying(n)) {
		return errOther
	}
	return nil
}

func (r *relay) end(ctx context.Context) error { return endOfSending(ctx, r.c, r.in) }
func (r *relay) cut()                          { _ = r.c.Close() }

// ticking opens responses that go on, a line every tick.
func ticking(client *http.Client, outbound, service string) opener {
	return func(ctx context.Context, f *failure) (talk, error) {
		f.service, f.idempotent = service, true
		ctx, cancel := context.WithCancel(ctx)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+outbound+"/ticks", once{bytes.NewReader(nil)})
		if err != nil {
			cancel()
			return nil, err
		}
		r.Host = service
		a, err := client.Do(r)
		if err != nil {
			cancel()
			return nil, err
		}
		f.instance, f.reason = a.Header.Get(instanceField), a.Header.Get("fairlead-reason")
		if a.StatusCode != http.StatusOK {
			_ = a.Body.Close()
			cancel()
			return nil, errors.New(a.Status)
		}
		f.begun = true
		return &ticks{body: a.Body, in: bufio.NewReader(a.Body), cancel: cancel}, nil
	}
}

type ticks struct {
	body   io.ReadCloser
	in     *bufio.Reader
	cancel context.CancelFunc
}

func (t *ticks) step(ctx context.Context, n int) error {
	// The context of the request is that of the whole stream: this step's ends it.
	unless := context.AfterFunc(ctx, t.cancel)
	line, err := t.in.ReadString('\n')
	unless()
	if err != nil {
		return errors.Join(err, ctx.Err())
	}
	if line != fmt.Sprintf("%d\n", n) {
		return fmt.Errorf("%w: line %q, not %d", errOther, line, n)
	}
	return nil
}

func (t *ticks) end(context.Context) error { return nil } // there is nothing that the client may say
func (t *ticks) cut() {
	t.cancel()
	_ = t.body.Close()
}

// tick is how often something moves in a long stream.
const tick = 2 * time.Second
