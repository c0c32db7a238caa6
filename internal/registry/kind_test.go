package registry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A registry is known by its name; one that everybody can run, by how it answers.
func TestWhatKeepsOurTags(t *testing.T) {
	answering := func(header, value string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(header, value)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		t.Cleanup(s.Close)
		return hostOf(s)
	}
	bearer := func(service string) string {
		return answering("WWW-Authenticate", `Bearer realm="http://127.0.0.1:1/token",service="`+service+`"`)
	}
	for _, c := range []struct{ what, host, want string }{
		{"GHCR", "ghcr.io", `on GHCR, in the workflow that prunes packages: image-tags: "!bs.*"`},
		{"GitHub Enterprise Server", "containers.ghe.example.com", "on GHCR, "},
		{"Docker Hub", "index.docker.io", "on Docker Hub, "},
		{"ECR", "123456789012.dkr.ecr.eu-central-1.amazonaws.com", `on Amazon ECR, lifecycle rule 1: "tagStatus": "tagged", "tagPatternList": ["bs.*"]`},
		{"ECR in China", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "on Amazon ECR, "},
		{"ACR, personal", "registry.cn-hangzhou.aliyuncs.com", "on Aliyun ACR, "},
		{"ACR, enterprise", "acme-registry.cn-hangzhou.cr.aliyuncs.com", `on Aliyun ACR, in the retention rule, tags that are kept: ^bs\..*$`},
		{"SWR", "swr.cn-north-4.myhuaweicloud.com", `on Huawei SWR, in the ageing rule: "tag_selectors": [{"kind": "regexp", "pattern": "^bs\\..*$"}]`},
		{"TCR, enterprise", "acme.tencentcloudcr.com", `on Tencent TCR, a retention item: {"RetentionPolicy": {"Key": "latestPushedK", "Value": 99999}`},
		{"TCR, personal", "ccr.ccs.tencentyun.com", "on Tencent TCR, "},
		{"GitLab.com", "registry.gitlab.com", `on GitLab, in the cleanup policy, keep tags matching: bs\..+`},
		{"a GitLab by its name", "registry.gitlab.example.com:5050", "on GitLab, "},
		{"a Harbor by its name", "harbor.example.com", "on Harbor, "},
		{"a GitLab of one's own", bearer("container_registry"), "on GitLab, "},
		{"by its header", answering("Gitlab-Container-Registry-Version", "4.9.0-gitlab"), "on GitLab, "},
		{"Harbor", bearer("harbor-registry"), "on Harbor, a tag retention rule: for the repositories matching **, retain always, with tags matching bs.** (docs/registries.md#harbor)"},
		{"another", bearer("Docker registry"), "whatever removes tags there has to keep those that begin with bs.: docs/registries.md"},
		{"one that looks like another", "ghcr.io.example.com", "whatever removes tags there"},
		{"one with a port", "acme.tencentcloudcr.com:443", "on Tencent TCR, "},
	} {
		client := New()
		if strings.HasPrefix(c.host, "127.") {
			_, _ = client.Get(t.Context(), c.host+"/acme/shop", "1.0.0") // it is asked before anything can be missing
		}
		if got := client.CleanUp(c.host + "/acme/shop"); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s\nwant %s", c.what, got, c.want)
		}
	}
}
