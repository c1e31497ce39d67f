package saga_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

const orderSaga = `{"id":"order-42","deadline":"30s","labels":{"tenant":"a"},"steps":[
 {"name":"reserve","action":{"service":"inventory","method":"POST","path":"/reserve","body":{"sku":"x"}},
  "compensate":{"service":"inventory","method":"POST","path":"/release/${steps.reserve.result.id:-none}","body":{"sku":"x"}},
  "timeout":"2s","retry":{"attempts":5,"backoff":"100ms","max":"2s"},"kind":"compensatable"},
 {"name":"charge","action":{"service":"payments","path":"/charge","headers":{"X-Order":"${saga.id}"},"body":{"reservation":"${steps.reserve.result.id}"}},"kind":"pivot"},
 {"name":"ship","action":{"service":"shipping.logistics","path":"/ship?order=${saga.id}"},"kind":"retriable"}]}`

func TestASagaAsUsersWriteItIsTaken(t *testing.T) {
	d, err := saga.ParseDefinition([]byte(orderSaga))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
}

// A definition is read again, from JSON, by whoever goes on with its saga.
func TestStepsThatSayTheyComeAfterNoneBeginAtOnceAlsoWhenTheyAreReadAgain(t *testing.T) {
	d, err := saga.ParseDefinition([]byte(`{"id":"a","steps":[
 {"name":"a","after":[],"action":{"service":"a","path":"/"}},{"name":"b","after":[],"action":{"service":"b","path":"/"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if due := saga.Start(d, 1).Advance(1, nil); len(due) != 2 {
			t.Errorf("%d begin at once", len(due))
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if d, err = saga.ParseDefinition(text); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsNoDefinitionIsRefusedAndNamed(t *testing.T) {
	for text, want := range map[string]string{
		`{"id":"a","step":[]}`: `unknown field "step"`,
		`{"id":"a"} {}`:        "something behind",
		`{"id":"a"}]`:          "something behind",
		`{"id":"a","id":"b"}`:  `field "id" is given twice`,
		`{"ID":"a"}`:           `unknown field "ID"`,
		`{"id":"a","steps":[{},{"action":{"pth":""}}]}`:               `steps[1].action: unknown field "pth"`,
		`{"id":"a","steps":[{"action":{"headers":{"a":"","a":""}}}]}`: `steps[0].action.headers: field "a" is given twice`,
		"{\"id\":\"a\xff\"}": "no UTF-8",
		`{"id":"a","steps":[{"action":{"body":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}}]}`: "max depth",
		`{"id":"a","deadline":"99999999999999h"}`:          "99999999999999h",
		`{"id":"a","steps":[{"retry":{"attempts":1e30}}]}`: "attempts",
		`{"id":"a","deadline":"soon"}`:                     "soon",
		`{"id":"a","deadline":5}`:                          "deadline",
		strings.Repeat(" ", saga.MaxDefinitionBytes+1):     "bytes, of at most",
	} {
		if _, err := saga.ParseDefinition([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, not about %q", text, err, want)
		}
	}
}

// Each line is what replaces what in the saga above, and the faults that it brings about.
func TestAllThatIsWrongWithADefinitionIsSaidAtOnce(t *testing.T) {
	for _, c := range []struct{ old, with, want string }{
		{`"id":"order-42"`, `"id":""`, "id: required"},
		{`"id":"order-42"`, `"id":"a/b"`, "id: \"a/b\" is no name"},
		{`"id":"order-42"`, `"id":"-a"`, "id: \"-a\" is no name"},
		{`"deadline":"30s"`, `"deadline":"-1s"`, "deadline: -1s is not 1ms to 8760h0m0s"},
		{`"tenant":"a"`, `"tenant":"\u009b2J"`, "labels[\"tenant\"]: a value has"},
		{`"tenant":"a"`, `"te nant":"a\n"`, "labels[\"te nant\"]: \"te nant\" is no name|labels[\"te nant\"]: a value has"},
		{`"name":"charge"`, `"name":"reserve"`, "steps[1].name: \"reserve\" is also the name of steps[0]"},
		{`"name":"ship"`, `"name":"sh.ip"`, "steps[2].name: \"sh.ip\" has a dot"},
		{`"name":"ship"`, `"name":"ship","after":["shop"]`, "steps[2].after[0]: there is no step \"shop\"|steps[0].kind: \"reserve\" is compensatable|steps[2].kind: \"ship\" is retriable|steps[1].action.body: ${steps.reserve.result.id}: \"reserve\" need not be done by then"},
		{`"name":"reserve"`, `"name":"reserve","after":["reserve"]`, "steps: these wait for each other by after, or for those that do: reserve|steps[1].action.body: ${steps.reserve.result.id}: \"reserve\" need not be done by then"},
		{`"kind":"compensatable"`, `"kind":"pivot"`, "steps[1].kind: steps[0] is the pivot"},
		{`"kind":"compensatable"`, `"kind":"retriable"`, "steps[0].kind: \"reserve\" is retriable, and so has to come behind the pivot|steps[0].compensate: a retriable step is never undone"},
		{`"kind":"retriable"`, `"kind":"compensatable"`, "steps[2].kind: \"ship\" is compensatable, and so has to come before the pivot \"charge\""},
		{`"kind":"pivot"`, `"kind":"compensatable","compensate":{"service":"a","path":"/"}`, ""},
		{`"kind":"pivot"`, `"kind":"else"`, "steps[1].kind: \"else\" is none of"},
		{`"timeout":"2s"`, `"timeout":"1ms"`, "steps[0].timeout: 1ms is not 10ms to 15m0s"},
		{`"attempts":5`, `"attempts":1001`, "steps[0].retry.attempts: 1001 is not 1 to 1000"},
		{`"max":"2s"`, `"max":"20ms"`, "steps[0].retry.max: 20ms is less than backoff, 100ms"},
		{`"service":"payments"`, `"service":"pay ments"`, "steps[1].action.service: "},
		{`"service":"payments"`, `"service":"user@payments"`, "steps[1].action.service: "},
		{`"service":"payments"`, `"service":"payments/x"`, "steps[1].action.service: "},
		{`"service":"payments"`, `"service":"payments\r\nX: y"`, "steps[1].action.service: "},
		{`"service":"payments"`, `"service":"10.0.0.1"`, "steps[1].action.service: "},
		{`"service":"payments"`, `"service":"[::1]:80"`, "steps[1].action.service: "},
		{`"service":"payments"`, `"service":"payments.default.svc.cluster.local:80"`, ""},
		{`"service":"payments"`, `"service":""`, "steps[1].action.service: "},
		{`"method":"POST","path":"/reserve"`, `"method":"PO ST","path":"/reserve"`, "steps[0].action.method: \"PO ST\" is no method"},
		{`"method":"POST","path":"/reserve"`, `"method":"connect","path":"/reserve"`, "steps[0].action.method: CONNECT asks for a tunnel"},
		{`"method":"POST","path":"/reserve"`, `"method":"TRACE","path":"/reserve"`, "steps[0].action.method: TRACE asks"},
		{`"method":"POST","path":"/reserve"`, `"method":"GET / HTTP/1.1\r\n","path":"/reserve"`, "steps[0].action.method: \"GET / HTTP/1.1\\r\\n\" is no method"},
		{`"path":"/charge"`, `"path":"charge"`, "steps[1].action.path: \"charge\" does not begin with /"},
		{`"path":"/charge"`, `"path":"/a/../b"`, "steps[1].action.path: \"/a/../b\" has a segment of dots"},
		{`"path":"/charge"`, `"path":"/a/%2e%2E/b"`, "steps[1].action.path: \"/a/%2e%2E/b\" has a segment of dots"},
		{`"path":"/charge"`, `"path":"/%zz"`, "steps[1].action.path: a % is followed by two hexadecimal digits"},
		{`"path":"/charge"`, `"path":"/a?b=100%"`, "steps[1].action.path: a % is followed by two hexadecimal digits"},
		{`"path":"/charge"`, `"path":"/a%2${saga.id}"`, "steps[1].action.path: a % is followed by two hexadecimal digits"},
		{`"path":"/charge"`, `"path":"http://other/charge"`, "steps[1].action.path: \"http://other/charge\" does not begin with /"},
		{`"path":"/charge"`, `"path":"*"`, "steps[1].action.path: \"*\" does not begin with /"},
		{`"path":"/charge"`, `"path":"/\u0000"`, "steps[1].action.path: only printable ASCII"},
		{`"path":"/charge"`, `"path":"/a b"`, "steps[1].action.path: only printable ASCII"},
		{`"path":"/charge"`, `"path":"/a\r\nX: y"`, "steps[1].action.path: only printable ASCII"},
		{`"path":"/charge"`, `"path":"/${steps.ship.result.id}"`, "steps[1].action.path: ${steps.ship.result.id}: \"ship\" need not be done by then"},
		{`"path":"/charge"`, `"path":"/${steps.charge.result.id}"`, "steps[1].action.path: ${steps.charge.result.id}: \"charge\" need not be done by then"},
		{`"path":"/charge"`, `"path":"/${steps.shop.result}"`, "steps[1].action.path: ${steps.shop.result}: there is no step \"shop\""},
		{`"path":"/charge"`, `"path":"/${order}"`, "steps[1].action.path: ${order} is neither"},
		{`"path":"/charge"`, `"path":"/${order"`, "steps[1].action.path: \"${order\" is not ended by }"},
		{`"path":"/charge"`, `"path":"/$${order"`, ""},
		{`.id:-none}`, `.id}`, "steps[0].compensate.path: ${steps.reserve.result.id}: the step may have no result when it is undone"},
		{`"X-Order"`, `"Saga-Fence"`, "steps[1].action.headers[\"Saga-Fence\"]: the coordinator"},
		{`"X-Order"`, `"IDEMPOTENCY-KEY"`, "steps[1].action.headers[\"IDEMPOTENCY-KEY\"]: the coordinator"},
		{`"X-Order"`, `"Proxy-Authenticate"`, "steps[1].action.headers[\"Proxy-Authenticate\"]: the coordinator"},
		{`"X-Order"`, `"host"`, "steps[1].action.headers[\"host\"]: the coordinator"},
		{`"X-Order"`, `":authority"`, "steps[1].action.headers[\":authority\"]: this is no name"},
		{`"X-Order"`, `"x-order":"1","X-Order"`, "steps[1].action.headers[\"x-order\"]: this is also given as \"X-Order\""},
		{`"X-Order"`, `"X Order"`, "steps[1].action.headers[\"X Order\"]: this is no name"},
		{`"X-Order":"`, `"X-Order":"\r\n`, "steps[1].action.headers[\"X-Order\"]: a value has neither line ends"},
		{`"path":"/charge"`, `"path":"/charge","statuses":{"4xx":"done","404":"gone"}`, "steps[1].action.statuses[\"404\"]: \"gone\" is none of|steps[1].action.statuses[\"4xx\"]: a status is three digits"},
		{`"reservation":"${steps.reserve.result.id}"`, `"reservation":"${steps.reserve.id}"`, "steps[1].action.body: ${steps.reserve.id} is neither"},
	} {
		text := strings.Replace(orderSaga, c.old, c.with, 1)
		if text == orderSaga {
			t.Errorf("%s is not in the saga", c.old)
		}
		d, err := saga.ParseDefinition([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", c.with, err)
			continue
		}
		got := ""
		var faults saga.Faults
		if err := d.Check(); errors.As(err, &faults) {
			got = err.Error()
		}
		want := []string{}
		if c.want != "" {
			want = strings.Split(c.want, "|")
		}
		if len(faults) != len(want) {
			t.Errorf("%s: %d faults, not %d:\n%s", c.with, len(faults), len(want), got)
		}
		for _, w := range want {
			if !strings.Contains("\n"+got, "\n"+w) {
				t.Errorf("%s: %q is not among\n%s", c.with, w, got)
			}
		}
	}
}

func TestADefinitionIsBounded(t *testing.T) {
	step := func(name string) saga.Step { return saga.Step{Name: name, Action: saga.Call{Service: "a", Path: "/"}} }
	for want, change := range map[string]func(d *saga.Definition){
		"steps: a saga has at least one step": func(d *saga.Definition) { d.Steps = nil },
		"steps: 33 steps, of at most 32": func(d *saga.Definition) {
			d.Steps = nil
			for i := range 33 {
				d.Steps = append(d.Steps, step(fmt.Sprint("s", i)))
			}
		},
		"id: 129 bytes, of at most 128":                       func(d *saga.Definition) { d.ID = strings.Repeat("a", 129) },
		"steps[0].action.body: 32769 bytes, of at most 32768": func(d *saga.Definition) { d.Steps[0].Action.Body = []byte(`"` + strings.Repeat("a", 32767) + `"`) },
		"steps[0].action.path: 4097 bytes, of at most 4096":   func(d *saga.Definition) { d.Steps[0].Action.Path = "/" + strings.Repeat("a", 4096) },
		"steps[0].action.headers: 33 headers, of at most 32":  func(d *saga.Definition) { d.Steps[0].Action.Headers = many(33) },
		"labels: 17 labels, of at most 16":                    func(d *saga.Definition) { d.Labels = many(17) },
		"steps[0].action.body: this is no JSON":               func(d *saga.Definition) { d.Steps[0].Action.Body = []byte("{") },
		"steps[0].action.body: this is no JSON in UTF-8":      func(d *saga.Definition) { d.Steps[0].Action.Body = []byte("\"\xff\"") },
		"steps[0].action: 101 places to fill in, of at most 100": func(d *saga.Definition) {
			d.Steps[0].Action.Body = []byte(`"` + strings.Repeat("${saga.id}", 101) + `"`)
		},
		"steps[1].action.path: 17 names lead into the result of \"s\", of at most 16": func(d *saga.Definition) {
			d.Steps = append(d.Steps, step("t"))
			d.Steps[1].Action.Path = "/${steps.s.result" + strings.Repeat(".a", 17) + "}"
		},
		"steps[0].after: 33 names, of at most 32": func(d *saga.Definition) { d.Steps[0].After = make([]string, 33) },
		"steps[0].action.method: ":                func(d *saga.Definition) { d.Steps[0].Action.Method = strings.Repeat("A", 33) },
		": the definition has ": func(d *saga.Definition) {
			for i := range 10 {
				s := step(fmt.Sprint("large", i))
				s.Action.Body = []byte(`"` + strings.Repeat("a", 32000) + `"`)
				d.Steps = append(d.Steps, s)
			}
		},
	} {
		d := &saga.Definition{ID: "a", Steps: []saga.Step{step("s")}}
		change(d)
		if err := d.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v is not about %q", err, want)
		}
	}
}

// Who sends what is slow to read holds up others: text is not copied for each place in it, nor a result parsed for each.
func TestReadingIsLinear(t *testing.T) {
	body := json.RawMessage(`"` + strings.Repeat("$${", saga.MaxBodyBytes/3-1) + `"`)
	d := &saga.Definition{ID: "a", Steps: []saga.Step{{Name: "s", Action: saga.Call{Service: "a", Path: "/", Body: body}}}}
	if n := allocated(func() {
		if err := d.Check(); err != nil {
			t.Error(err)
		}
	}); n > 8<<20 {
		t.Errorf("checking allocates %d bytes", n)
	}
	c := saga.Call{Path: "/", Body: json.RawMessage("[" + strings.Repeat(`"${steps.s.result.a.a.a.a.a.a.a.a.b:-1}",`, 99) + "0]")}
	result := json.RawMessage(strings.Repeat(`{"a":`, 8) + `"` + strings.Repeat("x", saga.MaxResultBytes-100) + `"` + strings.Repeat("}", 8))
	if n := allocated(func() {
		if _, err := c.Fill("a", saga.Results{"s": result}); err != nil {
			t.Error(err)
		}
	}); n > 8<<20 {
		t.Errorf("filling in allocates %d bytes", n)
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Who sends nothing but faults is not answered with more than that.
func TestFaultsAreBounded(t *testing.T) {
	long := strings.Repeat("é", 50_000)
	d := &saga.Definition{ID: "a", Labels: map[string]string{long: ""}, Steps: []saga.Step{{
		Name: long, After: []string{long}, Kind: saga.Kind(long),
		Action: saga.Call{Service: long, Method: long, Path: long, Headers: map[string]string{long: long}, Statuses: map[string]saga.Answer{long: saga.Answer(long)}},
	}}}
	for range 5 {
		s := saga.Step{Name: "s", Action: saga.Call{Service: "a", Path: "/", Body: []byte("[" + strings.Repeat(`"${x",`, 5000) + "0]")}}
		d.Steps = append(d.Steps, s)
	}
	err := d.Check()
	var faults saga.Faults
	if !errors.As(err, &faults) || len(faults) != saga.MaxFaults+1 || !strings.Contains(faults[saga.MaxFaults].Text, "more than these 100") || len(err.Error()) > 100_000 || !utf8.ValidString(err.Error()) {
		t.Errorf("%d faults, %d bytes", len(faults), len(err.Error()))
	}
}

// What is taken can be called, whatever the results: with one request, to the service that was named, and with no more headers than were given.
func FuzzWhatIsTakenCanBeCalled(f *testing.F) {
	f.Add([]byte(orderSaga), []byte(`{"id":"r/1"}`))
	f.Add([]byte(`{"id":"a","steps":[{"name":"b","action":{"service":"c.d:80","method":"PUT","path":"/e?f=%20${saga.id}","headers":{"G":"${saga.id}"},"body":["\u0024{saga.id}","$${"]}}]}`), []byte("1"))
	f.Add([]byte(`{"id":"a","steps":[{"name":"b","action":{"service":"c","path":"/"}},{"name":"d","action":{"service":"c","path":"/%2e/${steps.b.result.0:-%2f..}"},"compensate":{"service":"c","path":"/${steps.d.result:-.}."}}]}`), []byte(`[".."]`))
	f.Add([]byte(`{"id":"a","steps":[{"name":"b","after":[],"action":{"service":"C","path":"//x@y:1/\\","method":"pri","headers":{"te":"x"},"statuses":{"200":"pending"}},"timeout":"-1s","retry":{"attempts":-1,"max":"1h"}}]}`), []byte("\"\r\n\""))
	f.Fuzz(func(t *testing.T, definition, result []byte) {
		d, err := saga.ParseDefinition(definition)
		if err != nil || d.Check() != nil {
			return
		}
		stored, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := saga.ParseDefinition(stored); err != nil || again.Check() != nil {
			t.Errorf("it cannot be read again: %s: %v", stored, err)
		}
		results := saga.Results{}
		for i := range d.Steps {
			if json.Valid(result) {
				results[d.Steps[i].Name] = result
			}
		}
		for i := range d.Steps {
			for _, call := range []*saga.Call{&d.Steps[i].Action, d.Steps[i].Compensate} {
				if call == nil {
					continue
				}
				filled, err := call.Fill(d.ID, results)
				if err != nil {
					continue
				}
				method := cmp.Or(filled.Method, "POST")
				r, err := http.NewRequest(method, "http://egress"+filled.Path, bytes.NewReader(filled.Body)) //nolint:noctx // it is not made
				if err != nil {
					t.Fatalf("%q cannot be called: %v", filled.Path, err)
				}
				if r.URL.Host != "egress" || r.URL.User != nil || r.URL.Fragment != "" || !strings.HasPrefix(r.URL.RequestURI(), "/") || strings.ContainsAny(r.URL.RequestURI(), " \r\n\x00#") {
					t.Errorf("%q leads to %v", filled.Path, r.URL)
				}
				for name, value := range filled.Headers {
					if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
						t.Errorf("header %q: %q", name, value)
					}
				}
				if b := filled.Body; len(b) > saga.MaxBodyBytes || len(b) > 0 && !json.Valid(b) {
					t.Errorf("body %q", b)
				}
			}
		}
	})
}

func many(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint("x", i)] = "v"
	}
	return m
}

func TestACallOverGRPCHasAnOperationAndNothingOfHTTP(t *testing.T) {
	for text, want := range map[string]string{
		`"grpc":"reserve","headers":{"x-order":"${saga.id}"},"body":{"a":1},"statuses":{"ABORTED":"unknown","OK":"pending"}`: "",
		`"grpc":"reserve","method":"PUT","path":"/a"`: "steps[0].action.method: a call has either grpc, or method and path\nsteps[0].action.path: a call has either grpc, or method and path",
		`"grpc":"a b"`: `steps[0].action.grpc: "a b" is no name: letters, digits, and - _ . in between`,
		`"grpc":"a","headers":{"Content-Type":"a","x-bin":"a","te":"a","x":"é"}`: `steps[0].action.headers["Content-Type"]: gRPC sets this header` + "\n" +
			`steps[0].action.headers["x"]: metadata is printable ASCII` + "\n" + `steps[0].action.headers["x-bin"]: metadata of this name is bytes, and a header is text` + "\n" +
			`steps[0].action.headers["te"]: the coordinator, or the connection, sets this header`,
		`"grpc":"a","statuses":{"404":"done"}`:          `steps[0].action.statuses["404"]: over gRPC, a status is one of OK, CANCELLED, UNKNOWN,`,
		`"path":"/","statuses":{"ABORTED":"unknown"}`:   `steps[0].action.statuses["ABORTED"]: a status is three digits, 200 to 599`,
		`"path":"/","method":"TRACE"`:                   "steps[0].action.method: TRACE asks",
		`"grpc":"a","body":"${steps.b.result}"`:         `steps[0].action.body: ${steps.b.result}: there is no step "b"`,
		`"grpc":"a","statuses":{"ABORTED":"sometimes"}`: `"sometimes" is none of done, refused, unknown, pending`,
	} {
		d, err := saga.ParseDefinition([]byte(`{"id":"a","steps":[{"name":"a","action":{"service":"orders",` + text + `}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		err = d.Check()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAValueThatIsNoMetadataDoesNotGoIntoACallOverGRPC(t *testing.T) {
	results := saga.Results{"a": json.RawMessage(`"é"`)}
	c := saga.Call{Service: "orders", Path: "/", Headers: map[string]string{"x": "${steps.a.result}"}}
	if filled, err := c.Fill("s", results); err != nil || filled.Headers["x"] != "é" {
		t.Errorf("%v", err)
	}
	c.Path, c.GRPC = "", "reserve"
	if _, err := c.Fill("s", results); err == nil || !strings.Contains(err.Error(), `headers["x"]`) {
		t.Errorf("%v", err)
	}
	results["a"] = json.RawMessage(`"b"`)
	if filled, err := c.Fill("s", results); err != nil || filled.Headers["x"] != "b" || filled.GRPC != "reserve" || filled.Path != "" {
		t.Errorf("%+v %v", filled, err)
	}
}
