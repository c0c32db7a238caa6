// Package catalog lists the steps and the kinds there are. The order is the order of the docs.
package catalog

import (
	"github.com/backstep/backstep/internal/config"
	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/alertmanager"
	"github.com/backstep/backstep/internal/probe/browser"
	"github.com/backstep/backstep/internal/probe/command"
	"github.com/backstep/backstep/internal/probe/grpc"
	haproxymeter "github.com/backstep/backstep/internal/probe/haproxy"
	"github.com/backstep/backstep/internal/probe/http"
	nginxmeter "github.com/backstep/backstep/internal/probe/nginx"
	"github.com/backstep/backstep/internal/probe/prometheus"
	"github.com/backstep/backstep/internal/probe/sql"
	"github.com/backstep/backstep/internal/probe/tcp"
	"github.com/backstep/backstep/internal/probe/tls"
	"github.com/backstep/backstep/internal/router"
	"github.com/backstep/backstep/internal/router/haproxy"
	"github.com/backstep/backstep/internal/router/nginx"
	"github.com/backstep/backstep/internal/step"
	"github.com/backstep/backstep/internal/step/buildimage"
	"github.com/backstep/backstep/internal/step/demo"
	"github.com/backstep/backstep/internal/step/deploy"
	"github.com/backstep/backstep/internal/step/initialize"
	"github.com/backstep/backstep/internal/step/operate"
	"github.com/backstep/backstep/internal/step/replay"
	"github.com/backstep/backstep/internal/step/rollback"
	"github.com/backstep/backstep/internal/step/semvertag"
	"github.com/backstep/backstep/internal/step/supervise"
	"github.com/backstep/backstep/internal/step/verify"
	"github.com/backstep/backstep/internal/target"
	"github.com/backstep/backstep/internal/target/docker"
	"github.com/backstep/backstep/internal/target/process"
)

// Kinds lists what backstep.yml can name.
func Kinds() config.Kinds {
	return config.Kinds{
		Targets: []target.Kind{docker.Kind(), process.Kind()},
		Routers: []router.Kind{haproxy.Kind(), nginx.Kind()},
		Probes: []probe.Kind{http.Kind(), tcp.Kind(), grpc.Kind(), tls.Kind(), haproxymeter.Kind(), nginxmeter.Kind(), prometheus.Kind(), alertmanager.Kind(),
			sql.Kind(), browser.Kind(), command.Kind()},
	}
}

// Deploy is deploy, with verify behind it when that is asked for.
func Deploy(kinds config.Kinds) step.Step {
	return step.Then(deploy.Step(kinds), verify.Step(kinds), "deploy: verify it afterwards in the same process, as the inputs of verify say; the exit code is that of verify then.")
}

// Steps lists the steps in the order of a pipeline, then the operator commands.
func Steps() []step.Step {
	kinds := Kinds()
	return []step.Step{
		buildimage.Step(),
		semvertag.Step(),
		Deploy(kinds),
		verify.Step(kinds),
		rollback.Step(kinds),
		operate.Status(kinds),
		operate.History(kinds),
		operate.Freeze(kinds),
		operate.Unfreeze(kinds),
		operate.Lift(kinds),
		operate.Abort(kinds),
		operate.Pause(kinds),
		operate.Resume(kinds),
		operate.Adopt(kinds),
		operate.Forecast(kinds),
		replay.Step(),
		initialize.Step(),
		supervise.Step(),
		demo.Step(),
	}
}
