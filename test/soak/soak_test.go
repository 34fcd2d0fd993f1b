// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"countersign.dev/countersign/test/cluster"
)

// allocates is set for a second process of this test, to the number of MiB that it allocates.
const allocates = "SOAK_TEST_ALLOCATES"

func TestMain(m *testing.M) {
	if mib, err := strconv.Atoi(os.Getenv(allocates)); err == nil {
		fmt.Println(len(bytes.Repeat([]byte{1}, mib<<20)))
		return
	}
	os.Exit(m.Run())
}

// TestSmoke runs each attack for a second, with few and small objects, and checks that the soak works: each attack has its rights, each process is
// measured, and honest requests are issued. It does not assert times, since tests of other packages run beside it.
func TestSmoke(t *testing.T) {
	s := settings{duration: 3 * time.Minute, warmup: time.Second, slot: time.Second, within: patience, intensity: 0.1, once: true}
	r, err := run(t.Context(), s, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	r.print(os.Stderr)
	for _, a := range r.attacks {
		if a.steps == 0 || a.unauthorized > 0 {
			t.Errorf("attack %s: %d steps, of which RBAC forbids %d: %s", a.name, a.steps, a.unauthorized, a.lastError)
		}
	}
	for _, p := range r.processes {
		if p.peak == 0 || p.cpuNow == 0 {
			t.Errorf("%s was not measured", p.name)
		}
	}
	if len(r.api) == 0 {
		t.Error("the API server was not measured")
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter("test", 64<<20)
	t.Logf("limited by %s", l.kind)
	defer func() {
		if err := l.remove(); err != nil {
			t.Error(err)
		}
	}()
	allocate := func(mib string) error {
		program := append(l.prefix(), os.Args[0])
		command := exec.CommandContext(t.Context(), program[0], program[1:]...)
		command.Env = append(os.Environ(), allocates+"="+mib)
		return command.Run()
	}
	if err := allocate("16"); err != nil {
		t.Errorf("a process could not allocate 16 MiB, the limit is 64 MiB: %v", err)
	}
	if kills := l.kills(); kills != 0 {
		t.Errorf("%d out-of-memory kills", kills)
	}
	if err := allocate("256"); err == nil {
		t.Error("a process has allocated 256 MiB, the limit is 64 MiB")
	}
	if l.dir != "" && l.kills() == 0 {
		t.Error("no out-of-memory kill is counted")
	}
}

func TestReadContainer(t *testing.T) {
	root, err := cluster.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"approver", "signer", "webhook"} {
		c, err := readContainer(root, name)
		if err != nil {
			t.Fatal(err)
		}
		if c.memory != 512<<20 || !strings.Contains(strings.Join(c.env, " "), "GOMEMLIMIT=") {
			t.Errorf("%s: %+v, want 512 MiB and GOMEMLIMIT", name, c)
		}
	}
	if _, err := readContainer(root, "none"); err == nil {
		t.Error("a Deployment that does not exist has a container")
	}
}

func TestSelected(t *testing.T) {
	names := map[string]bool{}
	for _, a := range attacks() {
		if names[a.name] {
			t.Errorf("two attacks have the name %s", a.name)
		}
		names[a.name] = true
	}
	some, err := selected([]string{"churn", "bait"})
	if err != nil || len(some) != 2 || some[0].name != "churn" || some[1].user != requesterUser {
		t.Errorf("got %v, %v", some, err)
	}
	if _, err := selected([]string{"none"}); err == nil {
		t.Error("an attack that does not exist is selected")
	}
}

func TestProblems(t *testing.T) {
	healthy := func() *supervised { return &supervised{name: "approver", limit: &limiter{}} }
	issued := result{name: "honest", took: time.Second}
	base := settings{within: 5 * time.Second}
	for _, test := range []struct {
		name   string
		report report
		want   []string
	}{
		{"passed", report{processes: []*supervised{healthy()}, results: []result{issued}}, nil},
		{"no request", report{}, []string{"no honest request was created"}},
		{"a process ended", report{
			processes: []*supervised{{name: "webhook", limit: &limiter{}, deaths: []death{{after: time.Second, attacks: "churn"}}}}, results: []result{issued},
		}, []string{"webhook ended after 1s, during churn"}},
		{"not healthy", report{processes: []*supervised{{name: "signer", limit: &limiter{}, unhealthy: 2}}, results: []result{issued}}, []string{"signer: a kubelet would have restarted it 2 times, because /healthz failed"}},
		{"too late", report{results: []result{{name: "h", took: 6 * time.Second, attacks: "churn"}}}, []string{"h, 0s after the attacks began, during churn: issued after 6s"}},
		{"denied", report{results: []result{{name: "h", took: time.Second, attacks: "bait", failure: "Denied"}}}, []string{"h, 0s after the attacks began, during bait: Denied"}},
		{"without rights", report{results: []result{issued}, attacks: []*attack{{name: "churn", unauthorized: 1, lastError: "no"}}}, []string{"attack churn: RBAC forbids 1 steps, so it tests nothing: no"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.report.settings = base
			if diff := cmp.Diff(test.want, test.report.problems()); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			test.report.print(io.Discard)
		})
	}
}

func TestCommand_invalid(t *testing.T) {
	for _, args := range [][]string{{"-duration=0s"}, {"-slot=-1s"}, {"-intensity=0"}, {"x"}, {"-only=none"}} {
		if err := command(t.Context(), args); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestLabels(t *testing.T) {
	for name, labels := range map[string]map[string]string{"short": full.shortLabels(), "long": full.longLabels()} {
		size := 0
		for key, value := range labels {
			size += len(key) + len(value) + 6 // tags and lengths in protobuf
		}
		if size < largest*8/10 || size > 1_400_000 {
			t.Errorf("%s labels have %d bytes, want about %d", name, size, largest)
		}
	}
}
