package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
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
			return supervised(env, registry.New())
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
