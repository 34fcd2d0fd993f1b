// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func TestReadyz(t *testing.T) {
	failing := func(message string) func(*http.Request) error {
		return func(*http.Request) error { return errors.New(message) }
	}
	passing := func(*http.Request) error { return nil }
	long := strings.Repeat("x", maxReason)
	for _, tc := range []struct {
		name, query string
		checks      map[string]func(*http.Request) error
		status      int
		body        string
	}{
		{"starting", "", map[string]func(*http.Request) error{checkStart: failing("the process is starting")}, 500, "[-]start failed: the process is starting\nreadyz check failed\n"},
		{"ready", "", map[string]func(*http.Request) error{"caches": passing}, 200, "ok"},
		{"ready, verbose", "?verbose", map[string]func(*http.Request) error{"caches": passing}, 200, "[+]caches ok\nreadyz check passed\n"},
		{
			"one fails", "",
			map[string]func(*http.Request) error{"policies": failing("policy team/x: ConfigMap ns/x not found"), "caches": passing},
			500,
			"[+]caches ok\n[-]policies failed: policy team/x: ConfigMap ns/x not found\nreadyz check failed\n",
		},
		{"a reason at the bound", "", map[string]func(*http.Request) error{"a": failing(long)}, 500, "[-]a failed: " + long + "\nreadyz check failed\n"},
		{"a reason of two lines", "", map[string]func(*http.Request) error{"a": failing("x\ny")}, 500, "[-]a failed: x; y\nreadyz check failed\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newProbes(logr.Discard())
			p.set(checkStart, nil)
			for name, check := range tc.checks {
				p.set(name, check)
			}
			answer := httptest.NewRecorder()
			p.readyz(answer, httptest.NewRequest(http.MethodGet, "/readyz"+tc.query, nil))
			if answer.Code != tc.status || answer.Body.String() != tc.body {
				t.Errorf("status %d, body %q; want %d, %q", answer.Code, answer.Body, tc.status, tc.body)
			}
		})
	}
	t.Run("a reason above the bound", func(t *testing.T) {
		p := newProbes(logr.Discard())
		p.set(checkStart, failing(long+"x"))
		answer := httptest.NewRecorder()
		p.readyz(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		if n := answer.Body.Len(); n > len("[-]start failed: ")+maxReason+len("\nreadyz check failed\n") {
			t.Errorf("%d bytes", n)
		}
	})
}

// TestReport checks that a process reports why it is not ready after a while, and again only when the reasons change.
func TestReport(t *testing.T) {
	var got []string
	now := time.Now()
	p := newProbes(logr.Discard())
	p.now, p.report = func() time.Time { return now }, func(reasons string) { got = append(got, reasons) }
	for _, step := range []struct {
		after   time.Duration
		reasons string
	}{
		{0, "starting"},
		{9 * time.Second, "starting"},
		{time.Second, "starting"}, // reported
		{5 * time.Second, "starting"},
		{time.Second, "caches"},     // too early
		{4 * time.Second, "caches"}, // reported
		{time.Minute, "caches"},
		{0, ""},
		{time.Minute, "certificate"},
		{11 * time.Second, "certificate"}, // reported
	} {
		now = now.Add(step.after)
		p.changed(step.reasons)
	}
	if diff := cmp.Diff([]string{"starting", "caches", "certificate"}, got); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
}

func TestNotReadyEvent(t *testing.T) {
	pod := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "ns", Name: "pod", UID: "uid"}
	for _, length := range []int{maxEvent, maxEvent + 1} {
		event := notReady(pod, "countersign-test", strings.Repeat("x", length), metav1.Now())
		if event.InvolvedObject != pod || event.Reason != reasonNotReady || len(event.Message) > maxEvent {
			t.Errorf("got %+v", event)
		}
	}
}

// TestAwaitAPIServer starts the API server late: errors are retried, and readyz has the last one.
func TestAwaitAPIServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	p := newProbes(logr.Discard())
	ended := make(chan error, 1)
	go func() {
		ended <- awaitAPIServer(t.Context(), &rest.Config{Host: "http://" + address}, p, logr.Discard())
	}()
	body := func() string {
		answer := httptest.NewRecorder()
		p.readyz(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return answer.Body.String()
	}
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(body(), "[-]apiserver failed: API server http://"+address+" is not reachable: ") || !strings.Contains(body(), "connection refused"); {
		if time.Now().After(deadline) {
			t.Fatal(body())
		}
		time.Sleep(10 * time.Millisecond)
	}
	if listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"major": "1"}`)
	})}
	go func() { _ = server.Serve(listener) }()
	defer server.Close() //nolint:errcheck // the end of the test
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if strings.Contains(body(), "apiserver") {
		t.Errorf("got %s", body())
	}
}

func TestAwaitAPIServer_ends(t *testing.T) {
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	defer untrusted.Close()
	status := func(code int32) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(int(code))
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code})
		}))
	}
	unauthorized, forbidden := status(http.StatusUnauthorized), status(http.StatusForbidden)
	defer unauthorized.Close()
	defer forbidden.Close()
	discovery := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			forbidden.Config.Handler.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "{}")
	}))
	defer discovery.Close()
	brief, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name, host, err string
		ctx             context.Context //nolint:containedctx // of a case
	}{
		{"wrong CA", untrusted.URL, "its certificate is not trusted: check server and certificate-authority of --kubeconfig", t.Context()},
		{"wrong credentials", unauthorized.URL, "it rejects the credentials: check the user of --kubeconfig", t.Context()},
		{"readyz is forbidden", discovery.URL, "", t.Context()},
		{"everything is forbidden, until the process ends", forbidden.URL, "", brief},
		{"the process ends", "http://127.0.0.1:1", "", canceled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := awaitAPIServer(tc.ctx, &rest.Config{Host: tc.host}, newProbes(logr.Discard()), logr.Discard())
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			if tc.ctx == brief && brief.Err() == nil {
				t.Error("returned before the process ended")
			}
		})
	}
}
