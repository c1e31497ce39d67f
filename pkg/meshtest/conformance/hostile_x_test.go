package conformance_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attackPath is what the hostile host answers with the lines of a row, heldPath what it answers
// only behind them. All else it answers as it should, with what it was asked.
const (
	attackPath = "/attack"
	heldPath   = "/held"
)

// hostile is a host of either version of HTTP that answers requests for attackPath with whatever it is
// armed with.
type hostile struct {
	port     int
	version2 bool

	mu      sync.Mutex
	idle    sync.Cond // no answer is being written
	busy    int
	attack  attack
	arrived chan struct{} // nil: nobody waits for the attack; else it is closed when a request does
	held    func()        // what answers that
	faults  []string      // what no proxy should send
}

// attack is an answer, and how it is written.
type attack struct {
	lines []string // bytes of HTTP/1.1, or fields and frames (see h2Host.frames)
	most  int      // how many bytes of it come; negative: all
	ends  bool     // the connection ends behind it
	p     passing
}

func newHostile(t *testing.T, version2 bool) *hostile {
	t.Helper()
	o := &hostile{version2: version2}
	o.idle.L = &o.mu
	o.port = serving(t, func(nc net.Conn) {
		if version2 {
			newH2Host(o, nc).serve()
		} else {
			o.serve(nc)
		}
	})
	return o
}

// arm sets what is answered from now on. With hold, the next request for heldPath waits for it, and the
// channel is closed when it has come.
func (o *hostile) arm(a attack, hold bool) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.attack, o.arrived, o.held = a, nil, nil
	if hold {
		o.arrived = make(chan struct{})
	}
	return o.arrived
}

// hold keeps an answer until the attack. It reports whether that is to come.
func (o *hostile) hold(answer func()) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.arrived == nil || o.held != nil {
		return false
	}
	o.held = answer
	close(o.arrived)
	return true
}

// release returns the answer that was held, and holds none any more.
func (o *hostile) release() func() {
	o.mu.Lock()
	defer o.mu.Unlock()
	held := o.held
	o.held, o.arrived = nil, nil
	return held
}

// quiet waits until nothing is being written, and returns the faults that were found.
func (o *hostile) quiet() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.busy > 0 {
		o.idle.Wait()
	}
	return o.faults
}

// write writes an answer. It reports whether the connection goes on.
func (o *hostile) write(nc net.Conn, b []byte, a attack) bool {
	if a.most >= 0 {
		b = b[:min(a.most, len(b))]
	}
	a.p.cuts = slices.DeleteFunc(slices.Clone(a.p.cuts), func(at int) bool { return at >= len(b) })
	a.p.send(nc, b, nil)
	return !a.ends
}

// begin notes that an answer to a request is being written, and returns the attack.
func (o *hostile) begin() attack {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.busy++
	return o.attack
}

func (o *hostile) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy--; o.busy == 0 {
		o.idle.Broadcast()
	}
}

// serve speaks HTTP/1.1.
func (o *hostile) serve(nc net.Conn) {
	in := bufio.NewReader(nc)
	for {
		q, err := strictHead(in)
		if err == nil {
			q.body, err = strictBody(in, q)
		}
		if err == io.EOF || err == errBroken { //nolint:errorlint // as they were returned
			return
		}
		if err != nil {
			o.mu.Lock()
			o.faults = append(o.faults, err.Error())
			o.mu.Unlock()
			return
		}
		a := o.begin()
		var goesOn bool
		if q.target == attackPath {
			goesOn = o.write(nc, []byte(strings.Join(a.lines, "")), a)
		} else {
			echo := q.String()
			_, err := fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nEcho: %s\r\nContent-Length: %d\r\n\r\n%s", echo, len(echo), echo)
			goesOn = err == nil
		}
		if !goesOn {
			_ = nc.Close() // before anybody learns that all is written
		}
		o.end()
		if !goesOn {
			return
		}
	}
}

// h2Host is a connection of a host that speaks HTTP/2.
type h2Host struct {
	*hostile
	nc net.Conn

	mu      sync.Mutex // guards what follows
	out     bytes.Buffer
	block   bytes.Buffer
	framer  *h2.Framer // to out
	encoder *hpack.Encoder
}

func newH2Host(o *hostile, nc net.Conn) *h2Host {
	c := &h2Host{hostile: o, nc: nc}
	c.framer = h2.NewFramer(&c.out, nil)
	c.framer.AllowIllegalWrites = true
	c.encoder = hpack.NewEncoder(&c.block)
	return c
}

// serve reads requests, which have no bodies, and answers them.
func (c *h2Host) serve() {
	preface := make([]byte, len(h2.ClientPreface))
	if _, err := io.ReadFull(c.nc, preface); err != nil || string(preface) != h2.ClientPreface {
		return
	}
	in := h2.NewFramer(io.Discard, c.nc)
	in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = c.framer.WriteSettings(h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1})
	c.flush()
	for {
		frame, err := in.ReadFrame()
		if err != nil {
			return
		}
		goesOn := true
		switch frame := frame.(type) {
		case *h2.SettingsFrame:
			if !frame.IsAck() {
				c.mu.Lock()
				_ = c.framer.WriteSettingsAck()
				c.mu.Unlock()
				c.flush()
			}
		case *h2.PingFrame:
			if !frame.IsAck() {
				c.mu.Lock()
				_ = c.framer.WritePing(true, frame.Data)
				c.mu.Unlock()
				c.flush()
			}
		case *h2.GoAwayFrame:
			goesOn = frame.ErrCode == h2.ErrCodeNo
		case *h2.MetaHeadersFrame:
			goesOn = c.answer(frame)
		}
		if !goesOn {
			return
		}
	}
}

// flush writes what lies in out.
func (c *h2Host) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.nc.Write(c.out.Bytes())
	c.out.Reset()
}

// answer answers a request, and reports whether the connection goes on.
func (c *h2Host) answer(q *h2.MetaHeadersFrame) bool {
	id, path := q.StreamID, q.PseudoValue("path")
	a := c.begin()
	defer c.end()
	honest := func() {
		echo := fmt.Sprintf(`%s %s of %s, ""`, q.PseudoValue("method"), path, q.PseudoValue("authority"))
		b := c.frames([]string{":status = 200", "echo = " + echo, "HEADERS", "DATA+END " + echo}, id)
		c.mu.Lock()
		defer c.mu.Unlock()
		_, _ = c.nc.Write(b)
	}
	switch path {
	case attackPath:
		b := c.frames(a.lines, id)
		held := c.release() // before: what breaks the connection may send it here again
		c.mu.Lock()
		goesOn := c.write(c.nc, b, a)
		if !goesOn {
			_ = c.nc.Close()
		}
		c.mu.Unlock()
		if held != nil {
			held()
		}
		return goesOn
	case heldPath:
		if c.hold(honest) {
			return true
		}
	}
	honest()
	return true
}

// frames returns the frames that lines say, for a stream: "name = value" is a field of the next
// "HEADERS", "DATA" is a frame with what is behind it, and either may have "+END" for END_STREAM;
// "FRAME type flags stream payload" is any frame, with type and flags in hexadecimal and the stream as
// a number, or "this" with what is added to it; "<this>" in the payload is the stream's number. "BYTES" is what
// is behind it, and "TIMES 3 FRAME …" three of a frame.
func (c *h2Host) frames(lines []string, id uint32) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, line := range lines {
		times := 1
		if many, ok := strings.CutPrefix(line, "TIMES "); ok {
			many, line, _ = strings.Cut(many, " ")
			times, _ = strconv.Atoi(many)
		}
		name, value, isField := strings.Cut(line, " = ")
		verb, rest, _ := strings.Cut(line, " ")
		verb, isLast := strings.CutSuffix(verb, "+END")
		switch {
		case verb == "FRAME":
			parts := strings.SplitN(rest, " ", 4)
			kind, _ := strconv.ParseUint(parts[0], 16, 8)
			flags, _ := strconv.ParseUint(parts[1], 16, 8)
			added, ofThis := strings.CutPrefix(parts[2], "this")
			n, _ := strconv.Atoi(added)
			if ofThis {
				n += int(id)
			}
			payload := strings.ReplaceAll(parts[3], "<this>", string(binary.BigEndian.AppendUint32(nil, id)))
			for range times {
				_ = c.framer.WriteRawFrame(h2.FrameType(kind), h2.Flags(flags), uint32(n), []byte(payload))
			}
		case verb == "BYTES":
			c.out.WriteString(rest)
		case verb == "HEADERS" && !isField:
			_ = c.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: isLast})
			c.block.Reset()
		case verb == "DATA" && !isField:
			_ = c.framer.WriteData(id, isLast, []byte(rest))
		case isField:
			_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
		}
	}
	b := slices.Clone(c.out.Bytes())
	c.out.Reset()
	return b
}
