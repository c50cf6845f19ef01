package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// The charts are cards of their own, dark on light, so that they can be read on a page of either kind.
var (
	paper = color.RGBA{0xfb, 0xfb, 0xf8, 0xff}
	ink   = color.RGBA{0x24, 0x29, 0x2f, 0xff}
	faint = color.RGBA{0xd0, 0xd4, 0xd9, 0xff}
	own   = color.RGBA{0x1f, 0x77, 0xb4, 0xff}
	other = color.RGBA{0x9a, 0xa4, 0xae, 0xff}
	limit = color.RGBA{0x5f, 0xa8, 0x5f, 0xff}
)

// A bar is one client in a chart.
type bar struct {
	name  string
	value float64
	label string // of the value
	color color.Color
}

// charts writes all charts that there is something to show in.
func (r *report) charts(dir string) error {
	for i := range r.scenes {
		s := &r.scenes[i]
		var p *plot.Plot
		var err error
		name := s.id
		switch s.id {
		case fetchScene:
			name = "fetch"
			p, err = r.timeChart(s, r.judgedTrip(), fmt.Sprintf("%s, round trip %v", s.title(), r.judgedTrip()))
		case pollScene:
			p, err = r.timeChart(s, r.judgedTrip(), fmt.Sprintf("%s, round trip %v", s.title(), r.judgedTrip()))
		case largeScene:
			p, err = r.timeChart(s, 0, s.title())
		default:
			continue
		}
		if err == nil {
			err = save(p, len(r.clientsOf(s)), filepath.Join(dir, name+".svg"))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// timeChart compares the times of a scene over one link.
func (r *report) timeChart(s *scene, trip time.Duration, title string) (*plot.Plot, error) {
	var bars []bar
	for _, c := range r.clientsOf(s) {
		if d, ok := r.median(cell{s.id, c.Name, trip}, total); ok {
			once := spread{d, d, d}
			bars = append(bars, bar{c.Name, d.Seconds(), once.String(), colorOf(c.Client)})
		}
	}
	return barChart(title, "seconds, less is better", bars)
}

func colorOf(c clients.Client) color.Color {
	switch {
	case c.Limit:
		return limit
	case c.Ours:
		return own
	}
	return other
}

// barChart has a bar for each client, the first one on top.
func barChart(title, axis string, bars []bar) (*plot.Plot, error) {
	p := newPlot(title)
	p.X.Label.Text = axis
	names := make([]string, len(bars))
	var at []plotter.XY
	var labels []string
	longest := 0.0
	for i := range bars {
		b := bars[len(bars)-1-i]
		names[i] = b.name + "    " // room for a reader whose font is wider
		values := make(plotter.Values, len(bars))
		values[i] = b.value
		chart, err := plotter.NewBarChart(values, vg.Points(15))
		if err != nil {
			return nil, err
		}
		chart.Horizontal, chart.Color, chart.LineStyle.Width = true, b.color, 0
		p.Add(chart)
		at = append(at, plotter.XY{X: b.value, Y: float64(i)})
		labels = append(labels, " "+b.label)
		longest = max(longest, b.value)
	}
	values, err := plotter.NewLabels(plotter.XYLabels{XYs: at, Labels: labels})
	if err != nil {
		return nil, err
	}
	for i := range values.TextStyle {
		restyle(&values.TextStyle[i], 11)
		values.TextStyle[i].YAlign = text.YCenter
	}
	p.Add(values)
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, longest*1.15 // room for the label of the longest
	return p, nil
}

func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = paper
	p.Title.Text = title
	restyle(&p.Title.TextStyle, 14)
	p.Title.Padding = vg.Points(10)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color = faint
		axis.Tick.Color = faint
		restyle(&axis.Label.TextStyle, 11)
		restyle(&axis.Tick.Label, 11)
	}
	return p
}

// restyle changes the font and the colour, not the alignment.
func restyle(s *text.Style, size float64) {
	s.Color = ink
	s.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(size)}
}

// save writes a chart of n bars.
func save(p *plot.Plot, n int, file string) error {
	w, err := p.WriterTo(vg.Points(640), vg.Points(90+24*float64(n)), "svg")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		return err
	}
	// Arial and Helvetica have the same widths, and one of the three is everywhere.
	svg := bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return os.WriteFile(file, svg, 0o644)
}
