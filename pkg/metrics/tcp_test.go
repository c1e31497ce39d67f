package metrics

import (
	"fmt"
	"testing"
)

// tcpValues returns what a scrape has of a family, by its labels.
func tcpValues(t *testing.T, r *Registry, name string) map[string]float64 {
	t.Helper()
	samples, err := r.Samples()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, s := range samples {
		if s.Name != name {
			continue
		}
		key := ""
		for _, l := range s.Labels {
			key += l.Value + " "
		}
		values[key] = s.Value
	}
	return values
}

func TestRelayedConnectionsAreCounted(t *testing.T) {
	r := New(Config{})
	tcp := NewTCP(r, []string{"none", "broken"})
	c := tcp.Destination("web", "db")
	if tcp.Destination("web", "db") != c {
		t.Error("another handle for the same pair")
	}
	for range 3 {
		c.Begin()
	}
	c.Moved(10, 100)
	c.Moved(1, 2)
	c.Done(0)
	c.Done(1)
	for name, want := range map[string]string{
		"fairlead_tcp_connections_opened_total": "map[db web :3]",
		"fairlead_tcp_connections_active":       "map[db web :1]",
		"fairlead_tcp_received_bytes_total":     "map[db web :11]",
		"fairlead_tcp_sent_bytes_total":         "map[db web :102]",
		"fairlead_tcp_connections_closed_total": "map[db broken web :1 db none web :1]",
	} {
		if got := fmt.Sprint(tcpValues(t, r, name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestPairsOfRelayedConnectionsPastTheCapAreCountedAsOther(t *testing.T) {
	r := New(Config{MaxSeries: 8})
	tcp := NewTCP(r, []string{"none", "broken"})
	for i := range 10 {
		c := tcp.Destination("web", fmt.Sprint("db", i))
		c.Begin()
		c.Done(i % 2)
	}
	opened := tcpValues(t, r, "fairlead_tcp_connections_opened_total")
	if len(opened) != 5 || opened["other other "] != 6 {
		t.Errorf("%v", opened)
	}
	if closed := tcpValues(t, r, "fairlead_tcp_connections_closed_total"); closed["other none other "] != 3 || closed["other broken other "] != 3 {
		t.Errorf("%v", closed)
	}
}

func TestCountingOfRelayedConnectionsDoesNotAllocate(t *testing.T) {
	c := NewTCP(New(Config{}), []string{"none"}).Destination("web", "db")
	if n := testing.AllocsPerRun(100, func() { c.Begin(); c.Moved(1, 2); c.Done(0) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
