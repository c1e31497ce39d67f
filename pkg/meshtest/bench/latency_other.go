//go:build !linux

package main

import (
	"errors"
	"time"
)

func (latencyWork) run() ([]time.Duration, error) { return nil, errors.New("bench needs Linux") }
