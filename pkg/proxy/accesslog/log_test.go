package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fullEntry() Entry {
	return Entry{
		Start:            time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.FixedZone("", 3600)),
		Duration:         12345678 * time.Nanosecond,
		UpstreamDuration: 11 * time.Millisecond,
		Method:           []byte("GET"), Path: []byte("/orders?id=1"), Authority: []byte("orders.default"),
		UserAgent: []byte("curl/8.5"), Protocol: "HTTP/1.1", Source: "client.default", Destination: "orders.default", Route: "canary",
		GRPCStatus: "UNAVAILABLE", Reason: "upstream_reset", Sentence: "The instance closed the connection before it answered.",
		Instance: "a1", Upstream: netip.MustParseAddrPort("127.0.0.1:9000"),
		Status: 503, Retries: 1, BytesIn: 12, BytesOut: 345,
		TraceID: [16]byte{0x4b, 0xf9, 15: 0x36}, Sampled: true,
	}
}

func TestLinesMatchGoldenFiles(t *testing.T) {
	hostile := fullEntry()
	hostile.Path = []byte("/a\nGET /forged \"200\"\x1b[31m\x00\xff\u2028\u0085é\\")
	hostile.UserAgent = []byte("x\" injected=\"y\r\n")
	hostile.Upstream = netip.MustParseAddrPort(`[fe80::1%"z"]:80`)
	long := fullEntry()
	long.Path = []byte("/" + strings.Repeat("é", MaxPath))
	long.Method = bytes.Repeat([]byte("M"), MaxMethod+1)
	relayed := Entry{
		Start: time.Unix(0, 0), Duration: time.Hour, UpstreamDuration: time.Millisecond, Protocol: "TCP", Authority: []byte("db.example.com"),
		Source: "edge", Destination: "db", Client: netip.MustParseAddrPort("192.0.2.1:50000"), Upstream: netip.MustParseAddrPort("127.0.0.1:5432"),
		BytesIn: 1, BytesOut: 2,
	}
	entries := []Entry{fullEntry(), {Start: time.Unix(0, 0), Method: []byte("GET")}, hostile, long, relayed}
	for name, format := range map[string]func([]byte, *record) []byte{"json": appendJSON, "text": appendText} {
		t.Run(name, func(t *testing.T) {
			var got []byte
			for i := range entries {
				var r record
				r.set(&entries[i])
				got = format(got, &r)
			}
			golden(t, "lines."+name, got)
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs\n got:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestWhatIsTooLongIsCutAtItsBoundAndAtACharacter(t *testing.T) {
	var r record
	r.set(&Entry{
		Method:    []byte(strings.Repeat("M", MaxMethod)),
		Path:      []byte("/" + strings.Repeat("é", MaxPath)),
		Authority: []byte(strings.Repeat("a", 1<<16)),
		UserAgent: []byte(strings.Repeat("\xff", 1<<16)),
	})
	if r.cut.method || len(r.entry.Method) != MaxMethod {
		t.Error("a method at the bound was cut")
	}
	if !r.cut.path || len(r.entry.Path) != MaxPath-1 {
		t.Errorf("path cut to %d bytes, want %d: one less than the bound, for é takes two", len(r.entry.Path), MaxPath-1)
	}
	if !r.cut.authority || len(r.entry.Authority) != MaxAuthority {
		t.Errorf("authority cut to %d bytes", len(r.entry.Authority))
	}
	if !r.cut.userAgent || len(r.entry.UserAgent) != MaxUserAgent {
		t.Errorf("user agent cut to %d bytes", len(r.entry.UserAgent))
	}
}

func TestRecordCopiesSoTheReadBufferMayChange(t *testing.T) {
	var out bytes.Buffer
	l := newLog(t, Config{}, &out)
	path := []byte("/before")
	l.Record(&Entry{Path: path})
	copy(path, "/after!")
	closeLog(t, l)
	if !strings.Contains(out.String(), `"/before"`) {
		t.Fatalf("got %s", out.String())
	}
}

func TestEveryEntryIsWrittenOnceInOrderPerProducer(t *testing.T) {
	const producers, each = 8, 2000
	var out bytes.Buffer
	l := newLog(t, Config{Slots: 64}, &out)
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			source := strconv.Itoa(p)
			for i := range each {
				l.Record(&Entry{Source: source, Status: i})
			}
		})
	}
	wg.Wait()
	closeLog(t, l)
	lines := 0
	last := map[string]int{}
	for line := range strings.Lines(out.String()) {
		var e struct {
			Source string
			Status int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if previous, seen := last[e.Source]; seen && e.Status <= previous {
			t.Fatalf("producer %s: %d after %d", e.Source, e.Status, previous)
		}
		last[e.Source] = e.Status
		lines++
	}
	if uint64(lines) != l.Written() || l.Written()+l.Dropped() != producers*each {
		t.Fatalf("lines %d, written %d, dropped %d of %d", lines, l.Written(), l.Dropped(), producers*each)
	}
}

// gate is a writer that blocks until it is opened.
type gate struct {
	entered chan struct{}
	open    chan struct{}
	once    sync.Once
	out     bytes.Buffer
}

func newGate() *gate { return &gate{entered: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) Write(b []byte) (int, error) {
	g.once.Do(func() { close(g.entered) })
	<-g.open
	return g.out.Write(b)
}

func TestFullRingDropsAndCountsAndNeverBlocks(t *testing.T) {
	g := newGate()
	l := newLog(t, Config{Slots: 4}, g)
	l.Record(&Entry{})
	<-g.entered // the first entry's slot is free again
	for range 10 {
		l.Record(&Entry{})
	}
	if got := l.Dropped(); got != 6 {
		t.Errorf("dropped %d, want 6", got)
	}
	close(g.open)
	closeLog(t, l)
	if got := strings.Count(g.out.String(), "\n"); got != 5 {
		t.Errorf("%d lines, want 5", got)
	}
}

func TestCloseIsBoundedByItsContextWhenTheWriterBlocks(t *testing.T) {
	g := newGate()
	l := newLog(t, Config{}, g)
	l.Record(&Entry{})
	<-g.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Close(ctx); !errors.Is(err, ErrNotDrained) {
		t.Errorf("got %v", err)
	}
	close(g.open)
	<-l.done
	l.Record(&Entry{})
	if l.Written() != 1 || l.Dropped() != 1 {
		t.Errorf("written %d, dropped %d, want 1 and 1: an entry after Close is dropped", l.Written(), l.Dropped())
	}
}

type faultyWriter struct{ err error }

func (f *faultyWriter) Write(b []byte) (int, error) { return len(b), f.err }

func TestFailedWritesAreCountedAndReportedOnce(t *testing.T) {
	var log bytes.Buffer
	l := newLog(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, &faultyWriter{errors.New("disk full")})
	for want := uint64(1); want <= 3; want++ {
		l.Record(&Entry{})
		waitFor(t, func() bool { return l.Dropped() == want })
	}
	closeLog(t, l)
	if got := strings.Count(log.String(), "disk full"); got != 1 {
		t.Errorf("reported %d times:\n%s", got, log.String())
	}
}

func TestIdleLogIsFlushed(t *testing.T) {
	var out bytes.Buffer
	l := newLog(t, Config{Format: Text}, &out)
	for want := uint64(1); want <= 3; want++ {
		l.Record(&Entry{})
		waitFor(t, func() bool { return l.Written() == want })
		waitFor(t, func() bool { return l.state.Load() == sleeping })
	}
	closeLog(t, l)
}

func TestConfigIsValidated(t *testing.T) {
	for _, slots := range []int{-1, MaxSlots + 1} {
		if _, err := New(Config{Slots: slots}, &bytes.Buffer{}); err == nil {
			t.Errorf("%d slots accepted", slots)
		}
	}
	for name, want := range map[string]Format{"json": JSON, "text": Text} {
		if got, err := ParseFormat(name); err != nil || got != want {
			t.Errorf("ParseFormat(%q) = %v, %v", name, got, err)
		}
	}
	if _, err := ParseFormat("xml"); err == nil {
		t.Error("xml accepted")
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	var sink faultyWriter
	l := newLog(t, Config{}, &sink)
	e := fullEntry()
	if n := testing.AllocsPerRun(5000, func() { l.Record(&e) }); n != 0 {
		t.Errorf("Record allocates %v times", n)
	}
	closeLog(t, l)
}

func TestEncodingDoesNotAllocate(t *testing.T) {
	e := fullEntry()
	e.Path = []byte("/é\xff\n")
	var r record
	r.set(&e)
	buffer := make([]byte, 0, maxLine)
	for name, format := range map[string]func([]byte, *record) []byte{"json": appendJSON, "text": appendText} {
		if n := testing.AllocsPerRun(100, func() { buffer = format(buffer[:0], &r) }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestASlotIsAsLargeAsTheDocsSay(t *testing.T) {
	if size := unsafe.Sizeof(slot{}); size > 1424 {
		t.Errorf("a slot takes %d bytes", size)
	}
}

func newLog(t testing.TB, c Config, out interface{ Write([]byte) (int, error) }) *Log {
	t.Helper()
	l, err := New(c, out)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		time.Sleep(time.Millisecond)
	}
}

func FuzzLinesStayOneValidLine(f *testing.F) {
	f.Add([]byte("/"), []byte("GET"), "plain")
	f.Add([]byte("/\xff\xc3\"\\\n"), []byte("G\r\nT"), "\u2028\u0000\x7f\u009b31m")
	f.Add(bytes.Repeat([]byte("é"), 600), bytes.Repeat([]byte{0xf0}, 200), "")
	f.Fuzz(func(t *testing.T, path, method []byte, text string) {
		e := Entry{Path: path, Method: method, Authority: path, UserAgent: method,
			Source: text, Reason: text, Sentence: text, Instance: text}
		var r record
		r.set(&e)
		line := appendJSON(nil, &r)
		var decoded struct{ Path, Detail string }
		if err := json.Unmarshal(line, &decoded); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if want := strings.ToValidUTF8(text, "\ufffd"); !sameText(decoded.Detail, text) {
			t.Fatalf("detail %q, want %q", decoded.Detail, want)
		}
		if !r.cut.path && !sameText(decoded.Path, string(path)) {
			t.Fatalf("path %q, want %q", decoded.Path, path)
		}
		expectOneCleanLine(t, line)
		expectOneCleanLine(t, appendText(nil, &r))
	})
}

// sameText reports whether got is want with each invalid byte replaced.
func sameText(got, want string) bool { return got == string([]rune(want)) }

func expectOneCleanLine(t *testing.T, line []byte) {
	t.Helper()
	body, ok := strings.CutSuffix(string(line), "\n")
	if !ok {
		t.Fatalf("no newline at the end of %q", line)
	}
	for _, r := range body {
		if r < ' ' || (r >= 0x7f && r <= 0x9f) || r == '\u2028' || r == '\u2029' {
			t.Fatalf("%U within %q", r, line)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, format := range []Format{JSON, Text} {
		b.Run([]string{"json", "text"}[format], func(b *testing.B) {
			l := newLog(b, Config{Format: format}, &faultyWriter{})
			e := fullEntry()
			b.ReportAllocs()
			for b.Loop() {
				l.Record(&e)
			}
			b.ReportMetric(float64(l.Dropped())/float64(b.N), "dropped/op")
			closeLog(b, l)
		})
	}
}

func BenchmarkPut(b *testing.B) {
	r := newRing(DefaultSlots)
	e := fullEntry()
	for b.Loop() {
		if _, ok := r.put(&e); !ok {
			b.Fatal("full")
		}
		r.next()
		r.release()
	}
}

func BenchmarkEncode(b *testing.B) {
	e := fullEntry()
	var r record
	r.set(&e)
	buffer := make([]byte, 0, maxLine)
	b.Run("json", func(b *testing.B) {
		for b.Loop() {
			buffer = appendJSON(buffer[:0], &r)
		}
	})
	b.Run("text", func(b *testing.B) {
		for b.Loop() {
			buffer = appendText(buffer[:0], &r)
		}
	})
}
