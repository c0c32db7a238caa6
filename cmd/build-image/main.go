// Command build-image is the step of that name alone.
package main

import (
	"os"

	"github.com/backstep/backstep/internal/cli"
	"github.com/backstep/backstep/internal/step/buildimage"
)

func main() { os.Exit(cli.Main(buildimage.Step())) }
