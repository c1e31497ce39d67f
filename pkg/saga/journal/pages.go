package journal

import (
	"context"
	"iter"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// each goes through all keys under a prefix, at one revision, page by page. An error is the last it yields.
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
			r.Revision, r.After = page.Revision, page.Entries[len(page.Entries)-1].Key
		}
	}
}
