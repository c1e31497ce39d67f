package hpack

import (
	"fmt"
	"testing"
)

// churn are lists in which every field comes twice and then never again, so that all of
// them enter the table and leave it.
func churn() [][]Field {
	var all [][]Field
	for i := range 400 {
		var lines []string
		for j := range 4 {
			lines = append(lines, fmt.Sprintf("X-Name-%d: value %d", j, i/2))
		}
		all = append(all, fields(lines...))
	}
	return all
}

func TestBlocksAllocateNothing(t *testing.T) {
	all := messages()
	all = append(all, message{"churn", churn()})
	for _, m := range all {
		e := NewEncoder()
		d := NewDecoder(DefaultTable)
		var block []byte
		i := 0
		exchange := func() {
			block = appendFields(e, block[:0], m.variants[i%len(m.variants)])
			drain(t, d, block)
			i++
		}
		for range len(m.variants) {
			exchange()
		}
		if n := testing.AllocsPerRun(1000, exchange); n != 0 {
			t.Errorf("%s: %v allocations per block", m.name, n)
		}
		if m.name == "churn" && e.table.inserted < 1000 {
			t.Errorf("%d entries came into the table", e.table.inserted)
		}
	}
}

func TestHuffmanCodedBlocksAllocateNothing(t *testing.T) {
	for _, m := range messages() {
		first, next := m.coded()
		d := NewDecoder(DefaultTable)
		drain(t, d, first)
		i := 0
		decode := func() {
			drain(t, d, next[i%len(next)])
			i++
		}
		for range next {
			decode()
		}
		if n := testing.AllocsPerRun(1000, decode); n != 0 {
			t.Errorf("%s: %v allocations per block", m.name, n)
		}
	}
}
