package rpc

import (
	"reflect"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

func TestACallIsPassedOnAsItIs(t *testing.T) {
	for _, c := range []saga.Call{
		{Service: "orders", Method: "PUT", Path: "/a", Headers: map[string]string{"x": "y"}, Body: []byte("1"), Statuses: map[string]saga.Answer{"404": saga.AnswerDone}},
		{Service: "orders", GRPC: "reserve", Headers: map[string]string{"x": "y"}, Body: []byte("1"), Statuses: map[string]saga.Answer{"ABORTED": saga.AnswerUnknown}},
		{Service: "orders", GRPC: "reserve"},
	} {
		if got := callOf(call(&c)); !reflect.DeepEqual(got, c) {
			t.Errorf("%+v, not %+v", got, c)
		}
	}
}
