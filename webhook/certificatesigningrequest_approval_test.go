// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/approver/review"
	"countersign.dev/countersign/audit"
)

// disk is where the audit log is kept.
type disk struct {
	bytes.Buffer
	full bool
}

func (d *disk) Write(p []byte) (int, error) {
	if d.full {
		return 0, errors.New("no space left on device")
	}
	return d.Buffer.Write(p)
}

// records are the decisions on the disk.
func (d *disk) records(t *testing.T) []audit.Decision {
	t.Helper()
	var out []audit.Decision
	for line := range strings.Lines(d.String()) {
		var record struct{ Decision audit.Decision }
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatal(err)
		}
		out = append(out, record.Decision)
	}
	return out
}

var jane = authenticationv1.UserInfo{
	Username: "jane", UID: "1", Groups: []string{"ops", "system:authenticated"}, Extra: map[string]authenticationv1.ExtraValue{"scopes": {"a"}},
}

func with(csr *certificatesv1.CertificateSigningRequest, conditions ...certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequest {
	out := csr.DeepCopy()
	for _, c := range conditions {
		out.Status.Conditions = append(out.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: c, Status: "True"})
	}
	return out
}

func TestApproval(t *testing.T) {
	const (
		violations = `not allowed by pod-serving (revision 3f1c0a9d5b7e): dns-name-not-owned: DNS name "other-pod" does not belong to Pod ns/my-pod; usage-missing: usage "server auth" is missing`
		waits      = "not allowed by pod-serving (revision 3f1c0a9d5b7e): ip-address-unknown: nothing has address 10.0.0.1 yet"
		only       = "; decision ID; overriding the policy requires the verb \"override-policy\" on signer \"example.com/serving\""
		malformed  = "WeakKey: the RSA key has 1024 bits: use 2048 to 8192; CertificateAuthority: basic constraints ask for a CA certificate: leave CA:TRUE out"
	)
	forbidden := func(message string) answer {
		return answer{Code: 403, Reason: metav1.StatusReasonForbidden, Message: message}
	}
	overrider := grants{"override-policy example.com/serving": yes}
	ours := request("example.com/serving")
	type recorded struct{ Verdict, Reason, Message string }
	for _, tc := range []struct {
		name            string
		old, now        *certificatesv1.CertificateSigningRequest
		reviewed        review.Review
		err             error
		unloaded        bool
		cacheErr        error
		grants          grants
		authorizerFails bool // the authorizer
		dryRun          bool
		full            bool
		want            answer
		recorded        *recorded         // nil if there is no record
		annotations     map[string]string // annotations; ID stands for the decision's
	}{
		{name: "a denial", now: with(ours, "Denied"), reviewed: denied, want: answer{Allowed: true}},
		{name: "a condition of another type", now: with(ours, "Example"), reviewed: denied, want: answer{Allowed: true}},
		{name: "approved already", old: with(ours, "Approved"), now: with(ours, "Approved", "Example"), reviewed: denied, want: answer{Allowed: true}},
		{name: "a signer without a policy", old: request("example.org/x"), now: with(request("example.org/x"), "Approved"), reviewed: denied, want: answer{Allowed: true}},
		{
			name: "another signer in the new object",
			old:  request("example.org/x"), now: with(ours, "Approved"), reviewed: denied, want: answer{Allowed: true},
		},

		{
			name:     "allowed",
			reviewed: allowed, want: answer{Allowed: true},
			recorded:    &recorded{"ApprovalAllowed", "PolicyAllowed", "allowed by pod-serving (revision 3f1c0a9d5b7e)"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalAllowed", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		{
			name:     "allowed, by a user who can override",
			reviewed: allowed, grants: overrider, want: answer{Allowed: true},
			recorded:    &recorded{"ApprovalAllowed", "PolicyAllowed", "allowed by pod-serving (revision 3f1c0a9d5b7e)"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalAllowed", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		{
			name:     "abstained",
			reviewed: abstained, want: answer{Allowed: true},
			recorded:    &recorded{"ApprovalAllowed", "NoPolicyApplies", "no policy in mode Enforce applies to the request"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalAllowed", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		{
			name:     "other namespaces",
			reviewed: review.Review{Decision: review.Decision{Outcome: review.OtherNamespaces}}, want: forbidden("no policy for this signer selects the namespace of the request" + only),
			recorded:    &recorded{"ApprovalRefused", "OtherNamespaces", "no policy for this signer selects the namespace of the request"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		{
			name:     "only a shadow policy",
			reviewed: onlyShadow, want: answer{Allowed: true},
			recorded:    &recorded{"ApprovalAllowed", "NoPolicyApplies", "no policy in mode Enforce applies to the request"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalAllowed", "policy-revisions": ""},
		},
		{
			name:     "denied",
			reviewed: denied, want: forbidden(violations + only),
			recorded:    &recorded{"ApprovalRefused", "SubjectNotAuthorized", violations},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": "office-hours=3f1c0a9d5b7e,pod-serving=3f1c0a9d5b7e"},
		},
		{
			name:     "held",
			reviewed: held, want: forbidden(waits + only),
			recorded:    &recorded{"ApprovalRefused", "Held", waits},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		{
			name:     "not loaded",
			reviewed: notLoaded, want: forbidden("policy pod-serving is not loaded: see its status" + only),
			recorded:    &recorded{"ApprovalRefused", "PolicyNotLoaded", "policy pod-serving is not loaded: see its status"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		{
			name:     "policies are not loaded yet",
			unloaded: true, want: forbidden("the request could not be reviewed: policies have not been loaded yet" + only),
			recorded:    &recorded{"ApprovalRefused", "NotJudged", "the request could not be reviewed: policies have not been loaded yet"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		{
			name: "an error",
			err:  errors.New("gathering facts: connection refused"), want: forbidden("the request could not be reviewed: gathering facts: connection refused" + only),
			recorded:    &recorded{"ApprovalRefused", "NotJudged", "the request could not be reviewed: gathering facts: connection refused"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		{
			name:     "the cache lags behind",
			reviewed: allowed, cacheErr: errors.New("the cache is behind"), want: forbidden("the request could not be reviewed: the cache is behind" + only),
			recorded:    &recorded{"ApprovalRefused", "NotJudged", "the request could not be reviewed: the cache is behind"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		{
			name:     "refused",
			reviewed: refused, want: forbidden(malformed + "; decision ID; no policy can allow this request, so it cannot be overridden"),
			recorded:    &recorded{"ApprovalRefused", "WeakKey", malformed},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		{
			name:     "refused, by a user who can override",
			reviewed: refused, grants: overrider, want: forbidden(malformed + "; decision ID; no policy can allow this request, so it cannot be overridden"),
			recorded:    &recorded{"ApprovalRefused", "WeakKey", malformed},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		{
			name:     "denied, by a user who can override",
			reviewed: denied, grants: overrider,
			want:        answer{Allowed: true, Warnings: []string{`the policies are overridden: not allowed by pod-serving (revision 3f1c0a9d5b7e): dns-name-not-owned: DNS name "other-pod" does not belong to Pod ns/my-pod; usage-missing: usage "server auth" is missing; decision ID`}},
			recorded:    &recorded{"ApprovalOverridden", "SubjectNotAuthorized", violations},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalOverridden", "policy-revisions": "office-hours=3f1c0a9d5b7e,pod-serving=3f1c0a9d5b7e"},
		},
		{
			name: "an error, by a user who can override all signers of the domain",
			err:  errors.New("connection refused"), grants: grants{"override-policy example.com/*": yes},
			want:        answer{Allowed: true, Warnings: []string{"the policies are overridden: the request could not be reviewed: connection refused; decision ID"}},
			recorded:    &recorded{"ApprovalOverridden", "NotJudged", "the request could not be reviewed: connection refused"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalOverridden", "policy-revisions": ""},
		},
		{
			name:     "policies are not loaded yet, by a user who can override",
			unloaded: true, grants: overrider,
			want:        answer{Allowed: true, Warnings: []string{"the policies are overridden: the request could not be reviewed: policies have not been loaded yet; decision ID"}},
			recorded:    &recorded{"ApprovalOverridden", "NotJudged", "the request could not be reviewed: policies have not been loaded yet"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalOverridden", "policy-revisions": ""},
		},
		{
			name:     "denied, by a user who can approve and not override",
			reviewed: denied, grants: grants{"approve example.com/serving": yes}, want: forbidden(violations + only),
			recorded:    &recorded{"ApprovalRefused", "SubjectNotAuthorized", violations},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": "office-hours=3f1c0a9d5b7e,pod-serving=3f1c0a9d5b7e"},
		},
		{
			name:     "denied, and the authorizer fails",
			reviewed: held, authorizerFails: true,
			want:        forbidden(waits + "; checking the verb override-policy failed: checking whether jane can override-policy on signer example.com/serving: connection refused" + only),
			recorded:    &recorded{"ApprovalRefused", "Held", waits + "; checking the verb override-policy failed: checking whether jane can override-policy on signer example.com/serving: connection refused"},
			annotations: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},

		{
			name:     "a dry run that is allowed",
			reviewed: allowed, dryRun: true, want: answer{Allowed: true},
			annotations: map[string]string{"verdict": "ApprovalAllowed", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		{
			name:     "a dry run that is rejected",
			reviewed: held, dryRun: true, want: forbidden(strings.Replace(waits+only, "decision ID", "not recorded, because this is a dry run", 1)),
			annotations: map[string]string{"verdict": "ApprovalRefused", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		{
			name:     "allowed, and it cannot be recorded",
			reviewed: allowed, full: true,
			want: answer{Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Message: "the approval cannot be recorded: appending to the audit log: no space left on device"},
		},
		{
			name:     "overridden, and it cannot be recorded",
			reviewed: denied, full: true, grants: overrider,
			want: answer{Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Message: "the approval cannot be recorded: appending to the audit log: no space left on device"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.old == nil {
				tc.old = ours
			}
			if tc.now == nil {
				tc.now = with(tc.old, "Approved")
			}
			if tc.grants == nil && !tc.authorizerFails {
				tc.grants = grants{}
			}
			log := &disk{full: tc.full}
			reviewer := &fakeReviewer{review: tc.reviewed, err: tc.err, unloaded: tc.unloaded}
			h := &approvalHandler{
				decoder: admission.NewDecoder(newScheme(t)), reviewer: reviewer, access: tc.grants.access(nil), log: audit.NewLog(log),
				awaitCache: func(context.Context, *certificatesv1.CertificateSigningRequest) error { return tc.cacheErr },
			}
			got := h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Operation: admissionv1.Update, SubResource: "approval", UserInfo: jane, DryRun: new(tc.dryRun),
				Object: raw(t, tc.now), OldObject: raw(t, tc.old),
			}})
			records := log.records(t)
			id := ""
			if tc.recorded == nil {
				if len(records) > 0 {
					t.Errorf("recorded: %+v", records)
				}
			} else if len(records) != 1 {
				t.Fatalf("%d records, want 1", len(records))
			} else {
				record := records[0]
				id = record.ID
				if diff := cmp.Diff(*tc.recorded, recorded{record.Verdict, record.Reason, record.Message}); diff != "" {
					t.Errorf("record (-want +got):\n%s", diff)
				}
				wantBy := &audit.Requester{Username: "jane", UID: "1", Groups: []string{"ops", "system:authenticated"}, Extra: map[string][]string{"scopes": {"a"}}}
				if diff := cmp.Diff(wantBy, record.By); diff != "" {
					t.Errorf("by (-want +got):\n%s", diff)
				}
				if record.Requester.Username != "system:serviceaccount:ns:sa" || record.Request.Name != "web" || record.Request.UID != "web-uid" || record.Request.SignerName != tc.old.Spec.SignerName {
					t.Errorf("of %+v, by %+v", record.Request, record.Requester)
				}
			}
			mask := func(s string) string {
				if id == "" {
					return s
				}
				return strings.ReplaceAll(s, id, "ID")
			}
			if got.Result != nil {
				got.Result.Message = mask(got.Result.Message)
			}
			for i := range got.Warnings {
				got.Warnings[i] = mask(got.Warnings[i])
			}
			for key, value := range got.AuditAnnotations {
				got.AuditAnnotations[key] = mask(value)
			}
			check(t, tc.want, got)
			if diff := cmp.Diff(tc.annotations, got.AuditAnnotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			for _, csr := range reviewer.requests {
				if !equality.Semantic.DeepEqual(csr, tc.old) {
					t.Errorf("reviewed %+v, want the stored object", csr)
				}
			}
		})
	}
}

// TestApprovalRecord checks that the record contains the facts and the answers of the policies.
func TestApprovalRecord(t *testing.T) {
	log := &disk{}
	h := &approvalHandler{
		decoder: admission.NewDecoder(newScheme(t)), reviewer: &fakeReviewer{review: denied}, access: grants{}.access(nil), log: audit.NewLog(log),
		awaitCache: func(context.Context, *certificatesv1.CertificateSigningRequest) error { return nil },
	}
	old := request("example.com/serving")
	h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Update, UserInfo: jane, Object: raw(t, with(old, "Approved")), OldObject: raw(t, old),
	}})
	record := log.records(t)[0]
	if len(record.Facts) == 0 || len(record.Policies) != 2 || record.Policies[1].Answer != "deny" || record.Policies[1].Violations == nil {
		t.Errorf("%+v", record)
	}
}

func TestApprovalInvalidObject(t *testing.T) {
	h := &approvalHandler{decoder: admission.NewDecoder(newScheme(t))}
	got := h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Update, Object: raw(t, request("example.com/serving")), OldObject: raw(t, "junk"),
	}})
	if got.Allowed || got.Result.Code != 500 {
		t.Errorf("%+v", got)
	}
}

func TestCacheContains(t *testing.T) {
	csr := request("example.com/serving")
	another := csr.DeepCopy()
	another.UID = "another-uid"
	for _, tc := range []struct {
		name  string
		after int // reads until the cache contains it
		has   *certificatesv1.CertificateSigningRequest
		err   string
	}{
		{name: "the cache contains the request", has: csr},
		{name: "the cache receives the request", after: 3, has: csr},
		{name: "the cache does not receive the request", after: 1000, has: csr, err: "the cache does not contain the request yet, try again"},
		{name: "the cache contains another request with the name", has: another, err: "the cache does not contain the request yet, try again"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reads := 0
			cached := fake.NewClientBuilder().WithScheme(newScheme(t)).WithObjects(tc.has).WithInterceptorFuncs(interceptor.Funcs{
				Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
					if reads++; reads <= tc.after {
						return errors.New("not yet")
					}
					return c.Get(ctx, key, object, options...)
				},
			}).Build()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			if tc.err == "" {
				ctx = t.Context()
			}
			defer cancel()
			err := cacheContains(cached)(ctx, csr)
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%v, want %q", err, tc.err)
			}
		})
	}
}
