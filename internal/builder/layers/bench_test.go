package layers

import (
	"archive/tar"
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/backstep/backstep/internal/builder"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
)

// program is a file of 5.8 MB that compresses about as a Go binary does, other each time.
func program(b *testing.B, dir string, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 12)
		for j := range words[i] {
			words[i][j] = byte(random.IntN(256))
		}
	}
	var content bytes.Buffer
	for content.Len() < 5_800_000 {
		content.Write(words[random.IntN(len(words))])
	}
	if err := os.WriteFile(filepath.Join(dir, "app"), content.Bytes(), 0o755); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBuild builds and pushes the 5.8 MB case with our builder and, in the same minutes, as crane append
// and mutate do it (go-containerregistry, gzip level 1), and prints the ratio of both: below 1 is faster.
func BenchmarkBuild(b *testing.B) {
	host, dir := registrytest.InProcess(b), b.TempDir()
	client := registry.New()
	var ours, theirs time.Duration
	for n := uint64(0); b.Loop(); n++ {
		program(b, dir, n)
		begin := time.Now()
		_, err := New(client).Build(b.Context(), builder.Request{Repository: host + "/ours", Context: dir, OS: "linux", Arch: "amd64",
			Files: []builder.File{{From: "app", To: "/app"}}, Entrypoint: []string{"/app"}, Tags: []string{"1"}})
		if err != nil {
			b.Fatal(err)
		}
		ours += time.Since(begin)
		begin = time.Now()
		crane(b, host+"/theirs:1", filepath.Join(dir, "app"))
		theirs += time.Since(begin)
	}
	b.ReportMetric(float64(ours)/float64(theirs), "ratio-to-crane")
	b.ReportMetric(ours.Seconds()/float64(b.N), "s/ours")
	b.ReportMetric(theirs.Seconds()/float64(b.N), "s/crane")
}

func crane(b *testing.B, ref, path string) {
	content, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
		b.Fatal(err)
	}
	w.Write(content)
	w.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil },
		tarball.WithCompressionLevel(1))
	if err != nil {
		b.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		b.Fatal(err)
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		b.Fatal(err)
	}
	if err := remote.Write(tag, img, remote.WithContext(b.Context())); err != nil {
		b.Fatal(err)
	}
	img, err = mutate.Config(img, v1.Config{Entrypoint: []string{"/app"}})
	if err != nil {
		b.Fatal(err)
	}
	if err := remote.Write(tag, img, remote.WithContext(b.Context())); err != nil {
		b.Fatal(err)
	}
}
