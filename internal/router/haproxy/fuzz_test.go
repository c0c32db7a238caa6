package haproxy

import "testing"

// FuzzServers looks for an answer that is a panic, or a server without a name or an address.
func FuzzServers(f *testing.F) {
	for _, seed := range []string{answer, "1\n#\n", "1\n# srv_name\n\n \nx", "1\n# srv_addr srv_addr\n1 2", "1\r\n# a\r\nb\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		servers, err := parseServers(text)
		if err != nil && servers != nil {
			t.Errorf("%q is %v and %v", text, servers, err)
		}
		for _, s := range servers {
			if s.name == "" || s.address == "" || (s.maintenance && s.weight != 0) {
				t.Errorf("%q has the server %+v", text, s)
			}
		}
	})
}
