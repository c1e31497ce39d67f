package conformance_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/lxzan/gws"
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
	app := httptest.NewServer(echo())
	t.Cleanup(app.Close)
	to := app.Listener.Addr().(*net.TCPAddr).Port
	cases := os.Getenv("FAIRLEAD_WEBSOCKET_CASES")
	all, one := cases == "all", cases == "all" || cases == "one"
	want := websocketCases(t, to, one)
	for id, w := range want {
		if (strings.HasPrefix(id, "12.") || strings.HasPrefix(id, "13.")) && w.Behavior != "OK" {
			t.Errorf("case %s, without a sidecar: %+v, so it does not show that compressed messages pass one", id, w)
		}
	}
	last := sidecar(t, bin, "", "", to)
	middle := sidecar(t, bin, overHTTP2, "", last.port)
	for name, through := range map[string]struct {
		side
		all bool // never where only the way differs by which the upgrade passes between sidecars
	}{
		"through one sidecar":                          {last, one},
		"through two sidecars, HTTP/1.1 between":       {sidecar(t, bin, "", "", last.port), false},
		"through two sidecars, HTTP/2 between":         {middle, all},
		"through three sidecars, HTTP/2 between twice": {sidecar(t, bin, overHTTP2, "", middle.port), false},
	} {
		t.Run(name, func(t *testing.T) {
			got := websocketCases(t, through.port, through.all)
			for id, w := range want {
				if got[id] != w && chosenHas(through.all, id) {
					t.Errorf("case %s: %+v, and without a sidecar %+v", id, got[id], w)
				}
			}
			for _, line := range through.metrics(t, "fairlead_requests_total") {
				if !strings.Contains(line, `code="101"`) && !strings.Contains(line, `code="200"`) { // by the client's version of HTTP
					t.Errorf("an answer was another: %s", line)
				}
				t.Log(line)
			}
		})
	}
}

// echo is the application. Most of it is one library; but that one compresses by the largest
// window alone, so that it declines an offer of a smaller one (RFC 7692 §7.1.2.1), which is
// answered by another library, by the 9 bits that the suite asks for.
func echo() http.Handler {
	small := gws.NewUpgrader(echoSmallWindow{}, &gws.ServerOption{
		ReadMaxPayloadSize: 1 << 20, // messages are 128 kB at most
		PermessageDeflate:  gws.PermessageDeflate{Enabled: true, Threshold: 1, ServerContextTakeover: true, ServerMaxWindowBits: 9},
	})
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !strings.Contains(q.Header.Get("Sec-WebSocket-Extensions"), "server_max_window_bits=9") {
			echoMessages(w, q)
			return
		}
		if c, err := small.Upgrade(w, q); err == nil {
			c.ReadLoop()
		}
	})
}

type echoSmallWindow struct{ gws.BuiltinEventHandler }

func (echoSmallWindow) OnMessage(c *gws.Conn, m *gws.Message) {
	defer func() { _ = m.Close() }()
	_ = c.WriteMessage(m.Opcode, m.Bytes()) // what cannot be written ends the loop that reads
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

// chosen are all of the suite's groups, or a sample of 12 and 13. Those are compression (RFC 7692),
// a thousand messages for each of 18 sizes, 16 bytes to 128 kB in one frame or in hundreds: of five
// kinds of data, and by seven lists of offers. None of these 216 cases hangs, but together they take
// minutes for every path. The sample has each kind and each list by the shortest messages and by
// messages in 32 frames, the longest messages in one frame and in 512, and each of the sizes by one
// of the lists: those cases cost a fraction of the ones of kinds that compress badly.
func chosen(all bool) (globs []string) {
	globs = []string{"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"}
	if all {
		return append(globs, "12.*", "13.*")
	}
	globs = append(globs, "12.2.10", "12.5.15")
	for kind := range 5 {
		globs = append(globs, fmt.Sprintf("12.%d.1", kind+1), fmt.Sprintf("12.%d.11", kind+1))
	}
	for offers := range 7 {
		globs = append(globs, fmt.Sprintf("13.%d.1", offers+1), fmt.Sprintf("13.%d.11", offers+1))
	}
	for size := range 18 {
		globs = append(globs, fmt.Sprintf("13.%d.%d", (size+2)%7+1, size+1))
	}
	return globs
}

// chosenHas says whether a case is among the chosen.
func chosenHas(all bool, id string) bool {
	return slices.ContainsFunc(chosen(all), func(glob string) bool {
		is, err := path.Match(glob, id)
		return is && err == nil
	})
}

// websocketCases runs the suite against a port, and returns its verdicts by case.
func websocketCases(t *testing.T, port int, all bool) map[string]verdict {
	t.Helper()
	dir := t.TempDir()
	began := time.Now()
	arguments := []string{"--parallelism", "4", "--outdir", dir}
	for _, cases := range chosen(all) {
		arguments = append(arguments, "--include", cases)
	}
	arguments = append(arguments, fmt.Sprintf("127.0.0.1:%d", port))
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
		var failed []string
		for id, v := range cases {
			if count[v.Behavior]++; v.Behavior == "FAILED" {
				failed = append(failed, id)
			}
		}
		t.Logf("%d cases in %.0f s: %v; failed: %v", len(cases), time.Since(began).Seconds(), count, failed)
		return cases
	}
	t.Fatalf("no case ran\n%s", out)
	return nil
}
