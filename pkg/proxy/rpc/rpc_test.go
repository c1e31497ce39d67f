package rpc

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestCallIsAPostWithAContentTypeOfGRPC(t *testing.T) {
	for _, c := range []struct {
		method, contentType string
		want                Kind
	}{
		{"POST", "application/grpc", GRPC},
		{"POST", "application/grpc+proto", GRPC},
		{"POST", "Application/GRPC+json; charset=utf-8", GRPC},
		{"POST", "application/grpc ;a=b", GRPC},
		{"POST", "application/grpc;a=b", GRPC},
		{"POST", "application/grpc-web", Web},
		{"POST", "application/grpc-web+thrift", Web},
		{"POST", "application/grpc-web-text", WebText},
		{"POST", "application/grpc-web-text+proto", WebText},
		{"GET", "application/grpc", None},
		{"post", "application/grpc", None},
		{"POST", "", None},
		{"POST", "application/grp", None},
		{"POST", "application/grpcx", None},
		{"POST", "application/grpc-webx", None},
		{"POST", "application/grpc-web-textx", None},
		{"POST", "application/json", None},
		{"POST", "text/plain; application/grpc", None},
	} {
		if got := KindOf([]byte(c.method), []byte(c.contentType)); got != c.want {
			t.Errorf("%s %q is %d, not %d", c.method, c.contentType, got, c.want)
		}
	}
}

func TestTypeKeepsItsFormatFromKindToKind(t *testing.T) {
	for _, c := range []struct {
		kind     Kind
		of, want string
	}{
		{GRPC, "application/grpc-web-text+proto", "application/grpc+proto"},
		{GRPC, "application/grpc-web", "application/grpc"},
		{Web, "application/grpc+json;a=b", "application/grpc-web+json;a=b"},
		{WebText, "Application/Grpc", "application/grpc-web-text"},
		{Web, "application/grpc-web+proto", "application/grpc-web+proto"},
		{Web, "text/html", "application/grpc-web"},
	} {
		if got := string(AppendType(nil, c.kind, []byte(c.of))); got != c.want {
			t.Errorf("%q as kind %d is %q, not %q", c.of, c.kind, got, c.want)
		}
	}
}

func TestStatusIsReadAndWritten(t *testing.T) {
	for c := OK; c < NoCode; c++ {
		if got := Parse(c.Append(nil)); got != c {
			t.Errorf("%s is read as %s", c, got)
		}
	}
	for _, value := range []string{"", "17", "-1", "a", "1a", "00000000000000000000000099", "99999999999999999999999999"} {
		if got := Parse([]byte(value)); got != Unknown {
			t.Errorf("%q is read as %s", value, got)
		}
	}
	if got := Parse(nil); got != NoCode {
		t.Errorf("nothing is read as %s", got)
	}
	if names := Names(); len(names) != 17 || names[4] != "DEADLINE_EXCEEDED" || names[16] != "UNAUTHENTICATED" || NoCode.String() != "" {
		t.Errorf("names %q", names)
	}
}

func TestStatusOfHTTPAndOfAResetIsThatOfTheDocuments(t *testing.T) {
	for status, want := range map[int]Code{
		400: Internal, 401: Unauthenticated, 403: PermissionDenied, 404: Unimplemented,
		429: Unavailable, 502: Unavailable, 503: Unavailable, 504: Unavailable, 200: Unknown, 418: Unknown, 500: Unknown, 501: Unknown,
	} {
		if got := FromHTTP(status); got != want {
			t.Errorf("%d is %s, not %s", status, got, want)
		}
	}
	for code, want := range map[uint32]Code{0: Internal, 1: Internal, 2: Internal, 7: Unavailable, 8: Cancelled, 11: ResourceExhausted, 12: PermissionDenied, 99: Internal} {
		if got := FromReset(code); got != want {
			t.Errorf("error code %d is %s, not %s", code, got, want)
		}
	}
}

func TestMessageIsPercentEncoded(t *testing.T) {
	for text, want := range map[string]string{
		"plain words (code)": "plain words (code)", "100%": "100%25", "a\r\nb": "a%0D%0Ab", "é": "%C3%A9", "": "", " x ": "%20x%20", "~\x7f": "~%7F",
	} {
		if got := string(AppendMessage(nil, text)); got != want {
			t.Errorf("%q is %q, not %q", text, got, want)
		}
	}
}

func TestTimeoutIsRead(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond, "6n": 6,
		"0S": 0, "00000001S": time.Second, "99999999n": 99_999_999, "99999999S": 99_999_999 * time.Second, "99999999H": maxTimeout, "99999999M": maxTimeout, "9999999M": 9_999_999 * time.Minute,
	} {
		if got, ok := ParseTimeout([]byte(value)); !ok || got != want {
			t.Errorf("%q is %d, %t, not %d", value, got, ok, want)
		}
	}
	for _, value := range []string{"", "S", "1", "1s", "1 S", " 1S", "1S ", "+1S", "-1S", "1.5S", "123456789S", "1SS", "1h", "0x1S", "१S"} {
		if got, ok := ParseTimeout([]byte(value)); ok {
			t.Errorf("%q is taken for %s", value, got)
		}
	}
}

func TestTimeoutIsWrittenInTheFinestUnitAndRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0n", 1: "1n", 99_999_999: "99999999n", 100_000_000: "100000u", 100_000_001: "100001u", 99 * time.Second: "99000000u",
		100*time.Second - 1: "100000m", 15 * time.Second: "15000000u", 24 * time.Hour: "86400000m", 48 * time.Hour: "172800S",
		maxTimeout: "76861434M", math.MaxInt64: "2562048H",
	} {
		if got := string(AppendTimeout(nil, d)); got != want {
			t.Errorf("%d is %q, not %q", d, got, want)
		}
	}
}

func FuzzTimeout(f *testing.F) {
	for _, seed := range []string{"1S", "99999999H", "100m", "0n", "1", "123456789S", "-1S"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		d, ok := ParseTimeout(value)
		if !ok {
			return
		}
		if d < 0 {
			t.Fatalf("%q is %d", value, d)
		}
		again, ok := ParseTimeout(AppendTimeout(nil, d))
		if !ok || again < d || again-d > time.Minute && d != maxTimeout {
			t.Fatalf("%q is %d, and once more %d, %t", value, d, again, ok)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, seed := range []string{"", "a b", "%41", "\x00\xff", " é "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := string(AppendMessage(nil, text))
		var back strings.Builder
		for i := 0; i < len(got); i++ {
			c := got[i]
			if c < ' ' || c > '~' {
				t.Fatalf("%q has %q", got, c)
			}
			if c == '%' {
				digit := func(c byte) byte { return byte(strings.IndexByte("0123456789ABCDEF", c)) }
				c = digit(got[i+1])<<4 | digit(got[i+2])
				i += 2
			}
			back.WriteByte(c)
		}
		if back.String() != text || strings.TrimSpace(got) != got {
			t.Fatalf("%q became %q, which is %q", text, got, back.String())
		}
	})
}

func TestWhatRunsPerCallDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 64)
	method, kind, timeout, status := []byte("POST"), []byte("application/grpc+proto"), []byte("250m"), []byte("14")
	if allocs := testing.AllocsPerRun(100, func() {
		d, ok := ParseTimeout(timeout)
		if KindOf(method, kind) != GRPC || !ok || Parse(status) != Unavailable || len(AppendTimeout(buf, d)) == 0 {
			t.Fatal("misread")
		}
	}); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
