// Command deploy is the step of that name alone.
package main

import (
	"os"

	"github.com/backstep/backstep/internal/catalog"
	"github.com/backstep/backstep/internal/cli"
	"github.com/backstep/backstep/internal/step/deploy"
)

func main() { os.Exit(cli.Main(deploy.Step(catalog.Kinds()))) }
