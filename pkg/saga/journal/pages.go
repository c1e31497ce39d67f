package journal

import (
	"context"
	"iter"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// each goes through all keys under a prefix, page by page. An error is the last it yields. Each page is of the newest revision: that of the first may be
// compacted before the last is read, and the owner of a shard, who reads it whole, is the only one who writes there.
func each(ctx context.Context, s store.Store, prefix string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		r := store.ListRequest{Prefix: prefix}
		for {
			page, err := s.List(ctx, r)
			if err != nil {
				yield(store.Entry{}, err)
				return
			}
			for _, e := range page.Entries {
				if !yield(e, nil) {
					return
				}
			}
			if !page.More {
				return
			}
			r.After = page.Entries[len(page.Entries)-1].Key
		}
	}
}
