package conformance_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1/http1test"
)

var update = flag.Bool("update", false, "write the verdicts of testdata/smuggling anew")

// The corpus lies in testdata/smuggling, in the form of http1test's tables: h1-*.txt are bytes,
// h2-*.txt are fields and frames (see framesOf). "<each 00-1f,7f>" is each of these bytes, one
// at a time. The verdict has a line for each answer that the client got: what the origin
// says that the request was, "refused" and a status, or "canary"; for HTTP/2 how its stream
// ended otherwise. What becomes of other bytes follows "or". A verdict may differ with the
// road, whose name then is before it. In h2-late.txt, each line is all that may come.

// canary is the request behind an attack, on the same connection. What an attack may do at
// most is to be refused, together with what is behind it.
const canary = "GET /canary HTTP/1.1\r\nHost: canary\r\nConnection: close\r\n\r\n"

const canaryEcho = `GET /canary of canary, ""`

// each is "<each 00-1f,7f>".
var each = regexp.MustCompile(`<each ([0-9a-f,-]+)>`)

// variants returns the lines with each of the bytes that they name.
func variants(lines []string) [][]string {
	var bytes []string
	for _, line := range lines {
		if m := each.FindStringSubmatch(line); m != nil {
			bytes = strings.Split(m[1], ",")
		}
	}
	if bytes == nil {
		return [][]string{lines}
	}
	var all [][]string
	for _, span := range bytes {
		from, to, found := strings.Cut(span, "-")
		if !found {
			to = from
		}
		a, _ := strconv.ParseUint(from, 16, 8)
		b, _ := strconv.ParseUint(to, 16, 8)
		for c := a; c <= b; c++ {
			one := slices.Clone(lines)
			for i := range one {
				one[i] = each.ReplaceAllLiteralString(one[i], string([]byte{byte(c)}))
			}
			all = append(all, one)
		}
	}
	return all
}

// tally counts the lines of an access log.
type tally struct {
	mu       sync.Mutex
	answered int // with 200, which only the origin says
	all      int
	part     []byte
}

func (l *tally) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.all++
		if bytes.Contains(line, []byte(`,"status":200,`)) {
			l.answered++
		}
		l.part = append([]byte(nil), rest...)
	}
}

func (l *tally) counts() (answered, all int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered, l.all
}

// road is what lies between a client and the origin.
type road struct {
	name   string
	port   int
	origin *origin
	sides  []side
	logs   []*tally

	unanswered int // requests that the origin saw, whose client broke the rules behind them
}

// roads returns the two roads: one sidecar, and two, between which there is HTTP/2.
func roads(t *testing.T, bin string) []*road {
	t.Helper()
	one := &road{name: "one sidecar", origin: newOrigin(t)}
	one.add(t, bin, "", one.origin.port)
	two := &road{name: "two sidecars", origin: newOrigin(t)}
	two.add(t, bin, "", two.origin.port)
	two.add(t, bin, overHTTP2, two.port)
	return []*road{one, two}
}

// add puts a sidecar at the client's end of a road.
func (r *road) add(t *testing.T, bin, protocol string, to int) {
	t.Helper()
	s := side{freeport.For(t), freeport.For(t)}
	path := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, bootstrap, s.admin, s.port, "", protocol, to), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &tally{}
	runTo(t, log, filepath.Join(bin, "sidecar"), "--bootstrap", path, "--drain-timeout", "1s", "--access-log", "json")
	await(t, s.port)
	r.port, r.sides, r.logs = s.port, append(r.sides, s), append(r.logs, log)
}

func (r *road) dial(t *testing.T) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return nc
}

// passing is how a client's bytes are cut: at which places, whether it waits there, and whether
// the canary waits.
type passing struct {
	cuts  []int
	pause time.Duration
	later bool // the canary comes after a pause
}

// send writes pieces; that the other side has had enough meanwhile is no error.
func (p passing) send(nc net.Conn, attack, behind []byte) {
	whole := append(slices.Clone(attack), behind...)
	cuts := slices.Clone(p.cuts)
	if p.later {
		cuts = append(cuts, len(attack))
	}
	cuts = append(cuts, len(whole))
	from := 0
	for _, to := range cuts {
		if to < from {
			continue
		}
		if _, err := nc.Write(whole[from:to]); err != nil {
			return
		}
		if from = to; from < len(whole) && (p.pause > 0 || p.later) {
			time.Sleep(p.pause + time.Millisecond)
		}
	}
}

// passings returns the ways in which n bytes are sent: at once, byte by byte, with the canary
// behind a pause, and cut at some places.
func passings(n int) []passing {
	single := passing{}
	for i := max(1, n-2000); i < n; i++ {
		single.cuts = append(single.cuts, i)
	}
	all := []passing{{}, single, {later: true}}
	for _, share := range []int{4, 2, 1} {
		all = append(all, passing{cuts: []int{n * share / 5}, pause: time.Millisecond})
	}
	return all
}

// overHTTP1 sends an attack and the canary, and returns the answers.
func (r *road) overHTTP1(t *testing.T, attack []byte, p passing) []string {
	t.Helper()
	nc := r.dial(t)
	defer func() { _ = nc.Close() }()
	go p.send(nc, attack, []byte(canary))
	var verdict []string
	method, _, _ := strings.Cut(string(attack), " ")
	for in := bufio.NewReader(nc); ; method = "GET" {
		a, err := http.ReadResponse(in, &http.Request{Method: method})
		for err == nil && a.StatusCode < 200 {
			a, err = http.ReadResponse(in, &http.Request{Method: method})
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return append(verdict, "nothing more comes")
		}
		if err != nil {
			return verdict // of the connection
		}
		body, err := io.ReadAll(a.Body)
		_ = a.Body.Close()
		verdict = append(verdict, verdictOn(t, a.StatusCode, a.Header.Get("Echo"), string(body), err, method))
	}
}

// verdictOn returns the line about an answer.
func verdictOn(t *testing.T, status int, echo, body string, err error, method string) string {
	t.Helper()
	switch {
	case status != http.StatusOK:
		return fmt.Sprintf("refused %d", status)
	case err != nil || body != echo && method != "HEAD":
		t.Errorf("the answer to %s has the body %q, %v", echo, body, err)
	case echo == canaryEcho:
		return "canary"
	}
	return echo
}

// framesOf returns the frames that the lines of a request say, on stream 1. "name = value" is a field;
// "GET /path" stands for the pseudo-header fields of a request to a; "DATA", with what is behind
// it, is a frame, and fields behind one are trailers. The last frame ends the stream.
func framesOf(t *testing.T, lines []string) []byte {
	t.Helper()
	var out, block bytes.Buffer
	f := h2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	fields := hpack.NewEncoder(&block)
	_ = f.WriteSettings()
	_ = f.WriteSettingsAck()
	heads := func(end bool) {
		if block.Len() > 0 {
			_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
			block.Reset()
		}
	}
	for i, line := range lines {
		end := i == len(lines)-1
		data, isData := strings.CutPrefix(line, "DATA")
		name, value, isField := strings.Cut(line, " = ")
		method, path, isRequest := strings.Cut(line, " ")
		switch {
		case isData:
			heads(false)
			_ = f.WriteData(1, end, []byte(strings.TrimPrefix(data, " ")))
			continue
		case isField:
			_ = fields.WriteField(hpack.HeaderField{Name: name, Value: value})
		case isRequest:
			for _, f := range []hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a"}, {Name: ":path", Value: path}} {
				_ = fields.WriteField(f)
			}
		default:
			t.Fatalf("%q is neither a field nor a frame", line)
		}
		if end {
			heads(true)
		}
	}
	// The canary, whose fields are in the same table.
	for _, name := range []string{":method=GET", ":scheme=http", ":authority=canary", ":path=/canary"} {
		name, value, _ := strings.Cut(name, "=")
		_ = fields.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: 3, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	return out.Bytes()
}

// stream is what came of one.
type stream struct {
	status     int
	echo, body string
	ended      string
}

// overHTTP2 sends the frames of an attack and of the canary, and returns what became of both streams.
func (r *road) overHTTP2(t *testing.T, frames []byte, p passing) []string {
	t.Helper()
	nc := r.dial(t)
	defer func() { _ = nc.Close() }()
	go p.send(nc, append([]byte(h2.ClientPreface), frames...), nil)
	streams := map[uint32]*stream{1: {}, 3: {}}
	f := h2.NewFramer(io.Discard, nc)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	verdict := []string{}
	for streams[1].ended == "" || streams[3].ended == "" {
		frame, err := f.ReadFrame()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return append(verdict, "nothing more comes")
		}
		if err != nil {
			break
		}
		s := streams[frame.Header().StreamID]
		switch frame := frame.(type) {
		case *h2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				switch field.Name {
				case ":status":
					s.status, _ = strconv.Atoi(field.Value)
				case "echo":
					s.echo = field.Value
				}
			}
			if frame.StreamEnded() {
				s.ended = "whole"
			}
		case *h2.DataFrame:
			s.body += string(frame.Data())
			if frame.StreamEnded() {
				s.ended = "whole"
			}
		case *h2.RSTStreamFrame:
			if s.ended == "" {
				s.ended = "reset " + frame.ErrCode.String()
			}
		case *h2.GoAwayFrame:
			if frame.ErrCode != h2.ErrCodeNo {
				return append(verdict, "the connection ends: "+frame.ErrCode.String())
			}
		}
	}
	for _, id := range []uint32{1, 3} {
		switch s := streams[id]; s.ended {
		case "whole":
			method := "GET"
			if strings.HasPrefix(s.echo, "HEAD ") {
				method = "HEAD"
			}
			verdict = append(verdict, verdictOn(t, s.status, s.echo, s.body, nil, method))
		case "":
			verdict = append(verdict, "the connection ends")
		default:
			verdict = append(verdict, s.ended)
		}
	}
	return verdict
}

// ask sends a request of another client and wants its own answer.
func (r *road) ask(t *testing.T, c *http.Client, n int) {
	t.Helper()
	want := fmt.Sprintf(`GET /other-%d of other, ""`, n)
	q, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d/other-%d", r.port, n), nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = "other"
	a, err := c.Do(q)
	if err != nil {
		t.Fatalf("another client: %v", err)
	}
	body, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	if string(body) != want || err != nil {
		t.Errorf("another client was answered %d %q, %v, not %q", a.StatusCode, body, err, want)
	}
}

// TestSmuggling sends a corpus of attacks through sidecars, whole and cut, each with a canary
// behind it and another client's request after it. Whatever the verdict: the origin, which is
// strict, has no fault to find, it saw the requests that the client was answered and no
// others, in this order, and as many as the sidecars counted.
func TestSmuggling(t *testing.T) {
	wanted(t)
	paths, err := filepath.Glob("testdata/smuggling/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	all := roads(t, build(t, "./cmd/sidecar"))
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			rows := http1test.Read(t, path)
			attacks, sent := 0, 0
			name := filepath.Base(path)
			overHTTP2, late := strings.HasPrefix(name, "h2-"), name == "h2-late.txt"
			for i := range rows {
				var verdicts [][]string
				attacks += len(variants(rows[i].Lines))
				for _, r := range all {
					verdict, n := r.row(t, &rows[i], overHTTP2, late)
					verdicts = append(verdicts, verdict)
					sent += n
				}
				got := verdicts[0]
				if !slices.Equal(verdicts[0], verdicts[1]) {
					got = nil
					for j, v := range verdicts {
						for _, line := range v {
							got = append(got, all[j].name+": "+line)
						}
					}
				}
				if late {
					continue // it depends on what comes first
				}
				if *update {
					rows[i].Verdict = got
				} else if !slices.Equal(got, rows[i].Verdict) {
					t.Errorf("%s: %q, not %q", rows[i].Name, got, rows[i].Verdict)
				}
			}
			if *update {
				http1test.Write(t, path, rows)
			}
			t.Logf("%d rows, %d attacks, sent %d times", len(rows), attacks, sent)
		})
	}
	for _, r := range all {
		r.count(t)
	}
}

// row sends all variants of a row, one that is alone in all ways, and returns what comes of
// them, and how many were sent.
func (r *road) row(t *testing.T, row *http1test.Row, overHTTP2, late bool) (verdict []string, sent int) {
	t.Helper()
	other := &http.Client{Transport: &http.Transport{}, Timeout: 20 * time.Second}
	defer other.CloseIdleConnections()
	forms, first := variants(row.Lines), ""
	for i, lines := range forms {
		attack := []byte(strings.Join(lines, ""))
		if overHTTP2 {
			attack = framesOf(t, lines)
		}
		ways := passings(len(attack))
		if len(forms) > 1 {
			ways = ways[i%2 : i%2+1]
		}
		for _, p := range ways {
			got := r.once(t, row.Name, attack, overHTTP2, late, p, other, sent)
			sent++
			if whole := strings.Join(got, ", then "); late && !slices.Contains(row.Verdict, whole) {
				t.Errorf("%s, %s, %q: %q, none of %q", r.name, row.Name, attack, whole, row.Verdict)
			}
			if late {
				continue
			}
			// A connection may end behind an answer that came before the body (RFC 9112 §9.6).
			if mayEnd := strings.Contains(row.Raw, "/early") || strings.Contains(row.Raw, "Expect:"); mayEnd {
				got = slices.DeleteFunc(got, func(s string) bool { return s == "canary" })
			}
			switch whole := strings.Join(got, ", then "); {
			case sent == 1:
				verdict, first = got, whole
			case whole == first:
			case len(forms) > 1:
				// What becomes of some of the bytes is not what becomes of others.
				if !slices.Contains(verdict, "or "+whole) {
					verdict = append(verdict, "or "+whole)
				}
			default:
				t.Errorf("%s, %s, %q in parts %v: %q, not %q", r.name, row.Name, attack, p.cuts[:min(4, len(p.cuts))], got, verdict)
			}
		}
	}
	return verdict, sent
}

// once sends an attack, and then another client's request, compares what was answered with what
// the origin saw, and returns it.
func (r *road) once(t *testing.T, name string, attack []byte, overHTTP2, late bool, p passing, other *http.Client, n int) []string {
	t.Helper()
	before := r.origin.count()
	var got []string
	if overHTTP2 {
		got = r.overHTTP2(t, attack, p)
	} else {
		got = r.overHTTP1(t, attack, p)
	}
	r.ask(t, other, n)
	seen, faults := r.origin.since(before)
	if len(faults) > 0 {
		t.Fatalf("%s, %s, %q: the origin finds fault: %q", r.name, name, attack, faults)
	}
	answered := []string{fmt.Sprintf(`GET /other-%d of other, ""`, n)}
	for _, s := range slices.Backward(got) {
		switch {
		case s == "canary":
			answered = append(answered, canaryEcho)
		case strings.Contains(s, " of "):
			answered = append(answered, s)
		}
	}
	slices.Reverse(answered)
	if overHTTP2 { // whose streams have no order
		slices.Sort(seen)
		slices.Sort(answered)
	}
	// A host that was asked to switch, over HTTP/2, and answers the request instead: that has no form there,
	// so the client is refused.
	switches := strings.Contains(name, "Upgrade") || strings.Contains(name, "WebSocket") || strings.HasPrefix(name, "extended CONNECT")
	withheld := func(request string) bool {
		return switches && slices.Contains(got, "refused 501") && request == `GET / of a, ""`
	}
	if i := slices.Index(seen, lastOf(seen, answered)); i >= 0 && (late && !strings.Contains(seen[i], "/smuggled") || withheld(seen[i])) {
		seen = slices.Delete(slices.Clone(seen), i, i+1)
		r.unanswered++
	}
	if !slices.Equal(seen, answered) {
		t.Errorf("%s, %s, %q: the origin saw\n%q, answered was\n%q", r.name, name, attack, seen, answered)
	}
	return got
}

// lastOf returns the last of all that is not among others, "" if there is none.
func lastOf(all, others []string) string {
	last := ""
	for _, s := range all {
		if !slices.Contains(others, s) {
			last = s
		}
	}
	return last
}

// count compares what the origin saw with what the sidecars say of it in logs and metrics.
func (r *road) count(t *testing.T) {
	t.Helper()
	seen := r.origin.count()
	for i, log := range r.logs {
		answered, all := log.counts()
		for end := time.Now().Add(10 * time.Second); answered < seen-r.unanswered && time.Now().Before(end); answered, all = log.counts() {
			time.Sleep(10 * time.Millisecond)
		}
		counted := 0.0
		for _, line := range r.sides[i].metrics(t, "fairlead_requests_total") {
			if strings.Contains(line, `="2xx"`) || strings.Contains(line, `="200"`) {
				n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
				if err != nil {
					t.Fatal(err)
				}
				counted += n
			}
		}
		if answered > seen || answered < seen-r.unanswered || int(counted) != answered {
			t.Errorf("%s: the origin saw %d requests, the log of sidecar %d says %d, its metrics %v", r.name, seen, i, answered, counted)
		}
		t.Logf("%s: sidecar %d logged %d requests, %d of them answered by the origin; its metrics say %v", r.name, i, all, answered, counted)
	}
	t.Logf("%s: the origin saw %d requests, and %d that were broken off, over %d connections", r.name, seen, r.origin.broken, r.origin.conns)
}
