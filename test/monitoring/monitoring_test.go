// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"countersign.dev/countersign/test/cluster"
)

// render returns the objects of an overlay with the component, each by "Kind name".
func render(t *testing.T) map[string][]byte {
	t.Helper()
	binaries, err := cluster.Binaries(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(binaries, "kubectl"), "kustomize", "overlay").Output()
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string][]byte{}
	for document := range bytes.SplitSeq(out, []byte("\n---\n")) {
		var object metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(document, &object); err != nil {
			t.Fatal(err)
		}
		objects[object.Kind+" "+object.Name] = document
	}
	return objects
}

// TestPodMonitorsFindThePods checks that each PodMonitor selects the Pods of its Deployment and names one of their ports.
func TestPodMonitorsFindThePods(t *testing.T) {
	objects := render(t)
	for _, process := range processes {
		name := "countersign-" + process
		var monitor struct {
			Metadata metav1.ObjectMeta `json:"metadata"`
			Spec     struct {
				JobLabel            string               `json:"jobLabel"`
				Selector            metav1.LabelSelector `json:"selector"`
				PodMetricsEndpoints []struct {
					Port string `json:"port"`
				} `json:"podMetricsEndpoints"`
			} `json:"spec"`
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
		}
		if err := yaml.UnmarshalStrict(objects["PodMonitor "+name], &monitor); err != nil {
			t.Fatalf("PodMonitor %s: %v", name, err)
		}
		var deployment appsv1.Deployment
		if err := yaml.Unmarshal(objects["Deployment "+name], &deployment); err != nil {
			t.Fatal(err)
		}
		if monitor.APIVersion != "monitoring.coreos.com/v1" || monitor.Metadata.Namespace != deployment.Namespace {
			t.Errorf("PodMonitor %s is %s in %s", name, monitor.APIVersion, monitor.Metadata.Namespace)
		}
		if diff := cmp.Diff(deployment.Spec.Selector, &monitor.Spec.Selector); diff != "" {
			t.Errorf("PodMonitor %s selects other Pods than the Deployment (-Deployment +PodMonitor):\n%s", name, diff)
		}
		if job := deployment.Spec.Template.Labels[monitor.Spec.JobLabel]; job != name {
			t.Errorf("its metrics have the job %q, and the alerts are about %q", job, name)
		}
		ports := deployment.Spec.Template.Spec.Containers[0].Ports
		if len(monitor.Spec.PodMetricsEndpoints) != 1 || !slices.ContainsFunc(ports, func(p corev1.ContainerPort) bool {
			return p.Name == monitor.Spec.PodMetricsEndpoints[0].Port
		}) {
			t.Errorf("PodMonitor %s: %+v, and the container has %+v", name, monitor.Spec.PodMetricsEndpoints, ports)
		}
	}
}

// TestDashboardIsLoaded checks that the ConfigMap has the label that Grafana's sidecar selects, and the unchanged file.
func TestDashboardIsLoaded(t *testing.T) {
	var configMap corev1.ConfigMap
	if err := yaml.UnmarshalStrict(render(t)["ConfigMap countersign-dashboard"], &configMap); err != nil {
		t.Fatal(err)
	}
	if configMap.Labels["grafana_dashboard"] != "1" || configMap.Namespace != "countersign-system" {
		t.Errorf("labels %v, namespace %s", configMap.Labels, configMap.Namespace)
	}
	file, err := os.ReadFile("../../deploy/components/monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(file), configMap.Data["countersign.json"]); diff != "" {
		t.Errorf("countersign.json (-file +ConfigMap):\n%s", diff)
	}
	if strings.Contains(string(file), "://") {
		t.Error("the dashboard has a link")
	}
}

var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

// anchors of the headings of docs/operations.md.
func anchors(t *testing.T) (anchors []string, text string) {
	t.Helper()
	raw, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	punctuation := regexp.MustCompile(`[^\w\- ]`)
	for _, title := range matches(heading, string(raw)) {
		anchors = append(anchors, strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(title), ""), " ", "-"))
	}
	return anchors, string(raw)
}

// TestAlertsSayWhatToDo checks the severity, the texts and the runbook of each alert.
func TestAlertsSayWhatToDo(t *testing.T) {
	if _, ok := render(t)["PrometheusRule countersign"]; !ok {
		t.Error("the PrometheusRule is not rendered")
	}
	rules, _, err := Component()
	if err != nil {
		t.Fatal(err)
	}
	anchors, text := anchors(t)
	alerts := map[string]bool{}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			alerts[rule.Alert] = true
			if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" {
				t.Errorf("%s: severity %q", rule.Alert, severity)
			}
			for _, annotation := range []string{"summary", "description"} {
				if !strings.HasSuffix(rule.Annotations[annotation], ".") {
					t.Errorf("%s: %s %q", rule.Alert, annotation, rule.Annotations[annotation])
				}
			}
			anchor, ok := strings.CutPrefix(rule.Annotations["runbook"], "docs/operations.md#")
			if !ok || !slices.Contains(anchors, anchor) {
				t.Errorf("%s: docs/operations.md has no such heading: %s", rule.Alert, rule.Annotations["runbook"])
			}
			if !strings.Contains(text, "\n| `"+rule.Alert+"` |") {
				t.Errorf("docs/operations.md does not describe the alert %s", rule.Alert)
			}
		}
	}
	for _, match := range regexp.MustCompile("\n\\| `(Countersign\\w+)` \\|").FindAllStringSubmatch(text, -1) {
		if !alerts[match[1]] {
			t.Errorf("docs/operations.md has an unknown alert %s", match[1])
		}
	}
}

func TestDashboardIsWhole(t *testing.T) {
	_, dashboard, err := Component()
	if err != nil {
		t.Fatal(err)
	}
	if dashboard.UID == "" || dashboard.Title == "" || dashboard.SchemaVersion < 36 || len(dashboard.Links) > 0 {
		t.Errorf("uid %q, title %q, schemaVersion %d, links %v", dashboard.UID, dashboard.Title, dashboard.SchemaVersion, dashboard.Links)
	}
	ids, taken := map[int]bool{}, map[string]string{}
	for _, panel := range dashboard.Panels {
		if panel.Title == "" || ids[panel.ID] {
			t.Errorf("panel %d %q: it has no title, or the id of another", panel.ID, panel.Title)
		}
		ids[panel.ID] = true
		for x := panel.GridPos.X; x < panel.GridPos.X+panel.GridPos.W; x++ {
			for y := panel.GridPos.Y; y < panel.GridPos.Y+panel.GridPos.H; y++ {
				place := fmt.Sprint(x, " ", y)
				if other, ok := taken[place]; ok || x > 23 {
					t.Fatalf("panel %q covers %q, or leaves the page", panel.Title, other)
				}
				taken[place] = panel.Title
			}
		}
		if panel.Type == "row" {
			continue
		}
		if panel.Description == "" || len(panel.Targets) == 0 {
			t.Errorf("panel %q: it has no description, or no query", panel.Title)
		}
		sources := []Datasource{panel.Datasource}
		for _, target := range panel.Targets {
			sources = append(sources, target.Datasource)
		}
		for _, source := range sources {
			if source.UID != "${datasource}" {
				t.Errorf("panel %q asks the data source %q", panel.Title, source.UID)
			}
		}
	}
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		expr string
		want parsed
	}{
		{`min by (signer) (a_seconds) - time() < 7 * 86400`, parsed{
			metrics: map[string][]string{"a_seconds": nil}, groups: []string{"signer"}, grouped: true,
		}},
		{`max by (a, b) (m{x="by (y)",z!~"p|q"}) == 0 unless on (a) n offset 15m`, parsed{
			metrics: map[string][]string{"m": {"x", "z"}, "n": nil}, groups: []string{"a", "b", "a"}, grouped: true,
		}},
		{`absent(up{job="a"} == 1)`, parsed{metrics: map[string][]string{"up": {"job"}}}},
		{`histogram_quantile(0.99, sum by (le) (rate(m_bucket{s=~"$s"}[$__rate_interval]))) > 1`, parsed{
			metrics: map[string][]string{"m_bucket": {"s"}}, groups: []string{"le"}, grouped: true,
		}},
	} {
		if diff := cmp.Diff(tc.want, parse(tc.expr), cmp.AllowUnexported(parsed{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.expr, diff)
		}
	}
}

// TestCompare checks that renamed metrics and removed labels are reported.
func TestCompare(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "countersign_webhook_approvals_total", Help: "Renamed label."}, []string{"outcome"}),
		prometheus.NewGauge(prometheus.GaugeOpts{Name: "countersign_webhook_certificate_expires", Help: "Renamed."}),
	)
	err := Compare("webhook", registry)
	for _, want := range []string{
		"countersign_webhook_approvals_total has no label verdict",
		"countersign-webhook has no metric countersign_webhook_certificate_expiry_timestamp_seconds",
		"countersign-webhook has no metric countersign_audit_append_failures_total",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s among it", err, want)
		}
	}
	if err := Compare("unknown", registry); err == nil || !strings.Contains(err.Error(), "no alert and no panel queries") {
		t.Errorf("got %v", err)
	}
}
