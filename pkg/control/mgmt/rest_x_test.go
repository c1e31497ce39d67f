package mgmt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
)

const (
	maxBody = 1 << 20
	orders  = "/v1/namespaces/default/services/orders"
	a1      = `{"id":"a1","address":"127.0.0.1","ports":[{"name":"http","number":9000,"protocol":"HTTP"}],"weight":1,"labels":{"version":"v1"},"ttl":"10s"}`
)

func TestDocumentedBodyIsTakenAndReadsBackWithItsEmptyFields(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		code, answer := w.http("POST", orders+"/instances", a1)
		want := `{"id":"a1","service":"orders","namespace":"default","address":"127.0.0.1",` +
			`"ports":[{"name":"http","number":9000,"protocol":"HTTP"}],"labels":{"version":"v1"},"zone":"","weight":1,` +
			`"status":"STATUS_UNSPECIFIED","identity":"","ttl":"10s","inboundPort":0,"registeredAt":"2000-01-01T00:00:00Z","revision":"3","liveness":"TTL","takesKnocks":false}`
		if code != http.StatusOK || string(answer) != want {
			t.Errorf("%d\n%s\nwant\n%s", code, answer, want)
		}
		if _, again := w.http("GET", orders+"/instances/a1", ""); string(again) != want {
			t.Errorf("it reads back as\n%s", again)
		}
	})
}

func TestRequestsThatMakeNoSenseAreRefusedInWords(t *testing.T) {
	large := `{"id":"` + strings.Repeat("a", 1<<20) + `"}`
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     codes.Code
		text                     string
	}{
		{"no body", "POST", orders + "/instances", "", 400, codes.InvalidArgument, "no body"},
		{"no body of a policy", "PUT", orders + "/policy", "", 400, codes.InvalidArgument, "no body"},
		{"no JSON", "POST", orders + "/instances", "id=a1", 400, codes.InvalidArgument, "instance: must be one JSON object"},
		{"cut off JSON", "POST", orders + "/instances", `{"id":"a1"`, 400, codes.InvalidArgument, "instance: must be one JSON object"},
		{"two bodies", "POST", orders + "/instances", a1 + a1, 400, codes.InvalidArgument, "after top-level value"},
		{"more after the body", "PUT", orders + "/policy", `{} x`, 400, codes.InvalidArgument, "after top-level value"},
		{"a list", "POST", orders + "/instances", `[` + a1 + `]`, 400, codes.InvalidArgument, "instance: must be an object"},
		{"a text", "PUT", orders + "/policy", `"RANDOM"`, 400, codes.InvalidArgument, "policy: must be an object"},
		{"null", "POST", orders + "/instances", ` null `, 400, codes.InvalidArgument, "instance: is required"},
		{"no UTF-8", "POST", orders + "/instances", "{\"id\":\"\xff\"}", 400, codes.InvalidArgument, "UTF-8"},
		{"half a surrogate", "POST", orders + "/instances", `{"labels":{"\ud800":"v"}}`, 400, codes.InvalidArgument, "labels: must be an object"},
		{"unknown field", "POST", orders + "/instances", `{"id":"a1","host":"127.0.0.1"}`, 400, codes.InvalidArgument, "host"},
		{"unknown field of a policy", "PUT", orders + "/policy", `{"breaker":{"openFor":"1s"}}`, 400, codes.InvalidArgument, "openFor"},
		{"field twice", "POST", orders + "/instances", `{"id":"a1","id":"a2","id":"a3"}`, 400, codes.InvalidArgument, "id: is given more than once; address"},
		{"unknown name of a value", "PUT", orders + "/policy", `{"loadBalancing":"BEST"}`, 400, codes.InvalidArgument, "loadBalancing"},
		{"number out of range", "POST", orders + "/instances", `{"weight":-1}`, 400, codes.InvalidArgument, "weight"},
		{"no duration", "POST", orders + "/instances", `{"ttl":"10 seconds"}`, 400, codes.InvalidArgument, "ttl: must be a duration in seconds"},
		{"deep nesting", "POST", orders + "/instances", strings.Repeat(`{"labels":`, 20_000), 400, codes.InvalidArgument, ""},
		{"large body", "POST", orders + "/instances", large, 413, codes.InvalidArgument, "larger than 1048576 bytes"},
		{"unknown parameter", "GET", "/v1/services?namespce=shop", "", 400, codes.InvalidArgument, `unknown parameter "namespce": there are namespace`},
		{"parameter where there are none", "GET", orders + "?x=1", "", 400, codes.InvalidArgument, "there are none here"},
		{"parameter twice", "GET", "/v1/services?namespace=a&namespace=b", "", 400, codes.InvalidArgument, "2 times"},
		{"broken query", "GET", "/v1/services?namespace=%zz", "", 400, codes.InvalidArgument, "cannot be read"},
		{"path of nothing", "GET", "/v1/orders", "", 404, codes.NotFound, "/openapi.json"},
		{"path beyond", "GET", orders + "/instances/a/b", "", 404, codes.NotFound, "/openapi.json"},
		{"path that begins twice", "GET", "//v1/services", "", 404, codes.NotFound, "/openapi.json"},
		{"path with an empty segment", "GET", "/v1//services", "", 404, codes.NotFound, "/openapi.json"},
		{"path that goes back", "GET", "/v1/namespaces/x/services/../..", "", 404, codes.NotFound, "/openapi.json"},
		{"path that goes back to another", "GET", "/v1/orders/../services", "", 404, codes.NotFound, "/openapi.json"},
		{"path that stays", "POST", "/v1/./services", "", 404, codes.NotFound, "/openapi.json"},
		{"path that ends twice", "GET", "/openapi.json//", "", 404, codes.NotFound, "/openapi.json"},
		{"root of the API without its slash", "GET", "/v1", "", 404, codes.NotFound, "/openapi.json"},
		{"root of the API", "GET", "/v1/", "", 404, codes.NotFound, "/openapi.json"},
		{"unknown verb", "POST", orders + "/instances/a1:revive", "", 405, codes.Unimplemented, `"POST"`},
		{"wrong method", "PATCH", orders, "", 405, codes.Unimplemented, `"PATCH"`},
		{"put of a list", "PUT", orders + "/instances", a1, 405, codes.Unimplemented, `"PUT"`},
		{"get of a renewal", "GET", orders + "/instances/a1:renew", "", 400, codes.InvalidArgument, "id"},
		{"post of a policy", "POST", orders + "/policy", "{}", 405, codes.Unimplemented, `"POST"`},
		{"post of a watch", "POST", "/v1/watch", "", 405, codes.Unimplemented, `"POST"`},
		{"delete of all services", "DELETE", "/v1/services", "", 405, codes.Unimplemented, `"DELETE"`},
		{"slash in a name", "GET", "/v1/namespaces/a%2Fb/services/orders", "", 404, codes.NotFound, ""},
		{"dots in a name", "DELETE", "/v1/namespaces/default/services/..%2F..%2Forders/policy", "", 404, codes.NotFound, ""},
		{"NUL in a name", "GET", "/v1/namespaces/default/services/a%00b", "", 400, codes.InvalidArgument, "service"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				status, answer := w.http(c.method, c.path, c.body)
				s := statusIn(t, answer)
				if status != c.status || s.Code() != c.code || !strings.Contains(s.Message(), c.text) {
					t.Errorf("%d %v %q, want %d %v %q", status, s.Code(), s.Message(), c.status, c.code, c.text)
				}
				if n := len(answer); n > 2000 {
					t.Errorf("the answer has %d bytes", n)
				}
				if services, _ := w.view.Services(""); len(services) != 0 {
					t.Errorf("there is %v now", services)
				}
			})
		})
	}
}

func TestBodyThatIsNotAsTheSchemaSaysIsRefusedWithAllItsFields(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		want               map[string]string // field: what its reason says
	}{
		{"POST", orders + "/instances", `{"id":7,"weight":-1,"host":"10.0.0.1","ttl":"soon","labels":[],"registeredAt":"now","status":"ILL",
			"ports":[{"name":"http","number":9000},{"number":1.5,"protocol":"GOPHER","x":{}},3]}`, map[string]string{
			"id": "text", "weight": "0 to 4294967295", "host": "no such field", "ttl": "duration in seconds", "labels": "object of names",
			"registeredAt": "time", "status": "HEALTHY", "address": "IPv4", "ports[1].name": "empty", "ports[1].number": "whole number", "ports[1].protocol": "HTTP", "ports[1].x": "no such field", "ports[2]": "an object",
		}},
		{"POST", orders + "/instances", `{"ports":7,"address":"::1"}`, map[string]string{"ports": "list"}},
		{"POST", orders + "/instances", `{"id":"A_B","address":"host.name","ports":[{"name":"h","number":1},{"name":"h","number":1}],"weight":20000,"status":"BOGUS"}`, map[string]string{
			"id": "a-z", "address": "IPv4", "ports[1].name": "taken", "ports[1].number": "taken", "weight": "1 to 10000", "status": "HEALTHY",
		}},
		{"POST", orders + "/instances", `{"address":"::1","address":"::2","ports":[{"number":1,"number":2},{"name":"b","number":70000}],"service":7,"namespace":"shop",
			"labels":{"a":1,"b":"x","b":"y","c":"` + strings.Repeat("v", 256) + `"},"identity":"spiffe://elsewhere/ns/default/sa/orders","inbound_port":"x"}`, map[string]string{
			"address": "more than once", "ports[0].number": "more than once", "ports[0].name": "empty", "ports[1].number": "65535", "service": "text", "namespace": "in the request",
			`labels["a"]`: "text", `labels["b"]`: "more than once", `labels["c"]`: "at most 255", "identity": "trust domain", "inboundPort": "whole number",
		}},
		{"PUT", orders + "/policy", `{"service":"carts","revision":"x","breaker":{"disabled":1,"failurePercent":101},"requestTimeout":"7200s"}`, map[string]string{
			"service": "in the request", "revision": "whole number", "breaker.disabled": "true or false", "breaker.failurePercent": "1 to 100", "requestTimeout": "1h",
		}},
		{"PUT", orders + "/policy", `{"loadBalancing":"BEST","breaker":{"openTime":5,"maxEjectionPercent":"half","disabled":"yes"}}`, map[string]string{
			"loadBalancing": "ROUND_ROBIN", "breaker.openTime": "duration", "breaker.maxEjectionPercent": "whole number", "breaker.disabled": "true or false",
		}},
		{"PUT", orders + "/policy", `{"breaker":"on"}`, map[string]string{"breaker": "an object"}},
	} {
		inBubble(t, func(t *testing.T, w *world) {
			code, answer := w.http(c.method, c.path, c.body)
			s := statusIn(t, answer)
			got := map[string]string{}
			for _, detail := range s.Details() {
				for _, v := range detail.(*errdetails.BadRequest).GetFieldViolations() {
					got[v.GetField()] = v.GetDescription()
				}
			}
			if code != 400 || len(got) != len(c.want) {
				t.Errorf("%s: %d, %v", c.body, code, got)
			}
			if instances, _ := w.view.Services(""); len(instances) > 0 {
				t.Errorf("%s is registered", c.body)
			}
			for field, reason := range c.want {
				if !strings.Contains(got[field], reason) || !strings.Contains(s.Message(), field+": ") {
					t.Errorf("%s: %q, want %q; %s", field, got[field], reason, s.Message())
				}
			}
		})
	}
}

func TestLongListIsNotSearchedForWhatIsWrongWithIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		body := `{"ports":[` + strings.Repeat(`{"number":1},`, 5000) + `{"number":-1}]}`
		if code, answer := w.http("POST", orders+"/instances", body); code != 400 || !strings.Contains(statusIn(t, answer).Message(), "more than 1000 elements") {
			t.Errorf("%d %s", code, answer)
		}
	})
}

func TestBodyThatIsAllWrongHasAShortAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		body := `{"` + strings.Repeat("x", 100_000) + `":1`
		for i := range 10_000 {
			body += fmt.Sprintf(`,"f%d":1`, i)
		}
		if code, answer := w.http("POST", orders+"/instances", body+"}"); code != 400 || len(answer) > 8000 {
			t.Errorf("%d, %d bytes", code, len(answer))
		}
	})
}

func TestPathWithAnotherMethodSaysWhichItTakes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for _, c := range []struct{ method, path, want string }{
			{"POST", "/v1/services", "GET, HEAD"},
			{"DELETE", orders, "GET, HEAD"},
			{"PUT", orders + "/instances", "GET, HEAD, POST"},
			{"POST", orders + "/instances/a1", "DELETE, GET, HEAD"},
			{"PUT", orders + "/instances/a1:renew", "DELETE, GET, HEAD, POST"},
			{"PUT", orders + "/instances:release", "POST"},
			{"POST", orders + "/policy", "DELETE, GET, HEAD, PUT"},
			{"OPTIONS", "/v1/sidecars", "GET, HEAD"},
			{"POST", "/v1/watch", "GET, HEAD"},
			{"HEAD", orders + "/instances:release", "POST"},
		} {
			a := w.open(t.Context(), c.method, c.path, nil)
			_ = a.Body.Close()
			if got := a.Header.Get("Allow"); a.StatusCode != http.StatusMethodNotAllowed || got != c.want {
				t.Errorf("%s %s: %d, Allow: %s, want %s", c.method, c.path, a.StatusCode, got, c.want)
			}
		}
	})
}

func TestHeadIsGetWithoutTheBody(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.register(instance("orders", "a"))
		for path, code := range map[string]int{
			"/v1/services": 200, orders: 200, orders + "/instances": 200, orders + "/instances/a": 200, orders + "/instances/b": 404, orders + "/policy": 404,
			"/v1/sidecars": 200, "/v1/watch": 200, "/v1/watch?namespace=A": 400, "/v1/nothing": 404, "/openapi.json": 200,
		} {
			get, head := w.open(t.Context(), "GET", path, nil), w.open(t.Context(), "HEAD", path, nil)
			body, err := io.ReadAll(head.Body) // which ends, the watch's, too
			_ = get.Body.Close()
			if err != nil || len(body) > 0 || head.StatusCode != code || get.StatusCode != code || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
				t.Errorf("%s: HEAD %d %v %q %v, GET %d %v, want %d", path, head.StatusCode, head.Header, body, err, get.StatusCode, get.Header, code)
			}
		}
	})
}

func TestBodyThatNobodyWouldReadIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.register(instance("orders", "a"))
		for _, path := range []string{"POST " + orders + "/instances/a:renew", "POST " + orders + "/instances:release", "GET " + orders, "GET /v1/sidecars", "DELETE " + orders + "/instances/a"} {
			method, path, _ := strings.Cut(path, " ")
			code, answer := w.http(method, path, `{"ttl":"60s"}`)
			if code != http.StatusBadRequest || !strings.Contains(statusIn(t, answer).Message(), "takes no body") {
				t.Errorf("%s %s: %d %s", method, path, code, answer)
			}
			a := w.open(t.Context(), method, path, unsized{strings.NewReader(strings.Repeat(" ", maxBody+1))})
			_ = a.Body.Close()
			if a.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("%s %s: %s", method, path, a.Status)
			}
			if code, answer := w.http(method, path, " {}\n"); code != http.StatusOK {
				t.Errorf("%s %s with an empty object: %d %s", method, path, code, answer)
			}
		}
	})
}

// unsized hides how large a body is.
type unsized struct{ io.Reader }

func TestBodyThatDoesNotSayHowLargeItIsIsBoundedToo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.open(t.Context(), "POST", orders+"/instances", unsized{strings.NewReader(`{"zone":"` + strings.Repeat("z", 4<<20))})
		defer func() { _ = a.Body.Close() }()
		answer, _ := io.ReadAll(a.Body)
		if a.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(answer), "larger than 1048576 bytes") {
			t.Errorf("%d %s", a.StatusCode, answer)
		}
	})
}

func TestFormIsNoWayToSayAnotherMethod(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.register(instance("orders", "a"))
		const form = "application/x-www-form-urlencoded"
		for _, method := range []string{"GET", "DELETE"} {
			if code, _ := w.http("POST", orders+"/instances/a", "", "Content-Type", form, "X-HTTP-Method-Override", method); code != http.StatusMethodNotAllowed {
				t.Errorf("POST as %s: %d", method, code)
			}
		}
		if !w.has("orders", "a") {
			t.Error("the instance is gone")
		}
	})
}

func TestAnswersHaveNoHeadersOfTheTransportBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for _, path := range []string{"/v1/services", orders} {
			a := w.open(t.Context(), "GET", path, nil)
			_ = a.Body.Close()
			for name := range a.Header {
				if strings.HasPrefix(name, "Grpc-") {
					t.Errorf("%s answers with %s", path, name)
				}
			}
		}
	})
}

func TestTheDescriptionNamesEveryPathAndMethod(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		code, answer := w.http("GET", "/openapi.json", "")
		var description struct {
			Paths map[string]map[string]any `json:"paths"`
		}
		if err := json.Unmarshal(answer, &description); err != nil || code != http.StatusOK {
			t.Fatal(code, err)
		}
		const one = "/v1/namespaces/{namespace}/services/{service}"
		for path, methods := range map[string]string{
			"/v1/services": "get", one: "get", one + "/instances": "get post", one + "/instances/{id}": "get delete",
			one + "/instances/{id}:renew": "post", one + "/instances:release": "post", one + "/policy": "get put delete", "/v1/watch": "get", "/v1/sidecars": "get",
		} {
			for _, method := range strings.Fields(methods) {
				if description.Paths[path][method] == nil {
					t.Errorf("%s %s is not described", method, path)
				}
			}
			if n := len(strings.Fields(methods)); len(description.Paths[path]) != n {
				t.Errorf("%s is described with %d methods, and has %d", path, len(description.Paths[path]), n)
			}
		}
		if len(description.Paths) != 9 {
			t.Errorf("%d paths are described", len(description.Paths))
		}
	})
}

func TestTheDescriptionIsWholeAndSaysHowErrorsAreAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		_, answer := w.http("GET", "/openapi.json", "")
		type parameter struct {
			Name, In string
			Required bool
		}
		type operation struct {
			OperationID string `json:"operationId"`
			Produces    []string
			Parameters  []parameter
			Responses   map[string]struct {
				Description string
				Schema      map[string]any
			}
		}
		var description struct {
			Swagger     string
			Info        struct{ Title, Version string }
			Produces    []string
			Paths       map[string]map[string]operation
			Definitions map[string]any
		}
		if err := json.Unmarshal(answer, &description); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s%v %v", description.Swagger, description.Info, description.Produces); got != "2.0{Fairlead control plane v1} [application/json]" {
			t.Errorf("it begins with %s", got)
		}
		for _, ref := range regexp.MustCompile(`"\$ref":\s*"#/definitions/([^"]*)"`).FindAllSubmatch(answer, -1) {
			if description.Definitions[string(ref[1])] == nil {
				t.Errorf("%s is not defined", ref[1])
			}
		}
		named := map[string]bool{}
		for path, operations := range description.Paths {
			for method, o := range operations {
				if o.OperationID == "" || named[o.OperationID] {
					t.Errorf("%s %s is named %q, as another is", method, path, o.OperationID)
				}
				named[o.OperationID] = true
				for _, code := range []string{"200", "400", "404", "405", "409", "413", "429", "503", "default"} {
					r := o.Responses[code]
					if r.Description == "" || r.Schema == nil || code != "200" && r.Schema["$ref"] != "#/definitions/googleRpcStatus" {
						t.Errorf("%s %s: %s is described by %v", method, path, code, r)
					}
				}
				for _, variable := range regexp.MustCompile(`{(\w+)}`).FindAllStringSubmatch(path, -1) {
					if !slices.Contains(o.Parameters, parameter{variable[1], "path", true}) {
						t.Errorf("%s %s: %s is not described", method, path, variable[1])
					}
				}
				if lines := slices.Equal(o.Produces, []string{"application/x-ndjson"}); lines != (path == "/v1/watch") {
					t.Errorf("%s %s produces %v", method, path, o.Produces)
				}
			}
		}
	})
}

func TestSidecarIsListedWithWhatItHas(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		w.register(instance("orders", "a"))
		s := w.subscriber("caller-1", endpointsOf("orders"), "nobody.default:http")
		defer s.stop()
		synctest.Wait()
		list := must[*meshv1.ListSidecarsResponse](t, w, ask, &meshv1.ListSidecarsRequest{})
		if len(list.GetSidecars()) != 1 {
			t.Fatalf("sidecars %v", list)
		}
		got := list.GetSidecars()[0]
		if got.GetNode() != "caller-1" || got.GetService() != "caller.default" || got.GetConnectedAt() == nil || len(got.GetTypes()) != 1 {
			t.Errorf("sidecar %v", got)
		}
		of := got.GetTypes()[0]
		if of.GetSubscribed() != 2 || len(of.GetApplied()) != 1 || of.GetApplied()[0].GetName() != endpointsOf("orders") || of.GetApplied()[0].GetVersion() == "" {
			t.Errorf("of endpoints %v", of)
		}
	})
}

func TestSidecarThatRefusesIsListedWithItsReason(t *testing.T) {
	onBothFaces(t, func(t *testing.T, w *world, ask ask) {
		w.register(instance("orders", "a"))
		s := w.refuser("caller-1", "no such zone", endpointsOf("orders"))
		defer s.stop()
		synctest.Wait()
		list := must[*meshv1.ListSidecarsResponse](t, w, ask, &meshv1.ListSidecarsRequest{})
		rejected := list.GetSidecars()[0].GetTypes()[0].GetRejected()
		if len(rejected) != 1 || rejected[0].GetReason() != "no such zone" || rejected[0].GetVersion() == "" || rejected[0].GetAt() == nil {
			t.Errorf("rejected %v", rejected)
		}
	})
}

// watching reads a watch over REST.
type watching struct {
	t    *testing.T
	body *http.Response
	json *json.Decoder
	stop context.CancelFunc
}

func (w *world) watchREST(query string) *watching {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	a := w.open(ctx, "GET", "/v1/watch"+query, nil)
	if got := a.Header.Get("Content-Type"); a.StatusCode != http.StatusOK || got != "application/x-ndjson" {
		w.t.Fatalf("the watch begins with %s %s", a.Status, got)
	}
	stop := func() { cancel(); _ = a.Body.Close() }
	w.t.Cleanup(stop)
	return &watching{t: w.t, body: a, json: json.NewDecoder(a.Body), stop: stop}
}

// Recv makes it one of the streams that watches are tested by.
func (s *watching) Recv() (*meshv1.WatchResponse, error) {
	var line struct{ Result, Error json.RawMessage }
	if err := s.json.Decode(&line); err != nil {
		return nil, err
	}
	if line.Error != nil {
		return nil, statusIn(s.t, line.Error).Err()
	}
	result := &meshv1.WatchResponse{}
	return result, protojson.Unmarshal(line.Result, result)
}

func TestWatchIsOneObjectPerLine(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.register(instance("orders", "a"))
		watch := w.watchREST("")
		w.register(instance("orders", "b"))
		w.register(instance("orders", "c"))
		w.rest.EndWatches()
		all, err := io.ReadAll(watch.body.Body)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(bytes.TrimSuffix(all, []byte("\n")), []byte("\n"))
		for n, line := range lines {
			if !json.Valid(line) || !bytes.HasPrefix(line, []byte(map[bool]string{true: `{"error":`, false: `{"result":`}[n == len(lines)-1])) {
				t.Errorf("line %d of %d is %s", n, len(lines), line)
			}
		}
	})
}

func TestWatchThatCannotBeginIsAnsweredLikeAnyRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for query, field := range map[string]string{"?namespace=A": "namespace", "?service=A": "service"} {
			code, answer := w.http("GET", "/v1/watch"+query, "")
			expectFault(t, statusIn(t, answer).Err(), codes.InvalidArgument, "the request is not valid", field)
			if code != http.StatusBadRequest {
				t.Errorf("%s: %d", query, code)
			}
		}
		code, answer := w.http("GET", "/v1/watch?token=7", "")
		expectFault(t, statusIn(t, answer).Err(), codes.InvalidArgument, `unknown parameter "token": there are namespace, service, revision`)
		if code != http.StatusBadRequest {
			t.Errorf("%d", code)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		code, answer := newWorld(t).http("GET", "/v1/watch", "")
		expectFault(t, statusIn(t, answer).Err(), codes.Unavailable, "has not read the store yet")
		if code != http.StatusServiceUnavailable {
			t.Errorf("%d", code)
		}
	})
}
