// Command controlplane keeps the registry and tells the sidecars.
package main

import (
	"os"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/flags"
)

func main() { os.Exit(flags.Execute(controlplane.Command())) }
