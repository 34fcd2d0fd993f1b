// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"countersign.dev/countersign/internal/text"
)

const (
	// maxReason bounds the reason of a failing check, in bytes.
	maxReason = 512
	// reportInterval is the time after which a process that is not ready reports it, and the least time
	// between two reports or log lines of different reasons.
	reportInterval = 10 * time.Second
)

// probes serves /healthz and /readyz. The kubelet restarts a process whose /healthz fails. The body has a line for each
// check, with the reason if it fails, which the probes of controller-runtime omit. Reasons contain no secrets. Changes
// of the reasons are logged.
type probes struct {
	log logr.Logger
	// report is called with the reasons if the process is not ready for longer than reportInterval. Nil means
	// that they are only logged.
	report func(reasons string)
	now    func() time.Time

	mu             sync.Mutex
	checks, health map[string]healthz.Checker // of /readyz and of /healthz
	unready        time.Time                  // since when; zero if the process is ready
	logged, posted reported
}

// reported are the last reasons that were logged or reported.
type reported struct {
	reasons string
	at      time.Time
}

// due reports whether the reasons differ from the last ones and those are older than reportInterval. It
// stores them in this case.
func (r *reported) due(reasons string, now time.Time) bool {
	if reasons == r.reasons || r.reasons != "" && now.Sub(r.at) < reportInterval {
		return false
	}
	*r = reported{reasons: reasons, at: now}
	return true
}

// checkStart is the name of the check that fails until the component is set up.
const checkStart = "start"

// newProbes returns probes that fail until the check "start" is removed.
func newProbes(log logr.Logger) *probes {
	starting := func(*http.Request) error { return errors.New("the process is starting") }
	return &probes{log: log, now: time.Now, checks: map[string]healthz.Checker{checkStart: starting}, health: map[string]healthz.Checker{}}
}

// set adds a check of /readyz or replaces it; a nil check removes it.
func (p *probes) set(name string, check healthz.Checker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if check == nil {
		delete(p.checks, name)
		return
	}
	p.checks[name] = check
}

// handler serves the paths of the probes.
func (p *probes) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", p.healthz)
	mux.HandleFunc("/readyz", p.readyz)
	return mux
}

// healthz fails if the kubelet must restart the process.
func (p *probes) healthz(w http.ResponseWriter, r *http.Request) {
	lines, reasons := p.run(p.health, r)
	answer(w, r, "healthz", lines, reasons)
}

// readyz answers as controller-runtime does, with reasons.
func (p *probes) readyz(w http.ResponseWriter, r *http.Request) {
	lines, reasons := p.run(p.checks, r)
	p.changed(strings.Join(reasons, "; "))
	answer(w, r, "readyz", lines, reasons)
}

// run runs checks. It returns a line for each check, and the reasons of those that fail.
func (p *probes) run(checks map[string]healthz.Checker, r *http.Request) (lines, reasons []string) {
	p.mu.Lock()
	checks = maps.Clone(checks)
	p.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		if err := checks[name](r); err != nil {
			reason := text.Shorten(strings.ReplaceAll(err.Error(), "\n", "; "), maxReason)
			lines, reasons = append(lines, "[-]"+name+" failed: "+reason), append(reasons, name+": "+reason)
		} else {
			lines = append(lines, "[+]"+name+" ok")
		}
	}
	return lines, reasons
}

// answer writes the result of the checks of a path.
func answer(w http.ResponseWriter, r *http.Request, path string, lines, reasons []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch verbose := r.URL.Query().Has("verbose"); {
	case reasons != nil:
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "%s\n%s check failed\n", strings.Join(lines, "\n"), path)
	case verbose:
		fmt.Fprintf(w, "%s\n%s check passed\n", strings.Join(lines, "\n"), path)
	default:
		fmt.Fprint(w, "ok")
	}
}

// changed logs and reports the reasons if they differ from those of the last time.
func (p *probes) changed(reasons string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if reasons == "" {
		if !p.unready.IsZero() {
			p.log.Info("ready")
		}
		p.unready, p.logged, p.posted = time.Time{}, reported{}, reported{}
		return
	}
	if p.unready.IsZero() {
		p.unready = now
	}
	if p.logged.due(reasons, now) {
		p.log.Info("not ready", "reason", reasons)
	}
	if p.report != nil && now.Sub(p.unready) >= reportInterval && p.posted.due(reasons, now) {
		p.report(reasons)
	}
}

// probed is a manager whose checks are those of probes.
type probed struct {
	manager.Manager
	probes *probes
}

// AddReadyzCheck implements manager.Manager.
func (m probed) AddReadyzCheck(name string, check healthz.Checker) error {
	m.probes.set(name, check)
	return nil
}

// AddHealthzCheck implements manager.Manager.
func (m probed) AddHealthzCheck(name string, check healthz.Checker) error {
	m.probes.mu.Lock()
	defer m.probes.mu.Unlock()
	m.probes.health[name] = check
	return nil
}
