package reason

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryReasonIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "reasons.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for r := None + 1; r < count; r++ {
		status := "–"
		if r.Status() != 0 {
			status = fmt.Sprint(r.Status())
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", r.Code(), status, strings.ReplaceAll(r.Text(), "<", `\<`))
	}
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("docs/reasons.md has not this table:\n%s", want.String())
	}
}
