# Build the program first: CGO_ENABLED=0 go build -o bin/backstep ./cmd/backstep
FROM scratch
COPY bin/backstep /backstep
ENTRYPOINT ["/backstep"]
