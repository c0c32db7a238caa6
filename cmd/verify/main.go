// Command verify is the step of that name alone.
package main

import (
	"os"

	"github.com/backstep/backstep/internal/catalog"
	"github.com/backstep/backstep/internal/cli"
	"github.com/backstep/backstep/internal/step/verify"
)

func main() { os.Exit(cli.Main(verify.Step(catalog.Kinds()))) }
