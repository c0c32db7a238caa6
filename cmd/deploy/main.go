// Command deploy is the step of that name alone.
package main

import (
	"os"

	"github.com/backstep/backstep/internal/catalog"
	"github.com/backstep/backstep/internal/cli"
)

func main() { os.Exit(cli.Main(catalog.Deploy(catalog.Kinds()))) }
