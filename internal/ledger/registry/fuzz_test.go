package registry

import (
	"encoding/json"
	"testing"

	"github.com/backstep/backstep/internal/ledger"
	"github.com/backstep/backstep/internal/registry"
)

// FuzzUnpack looks for a manifest that is a panic, or passes for one of ours.
func FuzzUnpack(f *testing.F) {
	f.Add(pack(eventType, map[string]string{eventKey: `{"seq":1}`}))
	for _, seed := range []string{`{"artifactType":"` + eventType + `","annotations":null}`, `{"annotations":{"` + eventKey + `":"{}"}}`, `{}`, `null`, `[]`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		annotations, err := unpack(registry.Manifest{Body: body}, eventType)
		if err != nil {
			return
		}
		var m struct{ ArtifactType string }
		if err := json.Unmarshal(body, &m); err != nil || m.ArtifactType != eventType {
			t.Errorf("%q passes for an event: %v", body, annotations)
		}
		var e ledger.Event
		_ = json.Unmarshal([]byte(annotations[eventKey]), &e)
	})
}
