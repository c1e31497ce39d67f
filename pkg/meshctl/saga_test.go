package meshctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rest"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

type caller func(r *coordinator.Request) saga.Outcome

func (f caller) Call(_ context.Context, r *coordinator.Request) saga.Outcome { return f(r) }

// serveSagas serves the API of a real coordinator whose calls f answers.
func serveSagas(t *testing.T, f caller) (address string) {
	t.Helper()
	s := memstore.New()
	c := coordinator.New(coordinator.Config{Store: s, Caller: f, Name: "one", Shards: 2, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	server := httptest.NewServer(rest.New(c))
	t.Cleanup(func() { server.Close(); cancel(); <-ended; _ = s.Close() })
	return server.Listener.Addr().String()
}

// serveAnswers serves what f answers, in place of a control plane.
func serveAnswers(t *testing.T, f http.HandlerFunc) (address string) {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// tell runs a command about sagas as the process would.
func tell(t *testing.T, address, stdin string, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	root := command(&o, &e, func() time.Time { return then })
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&o)
	root.SetErr(&e)
	root.SetArgs(append([]string{"saga", "--control-plane-http", address}, args...))
	code = flags.Execute(root)
	return o.String(), e.String(), code
}

// order is a saga of two steps.
func order(id string) string {
	return fmt.Sprintf(`{"id":%q,"labels":{"tenant":"t-%s"},"steps":[
 {"name":"reserve","action":{"service":"inventory","path":"/reserve"},"compensate":{"service":"inventory","path":"/release"},"retry":{"attempts":1}},
 {"name":"charge","action":{"service":"payments","path":"/charge"},"compensate":{"service":"payments","path":"/refund"},"retry":{"attempts":1}}]}`, id, id)
}

func works(*coordinator.Request) saga.Outcome {
	return saga.Outcome{Answer: saga.AnswerDone, Result: json.RawMessage(`{"id":12345678901234567890}`)}
}

// undoesNothing answers nothing for sure of charge, and of what undoes.
func undoesNothing(r *coordinator.Request) saga.Outcome {
	if r.Step == "charge" || r.Undo {
		return saga.Outcome{Answer: saga.AnswerUnknown, Text: "500"}
	}
	return works(r)
}

func TestASagaIsStartedFromAFileAndWaitedFor(t *testing.T) {
	address := serveSagas(t, works)
	file := filepath.Join(t.TempDir(), "order.json")
	if err := os.WriteFile(file, []byte(order("order-1")), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the same again is the same saga
		if out, errOut, code := tell(t, address, "", "start", "-f", file); code != 0 || !strings.Contains(out, "order-1") {
			t.Errorf("%d %s%s", code, out, errOut)
		}
	}
	out, errOut, code := tell(t, address, "", "wait", "order-1", "--timeout", "20s")
	if code != 0 || !strings.Contains(out, "completed") || !strings.Contains(out, `{"id":12345678901234567890}`) {
		t.Errorf("%d %s%s", code, out, errOut)
	}
}

func TestADefinitionOfYAMLComesWithItsDigits(t *testing.T) {
	bodies := make(chan string, 1)
	address := serveSagas(t, func(r *coordinator.Request) saga.Outcome {
		bodies <- string(r.Call.Body)
		return saga.Outcome{Answer: saga.AnswerDone}
	})
	const definition = `# of today
id: order-1
deadline: 30s
steps:
- name: reserve
  action:
    service: inventory
    path: /reserve
    statuses: {404: done}
    body: &b
      n: 123456789012345678901234567890
      price: 0.1000000000000000000001
      day: 2026-01-02
      what: "<a&b>"
      yes: true
      none: ~
      zip: "010"
`
	if out, errOut, code := tell(t, address, definition, "start", "-f", "-"); code != 0 {
		t.Fatalf("%d %s%s", code, out, errOut)
	}
	const want = `{"n":123456789012345678901234567890,"price":0.1000000000000000000001,"day":"2026-01-02","what":"<a&b>","yes":true,"none":null,"zip":"010"}`
	if diff := cmp.Diff(<-bodies, want); diff != "" {
		t.Errorf("(-got, +want):\n%s", diff)
	}
}

func TestAFileThatIsNoDefinitionIsNotSent(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	for text, want := range map[string]string{
		"":                                  "standard input is empty",
		"# nothing":                         "nothing but comments",
		"id: a\n---\nid: b":                 "a second document begins",
		"id: a\nid: b":                      `line 2: "id" is given more than once`,
		"id: 0x1F":                          `line 1: "0x1F" is no number in JSON`,
		"n: .inf":                           `".inf" is no number in JSON`,
		"n: 010":                            `"010" is no number in JSON`,
		"a: &a {x: 1}\nb:\n  <<: *a":        "<< is not read",
		"a: !!binary eA==":                  "JSON has nothing for !!binary",
		"? [a]\n: b":                        "a name is a text",
		"a: [":                              "line 1",
		"a: &a [*a]":                        "",
		bomb:                                "stands for more than",
		"a: " + strings.Repeat("x", 2<<20):  "has more than 1048576 bytes",
		"- " + strings.Repeat("[", 200_000): "",
	} {
		out, errOut, code := tell(t, "127.0.0.1:1", text, "start", "-f", "-")
		if code != flags.ExitFailure || out != "" || !strings.Contains(errOut, "--file: ") || !strings.Contains(errOut, want) {
			t.Errorf("%.40q: %d %s%.300s", text, code, out, errOut)
		}
	}
	if _, errOut, code := tell(t, "127.0.0.1:1", "", "start", "-f", "/no/such/file"); code != flags.ExitFailure || !strings.Contains(errOut, "--file: open /no/such/file") {
		t.Errorf("%d %s", code, errOut)
	}
}

func TestAParkedSagaIsResolvedByAPersonWhoIsNamed(t *testing.T) {
	address := serveSagas(t, undoesNothing)
	tell(t, address, order("order-1"), "start", "-f", "-")
	out, errOut, code := tell(t, address, "", "wait", "order-1")
	if code != exitParked || !strings.Contains(out, "could not be undone: 500") || !strings.Contains(errOut, "error: saga order-1 is parked, for a person to decide: step charge") {
		t.Fatalf("%d %s%s", code, out, errOut)
	}
	for _, args := range [][]string{
		{"resolve", "order-1", "charge", "--as", "compensated", "--by", "ada", "--note", "refunded by hand"},
		{"skip", "order-1", "reserve", "--by", "bob"},
		{"resume", "order-1"},
	} {
		if out, errOut, code := tell(t, address, "", args...); code != 0 {
			t.Fatalf("%v: %d %s%s", args, code, out, errOut)
		}
	}
	out, errOut, code = tell(t, address, "", "wait", "order-1")
	if code != exitCompensated || !strings.Contains(errOut, "error: saga order-1 is compensated: ") {
		t.Errorf("%d %s", code, errOut)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ada", "resolve charge as compensated  refunded by hand", "bob", "skip reserve", me.Username, "resume"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

func TestAPersonRetriesAndAborts(t *testing.T) {
	var failing atomic.Bool
	failing.Store(true)
	address := serveSagas(t, func(r *coordinator.Request) saga.Outcome {
		if failing.Load() && r.Step == "charge" && !r.Undo {
			return saga.Outcome{Answer: saga.AnswerNotRun, Text: "connect_failed"}
		}
		return works(r)
	})
	for _, id := range []string{"retried", "aborted"} {
		patient := strings.Replace(order(id), `"/refund"},"retry":{"attempts":1}`, `"/refund"},"retry":{"attempts":9,"backoff":"1h","max":"1h"}`, 1)
		tell(t, address, patient, "start", "-f", "-")
		var out string
		for deadline := time.Now().Add(20 * time.Second); !strings.Contains(out, "connect_failed"); time.Sleep(5 * time.Millisecond) {
			if out, _, _ = tell(t, address, "", "show", id); time.Now().After(deadline) {
				t.Fatal(out)
			}
		}
	}
	if _, errOut, code := tell(t, address, "", "wait", "retried", "--timeout", "10ms"); code != exitGoesOn || !strings.Contains(errOut, "saga retried is still running after 10ms") {
		t.Errorf("%d %s", code, errOut)
	}
	if out, errOut, code := tell(t, address, "", "abort", "aborted", "--note", "no longer wanted"); code != 0 {
		t.Errorf("%d %s%s", code, out, errOut)
	}
	if out, errOut, code := tell(t, address, "", "wait", "aborted"); code != exitCompensated || !strings.Contains(out, ": no longer wanted") {
		t.Errorf("%d %s%s", code, out, errOut)
	}
	failing.Store(false)
	if out, errOut, code := tell(t, address, "", "retry", "retried"); code != 0 {
		t.Errorf("%d %s%s", code, out, errOut)
	}
	if out, errOut, code := tell(t, address, "", "wait", "retried"); code != 0 {
		t.Errorf("%d %s%s", code, out, errOut)
	}
}

func TestSagasAreListedByStateAndLabel(t *testing.T) {
	address := serveSagas(t, works)
	for i := range 3 {
		tell(t, address, order(fmt.Sprint("order-", i)), "start", "-f", "-")
		tell(t, address, "", "wait", fmt.Sprint("order-", i))
	}
	for args, want := range map[string]string{
		"list":                                      "order-0 order-1 order-2",
		"list --state completed":                    "order-0 order-1 order-2",
		"list --state parked":                       "",
		"list --label tenant=t-order-1":             "order-1",
		"list --label tenant=x":                     "",
		"list -o json":                              "order-0 order-1 order-2",
		"list --state parked -o json --label a=b=c": "",
	} {
		out, errOut, code := tell(t, address, "", strings.Fields(args)...)
		var ids []string
		if strings.Contains(args, "json") {
			var all struct{ Sagas []struct{ ID string } }
			if err := json.Unmarshal([]byte(out), &all); err != nil || all.Sagas == nil {
				t.Errorf("%s: %v %s", args, err, out)
			}
			for _, s := range all.Sagas {
				ids = append(ids, s.ID)
			}
		} else {
			for line := range strings.Lines(out) {
				if id := strings.Fields(line)[0]; id != "ID" {
					ids = append(ids, id)
				}
			}
		}
		if got := strings.Join(ids, " "); code != 0 || got != want {
			t.Errorf("%s: %d %s%s", args, code, out, errOut)
		}
	}
}

func TestAllPagesOfAListAreShown(t *testing.T) {
	pages := map[string]string{
		"":  `{"sagas":[{"id":"a","state":"running","started":"2026-01-02T03:03:05Z"}],"after":"a"}`,
		"a": `{"sagas":[{"id":"b","state":"parked","reason":"why","labels":{"k":"v"},"started":"2026-01-02T03:03:05Z"}],"after":"b"}`,
		"b": `{"sagas":[]}`,
	}
	address := serveAnswers(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, pages[r.URL.Query().Get("after")])
	})
	out, _, code := tell(t, address, "", "list")
	want := "ID  STATE    AGE  REASON  LABELS\na   running  60s  -       -\nb   parked   60s  why     k=v\n"
	if diff := cmp.Diff(out, want); code != 0 || diff != "" {
		t.Errorf("%d (-got, +want):\n%s", code, diff)
	}
	pages["b"] = pages[""] // a list that turns back would have no end
	if _, errOut, code := tell(t, address, "", "list"); code != 1 || !strings.Contains(errOut, "behind saga b comes a") {
		t.Errorf("%d %s", code, errOut)
	}
}

// parked is a saga as the API shows it, with text that would move the cursor, and a long result.
var parked = `{"id":"order-42","state":"parked","reason":"step charge could not be undone: 500","labels":{"tenant":"t1","on":"\u001b[2J"},
"started":"2026-01-02T03:02:05Z","steps":[
{"name":"reserve","state":"compensated","attempts":1,"compensations":1,"result":{"n":123456789012345678901234567890,"x":1.50,"l":[true,null,"a:b",[],{}],"t":"\ud83d\ude00 yes","long":"` + strings.Repeat("ü", 80) + `"}},
{"name":"charge","state":"compensating","kind":"compensatable","attempts":2,"compensations":25,"next":"2026-01-02T03:04:09Z","text":"500\r\nforged"},
{"name":"pay","state":"running","kind":"pivot","attempts":1,"next":"2026-01-02T03:04:01Z","result":"10"},
{"name":"ship","state":"pending","kind":"retriable","attempts":0}],
"verbs":[{"verb":"retry","by":"ada","at":"2026-01-02T03:03:05.5Z"},{"verb":"resolve","step":"reserve","as":"compensated","by":"b\u009b2J","note":"by hand","at":"2026-01-02T03:03:10Z"}]}`

func TestASagaIsShownAsInTheGoldenFiles(t *testing.T) {
	open := strings.Replace(parked, `"state":"parked"`, `"state":"compensating"`, 1)
	address := serveAnswers(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/sagas/open" {
			_, _ = fmt.Fprintln(w, open)
			return
		}
		_, _ = fmt.Fprintln(w, parked)
	})
	for name, args := range map[string]string{
		"open.txt":  "show open",
		"saga.txt":  "show order-42",
		"saga.json": "show order-42 -o json",
		"saga.yaml": "show order-42 -o yaml",
		"help.txt":  "--help",
		"wait.txt":  "wait --help",
	} {
		t.Run(name, func(t *testing.T) {
			got, errOut, code := tell(t, address, "", strings.Fields(args)...)
			if code != 0 {
				t.Fatal(code, errOut)
			}
			golden(t, name, got)
		})
	}
}

// golden compares with a file, or writes that.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "saga", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, string(want)); diff != "" {
		t.Errorf("(-got, +want):\n%s", diff)
	}
}

// timelines are sagas as the API shows them.
var timelines = map[string]string{
	"undone": `{"id":"order-43","state":"compensated","reason":"step ship was refused: 409: no courier","started":"2026-01-02T03:02:05.1234Z","ended":"2026-01-02T03:02:16.9Z","steps":[
{"name":"reserve","state":"compensated","attempts":1,"compensations":2,"result":{"id":17},"timeline":[
 {"call":"action","attempt":1,"at":"2026-01-02T03:02:05.123Z","took":"12ms","answer":"done"},
 {"call":"compensate","attempt":1,"at":"2026-01-02T03:02:16.202Z","took":"500ms","answer":"unknown"},
 {"call":"compensate","attempt":2,"at":"2026-01-02T03:02:16.883Z","took":"9ms","answer":"done"}]},
{"name":"charge","state":"compensated","attempts":3,"compensations":1,"timeline":[
 {"call":"action","attempt":1,"at":"2026-01-02T03:02:05.136Z","took":"3ms","answer":"not_run"},
 {"call":"action","attempt":2,"at":"2026-01-02T03:02:15.139Z","took":"1s","answer":"unknown"},
 {"call":"action","attempt":3,"at":"2026-01-02T03:02:16.140Z","took":"21ms","answer":"done"},
 {"call":"compensate","attempt":1,"at":"2026-01-02T03:02:16.202Z","took":"8ms","answer":"done"}]},
{"name":"pack","state":"compensated","attempts":4,"timeline":[
 {"call":"action","attempt":1,"at":"2026-01-02T03:02:05.136Z","took":"4ms","answer":"pending"},
 {"call":"action","attempt":2,"at":"2026-01-02T03:02:06.140Z","took":"2ms","answer":"pending"},
 {"call":"action","attempt":3,"at":"2026-01-02T03:02:08.142Z","took":"3ms","answer":"done"}]},
{"name":"ship","state":"refused","attempts":1,"timeline":[{"call":"action","attempt":1,"at":"2026-01-02T03:02:16.161Z","took":"40ms","answer":"refused"}]}]}`,
	"running": `{"id":"order-44","state":"running","started":"2026-01-02T03:03:05Z","steps":[
{"name":"a-step-with-a-name-that-is-as-long-as-one-may-be","state":"running","attempts":40,"timeline":[` + attempts("action", 13, 40) + `]},
{"name":"b","state":"running","attempts":2,"timeline":[
 {"call":"action","attempt":1,"at":"2026-01-02T03:03:05Z","answer":"unknown"},
 {"call":"action","attempt":2,"at":"2026-01-02T03:03:45Z"}]},
{"name":"c","state":"pending"}]}`,
	"short": `{"id":"order-45","state":"completed","started":"2026-01-02T03:03:05.9999Z","ended":"2026-01-02T03:03:06.001Z","steps":[
{"name":"a","state":"done","attempts":1,"timeline":[{"call":"action","attempt":1,"at":"2026-01-02T03:03:05.999Z","took":"1ms","answer":"done"}]}]}`,
}

// attempts are calls of which each lasts 20 ms, and the next comes a second later.
func attempts(call string, from, to int) string {
	var all []string
	for i := from; i <= to; i++ {
		answer := "unknown"
		if i%3 == 0 {
			answer = "not_run"
		}
		at := time.Date(2026, 1, 2, 3, 3, 5+i-from, 0, time.UTC).Format(time.RFC3339)
		all = append(all, fmt.Sprintf(`{"call":%q,"attempt":%d,"at":%q,"took":"20ms","answer":%q}`, call, i, at, answer))
	}
	return strings.Join(all, ",")
}

func TestTheTimelineOfASagaIsDrawnAsInTheGoldenFiles(t *testing.T) {
	address := serveAnswers(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, timelines[filepath.Base(r.URL.Path)])
	})
	for name := range timelines {
		t.Run(name, func(t *testing.T) {
			out, errOut, code := tell(t, address, "", "show", name)
			if code != 0 {
				t.Fatal(code, errOut)
			}
			golden(t, "timeline-"+name+".txt", out)
			for line := range strings.Lines(out) {
				if n := utf8.RuneCountInString(line); n > 121 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

func TestARealTimelineIsDrawn(t *testing.T) {
	var asked atomic.Int32
	address := serveSagas(t, func(r *coordinator.Request) saga.Outcome {
		if asked.Add(1) == 1 {
			return saga.Outcome{Answer: saga.AnswerNotRun, Text: "connect_failed"}
		}
		return works(r)
	})
	tell(t, address, strings.Replace(order("order-1"), `"attempts":1`, `"attempts":2,"backoff":"1ms","max":"1ms"`, 1), "start", "-f", "-")
	out, errOut, code := tell(t, address, "", "wait", "order-1")
	if code != 0 {
		t.Fatal(code, errOut)
	}
	at := 0
	for _, want := range []string{"STEP     CALL      AT", "reserve  action 1  +", "not run", "·\n", "reserve  action 2  +", "done", "█\n", "charge   action 1  +", "done", "█\n"} {
		i := strings.Index(out[at:], want)
		if i < 0 {
			t.Fatalf("no %q at its place in:\n%s", want, out)
		}
		at += i
	}
}

// shardless says that the shard has no owner.
func shardless(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "0")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = fmt.Fprintln(w, `{"code":503,"message":"the shard has no owner: ask again"}`)
}

func TestWhatCanBeAskedTwiceIsAskedAgainWhileThereIsNoOwner(t *testing.T) {
	var asked atomic.Int32
	address := serveAnswers(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1)%2 == 1 {
			shardless(w)
			return
		}
		_, _ = fmt.Fprintln(w, parked)
	})
	for _, args := range []string{"show a", "start -f -"} {
		if out, errOut, code := tell(t, address, "{}", strings.Fields(args)...); code != 0 || !strings.Contains(out, "order-42") {
			t.Errorf("%s: %d %s", args, code, errOut)
		}
	}
	before := asked.Load()
	_, errOut, code := tell(t, address, "", "skip", "a", "b")
	if code != 1 || asked.Load() != before+1 || !strings.Contains(errOut, "see with meshctl saga show whether it was done") {
		t.Errorf("%d, asked %d times: %s", code, asked.Load()-before, errOut)
	}
}

func TestAWaitOutlivesTheControlPlane(t *testing.T) {
	var waits atomic.Int32
	address := serveAnswers(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasSuffix(r.URL.Path, ":wait"), r.FormValue("timeout") == "0s":
			_, _ = fmt.Fprintln(w, `{"id":"a","state":"running"}`)
		case waits.Add(1) <= 2:
			panic(http.ErrAbortHandler) // the connection breaks
		case waits.Load() == 3:
			shardless(w)
		default:
			_, _ = fmt.Fprintln(w, `{"id":"a","state":"completed"}`)
		}
	})
	if out, errOut, code := tell(t, address, "", "wait", "a", "--timeout", "20s"); code != 0 || strings.Count(errOut, "waiting on") != 1 {
		t.Errorf("%d %s%s", code, out, errOut)
	}
	ownerless := serveAnswers(t, func(w http.ResponseWriter, _ *http.Request) { shardless(w) })
	if _, errOut, code := tell(t, ownerless, "", "wait", "a", "--timeout", "50ms"); code != 1 || !strings.Contains(errOut, "error: the shard has no owner") {
		t.Errorf("%d %s", code, errOut)
	}
}

func TestWhatASagaCannotDoIsSaid(t *testing.T) {
	address := serveSagas(t, works)
	tell(t, address, order("order-1"), "start", "-f", "-")
	tell(t, address, "", "wait", "order-1")
	for _, c := range []struct{ stdin, args, want string }{
		{`{"id":"","steps":[]}`, "start -f -", "error: the control plane refused:\n         id: required\n         steps: a saga has at least one step"},
		{`{"id":`, "start -f -", "error: the definition cannot be read: unexpected EOF"},
		{"id: 7\nsteps: []", "start -f -", "cannot unmarshal number"},
		{strings.Replace(order("order-1"), "/charge", "/other", 1), "start -f -", "other content"},
		{"", "show none", "error: there is no saga with this id"},
		{"", "wait none", "error: there is no saga with this id"},
		{"", "retry order-1", "order-1: it is completed"},
		{"", "resume none", "error: there is no saga with this id"},
	} {
		if out, errOut, code := tell(t, address, c.stdin, strings.Fields(c.args)...); code != 1 || out != "" || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: %d %s%s", c.args, code, out, errOut)
		}
	}
}

func TestAnAddressThatServesNoSagasIsSaidSo(t *testing.T) {
	grpcAddress, _ := serve(t, &fixed{})
	for address, want := range map[string]string{
		"127.0.0.1:1":                  "127.0.0.1:1 cannot be reached",
		grpcAddress:                    "is --control-plane-http right?",
		serveAnswers(t, http.NotFound): `answers "404 Not Found", and so does not serve sagas: is --control-plane-http right?`,
		serveAnswers(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}): `answers "302 Found"`,
		serveAnswers(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "{}") }):    "there is no saga in it",
		serveAnswers(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "hello") }): "invalid character",
		serveAnswers(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotImplemented)
			_, _ = fmt.Fprintln(w, `{"code":501,"message":"start it with --saga-egress\u001b[2J"}`)
		}): `error: "start it with --saga-egress\x1b[2J"`,
	} {
		for _, verb := range []string{"show", "wait", "abort"} {
			if out, errOut, code := tell(t, address, "", verb, "a"); code != 1 || out != "" || !strings.Contains(errOut, want) {
				t.Errorf("%s %s: %d %s%s", address, verb, code, out, errOut)
			}
		}
	}
	silent := serveAnswers(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if _, errOut, code := tell(t, silent, "", "show", "a", "--timeout", "20ms"); code != 1 || !strings.Contains(errOut, "did not answer within 20ms") {
		t.Errorf("%d %s", code, errOut)
	}
}

func TestMisuseOfSagasIsToldBeforeAnybodyIsAsked(t *testing.T) {
	for args, want := range map[string]string{
		"":                              "say which command",
		"undo a":                        `there is no command "undo" for sagas`,
		"start":                         "--file is required",
		"start order.json":              `unexpected argument "order.json"`,
		"list --state gone":             "--state \"gone\": want one of running, compensating, completed, compensated, parked",
		"list --label a":                `--label "a": want NAME=VALUE`,
		"show":                          "accepts 1 arg(s), received 0",
		"show a:wait":                   `"a:wait" is no id of a saga`,
		"show ..":                       `".." is no id of a saga`,
		"show a/b":                      `"a/b" is no id of a saga`,
		"skip a":                        "accepts 2 arg(s), received 1",
		"resolve a b":                   "--as is required: done, refused or compensated",
		"resolve a b --as undone":       `--as "undone": want one of`,
		"wait a --timeout 0s":           "--timeout is 0s: it must be more than 0",
		"show a --timeout 0s":           "--timeout is 0s: it must be more than 0",
		"show a --control-plane-http x": `--control-plane-http "x": `,
	} {
		if _, errOut, code := tell(t, "127.0.0.1:1", "", strings.Fields(args)...); code != flags.ExitUsage || !strings.Contains(errOut, want) {
			t.Errorf("%s: %d %s", args, code, errOut)
		}
	}
	if _, errOut, code := tell(t, "127.0.0.1:1", "", "show", ""); code != flags.ExitUsage || !strings.Contains(errOut, "the id of the saga is empty") {
		t.Errorf("%d %s", code, errOut)
	}
}
