package proxy

import (
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// FuzzUpgrade: what is offered to the host is among what the client offers, is not HTTP/2,
// is a list that can be written, and is what the host may switch to, and nothing else.
func FuzzUpgrade(f *testing.F) {
	f.Add("upgrade", "websocket", "websocket")
	f.Add("keep-alive, Upgrade", "h2c, WebSocket,,IRC/6.9", "websocket")
	f.Add("upgrade", "h2c", "h2c")
	f.Add("", "websocket", "websocket")
	f.Add("upgrade", ",\t,", "")
	f.Add("upgrade", strings.Repeat("a,", 20), "a")
	f.Fuzz(func(t *testing.T, connection, offered, chosen string) {
		if !wire.IsFieldValue([]byte(connection)) || !wire.IsFieldValue([]byte(offered)) || !wire.IsFieldValue([]byte(chosen)) {
			return // no codec lets that in
		}
		x := &exchange{life: &life{}}
		x.request.Reset()
		x.request.Add(wire.Connection, "Connection", []byte(connection))
		x.request.Add(wire.Upgrade, "Upgrade", []byte(offered))
		x.offer = x.protocols()
		x.offered = x.offer != nil
		var offer []string
		for rest := x.offer; len(rest) > 0; {
			var p []byte
			p, rest = wire.NextElement(rest)
			offer = append(offer, string(p))
			if len(p) == 0 || isHTTP2(p) || !wire.Names([]byte(offered), p) {
				t.Fatalf("%q is offered of %q", p, offered)
			}
		}
		if len(offer) > maxProtocols || x.offered && !wire.HasElement([]byte(connection), "upgrade") || !wire.IsFieldValue(x.offer) {
			t.Fatalf("%q is offered of %q, with %q", offer, offered, connection)
		}
		x.response.Reset()
		x.response.Status = 101
		x.response.Add(wire.Connection, "Connection", []byte("upgrade"))
		x.response.Add(wire.Upgrade, "Upgrade", []byte(chosen))
		if x.switches() != nil {
			return
		}
		n := 0
		for rest := []byte(chosen); len(rest) > 0; {
			var p []byte
			if p, rest = wire.NextElement(rest); len(p) == 0 {
				continue
			}
			if n++; isHTTP2(p) || !wire.Names([]byte(offered), p) {
				t.Fatalf("%q is switched to, of %q", p, offered)
			}
		}
		if n == 0 || !x.offered {
			t.Fatalf("nothing is switched to: %q, of %q", chosen, offered)
		}
	})
}
