package main

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"
)

// Workers come and go, so nobody scrapes them: each tells its metrics over NATS, and the status page has them all,
// with a label for the worker.

const statsSubject = "fleet.stats."

// tellMetrics tells the metrics of this process again and again until ctx ends.
func tellMetrics(ctx context.Context, nc *nats.Conn, g prometheus.Gatherer, owner string, every time.Duration) {
	for {
		if text, err := metricsText(g); err == nil {
			nc.Publish(statsSubject+owner, text)
		}
		if !pause(ctx, every) {
			return
		}
	}
}

func metricsText(g prometheus.Gatherer) ([]byte, error) {
	families, err := g.Gather()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// A gatherer has the latest metrics of all workers. Those of a worker that is gone stay: counters don't go back.
type gatherer struct {
	mu      sync.Mutex
	workers map[string]told
}

type told struct {
	at       time.Time
	families map[string]*dto.MetricFamily
}

// listen takes what workers tell until the subscription is ended.
func (g *gatherer) listen(nc *nats.Conn) (*nats.Subscription, error) {
	return nc.Subscribe(statsSubject+"*", func(msg *nats.Msg) {
		g.hear(msg.Subject[len(statsSubject):], msg.Data, time.Now())
	})
}

func (g *gatherer) hear(worker string, text []byte, now time.Time) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return
	}
	for _, f := range families {
		for _, m := range f.Metric {
			m.Label = append(m.Label, &dto.LabelPair{Name: proto.String("worker"), Value: proto.String(worker)})
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.workers == nil {
		g.workers = make(map[string]told)
	}
	g.workers[worker] = told{now, families}
}

// Gather implements [prometheus.Gatherer].
func (g *gatherer) Gather() ([]*dto.MetricFamily, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all prometheus.Gatherers
	for _, w := range g.workers {
		var families []*dto.MetricFamily
		for _, f := range w.families {
			families = append(families, proto.Clone(f).(*dto.MetricFamily))
		}
		all = append(all, prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil }))
	}
	return all.Gather()
}

// value gives the sum of a metric of a worker over all labels that match: pairs of name and value. Of a histogram it
// is the sum of what was observed.
func (t told) value(name string, labels ...string) float64 {
	var sum float64
	for _, m := range t.families[name].GetMetric() {
		if matches(m, labels) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	return sum
}

func matches(m *dto.Metric, labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		found := false
		for _, l := range m.Label {
			found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

// byLabel gives the values of a metric by one of its labels.
func (t told) byLabel(name, label string) map[string]float64 {
	values := make(map[string]float64)
	for _, m := range t.families[name].GetMetric() {
		for _, l := range m.Label {
			if l.GetName() == label {
				values[l.GetValue()] += m.GetCounter().GetValue()
			}
		}
	}
	return values
}

// snapshot gives the workers by name.
func (g *gatherer) snapshot() map[string]told {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make(map[string]told, len(g.workers))
	for name, w := range g.workers {
		all[name] = w
	}
	return all
}
