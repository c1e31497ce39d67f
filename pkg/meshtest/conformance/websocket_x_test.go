package conformance_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// TestWebSocketConformance runs the cases of the Autobahn testsuite (by kosoku, which
// drives Autobahn's own files of cases, for the suite itself needs Python 2) against an echo
// server: at its own port, and through sidecars. What a case sees, and how its connection
// ends, must not change by them. Between sidecars that speak HTTP/2 the upgrade is a CONNECT
// with a protocol (RFC 8441): one makes it of HTTP/1.1's, another one passes it on, the last
// one makes HTTP/1.1's of it again.
func TestWebSocketConformance(t *testing.T) {
	wanted(t)
	bin := build(t, "./cmd/sidecar")
	app := httptest.NewServer(http.HandlerFunc(echoMessages))
	t.Cleanup(app.Close)
	to := app.Listener.Addr().(*net.TCPAddr).Port
	want := websocketCases(t, to)
	last := sidecar(t, bin, "", "", to)
	middle := sidecar(t, bin, overHTTP2, "", last.port)
	for name, s := range map[string]side{
		"through one sidecar":                          last,
		"through two sidecars, HTTP/1.1 between":       sidecar(t, bin, "", "", last.port),
		"through two sidecars, HTTP/2 between":         middle,
		"through three sidecars, HTTP/2 between twice": sidecar(t, bin, overHTTP2, "", middle.port),
	} {
		t.Run(name, func(t *testing.T) {
			got := websocketCases(t, s.port)
			for id, w := range want {
				if got[id] != w {
					t.Errorf("case %s: %+v, and without a sidecar %+v", id, got[id], w)
				}
			}
			for _, line := range s.metrics(t, "fairlead_requests_total") {
				if !strings.Contains(line, `code="101"`) && !strings.Contains(line, `code="200"`) { // by the client's version of HTTP
					t.Errorf("an answer was another: %s", line)
				}
				t.Log(line)
			}
		})
	}
}

// echoMessages sends back each message that comes, once it is whole: the suite does not read
// while it writes one of 16 MB. Text that is no UTF-8, which the library leaves to its user, ends
// the connection (RFC 6455 §8.1).
func echoMessages(w http.ResponseWriter, q *http.Request) {
	c, err := websocket.Accept(w, q, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1})
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(-1)
	for {
		kind, message, err := c.Read(q.Context())
		if err != nil {
			return
		}
		if kind == websocket.MessageText && !utf8.Valid(message) {
			_ = c.Close(websocket.StatusInvalidFramePayloadData, "text that is no UTF-8")
			return
		}
		if c.Write(q.Context(), kind, message) != nil {
			return
		}
	}
}

// verdict is what the suite says of a case.
type verdict struct {
	Behavior      string `json:"behavior"`
	BehaviorClose string `json:"behaviorClose"`
	Code          any    `json:"remoteCloseCode"`
}

// chosen are the suite's groups but 12 and 13, which are compression by all window sizes and
// message lengths, a thousand messages for each and many minutes for every path; of those it is
// the first case.
func chosen() (arguments []string) {
	for _, cases := range []string{"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.1.1"} {
		arguments = append(arguments, "--include", cases)
	}
	return arguments
}

// websocketCases runs the suite against a port, and returns its verdicts by case.
func websocketCases(t *testing.T, port int) map[string]verdict {
	t.Helper()
	dir := t.TempDir()
	began := time.Now()
	arguments := append(chosen(), "--parallelism", "4", "--outdir", dir, fmt.Sprintf("127.0.0.1:%d", port))
	suite := exec.CommandContext(t.Context(), filepath.Join(root, "bin/tools/kosoku/bin/kosoku"), arguments...)
	out, err := suite.CombinedOutput() // it ends with an error where a case fails, which the verdicts say too
	text, readErr := os.ReadFile(filepath.Join(dir, "index.json"))
	if readErr != nil {
		t.Fatalf("%v: %v\n%s", readErr, err, out)
	}
	var servers map[string]map[string]verdict
	if err := json.Unmarshal(text, &servers); err != nil {
		t.Fatal(err)
	}
	for _, cases := range servers {
		count := map[string]int{}
		for _, v := range cases {
			count[v.Behavior]++
		}
		t.Logf("%d cases in %.0f s: %v", len(cases), time.Since(began).Seconds(), count)
		return cases
	}
	t.Fatalf("no case ran\n%s", out)
	return nil
}
