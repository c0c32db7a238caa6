package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The names of variables of the program talkative.
const (
	talkSecret = "DSN"       // a database's address
	talkLines  = "KEY"       // a secret of several lines
	talkAfter  = "SILENT"    // how long it is well
	talkEnd    = "THEN_DIES" // now: it ends then; else it answers 500
)

// forms is a secret in the ways that programs print it, and the passwords in it.
func forms(text string) []string {
	quoted, _ := json.Marshal(text)
	all := []string{text, base64.StdEncoding.EncodeToString([]byte(text)), base64.URLEncoding.EncodeToString([]byte(text)),
		url.QueryEscape(text), string(quoted), strconv.Quote(text), "Basic " + base64.StdEncoding.EncodeToString([]byte("app:"+text))}
	if u, err := url.Parse(text); err == nil && u.User != nil {
		password, _ := u.User.Password()
		all = append(all, password)
	}
	return append(all, strings.Split(text, "\n")...)
}

// talkative is a release that says its secrets wherever it can: in its log, in its answers, and with its last breath.
func talkative() {
	secrets := append(forms(os.Getenv(talkSecret)), forms(os.Getenv(talkLines))...)
	said := strings.Join(secrets, " ")
	fmt.Println(said)
	born := time.Now()
	silent, _ := time.ParseDuration(os.Getenv(talkAfter))
	fails := func() bool { return time.Since(born) > silent }
	go func() {
		for time.Sleep(silent); ; time.Sleep(10 * time.Millisecond) {
			for _, s := range secrets {
				fmt.Println("panic: dial", s)
			}
			if os.Getenv(talkEnd) == "now" {
				time.Sleep(100 * time.Millisecond)
				os.Exit(1)
			}
		}
	}()
	http.ListenAndServe(os.Getenv("ADDR"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fails() && r.URL.Path != "/ready" {
			http.Error(w, secrets[int(time.Now().UnixNano())%len(secrets)], http.StatusInternalServerError)
		}
	}))
}

// silent FILE… wants none of the secrets DSN and KEY in them, in no form that programs print them in.
func silent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: silent FILE…")
	}
	for _, name := range args {
		text := ts.ReadFile(name)
		for _, secret := range append(forms(ts.Getenv(talkSecret)), forms(ts.Getenv(talkLines))...) {
			if secret != "" && strings.Contains(text, secret) {
				ts.Fatalf("%s has %q in it:\n%s", name, secret, text)
			}
		}
	}
}

// talks VERSION builds and tags an image of talkative.
func talks(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: talks VERSION")
	}
	ts.Check(ts.Exec("backstep", "build-image", "--repository", ts.Getenv("REG"), "--version", args[0], "--tags", args[0],
		"--context", ts.Getenv("BIN"), "--files", "talkative:/talkative", "--entrypoint", "/talkative"))
}
