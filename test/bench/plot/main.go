// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command plot draws the growth that test/bench has measured, as an SVG.
//
// It is a module of its own, so that nothing else depends on what draws.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"image/color"
	"os"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// row is what is drawn of a size of the cluster: see growthRow in test/bench.
type row struct {
	At              string  `json:"at"`
	PerSecond       float64 `json:"perSecond"`
	NullPerSecond   float64 `json:"nullPerSecond"`
	ToNull          float64 `json:"ratioToNull"`
	Evaluation      float64 `json:"evaluationMicroseconds"`
	ApproverMiB     float64 `json:"approverPeakMiB"`
	ApproverLimit   float64 `json:"approverTargetMiB"`
	SignerMiB       float64 `json:"signerPeakMiB"`
	ReadySeconds    float64 `json:"approverReadySeconds"`
	P50Milliseconds float64 `json:"p50Milliseconds"`
	P99Milliseconds float64 `json:"p99Milliseconds"`
}

// line is one of a panel.
type line struct {
	name   string
	value  func(row) float64
	colour color.Color
	dashed bool
}

var (
	blue   = color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff}
	orange = color.RGBA{R: 0xe6, G: 0x7e, B: 0x22, A: 0xff}
	grey   = color.RGBA{R: 0x80, G: 0x80, B: 0x80, A: 0xff}
)

// wantToNull is the target that test/bench has.
const wantToNull = 0.75

// panels are drawn two in a row.
var panels = []struct {
	title, unit string
	lines       []line
}{
	{"throughput of a burst", "issued per second", []line{
		{"Countersign", func(r row) float64 { return r.PerSecond }, blue, false},
		{"null", func(r row) float64 { return r.NullPerSecond }, grey, false},
	}},
	{"throughput of a burst, beside null", "ratio", []line{
		{"Countersign", func(r row) float64 { return r.ToNull }, blue, false},
		{"target", func(row) float64 { return wantToNull }, blue, true},
	}},
	{"peak memory", "MiB", []line{
		{"approver", func(r row) float64 { return r.ApproverMiB }, blue, false},
		{"approver, target", func(r row) float64 { return r.ApproverLimit }, blue, true},
		{"signer", func(r row) float64 { return r.SignerMiB }, orange, false},
	}},
	{"latency at a steady rate", "ms", []line{
		{"p50", func(r row) float64 { return r.P50Milliseconds }, blue, false},
		{"p99", func(r row) float64 { return r.P99Milliseconds }, orange, false},
	}},
	{"evaluation of a policy in the approver", "µs", []line{
		{"mean", func(r row) float64 { return r.Evaluation }, blue, false},
	}},
	{"approver, start to ready", "s", []line{
		{"ready", func(r row) float64 { return r.ReadySeconds }, blue, false},
	}},
}

func main() {
	from := flag.String("from", "", "`file` with the JSON of test/bench.")
	to := flag.String("to", "", "`file` for the SVG.")
	flag.Parse()
	if err := run(*from, *to); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(from, to string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var results struct {
		Growth []row `json:"growth"`
	}
	if err := json.Unmarshal(raw, &results); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if len(results.Growth) == 0 {
		return fmt.Errorf("%s has no growth: run the bench with growth", from)
	}
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	canvas := vgsvg.New(26*vg.Centimeter, 28*vg.Centimeter)
	whole := draw.New(canvas)
	whole.SetColor(color.White)
	whole.Fill(whole.Rectangle.Path())
	tiles := draw.Tiles{Rows: 3, Cols: 2, PadX: vg.Centimeter, PadY: vg.Centimeter, PadTop: vg.Millimeter * 4, PadBottom: vg.Millimeter * 4, PadLeft: vg.Millimeter * 4, PadRight: vg.Millimeter * 4}
	for i, panel := range panels {
		p, err := drawn(panel.title, panel.unit, panel.lines, results.Growth)
		if err != nil {
			return err
		}
		p.Draw(tiles.At(whole, i%2, i/2))
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o644)
}

func drawn(title, unit string, lines []line, rows []row) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = title, unit
	p.Title.Padding = vg.Points(6)
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	most := 0.0
	for _, l := range lines {
		points := make(plotter.XYs, len(rows))
		for i, r := range rows {
			points[i].X, points[i].Y = float64(i), l.value(r)
			most = max(most, points[i].Y)
		}
		curve, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		curve.Color, curve.Width, dots.Color, dots.Shape = l.colour, vg.Points(1.5), l.colour, draw.CircleGlyph{}
		if l.dashed {
			curve.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
			p.Add(curve)
			p.Legend.Add(l.name, curve)
			continue
		}
		p.Add(curve, dots)
		p.Legend.Add(l.name, curve, dots)
	}
	labels := make([]string, len(rows))
	for i, r := range rows {
		labels[i] = r.At
		if last := strings.LastIndex(r.At, " "); last > 0 {
			labels[i] = r.At[:last] + "\n" + r.At[last+1:]
		}
	}
	p.NominalX(labels...)
	p.X.Tick.Label.Font.Size = vg.Points(8)
	p.Y.Min, p.Y.Max = 0, most*1.35 // with room for the legend
	return p, nil
}
