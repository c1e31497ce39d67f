package hpack

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// A table of strings, newest first, does the same in the plainest way.
func TestATableIsAListFromWhichTheOldestGo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		table := table{max: random.IntN(600)}
		limit := table.max
		var model []string
		size := 0
		evict := func(to int) {
			for size > to {
				size -= len(model[len(model)-1]) - 2 + overhead
				model = model[:len(model)-1]
			}
		}
		for range 500 {
			if random.IntN(50) == 0 {
				limit = random.IntN(600)
				table.setMax(limit)
				evict(limit)
			}
			name := []byte(strings.Repeat(string(rune('a'+random.IntN(26))), random.IntN(20)))
			text := string(name)
			if table.count > 0 && random.IntN(3) == 0 { // the name of an entry
				name = table.nameOf(table.at(random.IntN(table.count)))
				text = string(name)
			}
			value := strings.Repeat(string(rune('A'+random.IntN(26))), random.IntN(1+random.IntN(200)))
			entry := table.insert(name, []byte(value), wire.Other)
			if n := len(text) + len(value) + overhead; n > limit {
				evict(0)
				if entry != nil {
					t.Fatalf("an entry of %d in a table of %d", n, limit)
				}
			} else {
				evict(limit - n)
				model = slices.Insert(model, 0, text+": "+value)
				size += n
			}
			if got := contents(&table); !slices.Equal(got, model) || table.size != size {
				t.Fatalf("%d bytes: %q\nwant %d: %q", table.size, got, size, model)
			}
		}
		if len(table.text) > 1200 || len(table.entries) > 32 {
			t.Fatalf("%d bytes of text, room for %d entries", len(table.text), len(table.entries))
		}
	}
}
