package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

// end is one side of a tunnel, whatever it speaks.
type end interface {
	write(p []byte) bool
	// closeWrite ends this side's way, reset breaks both.
	closeWrite()
	reset()
	// next returns the next bytes, at most so many, or how the other side's way has ended:
	// "end", or how it broke.
	next(most int) (got []byte, how string)
}

// rest reads to the end of the other side's way, or so many bytes: then how is "".
func rest(e end, most int) (all []byte, how string) {
	for len(all) < most && how == "" {
		var got []byte
		got, how = e.next(most - len(all))
		all = append(all, got...)
	}
	return all, how
}

// overTCP is an end on HTTP/1.1.
type overTCP struct {
	*net.TCPConn
	in *bufio.Reader
}

func (e overTCP) write(p []byte) bool { _, err := e.Write(p); return err == nil }
func (e overTCP) closeWrite()         { _ = e.CloseWrite() }
func (e overTCP) reset()              { _ = errors.Join(e.SetLinger(0), e.Close()) }
func (e overTCP) next(most int) ([]byte, string) {
	p := make([]byte, min(most, 16<<10))
	n, err := e.in.Read(p)
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return p[:n], "reset"
	case errors.Is(err, io.EOF):
		return p[:n], "end"
	case err != nil:
		return p[:n], err.Error()
	}
	return p[:n], ""
}

// overStream is an end on a stream of HTTP/2. It reads windows of the other side only
// while it reads, and so must not write more than they are at first.
type overStream struct {
	*h2.Framer
	id   uint32
	left *[]byte // that was read of it, and is not wanted yet
}

func (e overStream) write(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), 16<<10)
		if e.WriteData(e.id, false, p[:n]) != nil {
			return false
		}
		p = p[n:]
	}
	return true
}
func (e overStream) closeWrite() { _ = e.WriteData(e.id, true, nil) }
func (e overStream) reset()      { _ = e.WriteRSTStream(e.id, h2.ErrCodeCancel) }
func (e overStream) next(most int) (got []byte, how string) {
	for len(*e.left) == 0 {
		f, err := e.ReadFrame()
		if err != nil {
			return nil, err.Error()
		}
		switch f := f.(type) {
		case *h2.DataFrame:
			*e.left = append(*e.left, f.Data()...)
			if n := uint32(len(f.Data())); n > 0 {
				_ = e.WriteWindowUpdate(0, n)
				_ = e.WriteWindowUpdate(e.id, n)
			}
			if f.StreamEnded() {
				return *e.left, "end"
			}
		case *h2.RSTStreamFrame:
			return nil, f.ErrCode.String()
		case *h2.MetaHeadersFrame:
			return nil, "a head"
		case *h2.SettingsFrame:
			if !f.IsAck() {
				_ = e.WriteSettingsAck()
			}
		}
	}
	n := min(most, len(*e.left))
	got = append(got, (*e.left)[:n]...)
	*e.left = (*e.left)[n:]
	return got, ""
}

// fieldsOf are the fields of a head, their names in lower case. :status and :method are
// among them.
func fieldsOf(h http.Header) map[string]string {
	all := map[string]string{}
	for name, values := range h {
		all[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return all
}

// headOf reads frames up to the next head.
func headOf(t *testing.T, f *h2.Framer) (fields map[string]string, id uint32, ended bool) {
	t.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return map[string]string{":error": err.Error()}, 0, true
		}
		switch frame := frame.(type) {
		case *h2.MetaHeadersFrame:
			fields = map[string]string{}
			for _, field := range frame.Fields {
				fields[field.Name] = field.Value
			}
			return fields, frame.StreamID, frame.StreamEnded()
		case *h2.RSTStreamFrame:
			return map[string]string{":reset": frame.ErrCode.String()}, frame.StreamID, true
		case *h2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		}
	}
}

// asks is a client that asks for a WebSocket, with bytes right behind its head.
type asks func(t *testing.T, r *rig, early string, more ...string) (end, map[string]string)

// Whose secret it is: the key and what answers it are those of RFC 6455 §1.3.
func askOverHTTP1(t *testing.T, r *rig, early string, more ...string) (end, map[string]string) {
	t.Helper()
	fields := ""
	for i := 0; i < len(more); i += 2 {
		fields += more[i] + ": " + more[i+1] + "\r\n"
	}
	nc, in, resp := upgrade(t, r, strings.TrimSuffix(askWebSocket, "\r\n")+fields+"\r\n"+early)
	head := fieldsOf(resp.Header)
	head[":status"] = fmt.Sprint(resp.StatusCode)
	if resp.StatusCode != 101 {
		body, _ := io.ReadAll(resp.Body)
		head[":body"] = string(body)
	}
	return overTCP{nc, in}, head
}

func askOverHTTP2(t *testing.T, r *rig, early string, more ...string) (end, map[string]string) {
	t.Helper()
	return askFor(t, r, "websocket", early, append([]string{"sec-websocket-version", "13"}, more...)...)
}

func askFor(t *testing.T, r *rig, protocol, early string, more ...string) (end, map[string]string) {
	t.Helper()
	nc := r.dial()
	f := h2.NewFramer(nc, nc)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(nc, h2.ClientPreface)
	_ = f.WriteSettings()
	first, err := f.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	// RFC 8441 §3: what may be sent has to be told first.
	if v, ok := first.(*h2.SettingsFrame).Value(h2.SettingEnableConnectProtocol); !ok || v != 1 {
		t.Fatalf("SETTINGS_ENABLE_CONNECT_PROTOCOL is %d", v)
	}
	_ = f.WriteSettingsAck()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	all := append([]string{":method", "CONNECT", ":protocol", protocol, ":scheme", "http", ":authority", "a", ":path", "/chat"}, more...)
	for i := 0; i < len(all); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: strings.ToLower(all[i]), Value: all[i+1]})
	}
	_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	tunnel := overStream{f, 1, new([]byte)}
	if early != "" {
		tunnel.write([]byte(early))
	}
	head, _, ended := headOf(t, f)
	if !strings.HasPrefix(head[":status"], "2") && !ended {
		body, _ := rest(tunnel, 1<<20)
		head[":body"] = string(body)
	}
	return tunnel, head
}

// hosts are instances that answer a request for a tunnel with a head, and then do with it
// what they are told.
type hosts struct {
	option option
	start  func(t *testing.T, answer map[string]string, seen chan<- map[string]string, then func(end)) string
}

func hostsOverHTTP1() hosts {
	return hosts{withoutBreaker, func(t *testing.T, answer map[string]string, seen chan<- map[string]string, then func(end)) string {
		text := ""
		for name, value := range answer {
			text += name + ": " + value + "\r\n"
		}
		return listen(t, func(nc net.Conn) {
			in := bufio.NewReader(nc)
			q, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			head := fieldsOf(q.Header)
			head[":method"], head[":path"], head[":authority"] = q.Method, q.URL.RequestURI(), q.Host
			seen <- head
			accept := "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
			if key := q.Header.Get("Sec-WebSocket-Key"); key != "dGhlIHNhbXBsZSBub25jZQ==" {
				accept = proxy.WebSocketAccept(key)
			}
			_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+q.Header.Get("Upgrade")+"\r\nSec-WebSocket-Accept: "+accept+"\r\n"+text+"\r\n")
			then(overTCP{nc.(*net.TCPConn), in})
		})
	}}
}

func hostsOverHTTP2() hosts {
	return hosts{func(c *mesh.Cluster, r *mesh.Route) { withoutBreaker(c, r); speaksHTTP2(c, r) }, func(t *testing.T, answer map[string]string, seen chan<- map[string]string, then func(end)) string {
		addr, _ := hostOf(t, []h2.Setting{{ID: h2.SettingEnableConnectProtocol, Val: 1}}, func(h *host) {
			h.AllowIllegalReads, h.ReadMetaHeaders = false, hpack.NewDecoder(4096, nil)
			head, id, ended := headOf(t, h.Framer)
			if id == 0 {
				return
			}
			head[":ended"] = fmt.Sprint(ended)
			seen <- head
			fields := []string{":status", "200"}
			for name, value := range answer {
				fields = append(fields, strings.ToLower(name), value)
			}
			h.head(id, false, fields...)
			h.flush()
			f := h2.NewFramer(h.nc, h.nc)
			f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			then(overStream{f, id, new([]byte)})
		})
		return addr
	}}
}

// eachTunnel tests all that may lie before the proxy with all that may lie behind it: in
// HTTP/1.1 and HTTP/2, and behind a second one.
func eachTunnel(t *testing.T, change func(*proxy.Config), answer map[string]string, then func(end), test func(t *testing.T, o *observed, ask asks, from, to string, seen <-chan map[string]string)) {
	for from, ask := range map[string]asks{"HTTP/1.1": askOverHTTP1, "HTTP/2": askOverHTTP2} {
		for to, h := range map[string]hosts{"HTTP/1.1": hostsOverHTTP1(), "HTTP/2": hostsOverHTTP2()} {
			for _, sidecars := range []int{1, 2} {
				t.Run(fmt.Sprintf("%s to %s through %d", from, to, sidecars), func(t *testing.T) {
					seen := make(chan map[string]string, 4)
					addr, option := h.start(t, answer, seen, then), h.option
					if sidecars == 2 {
						addr, option = inboundWith(t, addr, option), func(c *mesh.Cluster, r *mesh.Route) { withoutBreaker(c, r); behindSidecars(c, r) }
					}
					test(t, observe(t, change, []string{addr}, option), ask, from, to, seen)
				})
			}
		}
	}
}

// echoes sends back what comes until that ends.
func echoes(e end) {
	for {
		got, how := e.next(16 << 10)
		if !e.write(got) {
			return
		}
		if how == "end" {
			e.closeWrite()
		}
		if how != "" {
			return
		}
	}
}

func TestAWebSocketGoesFromEitherVersionToEither(t *testing.T) {
	answer := map[string]string{"Sec-WebSocket-Protocol": "chat"}
	eachTunnel(t, unchanged, answer, echoes, func(t *testing.T, o *observed, ask asks, from, to string, seen <-chan map[string]string) {
		tunnel, head := ask(t, o.rig, "early\x00", "Sec-WebSocket-Protocol", "chat", "Origin", "http://a")
		want := map[string]string{":status": "200", "sec-websocket-protocol": "chat", "upgrade": "", "connection": "", "sec-websocket-accept": "", "content-length": "", "transfer-encoding": ""}
		if from == "HTTP/1.1" {
			want[":status"], want["upgrade"], want["connection"], want["sec-websocket-accept"] = "101", "websocket", "Upgrade", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
		}
		for name, value := range want {
			if head[name] != value {
				t.Errorf("the client sees %s: %q, want %q", name, head[name], value)
			}
		}
		has := <-seen
		want = map[string]string{":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/chat", ":authority": "a", "sec-websocket-key": "", "upgrade": "", "connection": "", ":ended": "false", "content-length": ""}
		if to == "HTTP/1.1" {
			want = map[string]string{":method": "GET", ":path": "/chat", ":authority": "a", "upgrade": "websocket", "connection": "Upgrade", "sec-websocket-key": has["sec-websocket-key"]}
			if from == "HTTP/1.1" {
				want["sec-websocket-key"] = "dGhlIHNhbXBsZSBub25jZQ=="
			} else if len(has["sec-websocket-key"]) != 24 {
				t.Errorf("the key is %q", has["sec-websocket-key"])
			}
		}
		want["sec-websocket-version"], want["origin"], want["sec-websocket-protocol"] = "13", "http://a", "chat"
		for name, value := range want {
			if has[name] != value {
				t.Errorf("the instance sees %s: %q, want %q", name, has[name], value)
			}
		}
		tunnel.write([]byte("hello\r\n\r\n"))
		if got, how := rest(tunnel, 15); string(got) != "early\x00hello\r\n\r\n" || how != "" {
			t.Errorf("%q %s", got, how)
		}
		tunnel.write(bytes.Repeat([]byte("0123456789"), 3000))
		tunnel.closeWrite()
		if got, how := rest(tunnel, 1<<20); string(got) != strings.Repeat("0123456789", 3000) || how != "end" {
			t.Errorf("%d bytes, %s", len(got), how)
		}
		status := map[string]string{"HTTP/1.1": "101", "HTTP/2": "200"}[from]
		if s := o.span("server"); s.Attributes["http.response.status_code"] != status || s.Failed {
			t.Errorf("%+v", s)
		}
		lines := o.logged()
		if len(lines) != 1 || fmt.Sprint(lines[0]["status"]) != status || lines[0]["bytes_in"] != 30015.0 || lines[0]["bytes_out"] != 30015.0 || lines[0]["reason"] != nil {
			t.Errorf("%v", lines)
		}
		if line := fmt.Sprintf(`fairlead_requests_total{code="%s",destination="c",reason="none",source="test"} 1`, status); !strings.Contains(o.metrics(), line) {
			t.Errorf("%s is missing\n%s", line, o.metrics())
		}
	})
}

func TestEachWayOfATranslatedTunnelEndsByItself(t *testing.T) {
	after := make(chan string, 4)
	eachTunnel(t, unchanged, nil, func(e end) {
		e.write([]byte("bye"))
		e.closeWrite()
		got, how := rest(e, 1<<20)
		after <- string(got) + " " + how
	}, func(t *testing.T, o *observed, ask asks, _, _ string, _ <-chan map[string]string) {
		tunnel, _ := ask(t, o.rig, "")
		if got, how := rest(tunnel, 1<<20); string(got) != "bye" || how != "end" {
			t.Errorf("%q %s", got, how)
		}
		tunnel.write([]byte("and one more thing"))
		tunnel.closeWrite()
		if got := <-after; got != "and one more thing end" {
			t.Errorf("the instance sees %q", got)
		}
	})
}

func TestASideThatBreaksATranslatedTunnelBreaksTheOther(t *testing.T) {
	t.Run("the client", func(t *testing.T) {
		seen, came := make(chan string, 4), make(chan struct{}, 4)
		eachTunnel(t, unchanged, nil, func(e end) {
			_, _ = rest(e, 1)
			came <- struct{}{}
			_, how := rest(e, 1)
			seen <- how
		}, func(t *testing.T, o *observed, ask asks, _, to string, _ <-chan map[string]string) {
			tunnel, _ := ask(t, o.rig, "")
			tunnel.write([]byte("x"))
			<-came // it is not lost with the reset
			tunnel.reset()
			if got, want := <-seen, map[string]string{"HTTP/1.1": "reset", "HTTP/2": "CANCEL"}[to]; got != want {
				t.Errorf("the instance sees %q, want %q", got, want)
			}
			if s := o.span("server"); s.Attributes["fairlead.reason"] != "client_gone" {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("the instance", func(t *testing.T) {
		eachTunnel(t, unchanged, nil, func(e end) {
			_, _ = rest(e, 1)
			e.reset()
		}, func(t *testing.T, o *observed, ask asks, from, _ string, _ <-chan map[string]string) {
			tunnel, _ := ask(t, o.rig, "")
			tunnel.write([]byte("x"))
			_, how := rest(tunnel, 1)
			if want := map[string]string{"HTTP/1.1": "reset", "HTTP/2": "CANCEL"}[from]; how != want {
				t.Errorf("the client sees %q, want %q", how, want)
			}
			if s := o.span("server"); s.Attributes["fairlead.reason"] != "response_broken" {
				t.Errorf("%+v", s)
			}
		})
	})
}

func TestWhatAnInstanceSaysBeforeItBreaksATunnelComes(t *testing.T) {
	eachTunnel(t, unchanged, nil, func(e end) {
		_, _ = rest(e, 1)
		e.write([]byte("that is all"))
		e.reset()
	}, func(t *testing.T, o *observed, ask asks, _, to string, _ <-chan map[string]string) {
		if to == "HTTP/1.1" {
			t.Skip("a reset of TCP overtakes what was sent before it")
		}
		tunnel, _ := ask(t, o.rig, "")
		tunnel.write([]byte("x"))
		if got, _ := rest(tunnel, 100); string(got) != "that is all" {
			t.Errorf("the client got %q", got)
		}
	})
}

func TestATranslatedTunnelInWhichNothingMovesIsEnded(t *testing.T) {
	eachTunnel(t, func(c *proxy.Config) { c.TunnelIdleTimeout = time.Second }, nil, echoes, func(t *testing.T, o *observed, ask asks, _, _ string, _ <-chan map[string]string) {
		tunnel, _ := ask(t, o.rig, "x")
		if got, how := rest(tunnel, 1<<20); string(got) != "x" || how == "" || how == "end" {
			t.Errorf("%q %s", got, how)
		}
		if s := o.span("server"); s.Attributes["fairlead.reason"] != "idle_timeout" {
			t.Errorf("%+v", s)
		}
	})
}

func TestFramesPassThroughTranslatedTunnelsAsTheyAre(t *testing.T) {
	var whole []byte // within the windows at first
	for _, frames := range conversations() {
		said := bytes.Join(frames, nil)
		whole = append(whole, said[:min(len(said), 5000)]...)
	}
	eachTunnel(t, unchanged, nil, echoes, func(t *testing.T, o *observed, ask asks, _, _ string, _ <-chan map[string]string) {
		tunnel, _ := ask(t, o.rig, "")
		tunnel.write(whole)
		tunnel.closeWrite()
		if got, how := rest(tunnel, 1<<20); !bytes.Equal(got, whole) || how != "end" {
			t.Errorf("%d bytes came back of %d, or others, %s", len(got), len(whole), how)
		}
	})
}

func TestOtherProtocolsThanWebSocketAreTranslatedToo(t *testing.T) {
	for to, h := range map[string]hosts{"HTTP/1.1": hostsOverHTTP1(), "HTTP/2": hostsOverHTTP2()} {
		t.Run("from HTTP/1.1 to "+to, func(t *testing.T) {
			seen := make(chan map[string]string, 1)
			r := start(t, []string{h.start(t, nil, seen, echoes)}, h.option)
			nc, in, resp := upgrade(t, r, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: connect-ip\r\n\r\nhello")
			if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "connect-ip" {
				t.Errorf("%d %v", resp.StatusCode, resp.Header)
			}
			if head := <-seen; head[":protocol"]+head["upgrade"] != "connect-ip" || head["sec-websocket-key"] != "" {
				t.Errorf("%v", head)
			}
			wantBytes(t, in, "hello")
			_ = nc.Close()
		})
		t.Run("from HTTP/2 to "+to, func(t *testing.T) {
			seen := make(chan map[string]string, 1)
			r := start(t, []string{h.start(t, nil, seen, echoes)}, h.option)
			tunnel, head := askFor(t, r, "connect-ip", "hello")
			if head[":status"] != "200" {
				t.Errorf("%v", head)
			}
			if head := <-seen; head[":protocol"]+head["upgrade"] != "connect-ip" || head["sec-websocket-key"] != "" {
				t.Errorf("%v", head)
			}
			if got, how := rest(tunnel, 5); string(got) != "hello" || how != "" {
				t.Errorf("%q %s", got, how)
			}
		})
	}
}

func TestAnInstanceThatRefusesATunnelIsQuoted(t *testing.T) {
	overHTTP1 := upgrading(t, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX: y\r\n\r\nno", func(*http.Request, *bufio.Reader, *net.TCPConn) {})
	overHTTP2, _ := hostOf(t, []h2.Setting{{ID: h2.SettingEnableConnectProtocol, Val: 1}}, func(h *host) {
		h.each(func(id uint32) {
			h.head(id, false, ":status", "403", "content-length", "2", "x", "y")
			_ = h.WriteData(id, true, []byte("no"))
		})
	})
	for from, ask := range map[string]asks{"HTTP/1.1": askOverHTTP1, "HTTP/2": askOverHTTP2} {
		for to, r := range map[string]*rig{"HTTP/1.1": start(t, []string{overHTTP1}), "HTTP/2": start(t, []string{overHTTP2}, speaksHTTP2)} {
			if _, head := ask(t, r, ""); head[":status"] != "403" || head[":body"] != "no" || head["x"] != "y" || head["fairlead-reason"] != "" {
				t.Errorf("from %s to %s: %v", from, to, head)
			}
		}
	}
}

func TestATunnelThatCannotBeIsAnsweredWithAReason(t *testing.T) {
	unannounced, _ := hostOf(t, nil, func(h *host) { h.each(func(id uint32) { h.head(id, true, ":status", "204") }) })
	refused, _ := hostOf(t, []h2.Setting{{ID: h2.SettingEnableConnectProtocol, Val: 0}}, func(h *host) { h.each(func(id uint32) { h.head(id, true, ":status", "204") }) })
	answers := func(text string) string {
		return upgrading(t, text, func(_ *http.Request, in *bufio.Reader, _ *net.TCPConn) { _, _ = io.Copy(io.Discard, in) })
	}
	const wrong = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
	for name, c := range map[string]struct {
		ask            asks
		addr           string
		option         option
		status, reason string
		sentence       string
	}{
		"HTTP/1.1, to a host of HTTP/2 that has not announced it": {askOverHTTP1, unannounced, speaksHTTP2, "501", "upgrade_unsupported", "SETTINGS_ENABLE_CONNECT_PROTOCOL"},
		"HTTP/2, to a host of HTTP/2 that has not announced it":   {askOverHTTP2, unannounced, speaksHTTP2, "501", "upgrade_unsupported", "SETTINGS_ENABLE_CONNECT_PROTOCOL"},
		"to one that says it does not":                            {askOverHTTP2, refused, speaksHTTP2, "501", "upgrade_unsupported", "SETTINGS_ENABLE_CONNECT_PROTOCOL"},
		"HTTP/2, to a host of HTTP/1.1 that answers and does not": {askOverHTTP2, answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), withoutBreaker, "501", "upgrade_unsupported", "does not switch"},
		"to one that does not answer the key":                     {askOverHTTP2, answers(wrong + "\r\n"), withoutBreaker, "502", "upstream_protocol", "Sec-WebSocket-Accept"},
		"to one that answers another key":                         {askOverHTTP2, answers(wrong + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), withoutBreaker, "502", "upstream_protocol", "Sec-WebSocket-Accept"},
		"to one that switches to another protocol":                {askOverHTTP2, answers(strings.Replace(wrong, "websocket", "h2c", 1) + "\r\n"), withoutBreaker, "502", "upstream_protocol", "does not offer"},
		"to one that is not there":                                {askOverHTTP2, deadAddress(t), speaksHTTP2, "503", "connect_failed", "could not be connected to"},
		"HTTP/2 for h2c, which no instance is made to speak": {func(t *testing.T, r *rig, early string, more ...string) (end, map[string]string) {
			return askFor(t, r, "h2c", early, more...)
		}, answers(""), withoutBreaker, "501", "unsupported_protocol", "HTTP/2"},
		"HTTP/2, to a route that answers itself": {askOverHTTP2, unannounced, func(_ *mesh.Cluster, r *mesh.Route) {
			r.Action = mesh.RouteAction{Direct: &mesh.DirectResponse{Status: 200}}
		}, "501", "unsupported_protocol", "nothing to connect to"},
	} {
		t.Run(name, func(t *testing.T) {
			o := observe(t, unchanged, []string{c.addr}, c.option)
			if _, head := c.ask(t, o.rig, ""); head[":status"] != c.status || head["fairlead-reason"] != c.reason || !strings.Contains(head[":body"], c.sentence) {
				t.Errorf("%v", head)
			}
			if c.reason != "upgrade_unsupported" {
				return
			}
			for _, h := range o.set.Clusters()[0].Hosts() {
				if f := h.Status(0).Failures; f != 0 {
					t.Errorf("the breaker counts %d failures: the instance is well", f)
				}
			}
		})
	}
}

func TestWhatNeedNotSwitchGoesOnWithoutWhereTheInstanceDoesNot(t *testing.T) {
	for name, c := range map[string]struct{ method, fields, body string }{
		"a protocol that the client can do without": {"GET", "Upgrade: connect-ip\r\n", ""},
		"one with a version, which is no :protocol": {"GET", "Upgrade: IRC/6.9\r\n", ""},
		"a request with a body":                     {"POST", "Upgrade: connect-ip\r\nContent-Length: 2\r\n", "hi"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, setting := range []uint32{0, 1} {
				if setting == 1 && strings.Contains(c.fields, "connect-ip") && c.body == "" {
					continue // it is asked for then
				}
				methods := make(chan string, 1)
				addr, _ := hostOf(t, []h2.Setting{{ID: h2.SettingEnableConnectProtocol, Val: setting}}, func(h *host) {
					h.AllowIllegalReads, h.ReadMetaHeaders = false, hpack.NewDecoder(4096, nil)
					head, id, _ := headOf(t, h.Framer)
					methods <- head[":method"] + head[":protocol"]
					h.head(id, true, ":status", "200", "content-length", "0")
					h.flush()
				})
				r := start(t, []string{addr}, speaksHTTP2)
				_, _, resp := upgrade(t, r, c.method+" / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"+c.fields+"\r\n"+c.body)
				if method := <-methods; resp.StatusCode != 200 || method != c.method {
					t.Errorf("%d to a %q", resp.StatusCode, method)
				}
			}
		})
	}
}

func TestAKeyThatNoInstanceWillSeeIsLookedAt(t *testing.T) {
	addr, asked := hostOf(t, []h2.Setting{{ID: h2.SettingEnableConnectProtocol, Val: 1}}, func(h *host) { h.each(func(id uint32) { h.head(id, true, ":status", "200") }) })
	r := start(t, []string{addr}, speaksHTTP2)
	for _, key := range []string{"", "Sec-WebSocket-Key: \r\n", "Sec-WebSocket-Key: abc\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=\r\n",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"} {
		_, _, resp := upgrade(t, r, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+key+"\r\n")
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 400 || resp.Header.Get("fairlead-reason") != "bad_request" || !strings.Contains(string(body), "Sec-WebSocket-Key") {
			t.Errorf("%q: %d %q", key, resp.StatusCode, body)
		}
	}
	if asked.Load() != 0 {
		t.Error("the instance was asked")
	}
}

// A head inside of a tunnel is none (RFC 9113 §8.5).
func TestAHeadInsideOfATunnelBreaksIt(t *testing.T) {
	seen := make(chan map[string]string, 1)
	how := make(chan string, 1)
	h := hostsOverHTTP1()
	r := start(t, []string{h.start(t, nil, seen, func(e end) {
		_, ended := rest(e, 1)
		how <- ended
	})})
	tunnel, _ := askOverHTTP2(t, r, "")
	stream := tunnel.(overStream)
	_ = stream.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0, 1, 'a', 1, 'b'}, EndHeaders: true, EndStream: true})
	if _, ended := rest(tunnel, 1); ended != "PROTOCOL_ERROR" {
		t.Errorf("the client sees %q", ended)
	}
	if ended := <-how; ended != "reset" {
		t.Errorf("the instance sees %q", ended)
	}
}
