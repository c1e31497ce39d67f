package lb_test

import (
	"fmt"

	"github.com/fairlead-mesh/fairlead/pkg/lb"
)

// A request is refused by the first host it gets and tries another.
func ExamplePicker() {
	hosts := []*lb.Host{new(lb.Host), new(lb.Host)}
	picker, err := lb.New(lb.LeastRequest, hosts, nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	first := picker.Pick()

	var tried lb.Tried
	tried.Add(hosts[first])
	second := picker.PickExcept(tried)

	lease := hosts[second].Lease()
	fmt.Println(first != second, hosts[second].Active())
	lease.Done()
	fmt.Println(hosts[second].Active())
	// Output:
	// true 1
	// 0
}
