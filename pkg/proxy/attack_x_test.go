package proxy_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// attacker is a client that sends what frames it likes, and does not wait for answers.
type attacker struct {
	*h2.Framer
	nc     net.Conn
	out    bytes.Buffer
	text   bytes.Buffer
	fields *hpack.Encoder
	next   uint32       // of the next stream
	asked  func() int64 // how many requests have reached the instance
}

// attack opens a connection and greets.
func (r *rig) attack(settings ...h2.Setting) *attacker {
	r.t.Helper()
	a := &attacker{nc: r.dial(), next: 1}
	_ = a.nc.SetDeadline(time.Now().Add(4 * patience)) // some attacks are much to send, and to be read
	a.Framer = h2.NewFramer(&a.out, a.nc)
	a.AllowIllegalReads, a.AllowIllegalWrites = true, true
	a.fields = hpack.NewEncoder(&a.text)
	a.out.WriteString(h2.ClientPreface)
	_ = a.WriteSettings(settings...)
	_ = a.WriteSettingsAck()
	return a
}

// flush sends what was written. It returns false once the connection has ended.
func (a *attacker) flush() bool {
	_, err := a.nc.Write(a.out.Bytes())
	a.out.Reset()
	return err == nil
}

// block returns the header block of a request: method, path, further names and values.
func (a *attacker) block(method, path string, more ...string) []byte {
	a.text.Reset()
	all := append([]string{":method", method, ":scheme", "http", ":authority", "a", ":path", path}, more...)
	for i := 0; i < len(all); i += 2 {
		_ = a.fields.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
	return a.text.Bytes()
}

// open begins a request, and returns its stream.
func (a *attacker) open(method, path string, end bool) uint32 {
	id := a.next
	a.next += 2
	_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: a.block(method, path), EndStream: end, EndHeaders: true})
	return id
}

// repeat sends what once writes, n times, a few at once. It stops when the connection has
// ended.
func (a *attacker) repeat(n int, once func()) {
	for i := range n {
		if once(); i%20 == 19 && !a.flush() {
			return
		}
	}
	a.flush()
}

// paced sends what once writes a hundred times, and that n times, as soon as the instance
// has seen most of the requests before.
func (a *attacker) paced(n int, once func()) {
	for range n {
		for range 100 {
			once()
		}
		until := a.asked() + 90
		if !a.flush() {
			return
		}
		for end := time.Now().Add(time.Second); a.asked() < until && time.Now().Before(end); {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// ending reads until the connection ends, and returns the code of its GOAWAY, or what
// else became of it.
func (a *attacker) ending() string {
	code := ""
	for {
		f, err := a.ReadFrame()
		var badStream h2.StreamError
		switch {
		case errors.As(err, &badStream):
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return "it goes on"
		case err != nil && code == "":
			return "closed"
		case err != nil:
			return code
		}
		if g, ok := f.(*h2.GoAwayFrame); ok {
			code = g.ErrCode.String()
		}
	}
}

// victim is the instance, and what it saw.
type victim struct{ asked atomic.Int64 }

func (v *victim) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	v.asked.Add(1)
	switch q.URL.Path {
	case "/wait":
		<-q.Context().Done()
	case "/large":
		for p := make([]byte, 64<<10); ; {
			if _, err := w.Write(p); err != nil {
				return
			}
		}
	case "/echo":
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, q.Body)
	case "/heads":
		w.Header().Set("X-Large", strings.Repeat("x", 4000)+q.Header.Get("X-N"))
		w.WriteHeader(http.StatusNoContent)
	case "/empty":
		w.WriteHeader(http.StatusNoContent)
	default:
		_, _ = io.WriteString(w, "ok")
	}
}

// usage is what the process takes at its worst, while it is watched.
type usage struct {
	stop               chan struct{}
	done               sync.WaitGroup
	goroutines, memory int64 // beyond what was there
}

// measure watches until end is called. The memory is what is in use, and not what waits to be
// collected, which depends on how soon the collector comes to it: it runs whenever what it
// left has doubled, and is made to at the end.
func measure() *usage {
	u := &usage{stop: make(chan struct{})}
	used := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	inUse := func() int64 {
		metrics.Read(used)
		return int64(used[0].Value.Uint64() + used[1].Value.Uint64()) //nolint:gosec // it is small
	}
	runtime.GC()
	before, had := inUse(), runtime.NumGoroutine()
	u.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for over := false; ; {
			u.memory = max(u.memory, inUse()-before)
			u.goroutines = max(u.goroutines, int64(runtime.NumGoroutine()-had))
			if over {
				return
			}
			select {
			case <-u.stop:
				runtime.GC()
				over = true
			case <-tick.C:
			}
		}
	})
	return u
}

func (u *usage) end() { close(u.stop); u.done.Wait() }

const calm = "ENHANCE_YOUR_CALM"

// attacks are each tried on a connection, while another client sends requests and wants
// them answered. Memory is in MB, of the whole process: proxy, attacker, other client and
// instance.
var attacks = []struct {
	name     string
	settings []h2.Setting
	run      func(a *attacker)
	unread   bool   // the attacker reads nothing
	ends     string // how its connection ends; empty: it is not ended
	asked    int64  // how many of its requests reach the instance at most; 0: as many as it likes
	memory   int64
}{
	{name: "requests that are reset at once (CVE-2023-44487)", ends: calm, asked: 2000, memory: 64, run: func(a *attacker) {
		a.repeat(50_000, func() { _ = a.WriteRSTStream(a.open("GET", "/wait", true), h2.ErrCodeCancel) })
	}},
	{name: "requests that are reset in their body", ends: calm, asked: 2000, memory: 64, run: func(a *attacker) {
		a.repeat(50_000, func() { _ = a.WriteRSTStream(a.open("POST", "/wait", false), h2.ErrCodeCancel) })
	}},
	{name: "streams that are reset for WINDOW_UPDATE by nothing (CVE-2025-8671)", ends: calm, asked: 2000, memory: 64, run: func(a *attacker) {
		a.repeat(50_000, func() { _ = a.WriteWindowUpdate(a.open("GET", "/wait", true), 0) })
	}},
	{name: "streams that are reset for a window that grows too large", ends: calm, asked: 2000, memory: 64, run: func(a *attacker) {
		a.repeat(50_000, func() { _ = a.WriteWindowUpdate(a.open("GET", "/wait", true), 1<<31-1) })
	}},
	{name: "streams that are reset for DATA behind their end", ends: calm, asked: 2000, memory: 64, run: func(a *attacker) {
		a.repeat(50_000, func() { _ = a.WriteData(a.open("GET", "/wait", true), true, []byte("x")) })
	}},
	{name: "streams that are reset for PRIORITY of another length", ends: calm, asked: 2000, memory: 64, run: func(a *attacker) {
		a.repeat(50_000, func() { _ = a.WriteRawFrame(h2.FramePriority, 0, a.open("GET", "/wait", true), []byte("four")) })
	}},
	{name: "streams that are reset for a second head", ends: calm, asked: 2000, memory: 64, run: func(a *attacker) {
		a.repeat(50_000, func() {
			id := a.open("POST", "/wait", false)
			_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: a.block("GET", "/"), EndHeaders: true})
		})
	}},
	{name: "requests that are malformed", ends: calm, asked: 1, memory: 32, run: func(a *attacker) {
		a.repeat(50_000, func() { a.open("G T", "/", true) })
	}},
	{name: "streams beyond the limit", ends: calm, asked: 256, memory: 64, run: func(a *attacker) {
		a.repeat(50_000, func() { a.open("GET", "/wait", true) })
	}},
	{name: "a header block without an end", ends: calm, asked: 1, memory: 32, run: func(a *attacker) {
		_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: a.block("GET", "/")})
		a.repeat(50_000, func() { _ = a.WriteContinuation(1, false, []byte("\x00\x01x\x01y")) })
	}},
	{name: "a header block of empty frames", ends: calm, asked: 1, memory: 32, run: func(a *attacker) {
		_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: a.block("GET", "/")})
		a.repeat(50_000, func() { _ = a.WriteContinuation(1, false, nil) })
	}},
	{name: "header blocks in many frames, all of which end", memory: 64, run: func(a *attacker) {
		a.paced(10, func() {
			id := a.next
			a.next += 2
			_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: id, EndStream: true})
			for range 14 {
				_ = a.WriteContinuation(id, false, nil)
			}
			_ = a.WriteContinuation(id, true, a.block("GET", "/empty"))
		})
	}},
	{name: "SETTINGS that say nothing", ends: calm, memory: 32, run: func(a *attacker) {
		a.repeat(500_000, func() { _ = a.WriteSettings() })
	}},
	{name: "SETTINGS that change every window again and again", ends: calm, memory: 32, run: func(a *attacker) {
		for range 256 {
			a.open("GET", "/wait", true)
		}
		var many []h2.Setting
		for i := range 2000 {
			many = append(many, h2.Setting{ID: h2.SettingInitialWindowSize, Val: uint32(i)})
		}
		a.repeat(2000, func() { _ = a.WriteSettings(many...) })
	}},
	{name: "acknowledgements of SETTINGS that were not sent", ends: calm, memory: 32, run: func(a *attacker) {
		a.repeat(500_000, func() { _ = a.WriteSettingsAck() })
	}},
	{name: "PING", ends: calm, memory: 32, run: func(a *attacker) {
		a.repeat(500_000, func() { _ = a.WritePing(false, [8]byte{}) })
	}},
	{name: "PING between requests, whose answers are not read", unread: true, ends: "", memory: 64, run: func(a *attacker) {
		a.paced(50, func() { _ = a.WritePing(false, [8]byte{}); a.open("GET", "/empty", true) })
	}},
	{name: "answers to PING that was not sent", ends: calm, memory: 32, run: func(a *attacker) {
		a.repeat(500_000, func() { _ = a.WritePing(true, [8]byte{}) })
	}},
	{name: "GOAWAY without end", ends: calm, memory: 32, run: func(a *attacker) {
		a.open("GET", "/wait", true)
		a.repeat(500_000, func() { _ = a.WriteGoAway(0, h2.ErrCodeNo, nil) })
	}},
	{name: "PRIORITY", ends: calm, memory: 32, run: func(a *attacker) {
		a.repeat(500_000, func() { _ = a.WritePriority(1, h2.PriorityParam{StreamDep: 3}) })
	}},
	{name: "PRIORITY_UPDATE", ends: calm, memory: 32, run: func(a *attacker) {
		a.repeat(500_000, func() { _ = a.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1")) })
	}},
	{name: "frames of unknown types", ends: calm, memory: 32, run: func(a *attacker) {
		a.repeat(500_000, func() { _ = a.WriteRawFrame(0xbe, 0, 0, []byte("x")) })
	}},
	{name: "DATA without bytes", ends: calm, memory: 32, run: func(a *attacker) {
		id := a.open("POST", "/echo", false)
		a.repeat(500_000, func() { _ = a.WriteData(id, false, nil) })
	}},
	{name: "DATA that is but padding", ends: calm, memory: 32, run: func(a *attacker) {
		id := a.open("POST", "/echo", false)
		a.repeat(500_000, func() { _ = a.WriteDataPadded(id, false, nil, make([]byte, 4)) })
	}},
	{name: "ends of a stream that has ended", ends: calm, memory: 32, run: func(a *attacker) {
		id := a.open("G T", "/", true)
		a.repeat(500_000, func() { _ = a.WriteData(id, true, nil) })
	}},
	{name: "heads of a stream that is not wanted", ends: calm, memory: 32, run: func(a *attacker) {
		id := a.open("G T", "/", false)
		a.repeat(500_000, func() {
			_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true})
		})
	}},
	{name: "resets of streams that have ended", ends: calm, memory: 32, run: func(a *attacker) {
		id := a.open("GET", "/wait", true)
		a.repeat(500_000, func() { _ = a.WriteRSTStream(id, h2.ErrCodeCancel) })
	}},
	{name: "heads that decode to a hundred times their size", ends: calm, asked: 1, memory: 32, run: func(a *attacker) {
		large := strings.Repeat("x", 3000)
		bomb := []byte(nil)
		a.repeat(20_000, func() {
			bomb = append(bomb[:0], a.block("GET", "/", "bomb", large)...)
			bomb = append(bomb, bytes.Repeat([]byte{0x80 | 62}, 1000)...)
			_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: a.next, BlockFragment: bomb, EndStream: true, EndHeaders: true})
			a.next += 2
		})
	}},
	{name: "large responses without a window", settings: []h2.Setting{{ID: h2.SettingInitialWindowSize, Val: 0}}, memory: 100, run: func(a *attacker) {
		a.repeat(256, func() { a.open("GET", "/large", true) })
	}},
	{name: "large responses without a window of the connection", settings: []h2.Setting{{ID: h2.SettingInitialWindowSize, Val: 1 << 30}}, memory: 100, run: func(a *attacker) {
		a.repeat(256, func() { a.open("GET", "/large", true) })
	}},
	{name: "large responses that are not read", settings: []h2.Setting{{ID: h2.SettingInitialWindowSize, Val: 1 << 30}}, unread: true, memory: 100, run: func(a *attacker) {
		_ = a.WriteWindowUpdate(0, 1<<30)
		a.repeat(256, func() { a.open("GET", "/large", true) })
	}},
	{name: "large responses through windows of a byte", settings: []h2.Setting{{ID: h2.SettingInitialWindowSize, Val: 0}}, memory: 100, run: func(a *attacker) {
		a.paced(2, func() { a.open("GET", "/large", true) })
		time.Sleep(200 * time.Millisecond) // all are at the end of their window
		a.repeat(2000/heap, func() {
			for id := uint32(1); id < a.next; id += 2 {
				_ = a.WriteWindowUpdate(id, 1)
			}
		})
	}},
	{name: "large responses through a window of the connection of a byte", settings: []h2.Setting{{ID: h2.SettingInitialWindowSize, Val: 1 << 30}}, memory: 100, run: func(a *attacker) {
		a.paced(2, func() { a.open("GET", "/large", true) })
		time.Sleep(200 * time.Millisecond) // all are at the end of their window
		a.repeat(200_000, func() { _ = a.WriteWindowUpdate(0, 1) })
	}},
	{name: "uploads whose echo is not read", settings: []h2.Setting{{ID: h2.SettingInitialWindowSize, Val: 0}}, memory: 100, run: func(a *attacker) {
		for range 60 {
			a.open("POST", "/echo", false)
		}
		p := make([]byte, 16_000)
		for range 4 { // no more than the windows that streams have at first
			for id := uint32(1); id < a.next; id += 2 {
				_ = a.WriteData(id, false, p)
			}
			a.flush()
			time.Sleep(100 * time.Millisecond) // that of the connection is credited again
		}
	}},
	{name: "answers without a body that are not read", unread: true, ends: "", memory: 48, run: func(a *attacker) {
		n := 0
		a.paced(300, func() {
			n++ // each answer is another
			block := a.block("GET", "/heads", "x-n", strconv.Itoa(n))
			_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: a.next, BlockFragment: block, EndStream: true, EndHeaders: true})
			a.next += 2
		})
	}},
	{name: "windows that grow without end", memory: 32, run: func(a *attacker) {
		a.repeat(500_000, func() { _ = a.WriteWindowUpdate(0, 1) })
	}},
}

func TestAttacksCostNoMoreThanTheySendAndOthersAreServed(t *testing.T) {
	for _, out := range versions {
		for _, attack := range attacks {
			t.Run(attack.name+", to "+out.name, func(t *testing.T) {
				v := &victim{}
				r := start(t, []string{out.backend(t, v.ServeHTTP)}, timeout(0), withoutBreaker, func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol })
				other := versions[1].client(t)
				defer other.CloseIdleConnections()
				serveOther(t, other, r.addr)
				had := goroutines()
				conns := r.server.Connections()
				asked := v.asked.Load()
				used := measure()
				cpu := cpuTime()

				a := r.attack(attack.settings...)
				a.asked = v.asked.Load
				var all sync.WaitGroup
				ends := make(chan string, 1)
				if !attack.unread {
					all.Go(func() { ends <- a.ending() })
				}
				sent := make(chan struct{})
				all.Go(func() { defer close(sent); attack.run(a) })
				others := int64(0)
				stop := time.After(4 * patience)
				for over := false; !over; {
					serveOther(t, other, r.addr)
					others += 2
					select {
					case <-sent:
						over = others >= 20
					case <-stop:
						over = true
					case <-time.After(5 * time.Millisecond): // it need not compete for the processors
					}
				}
				if attack.ends != "" {
					if got := <-ends; got != attack.ends {
						t.Errorf("the connection ended with %s, not %s", got, attack.ends)
					}
				} else {
					select {
					case got := <-ends:
						t.Errorf("the connection ended with %s", got)
					default:
					}
				}
				used.end()
				t.Logf("%d requests of others, %d MB, %d goroutines, %d ms of CPU, %d requests reached the instance",
					others, used.memory>>20, used.goroutines, (cpuTime() - cpu).Milliseconds(), v.asked.Load()-asked-others)
				if used.memory > heap*attack.memory<<20 {
					t.Errorf("%d MB were used, more than %d", used.memory>>20, attack.memory)
				}
				if used.goroutines > 2000 {
					t.Errorf("%d goroutines", used.goroutines)
				}
				if n := v.asked.Load() - asked - others; attack.asked > 0 && n > attack.asked {
					t.Errorf("%d requests reached the instance, more than %d", n, attack.asked)
				}
				_ = a.nc.Close()
				all.Wait()
				nothingLeft(t, r, conns, had)
				serveOther(t, other, r.addr)
			})
		}
	}
}

// serveOther sends two requests and wants their answers.
func serveOther(t *testing.T, c *http.Client, addr string) {
	t.Helper()
	for _, body := range []string{"", strings.Repeat("hello", 4000)} {
		a, err := c.Post("http://"+addr+"/echo", "", strings.NewReader(body))
		if err != nil {
			t.Fatalf("another client: %v", err)
		}
		got, err := io.ReadAll(a.Body)
		_ = a.Body.Close()
		if err != nil || a.StatusCode != http.StatusOK || string(got) != body {
			t.Fatalf("another client: %d %s, %d bytes, %v", a.StatusCode, a.Header.Get("Fairlead-Reason"), len(got), err)
		}
	}
}

// nothingLeft waits until no request is under way, and there are no more connections and
// goroutines than before.
func nothingLeft(t *testing.T, r *rig, conns, had int) {
	t.Helper()
	inFlight(t, map[string]float64{"c": 0}, r.counts)
	const spare = 40 // goroutines that wait for work, and connections to the instance
	end := time.Now().Add(patience)
	for r.server.Connections() > conns || goroutines() > had+spare {
		if time.Now().After(end) {
			t.Fatalf("%d connections of %d are left, %d goroutines of %d", r.server.Connections(), conns, goroutines(), had)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// goroutines returns how many the proxy has.
func goroutines() int {
	stacks := make([]byte, 4<<20)
	n := 0
	for stack := range bytes.SplitSeq(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
		if bytes.Contains(stack, []byte("/pkg/proxy.")) || bytes.Contains(stack, []byte("/pkg/proxy/")) && !bytes.Contains(stack, []byte("_x_test.go")) {
			n++
		}
	}
	return n
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
