package tcp

import (
	"net"
	"testing"

	"github.com/backstep/backstep/internal/probe/probetest"
)

func TestConformance(t *testing.T) { probetest.Run(t, Kind(), func(net.Conn) {}) }
