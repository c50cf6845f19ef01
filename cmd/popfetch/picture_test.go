package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hinshun/vt10x"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This is the size of a character cell, in the units of the picture.
const (
	cellWidth  = 8.43 // width of a character in a monospaced font of 14 units
	cellHeight = 19
	margin     = 16
	titleBar   = 28
)

// palette maps the colours of a terminal to colours of the picture. The picture always has a dark background.
var palette = map[vt10x.Color]string{
	vt10x.Red: "#ff7b72", vt10x.Green: "#56d364", vt10x.Cyan: "#56d4dd", vt10x.DarkGrey: "#6e7681",
}

// A picture is the SVG drawing of a terminal screen.
type picture struct {
	bytes.Buffer
	screen     vt10x.View
	cols, rows int
}

// drawScreen draws the screen of a terminal as SVG.
func drawScreen(screen vt10x.View, title string) []byte {
	cols, rows := screen.Size()
	for rows > 1 && strings.TrimSpace(rowText(screen, rows-1)) == "" {
		rows--
	}
	p := &picture{screen: screen, cols: cols, rows: rows}
	width, height := float64(cols)*cellWidth+2*margin, rows*cellHeight+2*margin+titleBar
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%.0f" height="%d" `+
		"font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n"+
		"<title>%s</title>\n", width, height, width, height, title)
	fmt.Fprintf(p, `<rect x="0.5" y="0.5" width="%.0f" height="%d" rx="10" fill="#0d1117" stroke="#6e7681"/>`+"\n",
		width-1, height-1)
	for i, colour := range []string{"#ff5f57", "#febc2e", "#28c840"} {
		fmt.Fprintf(p, `<circle cx="%d" cy="18" r="6" fill="%s"/>`, margin+6+20*i, colour)
	}
	p.WriteString("\n")
	for y := range rows {
		p.row(y)
	}
	p.WriteString("</svg>\n")
	return p.Bytes()
}

// row draws a row of the screen. Neighbouring characters of the same colour become one piece of text.
func (p *picture) row(y int) {
	for x := 0; x < p.cols; {
		start, colour := x, p.screen.Cell(x, y).FG
		var text strings.Builder
		for ; x < p.cols && p.screen.Cell(x, y).FG == colour; x++ {
			text.WriteRune(char(p.screen.Cell(x, y)))
		}
		trimmed := strings.TrimRight(text.String(), " ")
		if trimmed == "" {
			continue
		}
		fill, ok := palette[colour]
		if !ok {
			fill = "#e6edf3"
		}
		fmt.Fprintf(p, `<text x="%.2f" y="%d" fill="%s" xml:space="preserve" textLength="%.2f" `+
			`lengthAdjust="spacingAndGlyphs">`,
			margin+float64(start)*cellWidth, margin+titleBar+(y+1)*cellHeight-5, fill,
			float64(len([]rune(trimmed)))*cellWidth)
		xml.EscapeText(p, []byte(trimmed))
		p.WriteString("</text>\n")
	}
}

func char(g vt10x.Glyph) rune {
	if g.Char == 0 {
		return ' '
	}
	return g.Char
}

// rowText returns the text in a row of the screen.
func rowText(screen vt10x.View, y int) string {
	cols, _ := screen.Size()
	var text strings.Builder
	for x := range cols {
		text.WriteRune(char(screen.Cell(x, y)))
	}
	return strings.TrimRight(text.String(), " ")
}

// The pictures in README.md exist and contain the expected text.
func TestPictures(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	for file, words := range map[string][]string{
		"popfetch.svg": {"$ popfetch", "work", "━", "nothing new", "✓", "✗"},
		"diagnose.svg": {"$ popfetch --diagnose", "certificate", "pipelining", "[[account]]"},
	} {
		svg, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, xml.Unmarshal(svg, new(struct{})))
		for _, word := range words {
			assert.Contains(t, string(svg), word)
		}
		assert.Contains(t, string(readme), "("+file+")")
	}
}
