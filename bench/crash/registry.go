package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	containerregistry "github.com/google/go-containerregistry/pkg/registry"
)

// The registries that a suite can run on.
const (
	embedded     = "embedded"     // in this process
	debian       = "debian"       // docker-registry 2.8
	distribution = "distribution" // v3, the program that BACKSTEP_DISTRIBUTION names
)

// storage is the configuration of a registry that is a program.
const storage = `version: 0.1
log: {level: error}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: %q, secret: test}
`

// startRegistry starts a registry that keeps its data in dir, and returns its host:port and what ends it.
func startRegistry(ctx context.Context, kind, dir string) (string, func(), error) {
	switch kind {
	case embedded:
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", nil, err
		}
		quiet := log.New(io.Discard, "", 0)
		server := &http.Server{Handler: containerregistry.New(containerregistry.Logger(quiet)), ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
		go server.Serve(listener)
		return listener.Addr().String(), func() { server.Close() }, nil
	case debian:
		return startProgram(ctx, "docker-registry", dir)
	case distribution:
		return startProgram(ctx, os.Getenv("BACKSTEP_DISTRIBUTION"), dir)
	}
	return "", nil, fmt.Errorf("registry %q: want %s, %s or %s", kind, embedded, debian, distribution)
}

func startProgram(ctx context.Context, program, dir string) (string, func(), error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address := free.Addr().String()
	free.Close()
	file := filepath.Join(dir, "registry.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, storage, filepath.Join(dir, "registry"), address), 0o600); err != nil {
		return "", nil, err
	}
	cmd := exec.Command(program, "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("start the registry: %w", err)
	}
	stop := func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		answer, err := http.Get("http://" + address + "/v2/")
		if err == nil {
			answer.Body.Close()
			return address, stop, nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			stop()
			return "", nil, fmt.Errorf("%s does not answer: %w", program, err)
		}
	}
}
