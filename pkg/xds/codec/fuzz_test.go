package codec

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// fuzz says that no bytes make decode panic, and that what decodes is canonical:
// it encodes to something that decodes to the same.
func fuzz[T any](f *testing.F, typ Type, encode func(T) (Encoded, error), decode func(*anypb.Any) (T, error), random func(source) T) {
	for seed := range uint64(20) {
		f.Add(must(encode(random(newSource(seed)))).Body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := decode(&anypb.Any{TypeUrl: typ.URL(), Value: body})
		if err != nil {
			if refused := (*Error)(nil); !errors.As(err, &refused) {
				t.Fatalf("%T is no *Error", err)
			}
			return
		}
		encoded, err := encode(v)
		if err != nil {
			t.Fatalf("decodes, and does not encode: %v\n%+v", err, v)
		}
		again, err := decode(encoded.Any())
		if diff := cmp.Diff(v, again, equal()...); diff != "" || err != nil {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

func FuzzDecodeListener(f *testing.F) {
	fuzz(f, TypeListener, EncodeListener, DecodeListener, source.listener)
}

func FuzzDecodeRoute(f *testing.F) {
	fuzz(f, TypeRoute, EncodeRoute, DecodeRoute, func(s source) mesh.RouteConfiguration { return s.route("r") })
}

func FuzzDecodeCluster(f *testing.F) {
	fuzz(f, TypeCluster, EncodeCluster, DecodeCluster, source.cluster)
}

func FuzzDecodeEndpoints(f *testing.F) {
	fuzz(f, TypeEndpoints, EncodeEndpoints, DecodeEndpoints, func(s source) mesh.LoadAssignment { return s.endpoints("c") })
}

func FuzzDecodeBootstrap(f *testing.F) {
	for _, file := range files(f, "*.yaml", 30) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBootstrap(data)
		if err != nil {
			return
		}
		for _, l := range b.Listeners {
			if _, err := EncodeListener(l); err != nil {
				t.Errorf("a listener of the file does not encode: %v", err)
			}
		}
		for _, c := range b.Clusters {
			if _, err := EncodeCluster(c); err != nil {
				t.Errorf("a cluster of the file does not encode: %v", err)
			}
		}
	})
}
