package docker

import (
	"cmp"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/secret"
)

// options are what a configuration says of the target: how to reach the engine, and what containers are made with.
type options struct {
	engine string
	spec
}

// spec is what the containers of a release are made with. It is part of the release: another one makes another release.
type spec struct {
	port                             int
	replicas                         int
	networks, volumes, tmpfs         []string
	publish, reach                   string
	restart, memory, shm, cpus, user string
	readOnly, init                   bool
	ready                            string
	entrypoint, command              []string
	labels, ulimits, health, log     map[string]string
	hosts                            []string
	files                            map[string]secret.Value // secrets, by their names below /run/secrets
	stopSignal                       string
	stopTimeout                      time.Duration
	gpus                             string
	roles                            map[string]role
	dropped, security                []string
}

// role is a part of a release that has no traffic. What it leaves out is as in the release.
type role struct {
	replicas            int
	entrypoint, command []string
	env                 map[string]secret.Value
	health              map[string]string
	memory, cpus        string
	stopSignal          string
	stopTimeout         time.Duration
	order               string
}

// The orders in which a role goes from one release to the next.
const (
	startFirst = "start-first"
	stopFirst  = "stop-first"
)

// The two ways in which a load balancer can reach a release.
const (
	published = "published"
	byNetwork = "network"
)

var (
	pathShape     = regexp.MustCompile(`^/`)
	cpusShape     = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
	signalShape   = regexp.MustCompile(`^SIG[A-Z0-9+-]+$`)
	gpusShape     = regexp.MustCompile(`^(all|[1-9][0-9]*)$`)
	capShape      = regexp.MustCompile(`^[A-Z_]+$`)
	sizeShape     = regexp.MustCompile(`^[1-9][0-9]*[kmg]?$`)
	volumeShape   = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9_./-]*:/[^:]*(:ro)?$`)
	tmpfsShape    = regexp.MustCompile(`^/[^:]*(:[a-z0-9=,]+)?$`)
	hostShape     = regexp.MustCompile(`^[^:\s]+:(host-gateway|[0-9a-fA-F.:]+)$`)
	ulimitShape   = regexp.MustCompile(`^[a-z]+=(-1|[0-9]+)(:(-1|[0-9]+))?$`)
	healthShape   = regexp.MustCompile(`^(command=.+|(interval|timeout|start-period)=[0-9.]+(ms|s|m|h)|retries=[1-9][0-9]*|disable=true)$`)
	logShape      = regexp.MustCompile(`^(driver=[a-z-]+|size=[1-9][0-9]*[kmg]|files=[1-9][0-9]*|[a-z]+(-[a-z]+)+=.*)$`)
	securityShape = regexp.MustCompile(`^(no-new-privileges|(apparmor|seccomp|label|systempaths)[=:].+)$`)
	fileShape     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
)

func (o *options) inputs() []input.Input {
	return append([]input.Input{
		input.String(&o.engine, "engine", "The address of the engine, as DOCKER_HOST has it, except ssh; that variable, or the local socket, when it is left out.").Like("tcp://10.0.0.5:2376"),
	}, o.spec.inputs()...)
}

// inputs are what a release is started with.
func (s *spec) inputs() []input.Input {
	all := []input.Input{
		input.Int(&s.port, "port", "The port that the release listens on.", 1, 65535).Must().Like("8080"),
		input.Int(&s.replicas, "replicas", "How many containers a release has, behind a router. It is ready when all of them are, and they share its traffic.", 1, 100).Or("1").Like("2"),
		input.String(&s.ready, "ready", "A path that answers with a status below 400 once it is ready. The image's HEALTHCHECK counts as well. With neither, it is ready when its port takes connections.").
			Matching(pathShape, "/health"),
		input.List(&s.networks, "networks", "The networks it is attached to, which exist already; the first one is where it is asked. The engine's bridge when it is left out.").Like("[shop]"),
		input.String(&s.publish, "publish", "ip:port of the host to publish the port on, or, behind a router, only the ip: each container gets a free port there, and keeps it. Needed when the containers' own addresses cannot be reached, and without a router.").Like("10.0.0.5"),
		input.String(&s.reach, "reach", "How the load balancer reaches a container: by a port of this host, which is chosen once and kept, or by its own address on the first network, which the engine gives to another container after a restart.").
			OneOf(published, byNetwork).Or(published).Like("network"),
		input.List(&s.volumes, "volumes", "Volumes and folders, as name:/path or /path:/path, with :ro when it must not write. Releases that run side by side share them.").
			Matching(volumeShape, "uploads:/var/uploads"),
		input.List(&s.tmpfs, "tmpfs", "Folders that are kept in memory, with options of tmpfs after a colon.").Matching(tmpfsShape, "/tmp:size=64m"),
		input.Env(&s.files, "secrets", "Secrets that are files, by their names below /run/secrets. Each is given as {env: NAME}, the variable to take it from.").Like("{db-password: {env: DB_PASSWORD}}"),
		input.List(&s.entrypoint, "entrypoint", "The program with its arguments, in place of the image's.").Like("[/shop]"),
		input.List(&s.command, "command", "The arguments, in place of the image's.").Like("[serve, --verbose]"),
		input.String(&s.user, "user", "The user it runs as, as uid or uid:gid; the image's own when it is left out.").Like(`"1000:1000"`),
		input.String(&s.restart, "restart", "What the engine does when the release ends.").OneOf("no", "on-failure", "unless-stopped", "always").Or("always").Like("on-failure"),
		input.String(&s.stopSignal, "stop-signal", "The signal that asks it to end; the image's own when it is left out.").Matching(signalShape, "SIGQUIT"),
		input.Duration(&s.stopTimeout, "stop-timeout", "How long it may take to end before it is killed; as long as drain when it is left out.").Like("30s"),
		input.Map(&s.health, "healthcheck", "A check of the engine's own, in place of the image's: command, interval, timeout, start-period, retries; or disable: true.").
			Matching(healthShape, "interval=5s").
			Like(`{command: "curl -fs http://127.0.0.1:8080/health", interval: 5s, timeout: 2s, retries: 3}`),
		input.String(&s.memory, "memory", "The most memory it may use.").Matching(sizeShape, "512m"),
		input.String(&s.cpus, "cpus", "The most processors it may use.").Matching(cpusShape, "1.5"),
		input.String(&s.gpus, "gpus", "How many GPUs it gets, or all.").Matching(gpusShape, "all"),
		input.String(&s.shm, "shm-size", "The size of /dev/shm; the engine's default when it is left out.").Matching(sizeShape, "256m"),
		input.Map(&s.ulimits, "ulimits", "Limits of the kernel by their names, as soft:hard or one number for both.").Matching(ulimitShape, "nofile=65536").Like(`{nofile: "1024:65536", nproc: 4096}`),
		input.Map(&s.log, "log", "Where its output goes: driver, size and files, and other options of the driver by their names. Three files of 10m when it is left out.").
			Matching(logShape, "size=10m").Like("{size: 50m, files: 5}"),
		input.Map(&s.labels, "labels", "Labels of the containers, besides ours.").Like("{team: shop}"),
		input.List(&s.hosts, "extra-hosts", "Names that it finds in its /etc/hosts, as name:address; the address may be host-gateway.").Matching(hostShape, "db:10.0.0.7"),
		input.Bool(&s.init, "init", "An init of the engine's is its first process, which ends orphans.").Like("true"),
		input.Bool(&s.readOnly, "read-only", "It cannot write to its own files.").Like("true"),
		input.Sections(&s.roles, "roles", "Parts of a release that have no traffic, such as the workers of a queue, by their names. They work while the release has all the traffic, and go forward and back with it. What a role leaves out is as in the target.", (*role).inputs).Like("{job: {command: [work], order: stop-first}}"),
		input.List(&s.dropped, "cap-drop", "Capabilities of the kernel that it does not get.").Matching(capShape, "ALL"),
		input.List(&s.security, "security-opt", "Options of the kernel's security modules.").Matching(securityShape, "no-new-privileges"),
	}
	for i := range all {
		all[i] = all[i].OfRelease()
	}
	return all
}

func (r *role) inputs() []input.Input {
	return []input.Input{
		input.Int(&r.replicas, "replicas", "How many containers it has.", 1, 100).Or("1").Like("2"),
		input.String(&r.order, "order", "Whether those of the release before are stopped first, for what must not run twice, or last.").OneOf(startFirst, stopFirst).Or(startFirst).Like("stop-first"),
		input.List(&r.entrypoint, "entrypoint", "The program with its arguments.").Like("[/worker]"),
		input.List(&r.command, "command", "The arguments.").Like("[work, --queue, orders]"),
		input.Env(&r.env, "env", "Variables besides those of the environment.").Like("{QUEUE: orders, QUEUE_URL: {env: QUEUE_URL}}"),
		input.String(&r.memory, "memory", "The most memory it may use.").Matching(sizeShape, "512m"),
		input.String(&r.cpus, "cpus", "The most processors it may use.").Matching(cpusShape, "1.5"),
		input.Map(&r.health, "healthcheck", "A check of the engine's own; none when it is left out.").Matching(healthShape, "interval=5s").Like(`{command: "pgrep worker", interval: 10s}`),
		input.String(&r.stopSignal, "stop-signal", "The signal that asks it to end.").Matching(signalShape, "SIGQUIT"),
		input.Duration(&r.stopTimeout, "stop-timeout", "How long it may take to end before it is killed; as long as drain when it is left out.").Like("2m"),
	}
}

// as is the spec of the containers of one of its roles; that of the release itself is "".
func (s spec) as(name string) spec {
	r, ok := s.roles[name]
	if !ok {
		return s
	}
	s.replicas, s.entrypoint, s.command = r.replicas, or(r.entrypoint, s.entrypoint), or(r.command, s.command)
	s.memory, s.cpus = cmp.Or(r.memory, s.memory), cmp.Or(r.cpus, s.cpus)
	s.stopSignal, s.stopTimeout = cmp.Or(r.stopSignal, s.stopSignal), cmp.Or(r.stopTimeout, s.stopTimeout)
	if s.health = r.health; len(r.health) == 0 {
		s.health = map[string]string{"disable": "true"} // that of the image asks for what it does not do
	}
	s.port, s.publish, s.reach = 0, "", byNetwork // nobody asks it
	return s
}

func or(a, b []string) []string {
	if len(a) > 0 {
		return a
	}
	return b
}

// specOf is the spec that values of a configuration make.
func specOf(values map[string][]secret.Value) (spec, error) {
	var s spec
	err := input.Assign(s.inputs(), values)
	return s, err
}

// check finds what one input alone cannot see.
func (s *spec) check(routed bool) error {
	for key := range s.labels {
		if strings.HasPrefix(key, "backstep.") {
			return fault.Inputf("target docker: label %s: names with backstep. are ours", key)
		}
	}
	for name := range s.files {
		if !fileShape.MatchString(name) {
			return fault.Inputf("target docker: secrets.%s: want the name of a file, for example db-password", name)
		}
	}
	checks := map[string]map[string]string{"healthcheck": s.health}
	for name, r := range s.roles {
		checks["roles."+name+".healthcheck"] = r.health
	}
	for at, health := range checks {
		if len(health) > 0 && health["command"] == "" && health["disable"] == "" {
			return fault.Inputf("target docker: %s has no command", at).WithHint("for example command: curl -fs http://127.0.0.1:8080/health")
		}
	}
	if !routed && s.replicas > 1 {
		return fault.Inputf("target docker: replicas: without a router there is one container").WithHint("put a router in front")
	}
	_, err := s.publication(routed)
	return err
}

// publication is where the port is published; its HostPort is empty when it is to be chosen. Zero is nowhere.
func (s *spec) publication(routed bool) (network.PortBinding, error) {
	ip, port := s.publish, ""
	if at, err := netip.ParseAddrPort(ip); err == nil {
		ip, port = at.Addr().String(), strconv.Itoa(int(at.Port()))
	}
	switch {
	case s.publish == "" && routed && s.reach == byNetwork:
		return network.PortBinding{}, nil
	case s.publish == "" && routed:
		ip = "127.0.0.1"
	case s.publish == "" || !routed && port == "":
		return network.PortBinding{}, fault.Inputf("target docker: publish is %q: without a router it has to say where customers ask", s.publish).
			WithHint("for example publish: 0.0.0.0:80; or put a router in front, which changes releases without a gap")
	case routed && port != "":
		return network.PortBinding{}, fault.Inputf("target docker: publish %s: two releases cannot share one port", s.publish).
			WithHint("leave the port out: each release gets a free one")
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return network.PortBinding{}, fault.Inputf("target docker: publish %q: want for example 0.0.0.0:80", s.publish)
	}
	return network.PortBinding{HostIP: addr, HostPort: port}, nil
}

func (s *spec) portNumber() network.Port {
	p, _ := network.PortFrom(uint16(s.port), network.TCP) // #nosec G115 -- 1 to 65535 by its declaration
	return p
}

// size is the number of bytes that a size like 512m means.
func size(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimRight(s, "kmg"), 10, 64) // by sizeShape
	switch {
	case strings.HasSuffix(s, "k"):
		return n << 10
	case strings.HasSuffix(s, "m"):
		return n << 20
	case strings.HasSuffix(s, "g"):
		return n << 30
	}
	return n
}

// config is the part of a container that is the same on any host.
func (s *spec) config(image string, labels map[string]string, variables []string) *container.Config {
	all := maps.Clone(s.labels)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, labels)
	c := &container.Config{Image: image, Labels: all, Env: variables, User: s.user, Entrypoint: s.entrypoint, Cmd: s.command,
		StopSignal: s.stopSignal, Healthcheck: s.healthcheck()}
	if s.port > 0 {
		c.ExposedPorts = network.PortSet{s.portNumber(): {}}
	}
	if s.stopTimeout > 0 {
		seconds := int(s.stopTimeout.Round(time.Second).Seconds())
		c.StopTimeout = &seconds
	}
	if len(s.files) > 0 {
		c.Volumes = map[string]struct{}{secretsDir: {}}
	}
	return c
}

// hostConfig is the part of a container that its host gives it.
func (s *spec) hostConfig(at network.PortBinding, log container.LogConfig) *container.HostConfig {
	cpus, _ := strconv.ParseFloat("0"+s.cpus, 64) // by its declaration
	h := &container.HostConfig{Binds: s.volumes, ReadonlyRootfs: s.readOnly, ExtraHosts: s.hosts, CapDrop: s.dropped, SecurityOpt: s.security,
		ShmSize: size(s.shm), LogConfig: log, RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(s.restart)},
		Resources: container.Resources{Memory: size(s.memory), NanoCPUs: int64(cpus * 1e9), Ulimits: s.limits(), DeviceRequests: s.devices()}}
	if s.init {
		h.Init = &s.init
	}
	if len(s.tmpfs) > 0 {
		h.Tmpfs = map[string]string{}
		for _, t := range s.tmpfs {
			path, with, _ := strings.Cut(t, ":")
			h.Tmpfs[path] = with
		}
	}
	if at.HostIP.IsValid() {
		h.PortBindings = network.PortMap{s.portNumber(): {at}}
	}
	if len(s.networks) > 0 {
		h.NetworkMode = container.NetworkMode(s.networks[0])
	}
	return h
}

func (s *spec) healthcheck() *container.HealthConfig {
	if len(s.health) == 0 {
		return nil
	}
	if s.health["disable"] != "" {
		return &container.HealthConfig{Test: []string{"NONE"}}
	}
	span := func(key string) time.Duration { d, _ := time.ParseDuration(s.health[key]); return d } // by healthShape
	retries, _ := strconv.Atoi("0" + s.health["retries"])
	return &container.HealthConfig{Test: []string{"CMD-SHELL", s.health["command"]}, Interval: span("interval"), Timeout: span("timeout"),
		StartPeriod: span("start-period"), Retries: retries}
}

func (s *spec) limits() []*container.Ulimit {
	var all []*container.Ulimit
	for _, name := range slices.Sorted(maps.Keys(s.ulimits)) {
		soft, hard, two := strings.Cut(s.ulimits[name], ":")
		if !two {
			hard = soft
		}
		l := &container.Ulimit{Name: name}
		l.Soft, _ = strconv.ParseInt(soft, 10, 64) // by ulimitShape
		l.Hard, _ = strconv.ParseInt(hard, 10, 64)
		all = append(all, l)
	}
	return all
}

func (s *spec) devices() []container.DeviceRequest {
	if s.gpus == "" {
		return nil
	}
	count := -1
	if s.gpus != "all" {
		count, _ = strconv.Atoi(s.gpus) // by its declaration
	}
	return []container.DeviceRequest{{Count: count, Capabilities: [][]string{{"gpu"}}}}
}

// The size of the log that a container keeps when nothing else is said: an engine of its own accord keeps all, until the disk is full.
const (
	logSize  = "10m"
	logFiles = "3"
)

// logging is where the output of a container goes. Standard is the driver that the engine takes by itself.
func (s *spec) logging(standard string) (container.LogConfig, error) {
	c := container.LogConfig{Type: s.log["driver"], Config: map[string]string{}}
	driver := c.Type
	if driver == "" {
		driver = standard
	}
	files := driver == "json-file" || driver == "local"
	if !files && (s.log["size"] != "" || s.log["files"] != "") {
		return c, fault.Inputf("target docker: log: driver %s keeps no files whose size and number could be set", driver)
	}
	for key, value := range s.log {
		switch key {
		case "driver":
		case "size":
			c.Config["max-size"] = value
		case "files":
			c.Config["max-file"] = value
		default:
			c.Config[key] = value
		}
	}
	if files {
		for key, value := range map[string]string{"max-size": logSize, "max-file": logFiles} {
			if c.Config[key] == "" {
				c.Config[key] = value
			}
		}
		c.Type = driver
	}
	if c.Type == "" && len(c.Config) > 0 {
		c.Type = driver
	}
	return c, nil
}
