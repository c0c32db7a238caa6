package github

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/host"
)

// parse reads a file of outputs as GitHub's runner does (FileCommandManager): k=v, or k<<DELIMITER, lines, DELIMITER.
func parse(t *testing.T, text string) map[string]string {
	t.Helper()
	values := map[string]string{}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		equals, heredoc := strings.Index(line, "="), strings.Index(line, "<<")
		switch {
		case line == "":
		case heredoc >= 0 && (equals < 0 || heredoc < equals):
			key, delimiter := line[:heredoc], line[heredoc+2:]
			var value []string
			for i++; i < len(lines) && lines[i] != delimiter; i++ {
				value = append(value, lines[i])
			}
			if i == len(lines)-1 || i == len(lines) {
				t.Fatalf("delimiter %q is missing, or no newline follows it", delimiter)
			}
			values[key] = strings.Join(value, "\n")
		case equals >= 0:
			values[line[:equals]] = line[equals+1:]
		default:
			t.Fatalf("line %q is no command", line)
		}
	}
	return values
}

func open(t *testing.T, env map[string]string) (host.Host, *[]string) {
	t.Helper()
	var said []string
	return Kind().New(host.Environment{Getenv: func(k string) string { return env[k] },
		Command: func(line string) { said = append(said, line) }}), &said
}

// No value can set another output, whatever is in it.
func FuzzOutput(f *testing.F) {
	for _, v := range []string{"", "plain", "two\nlines", "x\nlive=evil", "EOF\nk=v", "a<<b\nc\nb", "::add-mask::x", "\n\n", "_GitHubActionsFileCommandDelimeter_\nlive=evil"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		path := filepath.Join(t.TempDir(), "output")
		h, _ := open(t, map[string]string{"GITHUB_OUTPUT": path})
		if err := h.Output("notes", value); err != nil {
			t.Fatal(err)
		}
		if err := h.Output("live", "good"); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got := parse(t, string(text))
		if got["live"] != "good" || len(got) != 2 || got["notes"] != value {
			t.Errorf("%q was read as %q", value, got)
		}
	})
}

func TestOutputFaults(t *testing.T) {
	h, _ := open(t, nil)
	if err := h.Output("x", "y"); err == nil || err.Error() != "GITHUB_OUTPUT is not set" {
		t.Errorf("without GITHUB_OUTPUT: %v", err)
	}
	h, _ = open(t, map[string]string{"GITHUB_OUTPUT": filepath.Join(t.TempDir(), "no", "such")})
	if err := h.Output("x", "y"); err == nil {
		t.Error("an output that cannot be written is no error")
	}
	if _, err := os.Stat("/dev/full"); err == nil {
		h, _ = open(t, map[string]string{"GITHUB_OUTPUT": "/dev/full"})
		if err := h.Output("x", "y"); err == nil {
			t.Error("a full disk is no error")
		}
	}
}

func TestCommandsStayOneLine(t *testing.T) {
	h, said := open(t, nil)
	h.(host.Annotator).Annotate(host.Error, "backstep.yml:3:1", "evil\n::set-output name=x::y")
	h.(host.Masker).Mask("two\nlines")
	want := []string{"::error col=1,file=backstep.yml,line=3::evil%0A::set-output name=x::y", "::add-mask::two", "::add-mask::lines"}
	if strings.Join(*said, "|") != strings.Join(want, "|") {
		t.Errorf("said %q, want %q", *said, want)
	}
}

func TestSummaryIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary")
	h, _ := open(t, map[string]string{"GITHUB_STEP_SUMMARY": path})
	if err := h.(host.Summarizer).Summary(strings.Repeat("0123456789\n", 200_000)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 1<<20 {
		t.Errorf("the summary has %d bytes, %v; 1 MiB is the limit", info.Size(), err)
	}
}

// The token is asked for as the documentation of GitHub's OIDC says: the address of the runner, with the audience.
func TestToken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Authorization"), "bearer ask") || r.URL.Query().Get("audience") != "shops" || r.URL.Query().Get("v") != "2" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"value":"jwt"}`)
	}))
	defer server.Close()
	env := map[string]string{"ACTIONS_ID_TOKEN_REQUEST_URL": server.URL + "/?v=2", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "ask"}
	issuer := Kind().New(host.Environment{Getenv: func(k string) string { return env[k] }, Command: func(string) {}}).(host.Issuer)
	if token, err := issuer.Token(t.Context(), "shops"); err != nil || token != "jwt" {
		t.Errorf("%q, %v", token, err)
	}
	clear(env)
	if token, err := issuer.Token(t.Context(), "shops"); err == nil {
		t.Errorf("without the permission: %q", token)
	}
}
