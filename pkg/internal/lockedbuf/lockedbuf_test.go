package lockedbuf_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
)

func TestWhatManyWriteAtOnceIsAllThereAndCanBeReadMeanwhile(t *testing.T) {
	var b lockedbuf.Buffer
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for range 100 {
				_, _ = fmt.Fprintln(&b, "line")
				if s := b.String(); strings.Count(s, "line\n")*len("line\n") != len(s) {
					t.Errorf("%q", s)
					return
				}
			}
		})
	}
	all.Wait()
	if n := strings.Count(b.String(), "line\n"); n != 1000 {
		t.Errorf("%d lines", n)
	}
}
