package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsLoggedOfAnEtcdThatIsFrozenIsNoViolationAndAllElseIs(t *testing.T) {
	dir := t.TempDir()
	const log = `level=INFO msg=stopping
level=ERROR msg="sagas stand still, for their store does not serve; it is opened again" error="--saga-etcd-endpoints: no answer from etcd at 127.0.0.1:1 within 5s"
level=ERROR msg="sagas stand still, for their store does not serve; it is opened again" error="the data are damaged"
level=ERROR msg="an outcome has no call"
panic: assignment to entry in nil map
`
	if err := os.WriteFile(filepath.Join(dir, "pair-1.log"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := complaints(dir)
	if err != nil || len(found) != 3 || !strings.Contains(found[0], "damaged") || !strings.HasPrefix(found[2], "pair-1.log logs: panic: ") {
		t.Errorf("%q, %v", found, err)
	}
}
