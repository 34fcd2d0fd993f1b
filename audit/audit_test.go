// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

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
