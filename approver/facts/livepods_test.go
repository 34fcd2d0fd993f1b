// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pages answers lists with pages of JSON, each decoded into the object of the caller as client-go does.
type pages struct {
	client.Reader
	byToken map[string]string
	calls   int
}

func (p *pages) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	if p.calls++; p.calls > 3 {
		return errors.New("the list does not end")
	}
	var o client.ListOptions
	o.ApplyOptions(options)
	return json.Unmarshal([]byte(p.byToken[o.Continue]), list)
}

func TestLivePods_pages(t *testing.T) {
	reader := &pages{byToken: map[string]string{
		"":  `{"metadata": {"continue": "x"}, "items": [{"metadata": {"name": "a"}, "spec": {"hostNetwork": true}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}]}`,
		"x": `{"metadata": {}, "items": [{"metadata": {"name": "b"}, "status": {"podIPs": [{"ip": "10.0.0.2"}]}}]}`,
	}}
	found, err := LivePods{Reader: reader}.withIP(t.Context(), "10.0.0.2", "")
	if err != nil {
		t.Fatal(err)
	}
	if reader.calls != 2 || len(found) != 1 {
		t.Errorf("%d lists found %d Pods, want 2 lists and 1 Pod", reader.calls, len(found))
	}
}
