package loopback

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// here is where the guarded port is, to browsers.
const here = "127.0.0.1:15000"

// ask sends a request, headers in pairs, and reports whether it got to the handler.
func ask(method, host string, headers ...string) (passed bool, w *httptest.ResponseRecorder) {
	r := httptest.NewRequest(method, "/drain", nil)
	r.Host = host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w = httptest.NewRecorder()
	Guard("the test's port", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true })).ServeHTTP(w, r)
	return passed, w
}

// expect checks that a request got through, or was refused.
func expect(t *testing.T, what string, passes, passed bool, w *httptest.ResponseRecorder) {
	t.Helper()
	want := http.StatusForbidden
	if passes {
		want = http.StatusOK
	}
	if passed != passes || w.Code != want {
		t.Errorf("%s: passed %v with %d, want %v", what, passed, w.Code, passes)
	}
	if !passes && !strings.HasPrefix(w.Body.String(), "the test's port ") {
		t.Errorf("%s: refused with %q, which does not say by whom", what, w.Body)
	}
}

func TestOnlyAddressesAndLocalhostAreAnsweredTo(t *testing.T) {
	for host, passes := range map[string]bool{
		"127.0.0.1:15000":   true,
		"127.0.0.1":         true,
		"127.8.9.10:1":      true,
		"localhost:15000":   true,
		"LocalHost":         true,
		"[::1]:15000":       true,
		"[::1]":             true,
		"[fe80::1%25eth0]":  true,
		"10.1.2.3:15000":    true, // a probe of the pod's address
		"[2001:db8::1]:443": true,
		"":                  true, // HTTP/1.0

		"evil.example":             false,
		"evil.example:15000":       false,
		"127.0.0.1.evil.example":   false,
		"127.0.0.1.nip.io":         false,
		"localhost.evil.example:1": false,
		"localhost.":               false, // browsers resolve it, but nobody needs it
		"evil.example#127.0.0.1":   false,
		"evil.example@127.0.0.1":   false,
		"127.0.0.1@evil.example":   false,
		"127.0.0.1,evil.example":   false,
		"127.0.0.1:80:80":          false,
		"[evil.example]":           false,
		"[evil.example]:80":        false,
		"2130706433":               false, // what some take for 127.0.0.1 is a name to others
		"0x7f.1":                   false,
		"127.1":                    false,
		"0177.0.0.1":               false,
		"orders":                   false,
		"evil.example 127.0.0.1":   false,
	} {
		passed, w := ask("GET", host)
		expect(t, "Host "+host, passes, passed, w)
	}
}

func TestNameInTheRequestLineCountsAsTheHost(t *testing.T) {
	server := httptest.NewServer(Guard("the test's port", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("it got through")
	})))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "GET http://evil.example/v1/services HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("%s", answer.Status)
	}
}

func TestPagesOfOtherSitesAreRefused(t *testing.T) {
	const own = "http://" + here
	for _, c := range []struct {
		name, method string
		headers      []string
		passes       bool
	}{
		{"a program", "POST", nil, true},
		{"the page's own button", "POST", []string{"Origin", own, "Sec-Fetch-Site", "same-origin"}, true},
		{"the page's own fetch", "PUT", []string{"Origin", own, "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, true},
		{"an address typed by hand", "GET", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, true},
		{"a link on a dashboard", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, true},
		{"a link on another port's page", "HEAD", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate"}, true},

		{"a form of another site", "POST", []string{"Origin", "https://evil.example"}, false},
		{"a form of another site, by fetch metadata", "POST", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, false},
		{"a page on another port of this machine", "POST", []string{"Origin", "http://127.0.0.1:8080", "Sec-Fetch-Site", "same-site"}, false},
		{"a page of localhost, which is another origin", "POST", []string{"Origin", "http://localhost:15000"}, false},
		{"a page of a name that begins as this port does", "POST", []string{"Origin", own + ".evil.example"}, false},
		{"a page of a name with this port as its user", "POST", []string{"Origin", "http://" + here + "@evil.example"}, false},
		{"a sandboxed page", "POST", []string{"Origin", "null"}, false},
		{"a page on disk", "POST", []string{"Origin", "file://"}, false},
		{"an origin that is none", "POST", []string{"Origin", "http://[::1"}, false},
		{"a read of a page of another site", "GET", []string{"Origin", "https://evil.example"}, false},
		{"a fetch of another site", "GET", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}, false},
		{"an image of another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, false},
		{"a script of another site", "GET", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, false},
		{"a preflight of another site", "OPTIONS", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}, false},
		{"a deletion that calls itself a link", "DELETE", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, false},
		{"a kind of site yet to be invented", "POST", []string{"Sec-Fetch-Site", "near-origin"}, false},
	} {
		passed, w := ask(c.method, here, c.headers...)
		expect(t, c.name, c.passes, passed, w)
	}
}

func TestReboundNameIsRefusedAlthoughItIsItsOwnOrigin(t *testing.T) {
	passed, w := ask("GET", "evil.example:15000", "Origin", "http://evil.example:15000", "Sec-Fetch-Site", "same-origin")
	expect(t, "a page whose name became 127.0.0.1", false, passed, w)
}

func TestAnswersAreNeitherCachedNorFramedNorGuessedAt(t *testing.T) {
	for _, host := range []string{here, "evil.example"} {
		_, w := ask("GET", host)
		h := w.Header()
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
			t.Errorf("Host %s: headers %v", host, h)
		}
		if h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("Host %s: other origins may read", host)
		}
	}
}
