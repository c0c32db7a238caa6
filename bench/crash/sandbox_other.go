//go:build !linux

package main

import (
	"context"
	"errors"
)

const (
	stageVariable   = "CRASH_STAGE"
	programVariable = "CRASH_PROGRAM"
	parentVariable  = "CRASH_PARENT"
	stageInside     = "inside"
)

func sandbox(context.Context) (int, error) { return 1, errors.New("-target docker needs Linux") }
