package saga_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

var results = saga.Results{
	"reserve": json.RawMessage(`{"id":"r/1?a=b&c","n":12345678901234567890,"ok":true,"none":null,"items":[{"sku":"x"},7],"bad":"a\r\nX: y","empty":"","dots":".."}`),
	"plain":   json.RawMessage(`"text"`),
	"large":   json.RawMessage(`"` + strings.Repeat("x", 30_000) + `"`),
	"nothing": {},
}

func TestResultsAreFilledIntoPathsPercentEncoded(t *testing.T) {
	for path, want := range map[string]string{
		"/a/${steps.reserve.result.id}":                     "/a/r%2F1%3Fa%3Db%26c",
		"/a?q=${steps.reserve.result.id}&r=1":               "/a?q=r%2F1%3Fa%3Db%26c&r=1",
		"/${steps.reserve.result.n}":                        "/12345678901234567890",
		"/${steps.reserve.result.items.0.sku}":              "/x",
		"/${steps.reserve.result.items.1}":                  "/7",
		"/${steps.plain.result}/${saga.id}":                 "/text/order-42",
		"/${steps.reserve.result.no:-none}":                 "/none",
		"/${steps.gone.result.id:-a b}":                     "/a%20b",
		"/$${saga.id}":                                      "/${saga.id}",
		"/${steps.reserve.result.id":                        "! not ended",
		"/${steps.reserve.result.no}":                       "! no such value",
		"/${steps.reserve.result.items.2}":                  "! no such value",
		"/${steps.reserve.result.items.-1}":                 "! no such value",
		"/${steps.reserve.result.items}":                    "! no text, number or truth value",
		"/a/${steps.reserve.result.empty}":                  "! is empty",
		"/a/${steps.reserve.result.none}":                   "! is empty",
		"/a/${steps.reserve.result.dots}/b":                 "! segment of dots",
		"/a/%2E${steps.gone.result:-.}/b":                   "! segment of dots",
		"/a/%2e%2ex/${steps.gone.result:-%2e}":              "/a/%2e%2ex/%252e",
		"/${saga.id}" + strings.Repeat("a", 4090):           "! more than 4096 bytes",
		"/" + strings.Repeat("${steps.plain.result}", 1200): "! with its values",
	} {
		got, err := (&saga.Call{Path: path}).Fill("order-42", results)
		checkFilled(t, path, func() string { return got.Path }, want, err)
	}
}

func TestResultsAreFilledIntoHeadersWithoutLineEnds(t *testing.T) {
	for value, want := range map[string]string{
		"a ${steps.reserve.result.id} b":              "a r/1?a=b&c b",
		"${steps.reserve.result.bad}":                 "! line ends",
		"${steps.reserve.result.no:-\r\n}":            "! line ends",
		"${steps.reserve.result.none}":                "",
		strings.Repeat("${steps.plain.result}", 1200): "! with its values",
	} {
		got, err := (&saga.Call{Path: "/", Headers: map[string]string{"X": value}}).Fill("order-42", results)
		checkFilled(t, value, func() string { return got.Headers["X"] }, want, err)
	}
}

func TestResultsAreFilledIntoBodiesWithTheirTypes(t *testing.T) {
	for body, want := range map[string]string{
		`{"a":"${steps.reserve.result.n}"}`:                          `{"a":12345678901234567890}`,
		`{"a":"${steps.reserve.result.items}"}`:                      `{"a":[{"sku":"x"},7]}`,
		`{"a":"${steps.reserve.result.ok}","b":["${saga.id}"]}`:      `{"a":true,"b":["order-42"]}`,
		`{"a":"no ${steps.reserve.result.n}."}`:                      `{"a":"no 12345678901234567890."}`,
		`{"a":"${steps.reserve.result.bad}"}`:                        `{"a":"a\r\nX: y"}`,
		`{"a":"${steps.reserve.result.no:-null}"}`:                   `{"a":null}`,
		`{"a":"${steps.reserve.result.no:-none}"}`:                   `{"a":"none"}`,
		`{"a":"${steps.reserve.result.no:-}"}`:                       `{"a":""}`,
		`{"${saga.id}" : "$${saga.id}", "n": 1e400, "u": "\u00e9<"}`: `{"${saga.id}" : "${saga.id}", "n": 1e400, "u": "\u00e9<"}`,
		`{"a":"\u0024{saga.id}","b":"$\u007bsaga.id}"}`:              `{"a":"order-42","b":"order-42"}`,
		`"\"${saga.id}\\"`:                                           `"\"order-42\\"`,
		`{"a":"x ${steps.reserve.result.items}"}`:                    "! no text, number",
		`{"a":"${steps.reserve.result.no}"}`:                         "! no such value",
		`{"a":"${steps.nothing.result}"}`:                            "! no such value",
		`{"a":"x${steps.nothing.result:-}"}`:                         `{"a":"x"}`,
		`"` + strings.Repeat("${saga.id}", 3200) + `"`:               `"` + strings.Repeat("order-42", 3200) + `"`,
		`"` + strings.Repeat("${steps.large.result}", 2) + `"`:       "! more than 32768 bytes with its values",
		`["${steps.large.result}","${steps.large.result}"]`:          "! more than 32768 bytes with its values",
	} {
		got, err := (&saga.Call{Path: "/", Body: json.RawMessage(body)}).Fill("order-42", results)
		checkFilled(t, body, func() string { return string(got.Body) }, want, err)
	}
}

func checkFilled(t *testing.T, template string, got func() string, want string, err error) {
	t.Helper()
	fault, wrong := strings.CutPrefix(want, "! ")
	switch {
	case wrong && (err == nil || !strings.Contains(err.Error(), fault)):
		t.Errorf("%.80s: %v is not about %q", template, err, fault)
	case !wrong && err != nil:
		t.Errorf("%.80s: %v", template, err)
	case !wrong && got() != want:
		t.Errorf("%.80s: %s, not %s", template, got(), want)
	}
}

// Whatever a result holds, a path is one path, and a body is JSON.
func FuzzFilledCallsAreWhatTheyLookLike(f *testing.F) {
	f.Add("a", `{"a":"${steps.s.result}"}`)
	f.Add("../x?y#z\r\n", `["${steps.s.result}","x${steps.s.result}"]`)
	f.Add("\x00\xff", `"${saga.id}$${"`)
	f.Fuzz(func(t *testing.T, value, body string) {
		v, err := json.Marshal(value)
		if err != nil {
			t.Skip()
		}
		c := &saga.Call{Path: "/a/${steps.s.result}/b", Headers: map[string]string{"X": "${steps.s.result}"}}
		if json.Valid([]byte(body)) {
			c.Body = json.RawMessage(body)
		}
		got, err := c.Fill("id", saga.Results{"s": v})
		if err != nil {
			return
		}
		if strings.Count(got.Path, "/") != 3 || strings.ContainsAny(got.Path, "?# \r\n\x00") || strings.Contains(got.Path, "/../") {
			t.Errorf("path %q of %q", got.Path, value)
		}
		if strings.ContainsAny(got.Headers["X"], "\r\n\x00") {
			t.Errorf("header %q", got.Headers["X"])
		}
		if len(got.Body) > 0 && !json.Valid(got.Body) {
			t.Errorf("body %q of %q", got.Body, body)
		}
	})
}

// A body whose places each are large is given up as soon as it is too large: it is never held as a whole.
func TestAnExplodingBodyIsNotHeld(t *testing.T) {
	body := json.RawMessage("[" + strings.Repeat(`"${steps.large.result}",`, 1400) + "0]")
	c := &saga.Call{Path: "/", Body: body}
	if n := allocated(func() {
		if _, err := c.Fill("id", results); err == nil {
			t.Error("it is filled in")
		}
	}); n > 2<<20 {
		t.Errorf("%d bytes are allocated", n)
	}
}
