package strictjson

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func TestEveryFaultIsToldWithItsFieldAndTheRestIsRead(t *testing.T) {
	whole := func(reason string) []mesh.Fault { return []mesh.Fault{{Reason: reason}} }
	for text, c := range map[string]struct {
		faults []mesh.Fault
		rest   *meshv1.Instance
	}{
		`{"id":"a1","weight":3}`: {nil, &meshv1.Instance{Id: "a1", Weight: 3}},
		`{"foo":1,"id":"a1","weight":"x","ports":[{"number":9000},{"name":"b","number":-1}]}`: {
			[]mesh.Fault{
				{Field: "foo", Reason: "there is no such field"},
				{Field: "weight", Reason: "must be a whole number from 0 to 4294967295"},
				{Field: "ports[1].number", Reason: "must be a whole number from 0 to 4294967295"},
			},
			&meshv1.Instance{Id: "a1", Ports: []*meshv1.Port{{Number: 9000}, {Name: "b"}}},
		},
		`{"":1}`:         {[]mesh.Fault{{Field: `""`, Reason: "there is no such field"}}, &meshv1.Instance{}},
		``:               {whole("is required"), &meshv1.Instance{}},
		`null`:           {whole("is required"), &meshv1.Instance{}},
		`"a1"`:           {whole("must be an object"), &meshv1.Instance{}},
		`{"id":"a1"`:     {whole("must be one JSON object: unexpected end of JSON input"), &meshv1.Instance{}},
		"{\"id\":\"\xff": {whole("must be JSON in UTF-8"), &meshv1.Instance{}},
	} {
		got := &meshv1.Instance{Id: "before"}
		if faults := Unmarshal([]byte(text), got); !slices.Equal(faults, c.faults) || !proto.Equal(got, c.rest) {
			t.Errorf("%s: %v, %v; want %v, %v", text, faults, got, c.faults, c.rest)
		}
	}
}

func TestFaultsBeyondWhatIsToldAreNotCounted(t *testing.T) {
	text := `{"id":7`
	for n := range 10 * maxFaults {
		text += fmt.Sprintf(`,"x%d":1`, n)
	}
	faults := Unmarshal([]byte(text+"}"), &meshv1.Instance{})
	want := mesh.Fault{Field: "", Reason: "has more faults than are told at once"}
	if len(faults) != maxFaults+1 || faults[maxFaults] != want {
		t.Errorf("%d faults, the last %v", len(faults), faults[len(faults)-1])
	}
}

// FuzzUnmarshal: protojson decides what is taken, and the walk through what it refuses
// finds something in that and in nothing else.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `{`, `{}x`, `{"":1,"id":2}`, `{"id":"a","id":"b"}`, `{"id":null,"id":null}`, `{"inbound_port":1,"inboundPort":2}`, `{"x":{"y":1},"x":2}`,
		`{"ports":[{"number":1},3,null,{"number":"2","protocol":"GRPC"}],"labels":{"a":"b","a":1},"ttl":"1s","registeredAt":"x","status":3}`,
		`{"breaker":{"window":"1s","openTime":{},"disabled":true},"loadBalancing":"RANDOM","revision":"7"}`, `{"labels":{"\ud800":"v"}}`, "{\"id\":\"\xff\"}",
		`{"ports":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, instance bool) {
		message := func() proto.Message {
			if instance {
				return &meshv1.Instance{}
			}
			return &meshv1.Policy{}
		}
		want, got := message(), message()
		err, faults := protojson.Unmarshal(text, want), Unmarshal(text, got)
		if (err == nil) != (len(faults) == 0) || len(faults) > maxFaults+1 {
			t.Fatalf("%q: %v, but protojson says %v", text, faults, err)
		}
		for n, f := range faults {
			if f.Field == "" && n != len(faults)-1 {
				t.Errorf("%q: %v; what is wrong with all is not last", text, faults)
			}
		}
		if err != nil {
			return
		}
		s, walked := &schema{}, message()
		s.object("", text, walked.ProtoReflect())
		if len(s.faults) > 0 || !proto.Equal(want, got) || !proto.Equal(want, walked) {
			t.Errorf("%q: %v\nread as   %v\nwalked as %v\nnot       %v", text, s.faults, got, walked, want)
		}
	})
}
