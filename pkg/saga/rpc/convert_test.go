package rpc

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// Else what is passed on would be another saga than the same that is not.
func TestADefinitionIsTheSameByteByByteWhenItIsPassedOn(t *testing.T) {
	for _, text := range []string{
		`{"id":"a","steps":[{"name":"a","action":{"service":"a","path":"/"}}]}`,
		`{"id":"a","deadline":"1h0m0.5s","labels":{"x":"<y>"},"steps":[
 {"name":"a","after":[],"kind":"compensatable","timeout":"15m","retry":{"attempts":1000,"backoff":"1ms","max":"24h"},
  "action":{"service":"a.b","method":"PUT","path":"/a?${saga.id}","headers":{"X":"é"},"body":{"n": 12345678901234567890.10, "t":"<&>\u2028", "a":[1,null]},"statuses":{"404":"done","500":"refused","501":"unknown","502":"pending"}},
  "compensate":{"service":"a","path":"/","body":null}},
 {"name":"b","after":["a"],"kind":"pivot","action":{"service":"b","path":"/","body":"${steps.a.result}"}},
 {"name":"c","after":["a","b"],"kind":"retriable","retry":{"max":"5s"},"action":{"service":"b","path":"/","headers":{},"statuses":{},"body":7}}]}`,
		`{"id":"a","steps":[{"name":"a","action":{"service":"a:grpc","grpc":"reserve","headers":{"x":"y"},"statuses":{"ABORTED":"unknown"}}}]}`,
	} {
		d, err := saga.ParseDefinition([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Check(); err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		wire, err := proto.Marshal(definition(d))
		if err != nil {
			t.Fatal(err)
		}
		p := &sagav1.Definition{}
		if err := proto.Unmarshal(wire, p); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(definitionOf(p)); err != nil || string(got) != string(want) {
			t.Errorf("%s\n%s\n%v", got, want, err)
		}
	}
}
