// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/approver"
)

// newScheme has the types that the handlers read.
func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme, err := approver.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	return scheme
}

// raw is an object as an AdmissionRequest carries it.
func raw(t *testing.T, object any) runtime.RawExtension {
	t.Helper()
	out, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: out}
}

// answer is an admission.Response, as far as tests assert it.
type answer struct {
	Allowed  bool
	Code     int32
	Reason   metav1.StatusReason
	Message  string
	Warnings []string
}

func answerOf(r admission.Response) answer {
	a := answer{Allowed: r.Allowed, Warnings: r.Warnings}
	if r.Result != nil && !r.Allowed {
		a.Code, a.Reason, a.Message = r.Result.Code, r.Result.Reason, r.Result.Message
	}
	return a
}

func check(t *testing.T, want answer, got admission.Response) {
	t.Helper()
	if diff := cmp.Diff(want, answerOf(got)); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestWarning(t *testing.T) {
	for _, tc := range []struct{ name, text, follows, want string }{
		{"short", "no: not today", " (would be denied)", "no: not today (would be denied)"},
		{"control characters", "no:\nnot\ttoday\x00", "", "no: not today "},
		{"not UTF-8", "no\xff", "!", "no?!"},
		{"just as long", strings.Repeat("a", 254), "!!", strings.Repeat("a", 254) + "!!"},
		{"too long", strings.Repeat("a", 255), "!!", strings.Repeat("a", 251) + "...!!"},
		{"cut in a character", strings.Repeat("ä", 200), "!!", strings.Repeat("ä", 125) + "...!!"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := warning(tc.text, tc.follows)
			if got != tc.want || len(got) > maxWarning || !utf8.ValidString(got) {
				t.Errorf("%d bytes: %q, want %q", len(got), got, tc.want)
			}
		})
	}
}

func TestLimitWarnings(t *testing.T) {
	warnings := make([]string, 20)
	for i := range warnings {
		warnings[i] = strings.Repeat(string(rune('a'+i)), maxWarning)
	}
	if got := limitWarnings(warnings[:16]); len(got) != 16 {
		t.Errorf("%d of 16 that fit", len(got))
	}
	got := limitWarnings(warnings)
	if len(got) != 16 || got[14] != warnings[14] || got[15] != "and 5 more" {
		t.Errorf("%d, the last %q", len(got), got[len(got)-1])
	}
	total := 0
	for _, w := range got {
		total += len(w)
	}
	if total > 4096 {
		t.Errorf("%d bytes in all: the API server would cut them", total)
	}
}

// TestFailureIsAnHTTPError: the API server applies the failurePolicy only then.
func TestFailureIsAnHTTPError(t *testing.T) {
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request:  &admissionv1.AdmissionRequest{UID: "u"},
	}
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		handler func() admission.Response
		code    int
		body    string // whole, of an error
		want    admissionv1.AdmissionResponse
	}{
		{
			name:    "allowed",
			handler: func() admission.Response { return admission.Allowed("").WithWarnings("mind this") }, code: 200,
			want: admissionv1.AdmissionResponse{UID: "u", Allowed: true, Warnings: []string{"mind this"}, Result: &metav1.Status{Code: 200}},
		},
		{
			name:    "rejected",
			handler: func() admission.Response { return deny(422, metav1.StatusReasonInvalid, "no") }, code: 200,
			want: admissionv1.AdmissionResponse{UID: "u", Result: &metav1.Status{Code: 422, Reason: "Invalid", Message: "no"}},
		},
		{
			name:    "rejected for now",
			handler: func() admission.Response { return deny(503, metav1.StatusReasonServiceUnavailable, "later") }, code: 200,
			want: admissionv1.AdmissionResponse{UID: "u", Result: &metav1.Status{Code: 503, Reason: "ServiceUnavailable", Message: "later"}},
		},
		{
			name:    "a failure",
			handler: func() admission.Response { return failure(errors.New("connection refused")) }, code: 500, body: "connection refused\n",
		},
		{
			name:    "a panic",
			handler: func() admission.Response { panic("oops") }, code: 500, body: "panic: oops [recovered]\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			handler := observe("test", admission.HandlerFunc(func(context.Context, admission.Request) admission.Response { return tc.handler() }))
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body))
			request.Header.Set("Content-Type", "application/json")
			recorder := httptest.NewRecorder()
			httpErrors{&admission.Webhook{Handler: handler}}.ServeHTTP(recorder, request)
			if recorder.Code != tc.code {
				t.Errorf("status %d, want %d", recorder.Code, tc.code)
			}
			if tc.code != http.StatusOK {
				if got := recorder.Body.String(); got != tc.body {
					t.Errorf("body %q, want %q", got, tc.body)
				}
				return
			}
			var got admissionv1.AdmissionReview
			if err := json.Unmarshal(recorder.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tc.want, got.Response); diff != "" {
				t.Errorf("response (-want +got):\n%s", diff)
			}
		})
	}
}
