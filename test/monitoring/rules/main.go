// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Command rules prints the alerts of deploy/components/monitoring, and the queries of its dashboard, as rules that promtool reads.
package main

import (
	"fmt"
	"os"

	"sigs.k8s.io/yaml"

	"countersign.dev/countersign/test/monitoring"
)

func main() {
	rules, dashboard, err := monitoring.Component()
	if err == nil {
		var out []byte
		rules.Groups = append(rules.Groups, dashboard.AsRules())
		if out, err = yaml.Marshal(rules); err == nil {
			_, err = os.Stdout.Write(out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
