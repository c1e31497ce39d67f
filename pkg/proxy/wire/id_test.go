package wire

import (
	"strings"
	"testing"
)

// names are all known names, as RFCs and the mesh spell them.
func names() map[ID]string {
	return map[ID]string{
		Accept: "Accept", B3: "b3", Connection: "Connection", ContentLength: "Content-Length",
		ContentType: "Content-Type", Cookie: "Cookie", Date: "Date", Expect: "Expect", FairleadPeerFailure: "Fairlead-Peer-Failure",
		FairleadCase: "Fairlead-Case", FairleadHops: "Fairlead-Hops", FairleadPeer: "Fairlead-Peer", FairleadReason: "Fairlead-Reason",
		GRPCMessage: "Grpc-Message", GRPCRetryPushback: "Grpc-Retry-Pushback-Ms", GRPCStatus: "Grpc-Status", GRPCTimeout: "Grpc-Timeout", HTTP2Settings: "HTTP2-Settings", Host: "Host", KeepAlive: "Keep-Alive",
		ProxyAuthenticate: "Proxy-Authenticate", ProxyAuthorization: "Proxy-Authorization",
		ProxyConnection: "Proxy-Connection", RetryAfter: "Retry-After",
		SecWebSocketAccept: "Sec-WebSocket-Accept", SecWebSocketKey: "Sec-WebSocket-Key", TE: "TE", Traceparent: "traceparent",
		Tracestate: "tracestate", Trailer: "Trailer", TransferEncoding: "Transfer-Encoding", Upgrade: "Upgrade",
		UserAgent: "User-Agent", XB3Flags: "X-B3-Flags", XB3ParentSpanID: "X-B3-ParentSpanId",
		XB3Sampled: "X-B3-Sampled", XB3SpanID: "X-B3-SpanId", XB3TraceID: "X-B3-TraceId",
		XEnvoyExternalAddress: "X-Envoy-External-Address", XForwardedFor: "X-Forwarded-For", XForwardedProto: "X-Forwarded-Proto",
	}
}

func TestEveryKnownNameIsFoundWhateverItsCase(t *testing.T) {
	known := names()
	for id := Other + 1; id <= XForwardedProto; id++ {
		name, ok := known[id]
		if !ok {
			t.Errorf("ID %d has no name here", id)
		}
		if len(name) > longest {
			t.Errorf("%s is longer than Lookup looks", name)
		}
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := Lookup([]byte(spelling)); got != id {
				t.Errorf("%s is %d, want %d", spelling, got, id)
			}
		}
	}
}

func TestNamesThatOnlyResembleKnownOnesAreOther(t *testing.T) {
	for _, name := range names() {
		for _, near := range []string{name + "s", "x" + name, name[:len(name)-1], name + " ", name + "\x00", strings.ReplaceAll(name, "-", "_") + "_"} {
			if got := Lookup([]byte(near)); got != Other {
				t.Errorf("%q is taken for %d", near, got)
			}
		}
	}
	for _, name := range []string{
		"", "Authorization", strings.Repeat("x", 10_000),
		"Transfer_Encoding",
		// Case folding is ASCII's alone: the Kelvin sign is no k, '\x01' is no '!',
		// and what lies 32 below '-' is no '-' (RFC 9110 §5.1).
		"\u212aeep-Alive", "Content\rLength", "Con\u0074ent\u2010Length", "\x48\x4f\x53\x14",
	} {
		if got := Lookup([]byte(name)); got != Other {
			t.Errorf("%q is taken for %d", name, got)
		}
	}
}

func TestEqualFoldComparesASCIIWithoutCase(t *testing.T) {
	for _, c := range []struct {
		b, text string
		want    bool
	}{
		{"", "", true},
		{"chunked", "chunked", true},
		{"CHUNKED", "chunked", true},
		{"cHuNkEd", "chunked", true},
		{"chunked ", "chunked", false},
		{"chunke", "chunked", false},
		{"chunkee", "chunked", false},
		{"100-Continue", "100-continue", true},
		{"100\rContinue", "100-continue", false}, // '-' with bit 0x20 cleared
		{"@", "`", false},                        // neighbours of the letters keep their case
		{"[", "{", false},
		{"\u212a", "k", false}, // the Kelvin sign folds to k in Unicode only
		{"É", "é", false},
	} {
		if got := EqualFold([]byte(c.b), c.text); got != c.want {
			t.Errorf("%q against %q: %t", c.b, c.text, got)
		}
	}
}
