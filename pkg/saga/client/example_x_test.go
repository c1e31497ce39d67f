package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/client"
)

// An order reserves and pays. Who takes it asks by the order's number, and so may ask as often as it likes.
func Example() {
	sagas, err := client.New(client.Config{Addresses: []string{"10.0.0.2:15014", "10.0.0.3:15014"}})
	if err != nil {
		log.Print(err)
		return
	}
	defer sagas.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	order := &saga.Definition{
		ID:       "order-42",
		Deadline: saga.Duration(30 * time.Second),
		Steps: []saga.Step{
			{
				Name:       "reserve",
				Action:     saga.Call{Service: "inventory", Path: "/reserve", Body: json.RawMessage(`{"sku":"x"}`)},
				Compensate: &saga.Call{Service: "inventory", Path: "/release/${steps.reserve.result.id:-none}"},
			},
			{
				Name:   "charge",
				Kind:   saga.Pivot,
				Action: saga.Call{Service: "payments", Path: "/charge", Body: json.RawMessage(`{"reservation":"${steps.reserve.result.id}"}`)},
			},
		},
	}
	var faults saga.Faults
	switch _, err := sagas.Start(ctx, order); {
	case errors.As(err, &faults):
		log.Printf("the definition is wrong in %d places: %v", len(faults), faults)
		return
	case errors.Is(err, client.ErrConflict):
		log.Print("this order was taken already, with other content")
		return
	case err != nil:
		log.Print(err) // it may have been started: the same again finds it
		return
	}
	s, err := sagas.Wait(ctx, order.ID)
	if err != nil {
		log.Print(err) // it goes on all the same
		return
	}
	fmt.Println(s.State, s.Reason)
}
