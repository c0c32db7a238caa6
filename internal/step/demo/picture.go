package demo

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
)

// The measures of a drawing, in pixels.
const (
	lineHeight = 18
	charWidth  = 7.8
	margin     = 16
)

// drawing is text as an SVG that looks like a terminal: what failed is red, what recovered is green.
func drawing(text string) []byte {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	columns := 0
	for _, l := range lines {
		columns = max(columns, len([]rune(l)))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%d\" role=\"img\">\n",
		float64(columns)*charWidth+2*margin, len(lines)*lineHeight+2*margin)
	b.WriteString("<title>backstep demo</title>\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n")
	b.WriteString("<g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, monospace\" font-size=\"13\" xml:space=\"preserve\">\n")
	for i, l := range lines {
		if strings.TrimSpace(l) == "" {
			continue
		}
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" fill=\"%s\">", margin, margin+(i+1)*lineHeight-5, colour(l))
		_ = xml.EscapeText(&b, []byte(l)) // a buffer takes everything
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	return b.Bytes()
}

func colour(line string) string {
	switch {
	case strings.Contains(line, "checks failed;"), strings.Contains(line, "failed, and"):
		return "#ff7b72"
	case strings.Contains(line, "traffic is back"), strings.Contains(line, "first bad request"), strings.HasSuffix(line, " ok"):
		return "#7ee787"
	}
	return "#c9d1d9"
}
