package sql

import (
	"context"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/probe"
	"github.com/backstep/backstep/internal/probe/probetest"
)

// account is who a database server runs as: it refuses to be root.
func account(t *testing.T, names ...string) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range names {
		if u, err := user.Lookup(name); err == nil {
			uid, _ := strconv.Atoi(u.Uid)
			gid, _ := strconv.Atoi(u.Gid)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	t.Fatalf("none of the users %v is there", names)
	return nil
}

// folder is one that belongs to who.
func folder(t *testing.T, who *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if who != nil {
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func run(t *testing.T, who *syscall.Credential, program string, arguments ...string) {
	t.Helper()
	c := exec.Command(program, arguments...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	c.Dir = "/"
	if said, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, said)
	}
}

// postgres starts PostgreSQL and returns its URL and what ends it.
func postgres(t *testing.T) (string, func()) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		t.Fatal("PostgreSQL is not installed")
	}
	bin := found[len(found)-1]
	who := account(t, "postgres", "nobody")
	dir, address := folder(t, who), probetest.Free(t)
	_, port, _ := net.SplitHostPort(address)
	data := filepath.Join(dir, "data")
	run(t, who, filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "shop", "--auth", "trust", "--no-sync")
	stop := probetest.Start(t, func() bool {
		return exec.Command("psql", "-h", "127.0.0.1", "-p", port, "-U", "shop", "-d", "postgres", "-c", "select 1").Run() == nil
	}, who, filepath.Join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", port, "-k", dir)
	return "postgres://shop:secret@" + address + "/postgres?sslmode=disable", stop
}

// mariadb starts MariaDB, which speaks MySQL's protocol.
func mariadb(t *testing.T) (string, func()) {
	who := account(t, "mysql", "nobody")
	dir, address := folder(t, who), probetest.Free(t)
	_, port, _ := net.SplitHostPort(address)
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "s")
	run(t, who, "mariadb-install-db", "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	arguments := []string{"--no-defaults", "--datadir=" + data, "--socket=" + socket, "--port=" + port, "--bind-address=127.0.0.1"}
	stop := probetest.Start(t, func() bool {
		return exec.Command("mariadb", "--no-defaults", "-S", socket, "-u", "root", "-e",
			"create database if not exists shop; create user if not exists shop@'127.0.0.1' identified by 'secret'; grant select on shop.* to shop@'127.0.0.1'").Run() == nil
	}, who, "mariadbd", arguments...)
	return "mysql://shop:secret@" + address + "/shop", stop
}

func TestE2ENumbers(t *testing.T) {
	probetest.Needs(t, "PostgreSQL and MariaDB")
	for name, start := range map[string]func(*testing.T) (string, func()){"postgres": postgres, "mysql": mariadb} {
		t.Run(name, func(t *testing.T) {
			url, stop := start(t)
			ask := func(query, low, high string) probe.Result {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				return probetest.Open(t, Kind(), map[string]string{"url": url, "query": query, "min": low, "max": high}).Check(ctx, "")
			}
			for _, c := range []struct {
				query, low, high string
				want             probe.Outcome
				got              string
			}{
				{"select 12", "10", "", probe.Pass, ""},
				{"select 12.5", "", "12.5", probe.Pass, ""},
				{"select 3", "10", "", probe.Fail, "3 is below 10"},
				{"select 30", "", "20", probe.Fail, "30 is above 20"},
				{"select null", "10", "", probe.NoData, "NULL"},
				{"select 1 where 1 = 0", "1", "", probe.NoData, "no row"},
				{"select 1 union select 2", "1", "", probe.NoData, "several rows"},
				{"select 1, 2", "1", "", probe.NoData, "2 columns"},
				{"select 'many'", "1", "", probe.NoData, "many"},
				{"select orders", "1", "", probe.NoData, "orders"},
				{"create table orders (id int)", "1", "", probe.NoData, ""},
			} {
				if r := ask(c.query, c.low, c.high); r.Outcome != c.want || !strings.Contains(r.Got, c.got) {
					t.Errorf("%s: outcome %d, got %q; want %d, %q", c.query, r.Outcome, r.Got, c.want, c.got)
				}
			}
			stop()
			if r := ask("select 12", "10", ""); r.Outcome != probe.NoData || strings.Contains(r.Got, "secret") {
				t.Errorf("the database is gone: %+v", r)
			}
		})
	}
}

func TestInputs(t *testing.T) {
	for want, inputs := range map[string]map[string]string{
		"min or max is missing":           {"url": "postgres://a:b@c/d", "query": "select 1"},
		"want postgres:// or mysql://":    {"url": "oracle://a:b@c/d", "query": "select 1", "min": "1"},
		"want for example postgres://":    {"url": "a:b@c/d", "query": "select 1", "min": "1"},
		"no connection string of Postgre": {"url": "postgres://a:hidden@c:x/d", "query": "select 1", "min": "1"},
	} {
		got := probetest.Refused(t, Kind(), inputs)
		if !strings.Contains(got, want) && !strings.Contains(got, "want for example") || strings.Contains(got, "hidden") {
			t.Errorf("%v: %q, want %q", inputs, got, want)
		}
	}
}
