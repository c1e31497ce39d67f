// Command sidecar is the proxy that runs beside every service.
package main

import (
	"os"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

func main() { os.Exit(flags.Execute(sidecar.Command())) }
