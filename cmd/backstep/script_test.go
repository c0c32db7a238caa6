package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
	"github.com/backstep/backstep/internal/target/process"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backstep": main, "talkative": talkative})
}

// TestScripts runs testdata/script on the real program, against a registry and a supervisor of this process.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			between := registrytest.NewSwitch(t, registrytest.InProcess(t))
			env.Values["registry"] = between
			env.Setenv("REG", between.Host()+"/acme/shop")
			dir, err := os.MkdirTemp("", "bs") // a socket's path has to be short
			if err != nil {
				return err
			}
			socket := filepath.Join(dir, "s")
			supervisor, err := process.NewSupervisor(process.SupervisorOptions{Dir: filepath.Join(dir, "state"), Socket: socket,
				Listen: "127.0.0.1:0", Ready: "/ready", Registry: registry.New(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
			if err != nil {
				return err
			}
			running, stop := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- supervisor.Run(running) }()
			env.Defer(func() { stop(); <-ended; os.RemoveAll(dir) })
			program, err := exec.LookPath("backstep")
			if err != nil {
				return err
			}
			env.Setenv("SOCKET", socket)
			env.Setenv("PROXY", "http://"+supervisor.Address())
			env.Setenv("BIN", filepath.Dir(program))
			env.Setenv("BACKSTEP_HOST", "plain")
			env.Setenv("BACKSTEP_ACTOR", "ada")
			return os.WriteFile(filepath.Join(env.WorkDir, "backstep.yml"), []byte("service: shop\nrepository: "+env.Getenv("REG")+
				"\nenvironments:\n  production:\n    target: {kind: process, socket: "+socket+"}\n    drain: 1s\n    settle: 0s\n    try: 0s\n    ready-timeout: 20s\n"+
				"    verify: {bake: 1s, patience: 20s, negligible: 20%, intolerable: 20%, probes: [{kind: http, rate: 200}]}\n"), 0o644)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "shop": shop, "waits": waits, "broken": broken, "outage": outage, "answers": answers, "silent": silent, "talks": talks},
	})
}

// exits CODE ARG… runs backstep and wants it to end with this code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARG…")
	}
	err := ts.Exec("backstep", args[1:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run backstep: %v", err)
	}
	if want := args[0]; want != string(rune('0'+got)) {
		ts.Fatalf("backstep %v ended with exit code %d, want %s", args[1:], got, want)
	}
}

// shop VERSION FAILS-AFTER builds and tags an image of the demo's shop.
func shop(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: shop VERSION FAILS-AFTER")
	}
	ts.Check(ts.Exec("backstep", "build-image", "--repository", ts.Getenv("REG"), "--version", args[0], "--tags", args[0],
		"--context", ts.Getenv("BIN"), "--files", "backstep:/backstep", "--entrypoint", "/backstep", "--entrypoint", "demo",
		"--entrypoint", "--serve", "--entrypoint", args[0], "--entrypoint", "--fails-after", "--entrypoint", args[1]))
}

// waits PATTERN waits until backstep status shows a line that matches.
func waits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waits PATTERN")
	}
	wanted := regexp.MustCompile(args[0])
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		ts.Check(ts.Exec("backstep", "status", "--environment", "production"))
		if wanted.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("status never showed %s", args[0])
}

// answers TEXT wants it in what a customer gets.
func answers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: answers TEXT")
	}
	if text, err := asked(ts.Getenv("PROXY")); err != nil || !strings.Contains(text, args[0]) {
		ts.Fatalf("a customer got %q, %v, want %s", text, err, args[0])
	}
}

// broken TAG pushes an image whose layer is not there.
func broken(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: broken TAG")
	}
	client, repository := registry.New(), ts.Getenv("REG")
	config, err := client.PutBlob(context.Background(), repository, []byte("{}"))
	ts.Check(err)
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%064d","size":1}]}`, registry.OCIManifest, config, 1)
	_, err = client.Put(context.Background(), repository, args[0], registry.OCIManifest, []byte(body))
	ts.Check(err)
}
