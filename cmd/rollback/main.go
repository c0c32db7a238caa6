// Command rollback is the step of that name alone.
package main

import (
	"os"

	"github.com/backstep/backstep/internal/catalog"
	"github.com/backstep/backstep/internal/cli"
	"github.com/backstep/backstep/internal/step/rollback"
)

func main() { os.Exit(cli.Main(rollback.Step(catalog.Kinds()))) }
