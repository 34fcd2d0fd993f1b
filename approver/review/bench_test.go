// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"countersign.dev/countersign/approver/evaluator"
	"countersign.dev/countersign/approver/facts"
	"countersign.dev/countersign/approver/policy"
	"countersign.dev/countersign/policies"
)

// benchFacts returns the facts of a Pod that requests a serving certificate with two DNS names and two addresses of its own.
func benchFacts() facts.Gathered {
	const namespace, name = "my-namespace", "my-pod"
	pod := &facts.Pod{
		Name: name, Namespace: namespace, UID: "pod-uid", Labels: map[string]string{"app": "web", "pod-template-hash": "5d4f8c7b9"},
		PodIPs: []string{"10.0.34.2"}, Phase: "Running", ServiceAccountName: "my-sa", NodeName: "node-1", Ready: true, Owners: []facts.Owner{},
	}
	service := facts.Service{
		Name: "web", Namespace: namespace, UID: "service-uid", Labels: map[string]string{}, Type: "ClusterIP",
		Selector: map[string]string{"app": "web"}, ClusterIPs: []string{"192.0.2.24"}, Ports: []int32{443},
	}
	ofService := []facts.Resolved{{Kind: "Service", Namespace: namespace, Name: "web", UID: service.UID, SelectsSubject: true}}
	ofPod := []facts.Resolved{{Kind: "Pod", Namespace: namespace, Name: name, UID: pod.UID, SelectsSubject: true}}
	return facts.Gathered{Facts: facts.Facts{
		Request: facts.Request{
			Kind: "CertificateSigningRequest", Name: "web", UID: "request-uid", SignerName: "example.com/serving",
			Usages: []certificatesv1.KeyUsage{"digital signature", "key encipherment", "server auth"}, ExpirationSeconds: ptr.To[int32](3600), CreatedAt: since,
		},
		Requester: facts.Requester{
			Username: "system:serviceaccount:my-namespace:my-sa", UID: "sa-uid", Groups: []string{"system:serviceaccounts", "system:authenticated"},
			ServiceAccount: &facts.ServiceAccountRef{Namespace: namespace, Name: "my-sa"},
			Pod:            &facts.ObjectRef{Name: name, UID: pod.UID}, Node: &facts.ObjectRef{Name: "node-1", UID: "node-uid"}, CredentialID: "JTI=1",
		},
		PKCS10: facts.PKCS10{
			Subject:  facts.Subject{Organizations: []string{}, OrganizationalUnits: []string{}, Other: []facts.Attribute{}},
			DNSNames: []string{"web.my-namespace.svc.cluster.local", "my-pod.my-namespace.pod.cluster.local"}, IPAddresses: []string{"192.0.2.24", "10.0.34.2"},
			URIs: []string{}, EmailAddresses: []string{}, Usages: []certificatesv1.KeyUsage{}, Key: facts.Key{Algorithm: "ECDSA", Bits: 256, SHA256: "00"},
		},
		Cluster: facts.Cluster{
			Domain: "cluster.local",
			Subject: facts.ClusterSubject{
				Pod: pod, ServiceAccount: &facts.ServiceAccountRef{Namespace: namespace, Name: "my-sa"},
				Namespace: &facts.Namespace{Name: namespace, UID: "namespace-uid", Labels: map[string]string{"kubernetes.io/metadata.name": namespace}},
				Services:  []facts.Service{service},
			},
			Resolved: map[string][]facts.Resolved{
				"web.my-namespace.svc.cluster.local": ofService, "my-pod.my-namespace.pod.cluster.local": ofPod, "192.0.2.24": ofService, "10.0.34.2": ofPod,
			},
			Delegation: facts.Delegation{Reason: "not reviewed: the requester is a Pod and acts for itself"}, SameKey: []facts.SameKey{},
		},
		Now: since,
	}}
}

// podServing returns the shipped policy under some name, for one signer.
func podServing(b *testing.B, name, signerName string) policy.Policy {
	b.Helper()
	pkg, modules, _ := policies.Builtin("pod-serving")
	active, err := evaluator.Compile(b.Context(), evaluator.Source{
		Package: pkg, Modules: modules, Parameters: map[string]any{"maxExpirationSeconds": 86400, "defaultExpirationSeconds": 86400},
	})
	if err != nil {
		b.Fatal(err)
	}
	return policy.Policy{Name: name, UID: types.UID(name), SignerNames: []string{signerName}, HoldFor: 30 * time.Second, Active: active}
}

// BenchmarkEvaluate measures one evaluation of pod-serving for a request with four names: encoding the facts,
// evaluating the policy, decoding the result.
func BenchmarkEvaluate(b *testing.B) {
	active, f := podServing(b, "pod-serving", "example.com/serving").Active, benchFacts()
	b.ReportAllocs()
	for b.Loop() {
		if result, err := active.Evaluate(b.Context(), evaluator.NewInput(&f.Facts)); err != nil || !result.Allowed {
			b.Fatal(result, err)
		}
	}
}

// BenchmarkPolicies measures finding the one policy that matches the same request among a number of policies, and
// deciding by it.
func BenchmarkPolicies(b *testing.B) {
	for _, count := range []int{1, 200} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			loaded := []policy.Policy{podServing(b, "pod-serving", "example.com/serving")}
			for i := 1; i < count; i++ {
				loaded = append(loaded, podServing(b, fmt.Sprint("other-", i), fmt.Sprint("example.com/other-", i)))
			}
			r, f := &Reviewer{Policies: &policy.Set{}}, benchFacts()
			r.Policies.Replace(loaded)
			b.ReportAllocs()
			for b.Loop() {
				if review, err := r.decide(b.Context(), r.Policies.Matching(f.Request.SignerName), &f, Clocks{}, since); err != nil || review.Outcome != Approve {
					b.Fatal(review.Decision, err)
				}
			}
		})
	}
}
