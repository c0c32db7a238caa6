.PHONY: help check lint gen test e2e fuzz security image bench bench-verdict crash crash-docker demo picture

staticcheck = honnef.co/go/tools/cmd/staticcheck@v0.8.2
govulncheck = golang.org/x/vuln/cmd/govulncheck@v1.9.0
gosec = github.com/securego/gosec/v2/cmd/gosec@v2.30.0
actionlint = github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

check: lint test ## what has to pass before a push

lint: ## format, vet, staticcheck, actionlint, generated files, and every platform compiles
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	go run $(staticcheck) ./...
	go run $(actionlint) -shellcheck= -pyflakes=
	go test -count=1 -run TestGeneratedFiles ./internal/house
	@for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do \
		echo "build $$platform"; \
		CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/} go build -o /dev/null ./cmd/backstep || exit 1; \
		CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/} go vet ./cmd/... || exit 1; \
	done

gen: ## write the generated files
	go test -count=1 ./internal/house -run "TestGeneratedFiles|TestThirdParty" -update

test: ## everything that needs only Go and git
	go test ./...

e2e: ## the same on real registries; installs them where it may, else says what is missing
	bash .ci/e2e.sh

fuzz: ## every fuzzer for a minute, a nightly job; FUZZ=10s is shorter
	bash .ci/fuzz.sh $(or $(FUZZ),1m)

# What gosec asks that is not a question here: G104 is a Close or a Write whose error changes nothing; G117 a key that is called secret,
# and has the name of a variable; G204 and G304 programs and files that the user names, which get an argument list, from the rooms
# that internal/house allows. Benchmarks, examples and what only tests use are not shipped.
security: ## known weaknesses in what is linked (asks vuln.go.dev), and careless code
	go run $(govulncheck) ./...
	go run $(gosec) -quiet -exclude-generated -exclude=G104,G117,G204,G304 -exclude-dir=bench -exclude-dir=examples -exclude-dir=testdata \
		-exclude-dir=internal/registry/registrytest -exclude-dir=internal/router/routertest -exclude-dir=internal/probe/probetest ./...

image: ## the container images backstep:dev and backstep:dev-sh
	bash .ci/image.sh backstep:dev

bench: ## ratios against the named peers
	go test -run '^$$' -bench . ./...

bench-verdict: ## how often rules take back good releases, and how fast they see bad ones (about half an hour)
	go run ./bench/verdict -runs 5000 -bad 200

crash: ## deploys, rolls back and kills at random, and checks every promise (four minutes at most)
	go run ./bench/crash -for 4m

crash-docker: ## the same on Docker engines of its own, which it stops and kills as well; needs root, docker.io, haproxy and iproute2
	go run ./bench/crash -target docker -for 4m

demo: ## watch a bad release being taken back
	go run ./cmd/backstep demo

picture: ## record the demo as docs/demo.svg
	go run ./cmd/backstep demo --picture docs/demo.svg
