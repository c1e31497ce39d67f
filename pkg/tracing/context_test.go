package tracing

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	traceHex = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanHex  = "00f067aa0ba902b7"
	zero32   = "00000000000000000000000000000000"
	zero16   = "0000000000000000"
)

func TestTraceParentIsReadByTheRulesOfLevel2(t *testing.T) {
	const ids = traceHex + "-" + spanHex
	for _, tc := range []struct {
		name, header string
		ok           bool
		sampling     Sampling
		random       bool
	}{
		{"sampled", "00-" + ids + "-01", true, SamplingYes, false},
		{"not sampled", "00-" + ids + "-00", true, SamplingNo, false},
		{"random flag", "00-" + ids + "-03", true, SamplingYes, true},
		{"unknown flags are ignored", "00-" + ids + "-fc", true, SamplingNo, false},
		{"future version", "cc-" + ids + "-01", true, SamplingYes, false},
		{"future version with more", "cc-" + ids + "-01-what-the-future-brings", true, SamplingYes, false},
		{"future version with more but no dash", "cc-" + ids + "-01.what", false, 0, false},
		{"version 00 with more", "00-" + ids + "-01-what", false, 0, false},
		{"version 00 with a dash", "00-" + ids + "-01-", false, 0, false},
		{"version ff", "ff-" + ids + "-01", false, 0, false},
		{"version not hexadecimal", ".0-" + ids + "-01", false, 0, false},
		{"upper case", "00-" + strings.ToUpper(ids) + "-01", false, 0, false},
		{"trace id zero", "00-" + zero32 + "-" + spanHex + "-01", false, 0, false},
		{"span id zero", "00-" + traceHex + "-" + zero16 + "-01", false, 0, false},
		{"trace id short", "00-" + ids[1:] + "-010", false, 0, false},
		{"flags short", "00-" + ids + "-1", false, 0, false},
		{"flags not hexadecimal", "00-" + ids + "-.0", false, 0, false},
		{"spaces", " 00-" + ids + "-01", false, 0, false},
		{"empty", "", false, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, ok := Extract(&Incoming{TraceParent: []byte(tc.header), TraceState: []byte("a=b")})
			if ok != tc.ok {
				t.Fatalf("ok %v, want %v", ok, tc.ok)
			}
			if !ok {
				if c.State != nil || c.Style != 0 {
					t.Fatalf("of a refused traceparent remain %+v", c)
				}
				return
			}
			if c.Sampling != tc.sampling || c.Random != tc.random || c.Style != StyleW3C || string(c.State) != "a=b" {
				t.Errorf("got %+v", c)
			}
			if got := string(AppendTraceID(nil, &c)) + "-" + string(AppendSpanID(nil, &c)); got != ids {
				t.Errorf("ids %s, want %s", got, ids)
			}
		})
	}
}

func TestB3SingleIsRead(t *testing.T) {
	const ids = traceHex + "-" + spanHex
	const short = "a3ce929d0e0e4736"
	for _, tc := range []struct {
		name, header string
		ok           bool // there is a trace
		style        Style
		sampling     Sampling
		traceID      string
	}{
		{"sampled", ids + "-1", true, StyleB3Single, SamplingYes, traceHex},
		{"not sampled", ids + "-0", true, StyleB3Single, SamplingNo, traceHex},
		{"debug", ids + "-d", true, StyleB3Single, SamplingDebug, traceHex},
		{"with parent", ids + "-1-05e3ac9a4f6e3b90", true, StyleB3Single, SamplingYes, traceHex},
		{"decision deferred", ids, true, StyleB3Single, SamplingDeferred, traceHex},
		{"64 bits", short + "-" + spanHex + "-1", true, StyleB3Single, SamplingYes, zero16 + short},
		{"deny alone", "0", false, StyleB3Single, SamplingNo, zero32},
		{"accept alone", "1", false, StyleB3Single, SamplingYes, zero32},
		{"debug alone", "d", false, StyleB3Single, SamplingDebug, zero32},
		{"unknown state alone", "x", false, 0, 0, zero32},
		{"unknown state", ids + "-x", false, 0, 0, zero32},
		{"state too long", ids + "-11", false, 0, 0, zero32},
		{"dash at the end", ids + "-", false, 0, 0, zero32},
		{"parent short", ids + "-1-05e3", false, 0, 0, zero32},
		{"parent not hexadecimal", ids + "-1-05e3ac9a4f6e3b9x", false, 0, 0, zero32},
		{"trace id zero", zero32 + "-" + spanHex + "-1", false, 0, 0, zero32},
		{"trace id of odd length", ids[1:] + "-1", false, 0, 0, zero32},
		{"trace id alone", traceHex, false, 0, 0, zero32},
		{"empty", "", false, 0, 0, zero32},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, ok := Extract(&Incoming{B3: []byte(tc.header), TraceState: []byte("a=b")})
			if ok != tc.ok || c.Style != tc.style || c.Sampling != tc.sampling {
				t.Errorf("ok %v, got %+v", ok, c)
			}
			if got := hex.EncodeToString(c.TraceID[:]); ok && got != tc.traceID {
				t.Errorf("trace id %s, want %s", got, tc.traceID)
			}
			if c.State != nil {
				t.Error("a tracestate without its traceparent is kept")
			}
		})
	}
}

func TestB3MultiIsRead(t *testing.T) {
	for _, tc := range []struct {
		name                          string
		traceID, spanID, state, flags string
		ok                            bool
		style                         Style
		sampling                      Sampling
	}{
		{"sampled", traceHex, spanHex, "1", "", true, StyleB3Multi, SamplingYes},
		{"sampled, old spelling", traceHex, spanHex, "true", "", true, StyleB3Multi, SamplingYes},
		{"not sampled", traceHex, spanHex, "0", "", true, StyleB3Multi, SamplingNo},
		{"not sampled, old spelling", traceHex, spanHex, "false", "", true, StyleB3Multi, SamplingNo},
		{"debug", traceHex, spanHex, "", "1", true, StyleB3Multi, SamplingDebug},
		{"debug beats sampled", traceHex, spanHex, "0", "1", true, StyleB3Multi, SamplingDebug},
		{"deferred", traceHex, spanHex, "", "0", true, StyleB3Multi, SamplingDeferred},
		{"64 bits", spanHex, spanHex, "1", "", true, StyleB3Multi, SamplingYes},
		{"decision alone", "", "", "0", "", false, StyleB3Multi, SamplingNo},
		{"span id missing", traceHex, "", "1", "", false, 0, 0},
		{"trace id missing", "", spanHex, "1", "", false, 0, 0},
		{"unknown state", traceHex, spanHex, "2", "", false, 0, 0},
		{"nothing", "", "", "", "", false, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, ok := Extract(&Incoming{
				XB3TraceID: []byte(tc.traceID), XB3SpanID: []byte(tc.spanID),
				XB3Sampled: []byte(tc.state), XB3Flags: []byte(tc.flags),
			})
			if ok != tc.ok || c.Style != tc.style || c.Sampling != tc.sampling {
				t.Errorf("ok %v, got %+v", ok, c)
			}
		})
	}
}

func TestOfSeveralFormatsW3CWinsAndAllStylesAreRemembered(t *testing.T) {
	const other = "0af7651916cd43dd8448eb211c80319c"
	w3c := []byte("00-" + traceHex + "-" + spanHex + "-00")
	for _, tc := range []struct {
		name     string
		in       Incoming
		style    Style
		sampling Sampling
	}{
		{"different traces", Incoming{TraceParent: w3c, B3: []byte(other + "-" + spanHex + "-1")},
			StyleW3C | StyleB3Single, SamplingNo},
		{"same trace with debug", Incoming{TraceParent: w3c, B3: []byte(traceHex + "-" + spanHex + "-d")},
			StyleW3C | StyleB3Single, SamplingDebug},
		{"broken W3C", Incoming{TraceParent: []byte("x"), B3: []byte(traceHex + "-" + spanHex + "-1")},
			StyleB3Single, SamplingYes},
		{"B3 single decides for multi", Incoming{B3: []byte("0"), XB3TraceID: []byte(traceHex),
			XB3SpanID: []byte(spanHex), XB3Sampled: []byte("1")},
			StyleB3Single | StyleB3Multi, SamplingNo},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, ok := Extract(&tc.in)
			if !ok || hex.EncodeToString(c.TraceID[:]) != traceHex || c.Style != tc.style || c.Sampling != tc.sampling {
				t.Errorf("ok %v, got %+v", ok, c)
			}
		})
	}
}

func TestWhatIsWrittenIsReadBackByOpenTelemetry(t *testing.T) {
	tracer := &Tracer{ratio: newRatioSampler(1)}
	for _, sampling := range []Sampling{SamplingNo, SamplingYes, SamplingDebug} {
		root := tracer.Child(&Context{Sampling: sampling})
		for _, c := range []Context{root, tracer.Child(&root)} {
			multi := http.Header{}
			multi.Set("X-B3-TraceId", string(AppendTraceID(nil, &c)))
			multi.Set("X-B3-SpanId", string(AppendSpanID(nil, &c)))
			setIf(multi, "X-B3-ParentSpanId", string(AppendParentID(nil, &c)))
			setIf(multi, "X-B3-Sampled", c.B3Sampled())
			setIf(multi, "X-B3-Flags", c.B3Flags())
			single := http.Header{"B3": {string(AppendB3Single(nil, &c))}}
			w3c := http.Header{"Traceparent": {string(AppendTraceParent(nil, &c))}}
			expectRead(t, b3.New(), multi, &c)
			expectRead(t, b3.New(), single, &c)
			expectRead(t, propagation.TraceContext{}, w3c, &c)
			if got := len(w3c.Get("traceparent")); got != TraceParentLength {
				t.Errorf("traceparent of %d bytes", got)
			}
			if got := len(single.Get("b3")); got > B3SingleLength {
				t.Errorf("b3 of %d bytes", got)
			}
		}
	}
}

func setIf(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}

func expectRead(t *testing.T, p propagation.TextMapPropagator, h http.Header, c *Context) {
	t.Helper()
	got := trace.SpanContextFromContext(p.Extract(context.Background(), propagation.HeaderCarrier(h)))
	if got.TraceID() != c.TraceID || got.SpanID() != c.SpanID || got.IsSampled() != c.Sampled() {
		t.Errorf("%v read as %+v, want %+v", h, got, c)
	}
}

func TestRandomFlagIsSentOnlyIfItCame(t *testing.T) {
	tracer := &Tracer{}
	c, _ := Extract(&Incoming{TraceParent: []byte("00-" + traceHex + "-" + spanHex + "-02")})
	child := tracer.Child(&c)
	if got := string(AppendTraceParent(nil, &child)); !strings.HasSuffix(got, "-02") {
		t.Errorf("got %s", got)
	}
	root := tracer.Child(&Context{})
	if got := string(AppendTraceParent(nil, &root)); !strings.HasSuffix(got, "-00") {
		t.Errorf("got %s", got)
	}
}

func TestChildContinuesTheTraceAndTheParentDecides(t *testing.T) {
	always, never := &Tracer{ratio: newRatioSampler(1)}, &Tracer{ratio: newRatioSampler(0)}
	remote, _ := Extract(&Incoming{TraceParent: []byte("00-" + traceHex + "-" + spanHex + "-01"), TraceState: []byte("a=b")})
	server := never.ChildOfRemote(&remote)
	if !server.Sampled() || server.TraceID != remote.TraceID || server.ParentID != remote.SpanID ||
		server.SpanID == remote.SpanID || !server.Remote || string(server.State) != "a=b" {
		t.Errorf("server %+v of %+v", server, remote)
	}
	client := never.Child(&server)
	if client.ParentID != server.SpanID || client.Remote {
		t.Errorf("client %+v of %+v", client, server)
	}
	remote.Sampling = SamplingNo
	if c := always.ChildOfRemote(&remote); c.Sampled() {
		t.Error("the parent decided against")
	}
	remote.Sampling = SamplingDeferred
	if c := always.ChildOfRemote(&remote); !c.Sampled() {
		t.Error("a decision left open is the ratio's")
	}
	root := always.ChildOfRemote(&Context{State: []byte("a=b")})
	if !root.Valid() || !root.Sampled() || root.ParentID != [8]byte{} || root.Remote || root.State != nil {
		t.Errorf("root %+v", root)
	}
	if c := always.Child(&Context{Sampling: SamplingNo}); c.Sampled() {
		t.Error("B3 can decide against a trace that has not begun")
	}
}

func TestRatioAgreesWithOpenTelemetry(t *testing.T) {
	for _, ratio := range []float64{-1, 0, 0.001, 0.1, 0.5, 0.9999, 1, 2} {
		ours, theirs := newRatioSampler(ratio), sdktrace.TraceIDRatioBased(ratio)
		for range 2000 {
			id := newTraceID()
			want := theirs.ShouldSample(sdktrace.SamplingParameters{TraceID: id, ParentContext: context.Background()})
			if got := ours.decide(&id) == SamplingYes; got != (want.Decision == sdktrace.RecordAndSample) {
				t.Fatalf("ratio %v, id %x: %v", ratio, id, got)
			}
		}
	}
}

func TestUnsampledRequestDoesNotAllocate(t *testing.T) {
	tracer := &Tracer{enabled: true, ratio: newRatioSampler(0)}
	w3c := []byte("00-" + traceHex + "-" + spanHex + "-00")
	b3Single := []byte(traceHex + "-" + spanHex + "-0")
	var buffer [256]byte
	request := Request{Method: "GET", Path: "/"}
	for name, in := range map[string]Incoming{
		"none": {}, "w3c": {TraceParent: w3c, TraceState: []byte("a=b")}, "b3": {B3: b3Single},
		"multi": {XB3TraceID: []byte(traceHex), XB3SpanID: []byte(spanHex), XB3Sampled: []byte("0")},
	} {
		if n := testing.AllocsPerRun(1000, func() {
			remote, _ := Extract(&in)
			server := tracer.ChildOfRemote(&remote)
			client := tracer.Child(&server)
			dst := AppendTraceParent(buffer[:0], &client)
			dst = AppendB3Single(dst, &client)
			dst = AppendParentID(dst, &client)
			_ = append(dst, client.B3Sampled()...)
			span := tracer.StartServer(&server, &request, fixedTime())
			span.SetStatus(200)
			span.End(fixedTime())
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func FuzzTraceParent(f *testing.F) {
	for _, seed := range []string{
		"00-" + traceHex + "-" + spanHex + "-01", "cc-" + traceHex + "-" + spanHex + "-01-x",
		"ff-" + traceHex + "-" + spanHex + "-01", "00-" + zero32 + "-" + spanHex + "-01", "", "00-",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		c, ok := Extract(&Incoming{TraceParent: []byte(header)})
		oracle := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(),
			propagation.MapCarrier{"traceparent": header}))
		// The two differ where OpenTelemetry refuses flags that are reserved
		// and future versions, and takes a dash at the end of version 00.
		version0 := strings.HasPrefix(header, "00-")
		if oracle.IsValid() && !ok && !(version0 && len(header) > TraceParentLength) &&
			len(header) >= TraceParentLength {
			t.Fatalf("%q refused, OpenTelemetry takes it", header)
		}
		if !ok {
			return
		}
		if oracle.IsValid() && (oracle.TraceID() != c.TraceID || oracle.SpanID() != c.SpanID || oracle.IsSampled() != c.Sampled()) {
			t.Fatalf("%q read as %+v, by OpenTelemetry as %+v", header, c, oracle)
		}
		expectRoundTrip(t, c)
	})
}

func FuzzB3(f *testing.F) {
	f.Add(traceHex+"-"+spanHex+"-1", "", "", "", "")
	f.Add("d", traceHex, spanHex, "1", "0")
	f.Add(spanHex+"-"+spanHex+"-0-"+spanHex, spanHex, spanHex, "false", "1")
	f.Fuzz(func(t *testing.T, single, traceID, spanID, sampled, flags string) {
		c, ok := Extract(&Incoming{B3: []byte(single), XB3TraceID: []byte(traceID), XB3SpanID: []byte(spanID),
			XB3Sampled: []byte(sampled), XB3Flags: []byte(flags)})
		if ok != c.Valid() || c.Style&StyleW3C != 0 || c.State != nil || c.Sampling > SamplingDebug {
			t.Fatalf("ok %v, got %+v", ok, c)
		}
		if ok {
			expectRoundTrip(t, c)
		}
	})
}

// expectRoundTrip writes c in each format and reads it back.
func expectRoundTrip(t *testing.T, c Context) {
	t.Helper()
	for _, in := range []Incoming{
		{TraceParent: AppendTraceParent(nil, &c)},
		{B3: AppendB3Single(nil, &c)},
		{XB3TraceID: AppendTraceID(nil, &c), XB3SpanID: AppendSpanID(nil, &c),
			XB3Sampled: []byte(c.B3Sampled()), XB3Flags: []byte(c.B3Flags())},
	} {
		back, ok := Extract(&in)
		if !ok || back.TraceID != c.TraceID || back.SpanID != c.SpanID || back.Sampled() != c.Sampled() {
			t.Fatalf("%+v was written as %+v and read as %+v", c, in, back)
		}
	}
}

func BenchmarkUnsampledRequest(b *testing.B) {
	tracer := &Tracer{enabled: true, ratio: newRatioSampler(0)}
	in := Incoming{TraceParent: []byte("00-" + traceHex + "-" + spanHex + "-00")}
	var buffer [TraceParentLength]byte
	for name, in := range map[string]*Incoming{"continued": &in, "begun": {}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				remote, _ := Extract(in)
				server := tracer.ChildOfRemote(&remote)
				AppendTraceParent(buffer[:0], &server)
			}
		})
	}
}
