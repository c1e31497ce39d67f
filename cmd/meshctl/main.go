// Command meshctl shows what the control plane knows, and looks after sagas.
package main

import (
	"os"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/meshctl"
)

func main() { os.Exit(flags.Execute(meshctl.Command(os.Stdout, os.Stderr))) }
