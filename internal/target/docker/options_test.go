package docker

import (
	"reflect"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/backstep/backstep/internal/secret"
)

// Every option arrives where the engine reads it.
func TestContainerOfSpec(t *testing.T) {
	values := map[string][]secret.Value{}
	for name, texts := range map[string][]string{"port": {"8080"}, "entrypoint": {"/shop"}, "command": {"serve"}, "stop-signal": {"SIGQUIT"}, "stop-timeout": {"7s"},
		"healthcheck": {"command=true", "interval=5s", "retries=2"}, "tmpfs": {"/tmp:size=64m", "/run"}, "shm-size": {"256m"}, "extra-hosts": {"db:10.0.0.7"},
		"security-opt": {"no-new-privileges"}, "cap-drop": {"ALL"}, "gpus": {"all"}, "init": {"true"}, "ulimits": {"nofile=1024:2048", "nproc=64"},
		"labels": {"team=shop"}, "secrets": {"token=x"}, "roles": {"job.command=work", "job.healthcheck.command=true", "job.stop-timeout=2s", "job.replicas=3"}} {
		for _, text := range texts {
			values[name] = append(values[name], secret.New(text))
		}
	}
	s, err := specOf(values)
	if err != nil {
		t.Fatal(err)
	}
	c := s.config("image", map[string]string{"ours": "1"}, []string{"A=b"})
	seven := 7
	if want := (&container.Config{Image: "image", Labels: map[string]string{"team": "shop", "ours": "1"}, Env: []string{"A=b"}, Entrypoint: []string{"/shop"},
		Cmd: []string{"serve"}, StopSignal: "SIGQUIT", StopTimeout: &seven, ExposedPorts: network.PortSet{s.portNumber(): {}},
		Healthcheck: &container.HealthConfig{Test: []string{"CMD-SHELL", "true"}, Interval: 5 * time.Second, Retries: 2},
		Volumes:     map[string]struct{}{secretsDir: {}}}); !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	h := s.hostConfig(network.PortBinding{}, container.LogConfig{})
	if !reflect.DeepEqual(h.Tmpfs, map[string]string{"/tmp": "size=64m", "/run": ""}) || h.ShmSize != 256<<20 || h.ExtraHosts[0] != "db:10.0.0.7" ||
		h.SecurityOpt[0] != "no-new-privileges" || h.CapDrop[0] != "ALL" || h.DeviceRequests[0].Count != -1 || h.Init == nil || !*h.Init ||
		len(h.Ulimits) != 2 || h.Ulimits[0].Soft != 1024 || h.Ulimits[0].Hard != 2048 || h.Ulimits[1].Hard != 64 {
		t.Errorf("the host gives it %+v", h)
	}
	job := s.as("job")
	if job.replicas != 3 || job.command[0] != "work" || job.entrypoint[0] != "/shop" || job.stopTimeout != 2*time.Second || job.stopSignal != "SIGQUIT" ||
		job.port != 0 || job.health["command"] != "true" {
		t.Errorf("the job is %+v", job)
	}
}

// Logs are bounded where the engine keeps files, and its own driver is left alone where it does not.
func TestLogging(t *testing.T) {
	for name, c := range map[string]struct {
		log      map[string]string
		standard string
		want     container.LogConfig
		fault    string
	}{
		"by default":        {nil, "json-file", container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "3"}}, ""},
		"a size":            {map[string]string{"size": "5m"}, "local", container.LogConfig{Type: "local", Config: map[string]string{"max-size": "5m", "max-file": "3"}}, ""},
		"the engine's own":  {nil, "journald", container.LogConfig{Config: map[string]string{}}, ""},
		"another driver":    {map[string]string{"driver": "gelf", "gelf-address": "udp://log:12201"}, "json-file", container.LogConfig{Type: "gelf", Config: map[string]string{"gelf-address": "udp://log:12201"}}, ""},
		"a size of no file": {map[string]string{"size": "5m"}, "journald", container.LogConfig{}, "target docker: log: driver journald keeps no files whose size and number could be set"},
	} {
		got, err := (&spec{log: c.log}).logging(c.standard)
		if c.fault != "" {
			if err == nil || err.Error() != c.fault {
				t.Errorf("%s: %v, want %s", name, err, c.fault)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}
