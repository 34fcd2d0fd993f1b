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

	"countersign.dev/countersign/approver"
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

func TestApprovalsByHand(t *testing.T) {
	const (
		violations = `not allowed by pod-serving (revision 3f1c0a9d5b7e): dns-name-not-owned: DNS name "other-pod" does not belong to Pod ns/my-pod; usage-missing: usage "server auth" is missing`
		waits      = "not allowed by pod-serving (revision 3f1c0a9d5b7e): ip-address-unknown: nothing has address 10.0.0.1 yet"
		only       = "; decision ID; only who has the verb override-policy on signer example.com/serving may approve it nevertheless"
		kernel     = "WeakKey: the RSA key has 1024 bits: use 2048 to 8192; CertificateAuthority: basic constraints ask for a CA certificate: leave CA:TRUE out"
	)
	forbidden := func(message string) answer {
		return answer{Code: 403, Reason: metav1.StatusReasonForbidden, Message: message}
	}
	overrider := grants{"override-policy example.com/serving": yes}
	mine := request("example.com/serving")
	type told struct{ Verdict, Reason, Message string }
	for name, tc := range map[string]struct {
		old, now  *certificatesv1.CertificateSigningRequest
		judgement approver.Judgement
		err       error
		unloaded  bool
		unseen    error
		grants    grants
		away      bool // the authorizer
		dryRun    bool
		full      bool
		want      answer
		told      *told             // nil if nothing is on record
		noted     map[string]string // annotations; ID stands for the decision's
	}{
		"a denial":                    {now: with(mine, "Denied"), judgement: denied, want: answer{Allowed: true}},
		"a condition of another kind": {now: with(mine, "Example"), judgement: denied, want: answer{Allowed: true}},
		"it is approved already":      {old: with(mine, "Approved"), now: with(mine, "Approved", "Example"), judgement: denied, want: answer{Allowed: true}},
		"another's signer":            {old: request("example.org/x"), now: with(request("example.org/x"), "Approved"), judgement: denied, want: answer{Allowed: true}},
		"another's signer, and the object says it is another": {
			old: request("example.org/x"), now: with(mine, "Approved"), judgement: denied, want: answer{Allowed: true},
		},

		"allowed": {
			judgement: allowed, want: answer{Allowed: true},
			told:  &told{"ApprovalAllowed", "PolicyAllowed", "allowed by pod-serving (revision 3f1c0a9d5b7e)"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalAllowed", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		"allowed, by who may override": {
			judgement: allowed, grants: overrider, want: answer{Allowed: true},
			told:  &told{"ApprovalAllowed", "PolicyAllowed", "allowed by pod-serving (revision 3f1c0a9d5b7e)"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalAllowed", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		"abstained": {
			judgement: abstained, want: answer{Allowed: true},
			told:  &told{"ApprovalAllowed", "NoPolicyApplies", "no policy that enforces applies to the request"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalAllowed", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		"for a namespace that no policy is for": {
			judgement: approver.Judgement{Elsewhere: true}, want: forbidden("every policy for this signer is for namespaces that the request does not speak for" + only),
			told:  &told{"ApprovalRefused", "OtherNamespaces", "every policy for this signer is for namespaces that the request does not speak for"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		"only looked at": {
			judgement: onlyAudit, want: answer{Allowed: true},
			told:  &told{"ApprovalAllowed", "NoPolicyApplies", "no policy that enforces applies to the request"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalAllowed", "policy-revisions": ""},
		},
		"denied": {
			judgement: denied, want: forbidden(violations + only),
			told:  &told{"ApprovalRefused", "SubjectNotAuthorized", violations},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": "office-hours=3f1c0a9d5b7e,pod-serving=3f1c0a9d5b7e"},
		},
		"held": {
			judgement: held, want: forbidden(waits + only),
			told:  &told{"ApprovalRefused", "Held", waits},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		"not loaded": {
			judgement: notLoaded, want: forbidden("policy pod-serving is not loaded: see its status" + only),
			told:  &told{"ApprovalRefused", "PolicyNotLoaded", "policy pod-serving is not loaded: see its status"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		"nothing is loaded yet": {
			unloaded: true, want: forbidden("the request could not be judged: policies have not been loaded yet" + only),
			told:  &told{"ApprovalRefused", "NotJudged", "the request could not be judged: policies have not been loaded yet"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		"a fault": {
			err: errors.New("gathering facts: connection refused"), want: forbidden("the request could not be judged: gathering facts: connection refused" + only),
			told:  &told{"ApprovalRefused", "NotJudged", "the request could not be judged: gathering facts: connection refused"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		"the cache is behind": {
			judgement: allowed, unseen: errors.New("the cache is behind"), want: forbidden("the request could not be judged: the cache is behind" + only),
			told:  &told{"ApprovalRefused", "NotJudged", "the request could not be judged: the cache is behind"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		"refused by the kernel": {
			judgement: refused, want: forbidden(kernel + "; decision ID; no one may approve it: it is not policy that refuses it"),
			told:  &told{"ApprovalRefused", "WeakKey", kernel},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		"refused by the kernel, by who may override": {
			judgement: refused, grants: overrider, want: forbidden(kernel + "; decision ID; no one may approve it: it is not policy that refuses it"),
			told:  &told{"ApprovalRefused", "WeakKey", kernel},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": ""},
		},
		"denied, by who may override": {
			judgement: denied, grants: overrider,
			want:  answer{Allowed: true, Warnings: []string{`policy is overridden: not allowed by pod-serving (revision 3f1c0a9d5b7e): dns-name-not-owned: DNS name "other-pod" does not belong to Pod ns/my-pod; usage-missing: usage "server auth" is missing; decision ID`}},
			told:  &told{"ApprovalOverridden", "SubjectNotAuthorized", violations},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalOverridden", "policy-revisions": "office-hours=3f1c0a9d5b7e,pod-serving=3f1c0a9d5b7e"},
		},
		"a fault, by who may override all signers of the domain": {
			err: errors.New("connection refused"), grants: grants{"override-policy example.com/*": yes},
			want:  answer{Allowed: true, Warnings: []string{"policy is overridden: the request could not be judged: connection refused; decision ID"}},
			told:  &told{"ApprovalOverridden", "NotJudged", "the request could not be judged: connection refused"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalOverridden", "policy-revisions": ""},
		},
		"nothing is loaded yet, by who may override": {
			unloaded: true, grants: overrider,
			want:  answer{Allowed: true, Warnings: []string{"policy is overridden: the request could not be judged: policies have not been loaded yet; decision ID"}},
			told:  &told{"ApprovalOverridden", "NotJudged", "the request could not be judged: policies have not been loaded yet"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalOverridden", "policy-revisions": ""},
		},
		"denied, by who may approve and not override": {
			judgement: denied, grants: grants{"approve example.com/serving": yes}, want: forbidden(violations + only),
			told:  &told{"ApprovalRefused", "SubjectNotAuthorized", violations},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": "office-hours=3f1c0a9d5b7e,pod-serving=3f1c0a9d5b7e"},
		},
		"denied, and the authorizer is away": {
			judgement: held, away: true,
			want:  forbidden(waits + "; who may override policy could not be found out: asking whether jane may override-policy on signer example.com/serving: connection refused" + only),
			told:  &told{"ApprovalRefused", "Held", waits + "; who may override policy could not be found out: asking whether jane may override-policy on signer example.com/serving: connection refused"},
			noted: map[string]string{"decision-id": "ID", "verdict": "ApprovalRefused", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},

		"a dry run that is allowed": {
			judgement: allowed, dryRun: true, want: answer{Allowed: true},
			noted: map[string]string{"verdict": "ApprovalAllowed", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		"a dry run that is refused": {
			judgement: held, dryRun: true, want: forbidden(strings.Replace(waits+only, "decision ID", "not recorded, because this is a dry run", 1)),
			noted: map[string]string{"verdict": "ApprovalRefused", "policy-revisions": "pod-serving=3f1c0a9d5b7e"},
		},
		"allowed, and it cannot be recorded": {
			judgement: allowed, full: true,
			want: answer{Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Message: "the approval cannot be recorded, so it is refused: appending to the audit log: no space left on device"},
		},
		"overridden, and it cannot be recorded": {
			judgement: denied, full: true, grants: overrider,
			want: answer{Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Message: "the approval cannot be recorded, so it is refused: appending to the audit log: no space left on device"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.old == nil {
				tc.old = mine
			}
			if tc.now == nil {
				tc.now = with(tc.old, "Approved")
			}
			if tc.grants == nil && !tc.away {
				tc.grants = grants{}
			}
			log := &disk{full: tc.full}
			judge := &fakeJudge{judgement: tc.judgement, err: tc.err, unloaded: tc.unloaded}
			h := &approvalHandler{
				decoder: admission.NewDecoder(newScheme(t)), judge: judge, access: tc.grants.access(nil), log: audit.NewLog(log), now: func() time.Time { return noon },
				seen: func(context.Context, *certificatesv1.CertificateSigningRequest) error { return tc.unseen },
			}
			got := h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Operation: admissionv1.Update, SubResource: "approval", UserInfo: jane, DryRun: new(tc.dryRun),
				Object: raw(t, tc.now), OldObject: raw(t, tc.old),
			}})
			records := log.records(t)
			id := ""
			if tc.told == nil {
				if len(records) > 0 {
					t.Errorf("on record: %+v", records)
				}
			} else if len(records) != 1 {
				t.Fatalf("%d records, want 1", len(records))
			} else {
				record := records[0]
				id = record.ID
				if diff := cmp.Diff(*tc.told, told{record.Verdict, record.Reason, record.Message}); diff != "" {
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
			if diff := cmp.Diff(tc.noted, got.AuditAnnotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			for _, csr := range judge.judged {
				if !equality.Semantic.DeepEqual(csr, tc.old) {
					t.Errorf("judged %+v, and not as it is stored", csr)
				}
			}
		})
	}
}

// TestWhatItRestsOnIsOnRecord: as of the approver's own decisions.
func TestWhatItRestsOnIsOnRecord(t *testing.T) {
	log := &disk{}
	h := &approvalHandler{
		decoder: admission.NewDecoder(newScheme(t)), judge: &fakeJudge{judgement: denied}, access: grants{}.access(nil), log: audit.NewLog(log), now: time.Now,
		seen: func(context.Context, *certificatesv1.CertificateSigningRequest) error { return nil },
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

func TestAnApprovalThatCannotBeRead(t *testing.T) {
	h := &approvalHandler{decoder: admission.NewDecoder(newScheme(t))}
	got := h.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Update, Object: raw(t, request("example.com/serving")), OldObject: raw(t, "junk"),
	}})
	if got.Allowed || got.Result.Code != 500 {
		t.Errorf("%+v", got)
	}
}

func TestSeenBy(t *testing.T) {
	csr := request("example.com/serving")
	another := csr.DeepCopy()
	another.UID = "another-uid"
	for name, tc := range map[string]struct {
		after int // reads until the cache has it
		has   *certificatesv1.CertificateSigningRequest
		err   string
	}{
		"it is there":                  {has: csr},
		"it comes":                     {after: 3, has: csr},
		"it does not come":             {after: 1000, has: csr, err: "the cache of requests is not as new as the request: try again"},
		"another of its name is there": {has: another, err: "the cache of requests is not as new as the request: try again"},
	} {
		t.Run(name, func(t *testing.T) {
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
			err := seenBy(cached)(ctx, csr)
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%v, want %q", err, tc.err)
			}
		})
	}
}
