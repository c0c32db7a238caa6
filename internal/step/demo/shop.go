package demo

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// readyPath is where the supervisor asks whether a release is ready.
const readyPath = "/ready"

// shop is the service that the demo deploys: it answers well until failsAfter has gone by, and with 500 to
// every customer from then on. Zero never fails. Ready it always is, as bad releases are.
func shop(ctx context.Context, address, version string, failsAfter time.Duration) error {
	born := time.Now()
	shows := func(what string) string { // the version, and what it was configured with
		return strings.TrimSpace(fmt.Sprintf("shop %s: %s %s", version, what, os.Getenv("SHOP_COLOUR")))
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != readyPath && failsAfter > 0 && time.Since(born) > failsAfter {
			http.Error(w, shows("checkout: no such column: discount"), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, shows("12 items in the cart"))
	})
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	fmt.Fprintf(os.Stdout, "shop %s listens on %s\n", version, listener.Addr())
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}
