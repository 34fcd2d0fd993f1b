// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/kubernetes"
)

// usage is the CPU time and the memory of a process from /proc. It is zero on systems without /proc.
type usage struct {
	cpu time.Duration
	// residentMiB is the current memory, and peakMiB the peak memory.
	residentMiB, peakMiB float64
}

// clockTick is USER_HZ, the unit of times in /proc/<pid>/stat: a constant on Linux.
const clockTick = 10 * time.Millisecond

// usageOf reads proc(5): utime and stime of stat, VmRSS and VmHWM of status.
func usageOf(pid int) (u usage) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u
	}
	// The second field is the name of the program in parentheses, which can contain any character.
	_, rest, _ := strings.Cut(string(raw[bytes.LastIndexByte(raw, ')')+1:]), " ")
	if fields := strings.Fields(rest); len(fields) > 12 {
		for _, field := range fields[11:13] {
			ticks, _ := strconv.ParseInt(field, 10, 64)
			u.cpu += time.Duration(ticks) * clockTick
		}
	}
	raw, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(raw)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			u.residentMiB = kib / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
			u.peakMiB = kib / 1024
		}
	}
	return u
}

// apiRequests returns the API server's own count of requests by verb and resource, from all clients.
func apiRequests(ctx context.Context, clientset kubernetes.Interface) (map[string]float64, error) {
	raw, err := clientset.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	const name = "apiserver_request_total"
	families, err := parseMetrics(raw, name)
	if err != nil {
		return nil, err
	}
	counts := map[string]float64{}
	for _, metric := range families[name].GetMetric() {
		labels := map[string]string{}
		for _, label := range metric.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		key := labels["verb"] + " " + labels["resource"]
		if sub := labels["subresource"]; sub != "" {
			key += "/" + sub
		}
		counts[key] += metric.GetCounter().GetValue()
	}
	return counts, nil
}

// evaluations returns the number of policy evaluations of an approver, and their total time.
func evaluations(ctx context.Context, metricsURL string) (count uint64, total time.Duration, err error) {
	raw, err := get(ctx, metricsURL)
	if err != nil {
		return 0, 0, err
	}
	const name = "countersign_approver_evaluation_seconds"
	families, err := parseMetrics(raw, name)
	if err != nil {
		return 0, 0, err
	}
	for _, metric := range families[name].GetMetric() {
		count += metric.GetHistogram().GetSampleCount()
		total += time.Duration(metric.GetHistogram().GetSampleSum() * float64(time.Second))
	}
	return count, total, nil
}

// parseMetrics parses one metric only, since the API server has megabytes of them.
func parseMetrics(raw []byte, name string) (map[string]*dto.MetricFamily, error) {
	var wanted bytes.Buffer
	for line := range bytes.Lines(raw) {
		if bytes.HasPrefix(line, []byte(name)) || bytes.HasPrefix(line, []byte("# TYPE "+name+" ")) {
			wanted.Write(line)
		}
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(&wanted)
}

// get returns the body of a response.
func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s returns %s: %s", url, response.Status, body)
	}
	return body, err
}

// profile writes a profile of a process to a file.
func profile(ctx context.Context, server, what, folder, name string) error {
	raw, err := get(ctx, "http://"+server+"/debug/pprof/"+what)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, name), raw, 0o600)
}
