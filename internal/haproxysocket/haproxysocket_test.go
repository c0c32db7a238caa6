package haproxysocket

import (
	"strings"
	"testing"
)

func TestParseStats(t *testing.T) {
	rows, err := parseStats("# pxname,svname,stot,\nshop,one,12,\nshop,BACKEND,\"1,2\",")
	if err != nil || len(rows) != 2 || rows[0]["stot"] != "12" || rows[1]["stot"] != "1,2" {
		t.Errorf("got %v, %v", rows, err)
	}
	for _, text := range []string{"", "#", "# ", "pxname\nshop", "# a,b\nc", "# a\n\"", "Unknown command"} {
		if rows, err := parseStats(text); err == nil && len(rows) > 0 {
			t.Errorf("%q is %v", text, rows)
		}
	}
}

// FuzzParseStats looks for an answer that is a panic, or a row without the names of the columns.
func FuzzParseStats(f *testing.F) {
	for _, seed := range []string{"# pxname,svname,\nshop,one,", "# \n", "# a,a\nb,c", "# \"\n", "#", "# a\r\nb\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rows, err := parseStats(text)
		if err == nil && !strings.HasPrefix(text, "# ") {
			t.Errorf("%q is %v", text, rows)
		}
		for _, row := range rows {
			if len(row) == 0 {
				t.Errorf("%q has an empty row", text)
			}
		}
	})
}
