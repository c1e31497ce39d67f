package rpc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
)

// Pages may be cut anywhere, as those are that would be too long a message.
func TestPagesOfManyAreOneWithoutAGap(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		owners := make([][]string, 1+r.IntN(4))
		var want, got []string
		for i := range r.IntN(20) {
			id := fmt.Sprintf("%03d", i)
			o := r.IntN(len(owners))
			owners[o] = append(owners[o], id)
			want = append(want, id)
		}
		limit := 1 + r.IntN(6)
		for after, more := "", true; more; {
			var pages []page
			for _, ids := range owners {
				at, found := slices.BinarySearch(ids, after)
				if found {
					at++
				}
				rest := ids[at:]
				n := min(len(rest), limit)
				if n > 1 && r.IntN(3) == 0 {
					n = 1 + r.IntN(n)
				}
				p := page{more: n < len(rest)}
				for _, id := range rest[:n] {
					p.sagas = append(p.sagas, coordinator.Summary{ID: id})
				}
				pages = append(pages, p)
			}
			var all []coordinator.Summary
			all, more = merge(pages, limit)
			if len(all) > limit || more && len(all) == 0 {
				t.Fatalf("seed %d: %v %v of %v", seed, all, more, pages)
			}
			for _, s := range all {
				got = append(got, s.ID)
				after = s.ID
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %v, want %v", seed, got, want)
		}
	}
}
