// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"countersign.dev/countersign/internal/text"
)

// Warnings are cut to what the API server passes on whatever else is warned of: beyond 4096
// characters in all it cuts each to 256 and drops the rest (k8s.io/apiserver, filters/warning.go).
const (
	maxWarning  = 256 // bytes
	maxWarnings = 16
)

// fault is the answer of who cannot tell: the API server does as the failurePolicy says.
func fault(err error) admission.Response {
	return admission.Errored(http.StatusInternalServerError, err)
}

// deny is a refusal. The API server puts the name of the webhook before the message.
func deny(code int32, reason metav1.StatusReason, message string) admission.Response {
	response := admission.Denied(message)
	response.Result.Code, response.Result.Reason = code, reason
	return response
}

// observe counts the answers of a handler, and logs its faults.
func observe(name string, handler admission.Handler) admission.Handler {
	return admission.HandlerFunc(func(ctx context.Context, req admission.Request) admission.Response {
		response := handler.Handle(ctx, req)
		answer := "refused"
		switch {
		case response.Allowed && len(response.Warnings) > 0:
			answer = "warned"
		case response.Allowed:
			answer = "allowed"
		case response.Result.Code == http.StatusInternalServerError:
			answer = "fault"
			log.FromContext(ctx).Info("no answer", "webhook", name, "error", response.Result.Message)
		}
		answers.WithLabelValues(name, answer).Inc()
		return response
	})
}

// failing makes a fault an HTTP error. An admission response with the code 500 would be a refusal to
// the API server, whatever the failurePolicy: only a call that fails is a failure to it.
type failing struct{ http.Handler }

// ServeHTTP implements http.Handler.
func (f failing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := &buffer{header: http.Header{}, code: http.StatusOK}
	f.Handler.ServeHTTP(answer, r)
	var review struct {
		Response struct {
			Allowed bool
			Status  struct {
				Code    int32
				Message string
			}
		}
	}
	if err := json.Unmarshal(answer.body.Bytes(), &review); err != nil {
		http.Error(w, "no answer", http.StatusInternalServerError)
		return
	}
	if !review.Response.Allowed && review.Response.Status.Code == http.StatusInternalServerError {
		http.Error(w, review.Response.Status.Message, http.StatusInternalServerError)
		return
	}
	maps.Copy(w.Header(), answer.header)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.code)
	_, _ = w.Write(answer.body.Bytes()) // who asked has gone away otherwise
}

// buffer keeps an HTTP response.
type buffer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }
func (b *buffer) WriteHeader(code int)        { b.code = code }

// warning is a text and what follows from it, within what the API server passes on. The text is cut
// if need be, what follows is not. Control characters would have the API server drop it.
func warning(message, follows string) string {
	message = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(message, "?"))
	return text.Shorten(message, maxWarning-len(follows)) + follows
}

// atMost is the first warnings, and how many more there are.
func atMost(warnings []string) []string {
	if len(warnings) <= maxWarnings {
		return warnings
	}
	kept := warnings[: maxWarnings-1 : maxWarnings-1]
	return append(kept, fmt.Sprintf("and %d more", len(warnings)-len(kept)))
}
