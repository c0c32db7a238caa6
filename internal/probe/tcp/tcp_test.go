package tcp

import (
	"net"
	"testing"

	"github.com/backstep/backstep/internal/probe/probetest"
)

func TestConformance(t *testing.T) {
	probetest.Run(t, Kind(), nil, func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	})
}
