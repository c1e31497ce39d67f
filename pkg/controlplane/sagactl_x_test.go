package controlplane_test

import (
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/meshctl"
)

// A person starts a saga from a terminal, sees it parked, says what became of the step that could not be undone, and goes on with it.
func TestAPersonLooksAfterASagaFromATerminal(t *testing.T) {
	egress := httptest.NewServer(&steps{})
	t.Cleanup(egress.Close)
	config := loopbackConfig(t)
	config.SagaEgress = egress.Listener.Addr().String()
	config.HTTPAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(freeport.For(t)))
	startSagas(t, config)
	file := filepath.Join(t.TempDir(), "order-1.yaml")
	const definition = `
id: order-1
labels: {tenant: t1}
steps:
- name: reserve
  action: {service: inventory, path: /a}
  compensate: {service: inventory, path: /break}
  retry: {attempts: 1}
- name: charge
  action: {service: payments, path: /refuse}
`
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want []string
	}{
		{"start -f " + file, 0, []string{"order-1"}},
		{"wait order-1", 4, []string{"parked", "step reserve could not be undone", "undo 1", "unknown"}},
		{"list --state parked --label tenant=t1", 0, []string{"order-1"}},
		{"resolve order-1 reserve --as compensated --by ada --note by-hand", 0, []string{"resolve", "ada", "by-hand"}},
		{"resume order-1", 0, nil},
		{"wait order-1", 3, []string{"compensated"}},
		{"abort order-1", 1, []string{"it is compensated"}},
		{"show order-2", 1, []string{"no saga with this id"}},
	} {
		var out strings.Builder
		root := meshctl.Command(&out, &out)
		root.SetErr(&out)
		root.SetArgs(append([]string{"saga", "--control-plane-http", config.HTTPAddr}, strings.Fields(c.args)...))
		if code := flags.Execute(root); code != c.code {
			t.Errorf("%s: exit code %d, not %d\n%s", c.args, code, c.code, out.String())
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is missing in\n%s", c.args, want, out.String())
			}
		}
	}
}
