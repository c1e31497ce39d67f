package controlplane_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
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
	goleak.VerifyTestMain(m,
		// net/http's default client keeps its connections.
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}
