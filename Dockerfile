# Build the program first: CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o bin/backstep ./cmd/backstep
# The image has no CA certificates: registries with a public name need them mounted, or SSL_CERT_FILE set.
# It has no shell either, so that GitLab cannot run a job in it yet.
FROM scratch
COPY bin/backstep /backstep
ENTRYPOINT ["/backstep"]
