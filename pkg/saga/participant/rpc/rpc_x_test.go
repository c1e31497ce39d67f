package rpc_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	_ "modernc.org/sqlite" // the driver

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
	"github.com/fairlead-mesh/fairlead/pkg/saga/participant"
	"github.com/fairlead-mesh/fairlead/pkg/saga/participant/rpc"
)

func serve(t *testing.T) (api sagav1.ParticipantClient, stock func() int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, statement := range []string{barrier.SQLite.Schema(), "CREATE TABLE stock (n INTEGER)", "INSERT INTO stock VALUES (3)"} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	change := func(by int) participant.Func {
		return func(ctx context.Context, tx *sql.Tx, body json.RawMessage) (any, error) {
			var order struct{ N int }
			if err := json.Unmarshal(body, &order); err != nil {
				return nil, participant.Refusal("the body is no order")
			}
			var left int
			if err := tx.QueryRowContext(ctx, "UPDATE stock SET n = n + ? RETURNING n", by*order.N).Scan(&left); err != nil {
				return nil, err
			}
			switch {
			case left < 0:
				return nil, participant.Refusal("none is left")
			case order.N == 13:
				return nil, errors.New("the database is away")
			case by > 0:
				return nil, nil
			}
			return map[string]int{"left": left}, nil
		}
	}
	p := participant.New(barrier.New(db, barrier.SQLite))
	p.Handle("reserve", change(-1), change(1))
	p.Handle("look", change(0), nil)
	server := grpc.NewServer()
	sagav1.RegisterParticipantServer(server, rpc.New(p))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-served })
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return sagav1.NewParticipantClient(conn), func() (n int) {
		if err := db.QueryRowContext(t.Context(), "SELECT n FROM stock").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
}

func TestAParticipantOverGRPCAnswersAsTheCoordinatorUnderstands(t *testing.T) {
	api, stock := serve(t)
	const action, compensate = sagav1.CallRequest_ACTION, sagav1.CallRequest_COMPENSATE
	for _, c := range []struct {
		operation, key string
		kind           sagav1.CallRequest_Kind
		body           string
		code           codes.Code
		answer         string
		stock          int
	}{
		{"reserve", "s1/reserve/action", action, `{"n":2}`, codes.OK, `{"left":1}`, 1},
		{"reserve", "s1/reserve/action", action, `{"n":2}`, codes.OK, `{"left":1}`, 1},
		{"reserve", "s2/reserve/action", action, `{"n":2}`, codes.FailedPrecondition, "none is left", 1},
		{"reserve", "s3/reserve/action", action, `{`, codes.FailedPrecondition, "the body is no order", 1},
		{"reserve", "s4/reserve/compensate", compensate, `{"n":1}`, codes.OK, "", 1},
		{"reserve", "s4/reserve/action", action, `{"n":1}`, codes.FailedPrecondition, "compensated before its action came", 1},
		{"reserve", "s1/reserve/compensate", compensate, `{"n":2}`, codes.OK, "", 3},
		{"reserve", "s1/reserve/compensate", compensate, `{"n":2}`, codes.OK, "", 3},
		{"reserve", "s5/reserve/action", action, `{"n":13}`, codes.FailedPrecondition, "none is left", 3},
		{"reserve", "s5/reserve/action", action, `{"n":-13}`, codes.OK, `{"left":16}`, 16},
		{"reserve", "s6/reserve/action", action, `{"n":13}`, codes.Unknown, "the database is away", 16},
		{"reserve", "", action, `{"n":1}`, codes.InvalidArgument, "SAGA/STEP/action", 16},
		{"reserve", "s7/reserve/action", 0, `{"n":1}`, codes.InvalidArgument, "neither ACTION nor COMPENSATE", 16},
		{"look", "s7/look/compensate", compensate, `{}`, codes.Unimplemented, `no such operation here: "look"`, 16},
		{"charge", "s7/charge/action", action, `{}`, codes.Unimplemented, `no such operation here: "charge"`, 16},
		{"reserve", "s8/reserve/action", action, `"` + strings.Repeat("x", 40_000) + `"`, codes.InvalidArgument, "40002 bytes, of at most 32768", 16},
	} {
		answer, err := api.Call(t.Context(), &sagav1.CallRequest{Operation: c.operation, IdempotencyKey: c.key, Kind: c.kind, Body: []byte(c.body)})
		if code := status.Code(err); code != c.code || err == nil && string(answer.GetResult()) != c.answer || err != nil && !strings.Contains(err.Error(), c.answer) {
			t.Errorf("%s %s %.20s: %v %v", c.operation, c.key, c.body, answer, err)
		}
		if n := stock(); n != c.stock {
			t.Fatalf("%s %s %.20s: %d are in stock, not %d", c.operation, c.key, c.body, n, c.stock)
		}
	}
}
