package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/backstep/backstep/internal/plan"
)

// askTimeout is how long a release may take to answer.
const askTimeout = time.Second

// phase is what the engine alone says of a container that should run.
func phase(c container.InspectResponse) (plan.Phase, string) {
	s := c.State
	switch {
	case s.OOMKilled && !s.Running:
		return plan.Failed, "it used more memory than it may, and was killed"
	case s.Status == container.StateCreated && s.Error != "":
		return plan.Failed, "it could not be started: " + s.Error
	case s.Status == container.StateCreated:
		return plan.Starting, "it was not started yet"
	case s.Status == container.StateRestarting:
		return plan.Failed, fmt.Sprintf("it keeps ending: exit code %d, restarted %d times", s.ExitCode, c.RestartCount)
	case s.Status == container.StateDead:
		return plan.Failed, fmt.Sprintf("the engine has given it up: exit code %d, restarted %d times", s.ExitCode, c.RestartCount)
	case s.Status != container.StateRunning:
		return plan.Failed, fmt.Sprintf("it ended with exit code %d", s.ExitCode)
	case s.Health == nil || s.Health.Status == container.NoHealthcheck:
		return plan.Ready, ""
	case s.Health.Status == container.Healthy:
		return plan.Ready, ""
	case s.Health.Status == container.Unhealthy:
		return plan.Failed, "its HEALTHCHECK fails" + output(s.Health)
	}
	return plan.Starting, "its HEALTHCHECK has not said healthy" + output(s.Health)
}

// output is what a HEALTHCHECK has written last.
func output(h *container.Health) string {
	if n := len(h.Log); n > 0 {
		return ": " + strings.TrimSpace(h.Log[n-1].Output)
	}
	return ""
}

// loopTime is how long a container that was restarted may run before one failed question is no sign of a crash loop any more.
const loopTime = 10 * time.Second

// runsFor says whether the container has run for as long without a restart.
func runsFor(c container.InspectResponse, d time.Duration) bool {
	since, err := time.Parse(time.RFC3339Nano, c.State.StartedAt)
	return err == nil && time.Since(since) >= d
}

// ended says whether the container has no process, or only until it is restarted once more.
func ended(c container.InspectResponse) bool { return !c.State.Running || c.State.Restarting }

// restarted is why a container that the engine has started again counts as failed.
func restarted(c container.InspectResponse, err error) string {
	return fmt.Sprintf("it was restarted %d times and is not ready: %v", c.RestartCount, err)
}

// asked checks that the port takes connections, and that the path for it answers well.
func (d *docker) asked(ctx context.Context, address string, s spec) error {
	if address == "" {
		return errors.New("it has no address")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if s.ready == "" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return short(address, err)
		}
		defer conn.Close()
		if s.publish != "" {
			return stays(conn, address)
		}
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+s.ready, nil)
	if err != nil {
		return err
	}
	response, err := d.http.Do(request)
	if err != nil {
		return short(address+s.ready, err)
	}
	response.Body.Close()
	if response.StatusCode >= 400 {
		return fmt.Errorf("%s%s answers %d", address, s.ready, response.StatusCode)
	}
	return nil
}

// short is an error of the network in few words.
func short(what string, err error) error {
	var number syscall.Errno
	var timed net.Error
	switch {
	case errors.As(err, &number):
		err = number
	case errors.As(err, &timed) && timed.Timeout():
		err = fmt.Errorf("no answer within %s", askTimeout)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// stays makes sure that conn is not closed at once: the engine's proxy of a published port takes connections
// also when the container does not, and then closes them.
func stays(conn net.Conn, address string) error {
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%s: the connection was closed", address)
	}
	return nil
}
