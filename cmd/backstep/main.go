// Command backstep is every step and operator command in one binary.
package main

import (
	"os"

	"github.com/backstep/backstep/internal/catalog"
	"github.com/backstep/backstep/internal/cli"
)

func main() { os.Exit(cli.Main(catalog.Steps()...)) }
