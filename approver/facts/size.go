// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"fmt"
)

// TooLarge returns why the facts are too large to evaluate, and how to resolve it, or "" if they are not.
// size is the size of the facts in bytes of JSON.
func (g *Gathered) TooLarge(size int) string {
	switch {
	case g.Excess != "":
		return g.Excess
	case size <= MaxSize:
		return ""
	}
	part, largest, fix := g.largestPart()
	return fmt.Sprintf("the facts about the request have %d bytes, the maximum is %d; input.%s has %d: %s", size, MaxSize, part, largest, fix)
}

// largestPart returns the part of the facts that takes the most bytes of JSON.
func (g *Gathered) largestPart() (part string, size int, fix string) {
	subject := &g.Cluster.Subject
	for _, p := range []struct {
		name, fix string
		value     any
	}{
		{"request", "create a new request with fewer usages", g.Request},
		{"requester", "create the request as a user with fewer groups and shorter names", g.Requester},
		{"pkcs10", "create a new request with fewer names", g.PKCS10},
		{"cluster.subject.pod", "remove labels and owner references from the Pod", subject.Pod},
		{"cluster.subject.node", "remove labels and addresses from the Node", subject.Node},
		{"cluster.subject.namespace", "remove labels from the Namespace", subject.Namespace},
		{"cluster.subject.services", "reduce the number of Services that select the Pod, or their labels and ports", subject.Services},
		{"cluster.resolved", "create a new request with fewer names", g.Cluster.Resolved},
		{"cluster.sameKey", "create a new request with a new key", g.Cluster.SameKey},
	} {
		if raw, err := json.Marshal(p.value); err == nil && len(raw) > size {
			part, size, fix = p.name, len(raw), p.fix
		}
	}
	return part, size, fix
}
