package nginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstep/backstep/internal/fault"
	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/router/routertest"
	"github.com/backstep/backstep/internal/target"
)

// shopFront is the router of a file with the upstream shop.
func shopFront(file string) *front {
	return &front{file: file, upstream: "shop", status: "http://127.0.0.1:9/shop", timeout: time.Second, spent: map[string]bool{}}
}

const written = `# the shop
upstream shop {
    zone shop 64k;
    server 127.0.0.1:20001 weight=95 max_fails=0;
    server 127.0.0.1:20002 weight=5 max_fails=0;
    keepalive 32; # as before
}
map "" $backstep_shop { default "shop 12 127.0.0.1:20001=95 127.0.0.1:20002=5 pid=$pid"; }
`

func TestWhatIsNotOursInTheFileStays(t *testing.T) {
	f := shopFront("/etc/nginx/backstep/shop.conf")
	in, err := f.parse(written)
	if err != nil || in.with(in.serves) != written {
		t.Fatalf("%v\n%s", err, in.with(in.serves))
	}
	next := serves{upstream: "shop", serial: 13, weights: map[string]int{"127.0.0.1:20002": 100}}
	want := strings.Replace(written, "    server 127.0.0.1:20001 weight=95 max_fails=0;\n", "", 1)
	want = strings.Replace(want, "weight=5", "weight=100", 1)
	want = strings.Replace(want, "shop 12 127.0.0.1:20001=95 127.0.0.1:20002=5", "shop 13 127.0.0.1:20002=100", 1)
	if got := in.with(next); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	in, err = f.parse(First)
	if err != nil || len(in.serves.weights) != 0 || in.with(in.serves) != First {
		t.Errorf("the first file is %+v, %v\n%s", in.serves, err, in.with(in.serves))
	}
	dashed := &front{file: "/x", upstream: "acme-shop"}
	if in, err = dashed.parse(strings.NewReplacer("$backstep_shop", "$backstep_acme_shop", "shop", "acme-shop").Replace(First)); err != nil || in.serves.upstream != "acme-shop" {
		t.Errorf("a name with a dash: %+v, %v", in.serves, err)
	}
}

func TestHandMadeFiles(t *testing.T) {
	const byHand = "/etc/nginx/backstep/shop.conf:8: nginx: it was changed by hand: the servers are %q, and the map says \"shop 12 127.0.0.1:20001=95 127.0.0.1:20002=5 \""
	for name, c := range map[string]struct{ old, now, want string }{
		"another weight":              {"weight=5 ", "weight=50 ", fmt.Sprintf(byHand, "shop 12 127.0.0.1:20001=95 127.0.0.1:20002=50 ")},
		"a server that was taken out": {"weight=5 max_fails=0", "down", fmt.Sprintf(byHand, "shop 12 127.0.0.1:20001=95 ")},
		"a server with more than a weight": {"weight=5 max_fails=0", "weight=5 max_conns=3",
			`/etc/nginx/backstep/shop.conf:5: nginx: "server 127.0.0.1:20002 weight=5 max_conns=3;" is not backstep's: ` +
				"the file has one upstream, shop, its servers with no more than a weight, and one map, each on a line of its own"},
		"a name":             {"server 127.0.0.1:20002", "server shop.example.com:80", "/etc/nginx/backstep/shop.conf:5: nginx: server shop.example.com:80: want ip:port"},
		"a server twice":     {"127.0.0.1:20002", "127.0.0.1:20001", "/etc/nginx/backstep/shop.conf:5: nginx: server 127.0.0.1:20001 is there twice"},
		"another upstream":   {"map ", "upstream erp {\nmap ", `/etc/nginx/backstep/shop.conf:8: nginx: "upstream erp {" is not backstep's: ` + "the file has one upstream, shop, its servers with no more than a weight, and one map, each on a line of its own"},
		"no map":             {"map ", "# ", "/etc/nginx/backstep/shop.conf: nginx: want the upstream shop and the map of $backstep_shop in it, each on a line of its own"},
		"no number":          {"shop 12", "shop twelve", `/etc/nginx/backstep/shop.conf:8: nginx: the map says "shop twelve 127.0.0.1:20001=95 127.0.0.1:20002=5 pid=$pid": "twelve" is no number of a change`},
		"the map of another": {`"shop 12`, `"erp 12`, `/etc/nginx/backstep/shop.conf:8: nginx: the map says "erp 12 127.0.0.1:20001=95 127.0.0.1:20002=5 pid=$pid": want for example "shop 12 127.0.0.1:20001=100 pid=$pid"`},
	} {
		_, err := shopFront("/etc/nginx/backstep/shop.conf").parse(strings.Replace(written, c.old, c.now, 1))
		if err == nil || err.Error() != c.want || fault.CodeOf(err) != fault.Input {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
	}
	missing := filepath.Join(t.TempDir(), "shop.conf")
	if _, err := shopFront(missing).read(); err == nil || err.Error() != "nginx: open "+missing+": no such file or directory" || !strings.Contains(fault.HintOf(err), First) {
		t.Errorf("no file: %v, %s", err, fault.HintOf(err))
	}
}

// A write between reading and renaming is seen.
func TestSomebodyElseWrites(t *testing.T) {
	f := shopFront(filepath.Join(t.TempDir(), "shop.conf"))
	put(t, f.file, written)
	err := f.replace(First, "ours")
	if err == nil || err.Error() != f.file+": nginx: somebody else has changed it meanwhile" || text(t, f.file) != written {
		t.Errorf("%v\n%s", err, text(t, f.file))
	}
	link := filepath.Join(t.TempDir(), "link.conf")
	if err := os.Symlink(f.file, link); err != nil {
		t.Fatal(err)
	}
	f.file = link
	if err := f.replace(written, "ours"); err == nil || err.Error() != link+": nginx: it is no file, and is not replaced" {
		t.Errorf("a link: %v", err)
	}
	if all, err := os.ReadDir(filepath.Dir(link)); err != nil || len(all) != 1 {
		t.Errorf("left behind: %v, %v", all, err)
	}
}

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:A2B4 0100007F:4E21 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0100007F:4E21 0100007F:A2B4 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   3: 0100007F:A2B6 0100007F:4E21 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1
   4: 0000000000000000FFFF00000100007F:A2B8 0000000000000000FFFF00000100007F:4E21 01 0:0
   5: 00000000000000000000000001000000:A2BA 00000000000000000000000001000000:4E21 02 0:0
`

func TestConnectionsAreCounted(t *testing.T) {
	for at, want := range map[string]int{"127.0.0.1:20001": 2, "[::1]:20001": 1, "127.0.0.1:41652": 1, "127.0.0.2:20001": 0} {
		if got := count([]byte(table), netip.MustParseAddrPort(at)); got != want {
			t.Errorf("%s has %d, want %d", at, got, want)
		}
	}
	if n, known := connections(os.Getpid(), "127.0.0.1:1"); known {
		t.Errorf("a process that is no nginx has %d", n)
	}
}

func FuzzFile(f *testing.F) {
	f.Add(written)
	f.Add(First)
	f.Fuzz(func(t *testing.T, text string) {
		one := shopFront("/x")
		in, err := one.parse(text)
		if err != nil {
			return
		}
		again, err := one.parse(in.with(in.serves))
		if err != nil || !again.serves.same(in.serves) {
			t.Errorf("%q was written as %q: %v", text, in.with(in.serves), err)
		}
	})
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// opened is the router for a real nginx.
func opened(t *testing.T, s routertest.WebServer) *front {
	t.Helper()
	inputs, open := Kind().New()
	given := s.Inputs()
	for _, in := range inputs {
		values := []string{in.Default}
		if v, ok := given[in.Name]; ok {
			values = input.Lines(v)
		}
		if err := in.Set(values); err != nil {
			t.Fatal(err)
		}
	}
	got, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return got.(*front)
}

// release is a server that says its name, and streams for a while at /long.
func release(t *testing.T, name string) string { return releaseAt(t, "127.0.0.1", name) }

// releaseAt is one that listens at another address of this machine.
func releaseAt(t *testing.T, ip, name string) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			for range 20 {
				fmt.Fprintln(w, name)
				w.(http.Flusher).Flush()
				time.Sleep(50 * time.Millisecond)
			}
			return
		}
		fmt.Fprint(w, name)
	}))
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	must(t, err)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return listener.Addr().String()
}

// get is what a customer gets, over a new connection.
func get(url string) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return fmt.Sprint(answer.StatusCode, err)
	}
	return string(body)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v\n%s", err, fault.HintOf(err))
	}
}

// standing is a claim that nobody has come after.
func standing(context.Context) error { return nil }

func weights(t *testing.T, f *front, want map[string]int) {
	t.Helper()
	got, err := f.Weights(t.Context())
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("the weights are %v, %v, want %v", got, err, want)
	}
}

// After a shift nobody gets the former release, also right after it, also when many shifts follow one another; and a restart of nginx
// changes nothing.
func TestE2EShifts(t *testing.T) {
	s := routertest.Nginx(t, First)
	f := opened(t, s)
	weights(t, f, map[string]int{})
	a, b := release(t, "a"), release(t, "b")
	for range 10 {
		for name, at := range map[string]string{"a": a, "b": b} {
			must(t, f.Shift(t.Context(), standing, map[string]int{at: 100}))
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for range 5 {
						if got := get("http://" + s.Address); got != name {
							t.Errorf("after a shift to %s a customer got %s", name, got)
						}
					}
				})
			}
			all.Wait()
			weights(t, f, map[string]int{at: 100})
		}
	}
	must(t, f.Shift(t.Context(), standing, map[string]int{a: 95, b: 5}))
	weights(t, f, map[string]int{a: 95, b: 5})
	seen := map[string]int{}
	for range 200 {
		seen[get("http://"+s.Address)]++
	}
	if seen["a"] != 190 || seen["b"] != 10 {
		t.Errorf("95 and 5 %% of 200 were %v", seen)
	}
	// A canary that takes no connection gets its share, and customers see it: nobody else is asked, and it is not left out.
	must(t, f.Shift(t.Context(), standing, map[string]int{a: 50, "127.0.0.1:9": 50}))
	seen = map[string]int{}
	for range 40 {
		seen[get("http://"+s.Address)]++
	}
	if seen["a"] != 20 || seen["502 <nil>"] != 20 {
		t.Errorf("half of 40 at a server that is not there were %v", seen)
	}
	must(t, f.Shift(t.Context(), standing, map[string]int{a: 95, b: 5}))
	s.Stop()
	_, err := f.Weights(t.Context())
	if !errors.Is(err, target.ErrUnreachable) {
		t.Errorf("nginx is gone: %v", err)
	}
	s.Start()
	weights(t, f, map[string]int{a: 95, b: 5})
	before := text(t, s.File)
	must(t, f.Shift(t.Context(), standing, map[string]int{a: 95, b: 5, "127.0.0.1:9": 0}))
	if text(t, s.File) != before {
		t.Error("what is so already was written again")
	}
}

// crowd asks without pause until stop is called, which returns how many asked, and what they lost.
func crowd(url string, transport *http.Transport) (stop func() (asked int, lost []string)) {
	ctx, cancel := context.WithCancel(context.Background())
	var n atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	var lost []string
	for range 4 {
		all.Go(func() {
			client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
			for ctx.Err() == nil {
				n.Add(1)
				answer, err := client.Get(url)
				if err == nil {
					_, err = io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
					if answer.StatusCode != http.StatusOK {
						err = fmt.Errorf("status %d", answer.StatusCode)
					}
				}
				if err != nil {
					mu.Lock()
					lost = append(lost, err.Error())
					mu.Unlock()
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return func() (int, []string) {
		cancel()
		all.Wait()
		return int(n.Load()), lost
	}
}

// Shifts lose no request, on new and on kept connections; a download and a websocket that are under way go on, and the release that
// they are with is drained when they end.
func TestE2ENothingIsLost(t *testing.T) {
	s := routertest.Nginx(t, First)
	f := opened(t, s)
	a, b := release(t, "a"), release(t, "b")
	socket := echo(t)
	must(t, f.Shift(t.Context(), standing, map[string]int{socket: 100}))
	talk := upgraded(t, s.Address)
	must(t, f.Shift(t.Context(), standing, map[string]int{a: 100}))
	fresh, kept := crowd("http://"+s.Address, &http.Transport{DisableKeepAlives: true}), crowd("http://"+s.Address, &http.Transport{})
	download := make(chan string, 1)
	go func() { download <- get("http://" + s.Address + "/long") }()
	for i := range 6 {
		must(t, f.Shift(t.Context(), standing, map[string]int{[]string{b, a}[i%2]: 100}))
		talk(fmt.Sprint("after ", i))
	}
	for name, stop := range map[string]func() (int, []string){"new": fresh, "kept": kept} {
		if asked, lost := stop(); len(lost) > 0 || asked < 100 {
			t.Errorf("%s connections: %d of %d were lost: %q", name, len(lost), asked, lost)
		}
	}
	if got := <-download; strings.Count(got, "a\n") != 20 {
		t.Errorf("the download was %q", got)
	}
	must(t, f.Drain(t.Context(), standing, a, 0)) // it is served: it is taken out, and there is nobody else
	begun := time.Now()
	must(t, f.Drain(t.Context(), standing, b, time.Minute))
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("a release that nobody is connected with was drained for %s", took)
	}
	begun = time.Now()
	must(t, f.Drain(t.Context(), standing, socket, 300*time.Millisecond))
	if took := time.Since(begun); took < 300*time.Millisecond {
		t.Errorf("a websocket was waited for for %s", took)
	}
	begun = time.Now()
	must(t, f.Drain(t.Context(), standing, socket, time.Minute))
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it was waited for again, for %s", took)
	}
}

// echo is a server that takes every upgrade, and says again what it is told.
func echo(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, said, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(conn, said)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// upgraded is a connection with it; talk wants what it says to be said again.
func upgraded(t *testing.T, address string) (talk func(string)) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: shop\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
	head := make([]byte, 0, 1024)
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		one := make([]byte, 1)
		_, err := io.ReadFull(conn, one)
		must(t, err)
		head = append(head, one...)
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
		t.Fatalf("no upgrade: %s", head)
	}
	return func(text string) {
		t.Helper()
		fmt.Fprint(conn, text)
		got := make([]byte, len(text))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
			t.Fatalf("the websocket said %q, %v, want %q", got, err, text)
		}
	}
}

// However a change fails, the former file is back, nginx goes on with it, and the fault says what helps.
func TestE2EFaults(t *testing.T) {
	s := routertest.Nginx(t, First)
	a, b := release(t, "a"), release(t, "b")
	must(t, opened(t, s).Shift(t.Context(), standing, map[string]int{a: 100}))
	main, include := text(t, s.Main), text(t, s.File)
	dir := filepath.Dir(s.File)
	program := func(name, script string) []string {
		path := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755))
		return []string{path}
	}
	for name, c := range map[string]struct {
		change     func(f *front)
		want, hint string
	}{
		"a syntax error elsewhere": {func(*front) { put(t, s.Main, strings.Replace(main, "events {}", "evens {}", 1)) },
			s.Main + `:6: nginx: nothing was changed: nginx does not take its configuration, with the former file either: ` +
				strings.Join(s.Test, " ") + `: exit status 1: unknown directive "evens"`, ""},
		"two upstreams of one name": {func(*front) { put(t, filepath.Join(dir, "other.conf"), "upstream shop { server 127.0.0.1:9; }") },
			s.File + `:1: nginx: nothing was changed: nginx does not take its configuration, with the former file either: ` +
				strings.Join(s.Test, " ") + `: exit status 1: duplicate upstream "shop"`, "the upstream is backstep's: remove the other one, or give one of the two another name"},
		"it is not included": {func(f *front) {
			f.file = filepath.Join(t.TempDir(), "shop.conf")
			put(t, f.file, include)
		}, "nginx: its configuration does not include FILE", "at the level of http: include DIR/*.conf; and test has to print the configuration of the nginx that serves"},
		"the reload fails": {func(f *front) { f.reload = program("no", "echo sudo: a password is required >&2; exit 1") },
			"nginx: nginx was not reloaded: RELOAD: exit status 1: sudo: a password is required", ""},
		"the reload may not": {func(f *front) {
			f.reload = program("no", `echo 'nginx: [alert] kill(1, 1) failed (1: Operation not permitted)' >&2; exit 1`)
		}, "nginx: nginx was not reloaded: RELOAD: exit status 1: nginx: [alert] kill(1, 1) failed (1: Operation not permitted)",
			"give test and reload as programs that may do it, for example [sudo, -n, nginx, -s, reload]"},
		"the reload hangs": {func(f *front) { f.timeout, f.reload = 500*time.Millisecond, program("hangs", "sleep 60") },
			"nginx: nginx was not reloaded: RELOAD: it did not end in time", ""},
		"the reload says that it has": {func(f *front) { f.timeout, f.reload = 500*time.Millisecond, program("lies", "true") },
			"nginx: the reload succeeded, but after 500ms " + s.Status + ` does not say "shop 2 ` + b + `=100 ", or workers of before still take connections`,
			"its error log says why: a port that is taken, or a master process that is gone; is it this nginx that includes FILE?"},
		"the test hangs": {func(f *front) { f.timeout, f.test = 500*time.Millisecond, program("hangs", "sleep 60") },
			"nginx: nothing was changed: nginx does not take its configuration, with the former file either: TEST: it did not end in time", ""},
		"there is no such program": {func(f *front) { f.reload = []string{"/nowhere/nginx"} },
			`nginx: nginx was not reloaded: exec: "/nowhere/nginx": stat /nowhere/nginx: no such file or directory`, ""},
		"the status is of something else": {func(f *front) { f.status = "http://" + s.Address },
			"nginx: http://" + s.Address + ` does not say who serves: "a": want for example "shop 12 127.0.0.1:20001=100 pid=$pid"`,
			"its location needs the line: return 200 $backstep_shop; and nginx has to include FILE"},
		"it was changed by hand": {func(*front) { put(t, s.File, strings.Replace(include, "weight=100", "weight=90", 1)) },
			s.File + `:5: nginx: it was changed by hand: the servers are "shop 1 ` + a + `=90 ", and the map says "shop 1 ` + a + `=100 "`,
			"undo the change, or let the map say the same, and reload nginx"},
	} {
		t.Run(name, func(t *testing.T) {
			f := opened(t, s)
			c.change(f)
			before := text(t, f.file)
			err := f.Shift(t.Context(), standing, map[string]int{b: 100})
			fill := strings.NewReplacer("FILE", f.file, "DIR", filepath.Dir(f.file), "RELOAD", strings.Join(f.reload, " "), "TEST", strings.Join(f.test, " "))
			if want := fill.Replace(c.want); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if got := fault.HintOf(err); got != fill.Replace(c.hint) {
				t.Errorf("the hint is %q", got)
			}
			if now := text(t, f.file); now != before {
				t.Errorf("the file was\n%s\nand is\n%s", before, now)
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(f.file), ".backstep-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			put(t, s.Main, main)
			put(t, s.File, include)
			_ = os.Remove(filepath.Join(dir, "other.conf"))
			if got := get("http://" + s.Address); got != "a" {
				t.Errorf("a customer got %s", got)
			}
			weights(t, opened(t, s), map[string]int{a: 100})
		})
	}
	t.Run("nginx does not run", func(t *testing.T) {
		s.Stop()
		err := opened(t, s).Shift(t.Context(), standing, map[string]int{b: 100})
		at := strings.TrimSuffix(strings.TrimPrefix(s.Status, "http://"), "/shop")
		if want := "nginx: the target cannot be reached: dial tcp " + at + ": connect: connection refused"; err == nil || err.Error() != want || text(t, s.File) != include {
			t.Errorf("got  %v\nwant %s\n%s", err, want, text(t, s.File))
		}
		if want := "is nginx running, with a server that listens on " + at + " and says: return 200 $backstep_shop"; fault.HintOf(err) != want {
			t.Errorf("the hint is %q", fault.HintOf(err))
		}
	})
}

// A program that takes too long is ended with what it has started.
func TestHangingProgram(t *testing.T) {
	f := shopFront("")
	f.timeout = 200 * time.Millisecond
	left := filepath.Join(t.TempDir(), "pid")
	_, _, err := f.run(t.Context(), []string{"/bin/sh", "-c", "sleep 60 & echo $! >" + left + "; wait"})
	if !errors.Is(err, errTooLong) {
		t.Fatalf("it ended with %v", err)
	}
	pid := strings.TrimSpace(text(t, left))
	alive := func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err == nil && !strings.Contains(string(stat), ") Z ")
	}
	for end := time.Now().Add(10 * time.Second); alive(); time.Sleep(pause) {
		if time.Now().After(end) {
			t.Fatalf("process %s is still there", pid)
		}
	}
}

// Whoever was killed between the file and the reload leaves both in sight, and the next change ends it.
func TestE2EKilledBetweenFileAndReload(t *testing.T) {
	s := routertest.Nginx(t, First)
	f := opened(t, s)
	a, b := release(t, "a"), release(t, "b")
	must(t, f.Shift(t.Context(), standing, map[string]int{a: 100}))
	in, err := f.read()
	must(t, err)
	put(t, s.File, in.with(serves{upstream: "shop", serial: 2, weights: map[string]int{b: 100}}))
	weights(t, f, map[string]int{a: 100, b: 100})
	must(t, f.Shift(t.Context(), standing, map[string]int{b: 100})) // the file says so, and nginx not yet
	if got := get("http://" + s.Address); got != "b" {
		t.Errorf("after the file was loaded a customer got %s", got)
	}
	in, err = f.read()
	must(t, err)
	put(t, s.File, in.with(serves{upstream: "shop", serial: in.serves.serial + 1, weights: map[string]int{a: 100}}))
	weights(t, f, map[string]int{a: 100, b: 100})
	must(t, f.Shift(t.Context(), standing, map[string]int{a: 100}))
	weights(t, f, map[string]int{a: 100})
	s.Stop()
	s.Start()
	if got := get("http://" + s.Address); got != "a" {
		t.Errorf("after a restart a customer got %s", got)
	}
}

// Who has waited for another one's change, and has lost the claim meanwhile, changes nothing.
func TestE2EFencedWhileWaiting(t *testing.T) {
	s := routertest.Nginx(t, First)
	f := opened(t, s)
	a, b := release(t, "a"), release(t, "b")
	must(t, f.Shift(t.Context(), standing, map[string]int{a: 100}))
	unlock, waited, err := f.lock(t.Context())
	if must(t, err); waited {
		t.Error("a lock that nobody holds was waited for")
	}
	fenced := func(context.Context) error { return target.ErrFenced }
	ended := make(chan error, 2)
	go func() { ended <- opened(t, s).Shift(t.Context(), fenced, map[string]int{b: 100}) }()
	go func() { ended <- opened(t, s).Drain(t.Context(), fenced, a, 0) }()
	for folders(t, filepath.Dir(s.File)) < 3 { // ours, and that of each who waits
		time.Sleep(pause)
	}
	time.Sleep(pause)
	unlock()
	for range 2 {
		if err := <-ended; !errors.Is(err, target.ErrFenced) {
			t.Errorf("fenced while waiting: %v", err)
		}
	}
	weights(t, f, map[string]int{a: 100})
	short := opened(t, s)
	short.timeout = 10 * time.Millisecond
	unlock, _, err = f.lock(t.Context())
	must(t, err)
	defer unlock()
	if err := short.Shift(t.Context(), standing, map[string]int{b: 100}); err == nil || err.Error() != "nginx: another run is changing "+filepath.Dir(s.File) {
		t.Errorf("behind a lock that is never given up: %v", err)
	}
}

// folders is how often this process has the folder open.
func folders(t *testing.T, dir string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	for _, fd := range all {
		if to, err := os.Readlink(fd); err == nil && to == dir {
			n++
		}
	}
	return n
}

// Many who write at once do it one after the other, and the last one counts.
func TestE2EManyWriters(t *testing.T) {
	s := routertest.Nginx(t, First)
	a, b := release(t, "a"), release(t, "b")
	var all sync.WaitGroup
	for i := range 6 {
		f := opened(t, s)
		all.Go(func() {
			if err := f.Shift(t.Context(), standing, map[string]int{[]string{a, b}[i%2]: 50 + i}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	in, err := opened(t, s).read()
	must(t, err)
	if in.serves.serial != 6 || len(in.serves.weights) != 1 {
		t.Errorf("after 6 shifts the file says %+v", in.serves)
	}
	weights(t, opened(t, s), in.serves.weights)
}
