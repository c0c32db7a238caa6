package registrytest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
)

func TestSwitch(t *testing.T) {
	s := registrytest.NewSwitch(t, registrytest.InProcess(t))
	c, repository, body := registry.New(), s.Host()+"/shop", []byte(`{"schemaVersion":2}`)
	want := []string{}
	for n := range 25 {
		want = append(want, fmt.Sprintf("t%02d", n))
		if _, err := c.Put(t.Context(), repository, want[n], registry.OCIManifest, body); err != nil {
			t.Fatal(err)
		}
	}
	s.Pages(10)
	if _, err := c.Head(t.Context(), repository, "t00"); err != nil { // the handshake for reading
		t.Fatal(err)
	}
	before := s.Requests()
	tags, err := c.Tags(t.Context(), repository)
	slices.Sort(tags)
	if err != nil || !slices.Equal(tags, want) || s.Requests()-before != 3 {
		t.Errorf("pages: %v, %v, %d requests; want all, and 3", tags, err, s.Requests()-before)
	}
	for _, m := range []struct {
		mode        registrytest.Mode
		read, write string // what the errors say, "" for none
	}{
		{registrytest.Healthy, "", ""},
		{registrytest.Unauthorized, "access denied: the registry answered 401 UNAUTHORIZED switched", "access denied: the registry answered 401 UNAUTHORIZED switched"},
		{registrytest.Forbidden, "access denied: the registry answered 403 DENIED switched", "access denied: the registry answered 403 DENIED switched"},
		{registrytest.ReadOnly, "", "the registry answered 405 UNSUPPORTED switched"},
		{registrytest.Throttled, "throttled: the registry answered 429 TOOMANYREQUESTS switched", "throttled: the registry answered 429 TOOMANYREQUESTS switched"},
		{registrytest.Broken, "the registry answered 500 UNKNOWN switched", "the registry answered 500 UNKNOWN switched"},
		{registrytest.DiskFull, "", "the registry answered 507 DENIED switched"},
	} {
		s.Set(m.mode)
		ctx := registry.Once(t.Context())
		_, err := c.Get(ctx, repository, "t00")
		said(t, err, m.read, "read "+repository+":t00: ")
		_, err = c.Put(ctx, repository, "t00", registry.OCIManifest, body)
		said(t, err, m.write, "write "+repository+":t00: ")
	}
	for _, mode := range []registrytest.Mode{registrytest.Stopped, registrytest.Silent} {
		s.Set(mode)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := c.Get(ctx, repository, "t00"); err == nil {
			t.Errorf("mode %d: an answer", mode)
		}
		cancel()
	}
}

func said(t *testing.T, err error, want, doing string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if want != "" {
		want = doing + want
	}
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestLatePUT(t *testing.T) {
	s := registrytest.NewSwitch(t, registrytest.InProcess(t))
	c, repository := registry.New(), s.Host()+"/shop"
	late := s.LatePUT(func(tag string) bool { return tag == "late" })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-late.Held; cancel() }()
	if _, err := c.Put(ctx, repository, "late", registry.OCIManifest, []byte(`{}`)); err == nil {
		t.Error("an answer to a PUT that is held back")
	}
	if _, err := c.Head(t.Context(), repository, "late"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	late.Apply()
	if _, err := c.Head(t.Context(), repository, "late"); err != nil {
		t.Errorf("after: %v", err)
	}
}
