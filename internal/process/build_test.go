// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"runtime/debug"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestBuildOf(t *testing.T) {
	setting := func(key, value string) debug.BuildSetting { return debug.BuildSetting{Key: key, Value: value} }
	for _, tc := range []struct {
		name string
		info debug.BuildInfo
		want string
	}{
		{
			"a release that links OPA",
			debug.BuildInfo{
				GoVersion: "go1.26.1", Main: debug.Module{Version: "v0.2.0"}, Deps: []*debug.Module{{Path: "x", Version: "v1.0.0"}, {Path: opaModule, Version: "v1.22.2"}},
				Settings: []debug.BuildSetting{setting("vcs.revision", "0123abc"), setting("vcs.time", "2026-01-02T03:04:05Z"), setting("vcs.modified", "false")},
			},
			"v0.2.0\ncommit: 0123abc, 2026-01-02T03:04:05Z\ngo: go1.26.1\nopa: v1.22.2\n",
		},
		{
			"changes without OPA",
			debug.BuildInfo{GoVersion: "go1.26.1", Settings: []debug.BuildSetting{setting("vcs.revision", "0123abc"), setting("vcs.modified", "true")}},
			"(devel)\ncommit: 0123abc, modified\ngo: go1.26.1\n",
		},
		{"outside of a repository", debug.BuildInfo{GoVersion: "go1.26.1"}, "(devel)\ncommit: unknown\ngo: go1.26.1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := buildOf(&tc.info).String(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestRegisterBuild(t *testing.T) {
	registry := prometheus.NewRegistry()
	b := build{version: "v0.2.0", revision: "0123abc", goVersion: "go1.26.1"}
	for range 2 { // a second registration is not an error
		if err := registerBuild(registry, b); err != nil {
			t.Fatal(err)
		}
	}
	want := `
# HELP countersign_build_info 1, with the version, the revision and the Go version that the process was built from as labels.
# TYPE countersign_build_info gauge
countersign_build_info{goversion="go1.26.1",revision="0123abc",version="v0.2.0"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
