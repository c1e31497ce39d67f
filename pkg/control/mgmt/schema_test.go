package mgmt

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
)

// FuzzReadBody: protojson decides what is taken, and the walk through what it refuses
// finds something in that and in nothing else.
func FuzzReadBody(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `{`, `{}x`, `{"id":"a","id":"b"}`, `{"id":null,"id":null}`, `{"inbound_port":1,"inboundPort":2}`, `{"x":{"y":1},"x":2}`,
		`{"ports":[{"number":1},3,null,{"number":"2","protocol":"GRPC"}],"labels":{"a":"b","a":1},"ttl":"1s","registeredAt":"x","status":3}`,
		`{"breaker":{"window":"1s","openTime":{},"disabled":true},"loadBalancing":"RANDOM","revision":"7"}`, `{"labels":{"\ud800":"v"}}`, "{\"id\":\"\xff\"}",
		`{"ports":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, instance bool) {
		message := func() protoreflect.Message {
			if instance {
				return (&meshv1.Instance{}).ProtoReflect()
			}
			return (&meshv1.Policy{}).ProtoReflect()
		}
		want, got := message(), message()
		err, bad := protojson.Unmarshal(body, want.Interface()), readBody(body, got)
		if (err == nil) != (bad == nil) || bad != nil && (len(bad.faults) == 0 || len(bad.faults) > maxSchemaFaults+1) {
			t.Fatalf("%q: %v, but protojson says %v", body, bad, err)
		}
		if err != nil {
			return
		}
		s, walked := &schema{}, message()
		s.object("", body, walked)
		if len(s.faults) > 0 || !proto.Equal(want.Interface(), got.Interface()) || !proto.Equal(want.Interface(), walked.Interface()) {
			t.Errorf("%q: %v\nread as   %v\nwalked as %v\nnot       %v", body, s.faults, got, walked, want)
		}
	})
}
