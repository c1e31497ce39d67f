package wire

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestRemoveHopByHop(t *testing.T) {
	for _, c := range []struct{ rule, before, after string }{
		{"nothing to remove", "Host:a|X:1|Accept:*/*", "Host:a|X:1|Accept:*/*"},
		{"RFC 9110 §7.6.1: known ones, even unnamed",
			"Connection:close|Keep-Alive:timeout=5|Proxy-Connection:keep-alive|Upgrade:h2c|Transfer-Encoding:chunked|X:1", "X:1"},
		{"RFC 7540 §3.2.1: the settings of an upgrade to HTTP/2, even unnamed", "HTTP2-Settings:AAMAAABk|X:1", "X:1"},
		{"a second framing must not slip through", "Content-Length:5|content-length:6|X:1|TRANSFER-ENCODING:x", "X:1"},
		{"RFC 9110 §11.7: proxy credentials are this hop's", "Proxy-Authorization:Basic x|Proxy-Authenticate:Basic|X:1", "X:1"},
		{"RFC 9110 §7.6.1: what Connection names", "Connection:x-a|X-A:1|X-B:2|x-a:3", "X-B:2"},
		{"whatever its case, wherever it stands", "x-a:1|X-B:2|X-A:3|cOnNeCtIoN:X-a", "X-B:2"},
		{"several lines, lists, white space, empty elements", "Connection: a ,,\tB\t,|Connection:|connection:c|A:1|B:2|C:3|D:4", "D:4"},
		{"only the whole name", "Connection:x-a|X-A-B:1|X:2|-A:3", "X-A-B:1|X:2|-A:3"},
		{"close is a name like others", "Connection:close, keep-alive|Close:1", ""},
		{"Host is for all recipients", "Connection:host|Host:a", "Host:a"},
		{"the mesh's own words are for the next peer", "Connection:fairlead-peer, fairlead-peer-failure|Fairlead-Peer:1|Fairlead-Peer-Failure:1",
			"Fairlead-Peer:1|Fairlead-Peer-Failure:1"},
		{"an expectation is answered from end to end (RFC 9110 §10.1.1)", "Connection:expect|Expect:100-continue", "Expect:100-continue"},
		{"RFC 9110 §10.1.4: TE is this hop's, trailers are forwarded and so asked for", "Connection:te|te:trailers, deflate;q=0.5|X:1", "X:1|TE:trailers"},
		{"said once", "TE:trailers|TE:Trailers|X:1", "X:1|TE:trailers"},
		{"not trailers", "TE:deflate|X:1", "X:1"},
		{"Trailer is from end to end", "Trailer:X-Sum|X:1", "Trailer:X-Sum|X:1"},
	} {
		h := parsed(c.before)
		if RemoveHopByHop(h); lines(h) != c.after {
			t.Errorf("%s\n\t%q\n got %q\nwant %q", c.rule, c.before, lines(h), c.after)
		}
		before := lines(h)
		if RemoveHopByHop(h); lines(h) != before {
			t.Errorf("%s: a second time %q, was %q", c.rule, lines(h), before)
		}
	}
}

// TE is a field of requests (RFC 9110 §10.1.4): in a response it is for nobody behind this hop.
func TestRemoveHopByHopTakesTEOutOfResponses(t *testing.T) {
	h := parsed("TE:trailers|X:1")
	h.Status = 200
	if RemoveHopByHop(h); lines(h) != "X:1" {
		t.Errorf("%q", lines(h))
	}
}

func TestNextElementAndHasElement(t *testing.T) {
	for _, c := range []struct {
		list string
		want []string
	}{
		{"", nil},
		{"a", []string{"a"}},
		{"a,b", []string{"a", "b"}},
		{" a\t,\t b ", []string{"a", "b"}},
		{",", []string{""}}, // an empty element at the end is none: nothing is left
		{",,a", []string{"", "", "a"}},
		{"a b,c;q=1", []string{"a b", "c;q=1"}},
		{"a\x00,\xa0b", []string{"a\x00", "\xa0b"}}, // only SP and HTAB are white space (RFC 9110 §5.6.3)
	} {
		var got []string
		for rest := []byte(c.list); len(rest) > 0; {
			var e []byte
			e, rest = NextElement(rest)
			got = append(got, string(e))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.list, got, c.want)
		}
	}
	for _, c := range []struct {
		list, element string
		want          bool
	}{
		{"close", "close", true},
		{"keep-alive, Close", "close", true},
		{"\tCLOSE ,x", "close", true},
		{"", "close", false},
		{",,", "close", false},
		{"closed", "close", false},
		{"not-close", "close", false},
		{"close;q=1", "close", false},
		{"\"close\"", "close", false},
		{"x close", "close", false},
		{"close\x0b", "close", false},
	} {
		if got := HasElement([]byte(c.list), c.element); got != c.want {
			t.Errorf("%q has %q: %t", c.list, c.element, got)
		}
	}
}

func TestTrimTakesSpacesAndTabsOnly(t *testing.T) {
	for raw, want := range map[string]string{
		"": "", " ": "", "\t \t": "", "a": "a", " a b\t": "a b", "\ra\n": "\ra\n", "\x0ba": "\x0ba", "\xa0a": "\xa0a", "\x00 ": "\x00",
	} {
		if got := Trim([]byte(raw)); string(got) != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

// FuzzList: elements are what splitting at commas and trimming gives, never point
// outside of the list, and are found again whatever their case.
func FuzzList(f *testing.F) {
	for _, seed := range []string{"", "a", "close", "keep-alive, Upgrade", " ,\t,x ,", "a;q=\"b,c\"", "\x00,\xff", strings.Repeat(",", 300)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, list []byte) {
		parts := bytes.Split(list, []byte(","))
		n := 0
		for rest := list; len(rest) > 0; n++ {
			var e []byte
			e, rest = NextElement(rest)
			if want := bytes.Trim(parts[n], " \t"); !bytes.Equal(e, want) {
				t.Fatalf("element %d of %q is %q, want %q", n, list, e, want)
			}
			if want := string(bytes.Map(asciiLower, e)); isASCII(e) && len(e) > 0 && !HasElement(list, want) {
				t.Fatalf("%q is not found in %q", want, list)
			}
		}
		if n != len(parts) && (n != len(parts)-1 || len(parts[n]) != 0) {
			t.Fatalf("%q has %d elements, want %d", list, n, len(parts))
		}
	})
}

func asciiLower(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}

func isASCII(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c >= 0x80 }) }

// FuzzRemoveHopByHop: what stays is a subsequence of what came (but for the TE
// that is made anew), holds nothing of this hop, and nothing that was named.
func FuzzRemoveHopByHop(f *testing.F) {
	f.Add([]byte("Connection: close, X-A\nX-A: 1\nHost: a"))
	f.Add([]byte("Connection: host,te\nTE: trailers\nHost: a\nX: 1\nContent-Length: 4"))
	f.Add([]byte("connection:" + strings.Repeat("x,", 40) + "\nX: 1\nUpgrade: websocket"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h := head(strings.Split(string(raw), "\n")...)
		var came []string
		named, options := map[string]bool{}, 0
		for _, field := range h.Fields {
			came = append(came, string(field.Name)+":"+string(field.Value))
			for rest := field.Value; field.ID == Connection && len(rest) > 0; {
				var option []byte
				if option, rest = NextElement(rest); len(option) > 0 && options < MaxConnectionOptions {
					named[string(bytes.ToLower(option))] = true
					options++
				}
			}
		}
		RemoveHopByHop(h)
		for i, field := range h.Fields {
			line := string(field.Name) + ":" + string(field.Value)
			if line == "TE:trailers" && i == len(h.Fields)-1 {
				continue
			}
			at := slices.Index(came, line)
			if at < 0 {
				t.Fatalf("%q was not there, or not in this order\n%q", line, raw)
			}
			came = came[at+1:]
			if isHopByHop(field.ID) {
				t.Fatalf("%q stayed\n%q", line, raw)
			}
			if field.ID == Other && isASCII(field.Name) && named[strings.ToLower(string(field.Name))] {
				t.Fatalf("%q was named and stayed\n%q", line, raw)
			}
		}
	})
}

func TestWhatFramesRoutesOrVouchesIsNoTrailer(t *testing.T) {
	forbidden := map[ID]bool{
		Connection: true, ContentLength: true, ContentType: true, Expect: true, FairleadCase: true, FairleadHops: true, FairleadPeerFailure: true, FairleadPeer: true, FairleadReason: true,
		HTTP2Settings: true, Host: true, KeepAlive: true, ProxyAuthenticate: true, ProxyAuthorization: true, ProxyConnection: true, TE: true,
		Trailer: true, TransferEncoding: true, Upgrade: true,
	}
	for id := Other; id <= XB3TraceID; id++ {
		if got := TrailerAllowed(id); got == forbidden[id] {
			t.Errorf("%s (ID %d): %t", names()[id], id, got)
		}
	}
}
