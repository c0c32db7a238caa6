package operate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/backstep/backstep/internal/ledger"
	ledgerregistry "github.com/backstep/backstep/internal/ledger/registry"
	"github.com/backstep/backstep/internal/registry"
	"github.com/backstep/backstep/internal/registry/registrytest"
)

// History says of each number whether what stands there is what the event after it names.
func TestHistoryNamesWhatWasRewritten(t *testing.T) {
	for name, c := range map[string]struct {
		keep bool // the registry still has what was overwritten, by its digest
		over []int
		want string
	}{
		"nothing":                    {true, nil, "4 d; 3 c; 2 b; 1 a; "},
		"the first, and it is there": {true, []int{1}, "4 d; 3 c; 2 b; 1 a (something else stands under its number); "},
		"the first, and it is gone":  {false, []int{1}, "4 d; 3 c; 2 b; 1 forged (it was rewritten: event 2 names another one); "},
		"two":                        {true, []int{2, 1}, "4 d; 3 c; 2 b (something else stands under its number); 1 a (something else stands under its number); "},
	} {
		repository, client := registrytest.InProcess(t)+"/shop", registry.New()
		book := ledgerregistry.New(client, repository, "shop", "production")
		for _, reason := range []string{"a", "b", "c", "d"} {
			if _, err := book.Commit(t.Context(), func(e ledger.Event) (ledger.Event, error) {
				return ledger.Event{Kind: ledger.Frozen, Reason: reason}, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		book.Wait()
		for _, seq := range c.over {
			tag := fmt.Sprintf("bs.shop.production.%08d", seq)
			was, err := client.Get(t.Context(), repository, tag)
			if err != nil {
				t.Fatal(err)
			}
			if !c.keep {
				if _, err := client.Delete(t.Context(), repository, string(was.Digest)); err != nil {
					t.Fatal(err)
				}
			}
			forged := strings.NewReplacer(`\"reason\":\"a\"`, `\"reason\":\"forged\"`, `\"reason\":\"b\"`, `\"reason\":\"forged\"`).Replace(string(was.Body))
			if _, err := client.Put(t.Context(), repository, tag, registry.OCIManifest, []byte(forged)); err != nil {
				t.Fatal(err)
			}
		}
		newest, err := book.Newest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for p := (past{History: book, event: newest, counts: newest}); ; {
			got += fmt.Sprintf("%d %s", p.event.Seq, p.event.Reason)
			if p.doubt != "" {
				got += " (" + p.doubt + ")"
			}
			if got += "; "; p.event.Seq == 1 {
				break
			}
			if err := p.back(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
	}
}
