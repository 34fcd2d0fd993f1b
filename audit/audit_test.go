// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"countersign.dev/countersign/audit"
)

func TestLog(t *testing.T) {
	var out bytes.Buffer
	log := audit.NewLog(&out)
	if err := log.AppendDecision(audit.Decision{ID: "d1", Verdict: "Denied", Reason: "SubjectNotAuthorized", Message: "line one\nline two"}); err != nil {
		t.Fatal(err)
	}
	if err := log.AppendOutcome(audit.OutcomeOf("d1", nil)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("got %d lines, want 2:\n%s", len(lines), out.String())
	}
	var first struct{ Decision audit.Decision }
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if got := first.Decision; got.ID != "d1" || got.Verdict != "Denied" || got.Message != "line one\nline two" {
		t.Errorf("got %+v", got)
	}
	var second struct{ Outcome audit.Outcome }
	if err := json.Unmarshal([]byte(lines[1]), &second); err != nil {
		t.Fatal(err)
	}
	if want := (audit.Outcome{DecisionID: "d1", Result: audit.Written}); second.Outcome != want {
		t.Errorf("got %+v, want %+v", second.Outcome, want)
	}
}

// TestLog_encodingError: a record that cannot be encoded is an error, and the log gets no line.
func TestLog_encodingError(t *testing.T) {
	for _, tc := range []struct {
		name     string
		decision audit.Decision
	}{
		{"facts that are not JSON", audit.Decision{ID: "d1", Facts: json.RawMessage("{")}},
		{"violations without a JSON form", audit.Decision{ID: "d1", Policies: []audit.Policy{{Violations: math.Inf(1)}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			log := audit.NewLog(&out)
			if err := log.AppendDecision(tc.decision); err == nil {
				t.Error("got no error")
			}
			if out.Len() > 0 {
				t.Errorf("the log has %q", out.String())
			}
			if failures := testutil.ToFloat64(log.Metrics()); failures != 1 {
				t.Errorf("failures metric is %v, want 1", failures)
			}
		})
	}
}

// TestLog_bounds: a record has at most MaxRecord bytes, says what it lacks, and keeps its identity.
func TestLog_bounds(t *testing.T) {
	many := func(n, length int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf("%0*d", length, i)
		}
		return out
	}
	extras := func(n, length int) map[string][]string {
		out := map[string][]string{}
		for i, value := range many(n, length) {
			out[fmt.Sprintf("example.com/%06d", i)] = []string{value}
		}
		return out
	}
	facts := func(size int) json.RawMessage {
		return json.RawMessage(`"` + strings.Repeat("x", size-2) + `"`)
	}
	honest := audit.Decision{
		ID: "d1", Verdict: "Held", Message: "not yet", Request: audit.Request{Name: "web", UID: "u", DNSNames: many(64, 253)},
		Requester: audit.Requester{Username: "jane", Groups: many(64, 64), Extra: extras(8, 64)}, Facts: facts(128 << 10), FactsSHA256: "abc",
		Policies: []audit.Policy{{Name: "a", Violations: many(64, 512)}},
	}
	shadow := func(n int, violations any, err string) []audit.Policy {
		return slices.Repeat([]audit.Policy{{Name: "shadow", Audit: true, Violations: violations, Error: err}}, n)
	}
	for _, tc := range []struct {
		name   string
		change func(*audit.Decision)
		want   []string
	}{
		{"the largest honest request", func(*audit.Decision) {}, nil},
		{"many groups", func(d *audit.Decision) { d.Requester.Groups = many(20000, 64) }, []string{"requester"}},
		{"many extras", func(d *audit.Decision) { d.Requester.Extra = extras(20000, 64) }, []string{"requester"}},
		{"one large extra", func(d *audit.Decision) { d.Requester.Extra = extras(1, 900_000) }, []string{"requester"}},
		{"a long username", func(d *audit.Decision) { d.Requester.Username = strings.Repeat("x", 1<<20) }, []string{"requester"}},
		{"many groups of the approving user", func(d *audit.Decision) { d.By = &audit.Requester{Groups: many(20000, 64)} }, []string{"by"}},
		{"a long message", func(d *audit.Decision) { d.Message = strings.Repeat("x", 1<<20) }, []string{"message"}},
		{"a message whose JSON is longer", func(d *audit.Decision) { d.Message = strings.Repeat("\x00", 16<<10) }, []string{"facts"}},
		{"large facts", func(d *audit.Decision) { d.Facts = facts(1 << 20) }, []string{"facts"}},
		{"many violations", func(d *audit.Decision) { d.Policies[0].Violations = many(10000, 512) }, []string{"facts", "policies.violations"}},
		{"long violations of shadow policies", func(d *audit.Decision) { d.Policies = append(d.Policies, shadow(9, many(60, 512), "")...) }, []string{"policies.violations"}},
		{"many errors of shadow policies", func(d *audit.Decision) {
			d.Policies = append(d.Policies, shadow(200, nil, strings.Repeat("x", 1<<10))...)
		}, []string{"policies.violations", "policies"}},
		{"a long error", func(d *audit.Decision) { d.Policies[0].Error = strings.Repeat("x", 1<<20) }, []string{"policies.error"}},
		{"many names", func(d *audit.Decision) { d.Request.DNSNames = many(5000, 253) }, []string{"facts", "policies.violations", "request"}},
		{"many names in the certificate", func(d *audit.Decision) { d.Certificate = &audit.Certificate{URIs: many(5000, 253)} }, []string{"facts", "policies.violations", "request", "certificate"}},
		{"many policies", func(d *audit.Decision) { d.Policies = make([]audit.Policy, 20000) }, []string{"facts", "policies.violations", "request", "certificate", "policies"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := honest
			d.Policies = slices.Clone(honest.Policies)
			tc.change(&d)
			var out bytes.Buffer
			if err := audit.NewLog(&out).AppendDecision(d); err != nil {
				t.Fatal(err)
			}
			var got struct{ Decision audit.Decision }
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if len(out.Bytes()) > audit.MaxRecord+1<<10 { // the log line has a time and a level
				t.Errorf("%d bytes", out.Len())
			}
			if diff := cmp.Diff(tc.want, got.Decision.Truncated); diff != "" {
				t.Errorf("truncated (-want +got):\n%s", diff)
			}
			if got.Decision.ID != "d1" || got.Decision.Request.UID != "u" || got.Decision.FactsSHA256 != "abc" {
				t.Errorf("the record lacks its identity: %+v", got.Decision.Request)
			}
		})
	}
}

type fullDisk struct{ full bool }

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.full {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

func TestLog_writeError(t *testing.T) {
	disk := &fullDisk{full: true}
	log := audit.NewLog(disk)
	err := log.AppendDecision(audit.Decision{ID: "d1"})
	if err == nil || err.Error() != "appending to the audit log: no space left on device" {
		t.Errorf("got %v", err)
	}
	disk.full = false
	if err := log.AppendDecision(audit.Decision{ID: "d1"}); err != nil {
		t.Errorf("after a write error: %v", err)
	}
	if failures := testutil.ToFloat64(log.Metrics()); failures != 1 {
		t.Errorf("failures metric is %v, want 1", failures)
	}
}
