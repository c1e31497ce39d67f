package proxy

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
)

func TestStatusesOfCallsThatTheProxyAnswersAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	var of [rpc.NoCode][]string
	for r := reason.BadRequest; int(r) < len(reason.Codes()); r++ {
		if r.Status() == 0 && r != reason.ResponseBroken && r != reason.ClientGone && r != reason.Stopped {
			continue // of connections that carry no calls, and the routes' own answers
		}
		code := codeOf(r, r.Status())
		of[code] = append(of[code], "`"+r.Code()+"`")
	}
	var want strings.Builder
	for code, reasons := range of {
		if len(reasons) > 0 {
			fmt.Fprintf(&want, "| `%s` | %d | %s |\n", rpc.Code(code), code, strings.Join(reasons, ", "))
		}
	}
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("docs/reasons.md has not this table:\n%s", want.String())
	}
}
