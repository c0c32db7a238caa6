// Package browser is the probe that opens a page of a release in a Chromium that runs elsewhere.
package browser

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"

	"github.com/backstep/backstep/internal/input"
	"github.com/backstep/backstep/internal/probe"
)

// Kind is the browser probe.
func Kind() probe.Kind {
	return probe.Kind{
		Name: "browser",
		Help: "Passes when a page loads in a Chromium, without an error in its scripts, and shows a text. The Chromium runs elsewhere, " +
			"started with --remote-debugging-port; one that does not answer is no data.",
		Every: 5 * time.Second,
		New: func() ([]input.Input, func() (probe.Probe, error)) {
			p := &question{}
			return []input.Input{
				input.String(&p.chromium, "chromium", "The address of the Chromium: ws://host:9222.").Must(),
				input.String(&p.url, "url", "The page. $address is that of the release, as the Chromium has to reach it.").Or("http://$address/"),
				input.String(&p.text, "text", "A text that the page has to show."),
			}, func() (probe.Probe, error) { return p, nil }
		},
	}
}

type question struct{ chromium, url, text string }

// Check opens the page once, in a browser context of its own: nothing is kept from one check to the next.
func (p *question) Check(ctx context.Context, address string) probe.Result {
	return probe.Checked(func() (probe.Outcome, string) {
		allocator, stop := remote.NewAllocator(ctx, p.chromium)
		defer stop()
		var thrown errorLog
		page, stop := chromedp.NewContext(allocator, chromedp.WithNewBrowserContext(), chromedp.WithErrorf(silent), chromedp.WithLogf(silent))
		defer stop()
		if err := chromedp.Listen(page, thrown.listen); err != nil { // opens the page
			return probe.NoData, probe.Line("the Chromium opens no page: " + err.Error())
		}
		response, err := chromedp.RunResponse(page, chromedp.Navigate(strings.ReplaceAll(p.url, "$address", address)))
		if err != nil {
			return probe.Unanswered(ctx, err)
		}
		if response != nil && response.Status >= 400 {
			return probe.Fail, fmt.Sprintf("status %d", response.Status)
		}
		shown := true
		if p.text != "" {
			// Scripts may still be writing: wait for the text as long as the check may take, and leave time to tell.
			wait := 10 * time.Second
			if end, ok := ctx.Deadline(); ok {
				wait = time.Until(end) * 9 / 10
			}
			_, err := chromedp.Run(page, chromedp.PollFunction[bool](`(text) => document.body.innerText.includes(text)`,
				chromedp.WithPollingArgs(p.text), chromedp.WithPollingTimeout(wait)))
			shown = err == nil
		}
		switch said := thrown.first(); {
		case said != "":
			return probe.Fail, probe.Line("script error: " + said)
		case !shown && errors.Is(ctx.Err(), context.Canceled):
			return probe.NoData, "called off"
		case !shown:
			return probe.Fail, probe.Line("the page does not show " + p.text)
		}
		return probe.Pass, ""
	})
}

func silent(string, ...any) {}

// errorLog keeps the first exception of a page's scripts.
type errorLog struct {
	mu  sync.Mutex
	got string
}

func (l *errorLog) listen(event any) {
	if e, ok := event.(*runtime.EventExceptionThrown); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.got == "" {
			l.got = e.ExceptionDetails.Text
			if o := e.ExceptionDetails.Exception; o != nil {
				l.got += " " + o.Description
			}
		}
	}
}

func (l *errorLog) first() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.got
}
