package registry

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// CleanUpPage says for each kind of registry what removes tags there, and how to keep it from those of a ledger.
const CleanUpPage = "docs/registries.md"

// Kind is a kind of registry whose clean-up rules can remove the tags of a ledger.
type Kind struct {
	Name   string // as its users call it; its section on CleanUpPage begins with it
	Anchor string // of that section
	Exempt string // what to set there, for people
	Makes  bool   // the first push to a name makes a repository of it
	Tags   string // the part of Exempt that names the tags of ours, as the registry writes it

	host    *regexp.Regexp // of its own servers; nil when everybody runs one
	service string         // what its token service is told to be for; "" is nothing that tells it from others
	header  string         // a header that its answers have; "" is none
}

// Kinds are the kinds that are known. What one's own server says of itself goes after what a name says, since Tencent's is a Harbor.
func Kinds() []Kind {
	return []Kind{
		{Name: "GHCR", Anchor: "ghcr", Makes: true, Tags: "!bs.*", host: regexp.MustCompile(`^(ghcr\.io|containers\..+)$`),
			Exempt: `in the workflow that prunes packages: image-tags: "!bs.*", or delete-only-untagged-versions: true`},
		{Name: "Docker Hub", Anchor: "docker-hub", Tags: "bs.", host: regexp.MustCompile(`^(index\.|registry-1\.)?docker\.io$`), service: "registry.docker.io",
			Exempt: "whoever or whatever deletes images there has to leave tags that begin with bs. alone"},
		{Name: "Amazon ECR", Anchor: "amazon-ecr", Tags: "bs.*", host: regexp.MustCompile(`\.dkr[.-]ecr[.-].*\.(amazonaws\.com(\.cn)?|on\.aws)$`), service: "ecr.amazonaws.com",
			Exempt: `lifecycle rule 1: "tagStatus": "tagged", "tagPatternList": ["bs.*"], "countType": "imageCountMoreThan", "countNumber": 99999`},
		{Name: "Aliyun ACR", Anchor: "aliyun-acr", Tags: `^bs\..*$`, host: regexp.MustCompile(`\.aliyuncs\.com$`),
			Exempt: `in the retention rule, tags that are kept: ^bs\..*$; or no rule for the repository of the ledger`},
		{Name: "Huawei SWR", Anchor: "huawei-swr", Tags: `^bs\..*$`, host: regexp.MustCompile(`^swr\..*\.myhuaweicloud\.(com|eu)$`),
			Exempt: `in the ageing rule: "tag_selectors": [{"kind": "regexp", "pattern": "^bs\\..*$"}]`},
		{Name: "Tencent TCR", Anchor: "tencent-tcr", Tags: "bs.*", host: regexp.MustCompile(`(\.tencentcloudcr\.com|ccr\.ccs\.tencentyun\.com)$`),
			Exempt: `a retention item: {"RetentionPolicy": {"Key": "latestPushedK", "Value": 99999}, "TagFilter": {"Decoration": "matches", "Pattern": "bs.*"}}; the personal edition takes none`},
		{Name: "GitLab", Anchor: "gitlab", Makes: true, Tags: `bs\..+`, host: regexp.MustCompile(`^(registry\.)?gitlab\.`), service: "container_registry", header: "Gitlab-Container-Registry-Version",
			Exempt: `in the cleanup policy, keep tags matching: bs\..+`},
		{Name: "Harbor", Anchor: "harbor", Makes: true, Tags: "bs.**", host: regexp.MustCompile(`(^|\.)harbor[.-]`), service: "harbor-registry",
			Exempt: "a tag retention rule: for the repositories matching **, retain always, with tags matching bs.**"},
	}
}

// KindOf is the kind of the registry called host, by that name alone. It is false for one that is not known so.
func KindOf(host string) (Kind, bool) {
	bare, _, _ := strings.Cut(strings.ToLower(host), ":")
	for _, k := range Kinds() {
		if k.host != nil && k.host.MatchString(bare) {
			return k, true
		}
	}
	return Kind{}, false
}

// CleanUp is a hint for whoever misses a tag of ours in a repository, registry/name: which rule to set so that its registry keeps
// them, and where that is explained. It sends no request: a registry that was asked before is known by its answer too.
func (c *Client) CleanUp(repository string) string {
	repo, err := name.NewRepository(repository)
	if err != nil {
		return "see " + CleanUpPage
	}
	k, known := KindOf(repo.RegistryStr())
	for _, scheme := range []string{"https", "http"} {
		if known {
			break
		}
		k, known = saysOfItself(c.greeting.knows(scheme + "://" + repo.RegistryStr()))
	}
	if !known {
		return "whatever removes tags there has to keep those that begin with bs.: " + CleanUpPage
	}
	return fmt.Sprintf("on %s, %s (%s#%s)", k.Name, k.Exempt, CleanUpPage, k.Anchor)
}

// saysOfItself is the kind of a registry by the header of its answer to GET /v2/.
func saysOfItself(h http.Header) (Kind, bool) {
	challenges := strings.Join(h.Values("WWW-Authenticate"), ", ")
	for _, k := range Kinds() {
		if k.header != "" && h.Get(k.header) != "" || k.service != "" && strings.Contains(challenges, `service="`+k.service+`"`) {
			return k, true
		}
	}
	return Kind{}, false
}
