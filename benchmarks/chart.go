package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/seed-2d50cddb/pop3/benchmarks/clients"
)

// The colors of the charts on a light page.
var (
	paper = color.RGBA{0xfb, 0xfb, 0xf8, 0xff}
	ink   = color.RGBA{0x24, 0x29, 0x2f, 0xff}
	faint = color.RGBA{0xd0, 0xd4, 0xd9, 0xff}
	own   = color.RGBA{0x1f, 0x77, 0xb4, 0xff}
	other = color.RGBA{0x9a, 0xa4, 0xae, 0xff}
	limit = color.RGBA{0x5f, 0xa8, 0x5f, 0xff}
)

// darkPage changes the colors for readers who use a dark page.
const darkPage = `<style>@media (prefers-color-scheme: dark) {
	[style*="fill:#FBFBF8"] { fill: #0d1117 !important }
	[style*="fill:#24292F"] { fill: #e6edf3 !important }
	[style*="stroke:#D0D4D9"] { stroke: #3d444d !important }
}</style>
`

// A bar of a chart shows one client.
type bar struct {
	name  string
	value float64
	label string // text next to the bar
	color color.Color
}

// A chart compares clients by one number. A smaller number is better.
type chart struct {
	file, title, axis string
	bars              []bar
}

// saveCharts writes the charts for which there are measurements.
func (r *report) saveCharts(dir string) error {
	all := []chart{r.ackChart()}
	for i := range r.workloads {
		switch s := &r.workloads[i]; s.id {
		case fetchWorkload, pollWorkload:
			at := r.comparedTrip()
			c := r.timeChart(s, at, fmt.Sprintf("%s, round trip %s", s.title(), milliseconds(at)))
			all = append(all, c)
			if s.id == fetchWorkload {
				all = append(all, c.fastest())
			}
		case largeWorkload:
			all = append(all, r.timeChart(s, 0, s.title()), r.memoryChart(s))
		}
	}
	for _, c := range all {
		if len(c.bars) == 0 {
			continue
		}
		if err := c.save(dir); err != nil {
			return err
		}
	}
	return nil
}

// timeChart compares the times of a workload at one round-trip time.
func (r *report) timeChart(s *workload, trip time.Duration, title string) chart {
	all := chart{file: s.id + ".svg", title: title, axis: "seconds, less is better"}
	for _, c := range r.clientsOf(s) {
		if took, ok := r.spreadIn(cell{s.id, c.Name, trip}, total); ok {
			d := took.median
			all.bars = append(all.bars, bar{c.Name, d.Seconds(), singleSpread(d).String(), colorOf(c.Client)})
		}
	}
	return all
}

// fastest returns a chart with only the bars that have at most a tenth of the length of the longest bar. In the full
// chart they are too short to compare.
func (c chart) fastest() chart {
	longest := 0.0
	for _, b := range c.bars {
		longest = max(longest, b.value)
	}
	fast := func(b bar) bool { return b.value <= longest/10 }
	c.file, c.title = "fastest.svg", c.title+": the fastest"
	c.bars = slices.DeleteFunc(slices.Clone(c.bars), func(b bar) bool { return !fast(b) })
	return c
}

// memoryChart compares how much memory a workload adds to a process.
func (r *report) memoryChart(s *workload) chart {
	all := chart{file: "memory.svg", title: s.title() + ": memory"}
	all.axis = "MiB on top of the idle process, less is better"
	for _, c := range r.clientsOf(s) {
		if results := r.results[cell{s.id, c.Name, 0}]; len(results) > 0 {
			grown := growthOf(results, c.Base)
			all.bars = append(all.bars, bar{c.Name, float64(grown) / (1 << 20), mebibytes(grown), colorOf(c.Client)})
		}
	}
	return all
}

// ackChart compares the times to retrieve messages one at a time, with and without TCP_QUICKACK.
func (r *report) ackChart() chart {
	all := chart{
		file:  "quickack.svg",
		title: english.Sprintf("%d messages one at a time, on loopback, with and without TCP_QUICKACK", r.sequential),
		axis:  "seconds, less is better",
	}
	for _, row := range r.acks {
		if row.err != nil {
			continue
		}
		quick := spreadOf(row.quickTimes).median
		all.bars = append(all.bars, bar{row.server, quick.Seconds(), singleSpread(quick).String(), own},
			bar{"without", row.delayedTime.Seconds(), singleSpread(row.delayedTime).String(), other})
	}
	return all
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

// draw draws a chart. The first bar is at the top.
func (c *chart) draw() (*plot.Plot, error) {
	p := newPlot(c.title)
	p.X.Label.Text = c.axis
	names := make([]string, len(c.bars))
	var positions []plotter.XY
	var labels []string
	longest := 0.0
	for i := range c.bars {
		b := c.bars[len(c.bars)-1-i]
		names[i] = b.name + "    "                  // the font of some readers is wider
		values := make(plotter.Values, len(c.bars)) // each bar has its own color
		values[i] = b.value
		bars, err := plotter.NewBarChart(values, vg.Points(15))
		if err != nil {
			return nil, err
		}
		bars.Horizontal, bars.Color, bars.LineStyle.Width = true, b.color, 0
		p.Add(bars)
		positions = append(positions, plotter.XY{X: b.value, Y: float64(i)})
		labels = append(labels, b.label)
		longest = max(longest, b.value)
	}
	values, err := plotter.NewLabels(plotter.XYLabels{XYs: positions, Labels: labels})
	if err != nil {
		return nil, err
	}
	for i := range values.TextStyle {
		restyle(&values.TextStyle[i], 11)
		values.TextStyle[i].YAlign = text.YCenter
	}
	values.Offset = vg.Point{X: vg.Points(4), Y: vg.Points(1.5)}
	p.Add(values)
	p.NominalY(names...)
	p.X.Min, p.X.Max = 0, longest*1.15 // room for the label of the longest bar
	return p, nil
}

func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	p.X.Tick.Marker = plot.TickerFunc(ticks)
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

// ticks returns the major ticks, without unnecessary digits.
func ticks(min, max float64) []plot.Tick {
	all := plot.DefaultTicks{}.Ticks(min, max)
	all = slices.DeleteFunc(all, plot.Tick.IsMinor)
	for i := range all {
		all[i].Label = strconv.FormatFloat(all[i].Value, 'g', 3, 64)
	}
	return all
}

// restyle changes the font and the color. It keeps the alignment.
func restyle(s *text.Style, size float64) {
	s.Color = ink
	s.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(size)}
}

// save writes a chart as SVG.
func (c *chart) save(dir string) error {
	p, err := c.draw()
	if err != nil {
		return err
	}
	card := vgsvg.New(vg.Points(660), vg.Points(100+24*float64(len(c.bars))))
	canvas := draw.New(card)
	canvas.FillPolygon(paper, []vg.Point{
		canvas.Min, {X: canvas.Max.X, Y: canvas.Min.Y}, canvas.Max, {X: canvas.Min.X, Y: canvas.Max.Y},
	})
	const margin = 12
	p.Draw(draw.Crop(canvas, margin, -margin, margin, -margin))
	var b bytes.Buffer
	if _, err := card.WriteTo(&b); err != nil {
		return err
	}
	// Arial and Helvetica have the same widths, and every system has one of the three fonts.
	svg := bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	svg = bytes.Replace(svg, []byte("\n<g "), []byte("\n"+darkPage+"<g "), 1)
	return os.WriteFile(filepath.Join(dir, c.file), svg, 0o644)
}
