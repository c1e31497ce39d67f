package controlplane_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(memberDir); dir != "" {
		fmt.Println(serveMember(dir))
		os.Exit(1)
	}
	if dir := os.Getenv(processDir); dir != "" {
		fmt.Println(serveControlPlane(dir))
		os.Exit(1)
	}
	if os.Getenv(commandLine) != "" {
		os.Exit(flags.Execute(controlplane.Command()))
	}
	if os.Getenv(sidecarLine) != "" {
		os.Exit(flags.Execute(sidecar.Command()))
	}
	goleak.VerifyTestMain(m,
		// net/http's default client keeps its connections.
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}
