package hpack

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noLimit is a list's limit that nothing reaches.
const noLimit = 1 << 30

// unhex returns the octets of a text such as "8286 84".
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// decoded are a block's fields as lines "name: value", with a "!" in front of those never
// to be indexed.
func decoded(d *Decoder, block []byte, maxList int) ([]string, error) {
	var lines []string
	var f Field
	d.Begin(block, maxList)
	for {
		more, err := d.Next(&f)
		if err != nil || !more {
			return lines, err
		}
		if want := wire.Lookup(f.Name); f.ID != want {
			return lines, fmt.Errorf("%q is handed out as %d and is %d", f.Name, f.ID, want)
		}
		line := string(f.Name) + ": " + string(f.Value)
		if f.Sensitive {
			line = "!" + line
		}
		lines = append(lines, line)
	}
}

// contents are a table's entries, the newest first, as lines "name: value".
func contents(t *table) []string {
	var lines []string
	for i := range t.count {
		e := t.at(i)
		lines = append(lines, string(t.nameOf(e))+": "+string(t.valueOf(e)))
	}
	return lines
}

// fields are a list of fields in the spelling of decoded.
func fields(lines ...string) []Field {
	var all []Field
	for _, line := range lines {
		rest, sensitive := strings.CutPrefix(line, "!")
		i := strings.Index(rest[1:], ": ") + 1
		f := Field{Name: []byte(rest[:i]), Value: []byte(rest[i+2:]), Sensitive: sensitive}
		f.ID = wire.Lookup(f.Name)
		all = append(all, f)
	}
	return all
}

// appendFields encodes a block.
func appendFields(e *Encoder, dst []byte, list []Field) []byte {
	for i := range list {
		dst = appendField(e, dst, &list[i])
	}
	return dst
}

func appendField(e *Encoder, dst []byte, f *Field) []byte {
	switch string(f.Name) {
	case ":authority":
		return e.AppendPseudo(dst, Authority, f.Value)
	case ":method":
		return e.AppendPseudo(dst, Method, f.Value)
	case ":path":
		return e.AppendPseudo(dst, Path, f.Value)
	case ":scheme":
		return e.AppendPseudo(dst, Scheme, f.Value)
	case ":status":
		return e.AppendPseudo(dst, Status, f.Value)
	}
	return e.AppendField(dst, f.Name, f.Value, f.ID, f.Sensitive)
}
