// Command release is what the tests of the target run.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// These are set when it is built.
var (
	version = "0.0.0"
	does    = "work" // crash: it ends at once; mute: it never listens; hang: it takes connections and does not answer
)

func main() {
	fmt.Println("version", version)
	switch does {
	case "crash":
		fmt.Println("no such table: orders")
		os.Exit(3)
	case "mute":
		time.Sleep(time.Hour)
	}
	held, free := make(chan struct{}), make(chan struct{})
	http.HandleFunc("/hold", func(w http.ResponseWriter, _ *http.Request) {
		close(held)
		<-free
		io.WriteString(w, "done")
	})
	http.HandleFunc("/held", func(http.ResponseWriter, *http.Request) { <-held })
	http.HandleFunc("/free", func(http.ResponseWriter, *http.Request) { close(free) })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if does == "hang" {
			<-r.Context().Done()
			return
		}
		w.Header().Set("X-Backstep-Release", os.Getenv("BACKSTEP_RELEASE")[7:19])
		fmt.Fprintln(w, version)
	})
	fmt.Println(http.ListenAndServe(":8080", nil))
	os.Exit(1)
}
