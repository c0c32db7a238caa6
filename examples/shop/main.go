// Command shop is the service that the examples deploy. Each answer says which release gave it.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// These are set when it is built: -ldflags "-X main.version=1.2.0 -X main.does=fail".
var (
	name    = "shop"
	version = "0.0.0"
	does    = "work" // fail: every order is answered 500; late: the same after three seconds; tired: the same after twelve; limp: one in four is; crash: it ends at once; die: it ends after three seconds; brief: it ends a second after it listens; idle: its job ends at once; sick: its HEALTHCHECK fails
)

// lateness is how long a release that is late to fail works well, and stamina how long one that gets tired does.
const (
	lateness = 3 * time.Second
	stamina  = 12 * time.Second
)

// orders counts them.
var orders atomic.Int64

func main() {
	if does == "crash" {
		fmt.Println("no such table: orders")
		os.Exit(3)
	}
	if len(os.Args) > 1 && os.Args[1] == "healthy" { // the HEALTHCHECK of an image that has one
		if does == "sick" {
			fmt.Println("no connection to the orders")
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "work" { // the role job
		fmt.Println("job", version, "works")
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		if does == "idle" {
			os.Exit(4)
		}
		<-stop
		fmt.Println("job", version, "ends")
		return
	}
	begin := time.Now()
	if does == "die" {
		time.AfterFunc(lateness, func() { fmt.Println("no such table: orders"); os.Exit(1) })
	}
	if does == "brief" {
		time.AfterFunc(time.Second, func() { fmt.Println("no licence"); os.Exit(0) })
	}
	http.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {}) // it lives; that says nothing of the orders
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		if digest := os.Getenv("BACKSTEP_RELEASE"); len(digest) > 19 {
			w.Header().Set("X-Backstep-Release", digest[7:19])
		}
		if does == "fail" || does == "late" && time.Since(begin) > lateness || does == "tired" && time.Since(begin) > stamina || does == "limp" && orders.Add(1)%4 == 0 {
			http.Error(w, version+": the orders are lost", http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%s %s %s\n", name, version, os.Getenv("SHOP_COLOUR"))
	})
	addr := os.Getenv("ADDR")
	if addr == "" {
		addr = ":8080"
	}
	fmt.Println(http.ListenAndServe(addr, nil))
	os.Exit(1)
}
