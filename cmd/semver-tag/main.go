// Command semver-tag is the step of that name alone.
package main

import (
	"os"

	"github.com/backstep/backstep/internal/cli"
	"github.com/backstep/backstep/internal/step/semvertag"
)

func main() { os.Exit(cli.Main(semvertag.Step())) }
