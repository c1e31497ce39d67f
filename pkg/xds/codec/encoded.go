package codec

import (
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// MaxResourceBytes bounds an encoded resource in both directions.
const MaxResourceBytes = 4 << 20

// maxDepth bounds the nesting of messages. The deepest of the subset is 16.
const maxDepth = 48

// typePrefix begins every type URL (google.protobuf.Any).
const typePrefix = "type.googleapis.com/"

// The type URLs of the four resource types.
const (
	ListenerURL  = typePrefix + "envoy.config.listener.v3.Listener"
	RouteURL     = typePrefix + "envoy.config.route.v3.RouteConfiguration"
	ClusterURL   = typePrefix + "envoy.config.cluster.v3.Cluster"
	EndpointsURL = typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// Type is a type of resource. The zero value is none.
type Type uint8

// The types, in the order in which grpc-go and Fairlead's sidecars ask for them.
const (
	TypeListener  Type = iota + 1 // LDS
	TypeRoute                     // RDS
	TypeCluster                   // CDS
	TypeEndpoints                 // EDS
)

// Types returns all types in the order of their constants.
func Types() [4]Type { return [4]Type{TypeListener, TypeRoute, TypeCluster, TypeEndpoints} }

// URL returns the type URL, "" for the zero Type.
func (t Type) URL() string {
	return [5]string{"", ListenerURL, RouteURL, ClusterURL, EndpointsURL}[t]
}

// String returns listener, route, cluster or endpoints, for logs and metrics.
func (t Type) String() string {
	return [5]string{"none", "listener", "route", "cluster", "endpoints"}[t]
}

// ParseType reads what [Type.URL] writes.
func ParseType(url string) (Type, bool) {
	for _, t := range Types() {
		if t.URL() == url {
			return t, true
		}
	}
	return 0, false
}

// Encoded is a resource as it goes onto the wire. It is immutable: Body is
// shared by every stream that sends it.
type Encoded struct {
	Name string
	Type Type
	// Body is the deterministic encoding, the value of the Any.
	Body []byte
	// Version is the hash of Body and of nothing else (xxhash64, 16 hexadecimal
	// digits), so it survives restarts and is the same on every replica.
	Version string
	// ByName says that it is for those who ask for its name, not for those who ask for
	// all: a listener without an address, which Envoy takes from nobody.
	ByName bool
}

// Any returns the resource as the Any of a discovery response. It shares Body.
func (e Encoded) Any() *anypb.Any {
	return &anypb.Any{TypeUrl: e.Type.URL(), Value: e.Body}
}

// seal encodes a message that has been found valid.
func seal(t Type, name string, m proto.Message) (Encoded, error) {
	body, err := marshal(m)
	if err != nil {
		return Encoded{}, fmt.Errorf("encode %s %q: %w", t, name, err)
	}
	if len(body) > MaxResourceBytes {
		return Encoded{}, fmt.Errorf("encode %s %q: %d bytes, more than %d", t, name, len(body), MaxResourceBytes)
	}
	return Encoded{
		Name:    name,
		Type:    t,
		Body:    body,
		Version: fmt.Sprintf("%016x", xxhash.Sum64(body)),
	}, nil
}

func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// pack puts a message of which the caller knows that it encodes into an Any.
func pack(m proto.Message) *anypb.Any {
	body, err := marshal(m)
	if err != nil {
		// Only a string that is not UTF-8 fails. An Any without a type is refused
		// by the check that follows every encoding.
		return &anypb.Any{}
	}
	return &anypb.Any{TypeUrl: typePrefix + string(m.ProtoReflect().Descriptor().FullName()), Value: body}
}

// open reads a resource of the named type out of an Any, checks it against the
// subset and leaves all faults in f.
func open(f *faults, a *anypb.Any, t Type, into proto.Message, allowed subset) bool {
	switch {
	case a.GetTypeUrl() != t.URL():
		f.add("", "type is %q, not %s", clip(a.GetTypeUrl()), t.URL())
		return false
	case len(a.GetValue()) > MaxResourceBytes:
		f.add("", "%d bytes, more than %d", len(a.GetValue()), MaxResourceBytes)
		return false
	}
	if err := unmarshal(a.GetValue(), into); err != nil {
		f.add("", "not a %s: %v", strings.TrimPrefix(t.URL(), typePrefix), err)
		return false
	}
	f.walk("", into.ProtoReflect(), allowed)
	return true
}

func unmarshal(body []byte, into proto.Message) error {
	return proto.UnmarshalOptions{RecursionLimit: maxDepth}.Unmarshal(body, into)
}

// unpack reads an Any whose type has been checked already; a nil or foreign one
// leaves into as it is.
func unpack(a *anypb.Any, into proto.Message) bool {
	return a.MessageIs(into) && unmarshal(a.GetValue(), into) == nil
}
