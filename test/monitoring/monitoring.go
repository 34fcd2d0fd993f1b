// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package monitoring compares the queries in deploy/components/monitoring with the metrics of the processes.
//
// Each process has a test that calls [Compare] with its own metrics. hack/verify.sh validates the PromQL with promtool.
// This package only finds names and labels by their position in the text.
package monitoring

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/yaml"

	"countersign.dev/countersign/test/cluster"
)

// Rules is the part of a PrometheusRule that is read.
type Rules struct {
	Groups []Group `json:"groups"`
}

// Group is a group of rules.
type Group struct {
	Name  string `json:"name"`
	Rules []Rule `json:"rules"`
}

// Rule is an alert, or the query of a panel for promtool.
type Rule struct {
	Alert       string            `json:"alert,omitempty"`
	Record      string            `json:"record,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Dashboard is the part of a Grafana dashboard that is read.
type Dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Links         []any  `json:"links"`
	Templating    struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []Panel `json:"panels"`
}

// Panel of a dashboard.
type Panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Datasource  Datasource `json:"datasource"`
	Targets     []Target   `json:"targets"`
	GridPos     struct{ X, Y, W, H int }
}

// Target is a query of a panel.
type Target struct {
	Datasource   Datasource `json:"datasource"`
	Expr         string     `json:"expr"`
	LegendFormat string     `json:"legendFormat"`
}

// Datasource of a query.
type Datasource struct {
	UID string `json:"uid"`
}

// Component reads the alerts and the dashboard.
func Component() (Rules, Dashboard, error) {
	root, err := cluster.Root()
	if err != nil {
		return Rules{}, Dashboard{}, err
	}
	dir := filepath.Join(root, "deploy", "components", "monitoring")
	var object struct {
		Spec Rules `json:"spec"`
	}
	raw, err := os.ReadFile(filepath.Join(dir, "prometheusrule.yaml"))
	if err != nil {
		return Rules{}, Dashboard{}, err
	}
	if err := yaml.Unmarshal(raw, &object); err != nil {
		return Rules{}, Dashboard{}, fmt.Errorf("reading prometheusrule.yaml: %w", err)
	}
	var dashboard Dashboard
	if raw, err = os.ReadFile(filepath.Join(dir, "dashboard.json")); err != nil {
		return Rules{}, Dashboard{}, err
	}
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		return Rules{}, Dashboard{}, fmt.Errorf("reading dashboard.json: %w", err)
	}
	return object.Spec, dashboard, nil
}

// AsRules returns the queries of a dashboard as rules, with values for its variables.
func (d Dashboard) AsRules() Group {
	group := Group{Name: "dashboard"}
	fill := strings.NewReplacer("$__rate_interval", "5m", "$signer", ".*")
	for _, panel := range d.Panels {
		for i, target := range panel.Targets {
			group.Rules = append(group.Rules, Rule{Record: fmt.Sprintf("dashboard:panel_%d_%d", panel.ID, i), Expr: fill.Replace(target.Expr)})
		}
	}
	return group
}

// query is one query to Prometheus.
type query struct {
	where string
	expr  string
	shown []string // labels of the result that a text shows
}

var (
	inText     = regexp.MustCompile(`\$labels\.(\w+)`)
	inLegend   = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
	inVariable = regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`)
)

func queries() ([]query, error) {
	rules, dashboard, err := Component()
	if err != nil {
		return nil, err
	}
	var out []query
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			q := query{where: "alert " + rule.Alert, expr: rule.Expr}
			for _, text := range rule.Annotations {
				q.shown = append(q.shown, matches(inText, text)...)
			}
			out = append(out, q)
		}
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			out = append(out, query{where: "panel " + panel.Title, expr: target.Expr, shown: matches(inLegend, target.LegendFormat)})
		}
	}
	for _, variable := range dashboard.Templating.List {
		if found := inVariable.FindStringSubmatch(variable.Definition); found != nil {
			out = append(out, query{where: "variable " + variable.Name, expr: fmt.Sprintf("count by (%s) (%s)", found[2], found[1])})
		} else if variable.Type == "query" {
			return nil, fmt.Errorf("variable %s: cannot read the definition %q", variable.Name, variable.Definition)
		}
	}
	return out, nil
}

func matches(pattern *regexp.Regexp, text string) []string {
	var out []string
	for _, match := range pattern.FindAllStringSubmatch(text, -1) {
		out = append(out, match[1])
	}
	return out
}

// Patterns of the parts of a query.
var (
	quoted   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	ranges   = regexp.MustCompile(`\[[^\]]*\]`)
	grouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	selector = regexp.MustCompile(`\b([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\}|\()?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	word     = regexp.MustCompile(`\w+`)
)

var operators = []string{"and", "or", "unless", "offset", "bool"}

// parsed has the metrics and labels of a query.
type parsed struct {
	metrics map[string][]string // labels in matchers, by metric
	groups  []string            // labels that are grouped by
	grouped bool                // an aggregation with "by" lists the labels of the result
}

func parse(expr string) parsed {
	p := parsed{metrics: map[string][]string{}}
	expr = ranges.ReplaceAllString(quoted.ReplaceAllString(expr, `""`), "")
	for _, match := range grouping.FindAllStringSubmatch(expr, -1) {
		p.groups = append(p.groups, word.FindAllString(match[2], -1)...)
		p.grouped = p.grouped || match[1] == "by"
	}
	expr = grouping.ReplaceAllString(expr, "")
	for _, match := range selector.FindAllStringSubmatch(expr, -1) {
		name, rest := match[1], match[2]
		if rest == "(" || slices.Contains(operators, name) {
			continue
		}
		p.metrics[name] = append(p.metrics[name], matches(matcher, rest)...)
	}
	return p
}

// targetLabels are the labels that the Prometheus operator adds to the metrics of each target of a PodMonitor.
var targetLabels = []string{"job", "namespace", "pod", "container", "instance", "endpoint"}

// processes that have metrics named after them.
var processes = []string{"approver", "signer", "webhook"}

// Compare returns an error that lists the metrics and labels that alerts and dashboard query and that a process does
// not have. It ignores queries of metrics that are named after other processes. It is also an error if no alert and no
// panel queries the process.
func Compare(process string, registries ...prometheus.Collector) error {
	c := comparison{process: process, known: map[string][]string{"up": nil}} // Prometheus adds "up" to every target
	for _, registry := range registries {
		maps.Copy(c.known, describe(registry))
	}
	all, err := queries()
	if err != nil {
		return err
	}
	for _, q := range all {
		c.check(q)
	}
	switch {
	case !c.queried:
		return fmt.Errorf("no alert and no panel queries countersign-%s", process)
	case c.problems != nil:
		return fmt.Errorf("deploy/components/monitoring:\n%s", strings.Join(c.problems, "\n"))
	}
	return nil
}

// comparison of queries with the metrics of a process.
type comparison struct {
	process  string
	known    map[string][]string // labels by metric
	queried  bool                // a query has a metric that is named after the process
	problems []string
}

func (c *comparison) addProblem(q query, format string, args ...any) {
	c.problems = append(c.problems, q.where+": "+fmt.Sprintf(format, args...))
}

// check compares one query with the metrics of the process.
func (c *comparison) check(q query) {
	p := parse(q.expr)
	labels, ok := c.checkMetrics(q, p)
	if !ok {
		return
	}
	for _, label := range p.groups {
		if !slices.Contains(labels, label) {
			c.addProblem(q, "none of its metrics has the label %s", label)
		}
	}
	if p.grouped {
		labels = p.groups
	}
	for _, label := range q.shown {
		if !slices.Contains(labels, label) {
			c.addProblem(q, "the result has no label %s to show", label)
		}
	}
}

// checkMetrics checks the metrics of a query and the labels that it matches. It returns all labels that the result can
// have, and false if a metric is missing or belongs to another process.
func (c *comparison) checkMetrics(q query, p parsed) (labels []string, ok bool) {
	labels, ok = slices.Clone(targetLabels), true
	for _, name := range slices.Sorted(maps.Keys(p.metrics)) {
		if other := owner(name); other != "" && other != c.process {
			ok = false
			continue
		}
		has, known := lookUp(c.known, name)
		if !known {
			c.addProblem(q, "countersign-%s has no metric %s", c.process, name)
			ok = false
			continue
		}
		c.queried = c.queried || owner(name) == c.process
		labels = append(labels, has...)
		for _, label := range p.metrics[name] {
			if !slices.Contains(has, label) && !slices.Contains(targetLabels, label) {
				c.addProblem(q, "%s has no label %s", name, label)
			}
		}
	}
	return labels, ok
}

func owner(metric string) string {
	for _, process := range processes {
		if strings.HasPrefix(metric, "countersign_"+process+"_") {
			return process
		}
	}
	return ""
}

// lookUp returns the labels of a metric, or of the histogram that it is a part of.
func lookUp(known map[string][]string, name string) ([]string, bool) {
	if labels, ok := known[name]; ok {
		return labels, true
	}
	for _, part := range []string{"_sum", "_count", "_bucket"} {
		if base, ok := strings.CutSuffix(name, part); ok {
			labels, ok := known[base]
			if part == "_bucket" {
				labels = append(slices.Clone(labels), "le")
			}
			return labels, ok
		}
	}
	return nil, false
}

// A Desc has its name and labels only in its text.
var description = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", .*variableLabels: \{([^}]*)\}\}$`)

// describe returns the labels of each metric by name, even of metrics without a value.
func describe(collector prometheus.Collector) map[string][]string {
	all := make(chan *prometheus.Desc)
	go func() {
		collector.Describe(all)
		close(all)
	}()
	out := map[string][]string{}
	for desc := range all {
		if found := description.FindStringSubmatch(strings.ReplaceAll(desc.String(), "\n", " ")); found != nil {
			out[found[1]] = word.FindAllString(found[2], -1)
		}
	}
	return out
}
