package gitrepo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// foreign says whether the repository of a work tree belongs to another user than this process: what its configuration names
// would be run with our rights.
func foreign(top string) bool {
	git := filepath.Join(top, ".git")
	places := []string{git, filepath.Join(git, "config")}
	if text, err := os.ReadFile(git); err == nil { // of a worktree or a submodule
		if to, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: "); ok {
			if !filepath.IsAbs(to) {
				to = filepath.Join(top, to)
			}
			places = append(places, to, filepath.Join(to, "config"))
		}
	}
	for _, place := range places {
		info, err := os.Stat(place) // #nosec G703 -- only its owner is asked for
		if err != nil {
			continue
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
			return true
		}
	}
	return false
}

// tamed are the keys of git's configuration that name a program or lead to one (git-config(1)), with what runs none.
var tamed = []struct {
	keys  *regexp.Regexp
	value string
}{
	{regexp.MustCompile(`^core\.sshcommand$`), "ssh"},
	{regexp.MustCompile(`^core\.fsmonitor$`), "false"},
	{regexp.MustCompile(`^filter\..*\.required$`), "false"},
	{regexp.MustCompile(`^(core\.(askpass|editor|pager|gitproxy|alternaterefscommand)|credential\.(.*\.)?helper|filter\..*\.(clean|smudge|process)|` +
		`diff\.(external|.*\.(command|textconv))|merge\..*\.driver|gpg\.(.*\.)?(program|defaultkeycommand)|remote\..*\.vcs|trailer\..*\.(command|cmd)|` +
		`submodule\..*\.update|sequence\.editor|interactive\.difffilter|uploadpack\.packobjectshook|pager\..*|alias\..*)$`), ""},
}

// otherEnd is the program at the other end of a command, which the configuration can name too; of several the first one counts
// there, so that only an argument is stronger.
var otherEnd = map[string]string{"fetch": "--upload-pack=git-upload-pack", "ls-remote": "--upload-pack=git-upload-pack", "push": "--receive-pack=git-receive-pack"}

// tame makes sure that nothing runs which the repository of another user names: neither its hooks nor what is in its
// configuration. Everything else there goes on to count, such as the credentials that a checkout has left.
func (r *Repo) tame(ctx context.Context) error {
	r.foreign, r.tamed = false, true // from here on it is harmless
	r.configure("core.hooksPath", os.DevNull)
	r.configure("core.fsmonitor", "false")
	r.env = append(r.env, "GIT_ALLOW_PROTOCOL=file:git:http:https:ssh", "GIT_PROXY_COMMAND=")
	out, err := r.run(ctx, "", "config", "--list", "--includes", "--show-scope", "--name-only", "-z")
	if err != nil {
		return fmt.Errorf("read the configuration of a repository that belongs to another user: %w", err)
	}
	fields := strings.Split(strings.TrimSuffix(out, "\x00"), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		scope, key := fields[i], fields[i+1]
		if scope == "system" || scope == "global" || scope == "command" {
			continue
		}
		for _, t := range tamed {
			if t.keys.MatchString(key) {
				r.configure(key, t.value)
				break
			}
		}
	}
	return nil
}

// configure sets a key for git over everything that files say.
func (r *Repo) configure(key, value string) {
	n := strconv.Itoa(r.configured)
	r.configured++
	r.env = append(r.env, "GIT_CONFIG_KEY_"+n+"="+key, "GIT_CONFIG_VALUE_"+n+"="+value, "GIT_CONFIG_COUNT="+strconv.Itoa(r.configured))
}
