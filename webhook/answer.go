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

// Limits on warnings. If the warnings of all webhooks exceed 4096 characters, the API server shortens
// each to 256 and drops the rest (k8s.io/apiserver, filters/warning.go). These limits stay below.
const (
	maxWarning  = 256 // bytes
	maxWarnings = 16
)

// failure answers with an error. The API server applies the failurePolicy of the webhook.
func failure(err error) admission.Response {
	return admission.Errored(http.StatusInternalServerError, err)
}

// deny rejects a request. The API server prepends the name of the webhook to the message.
func deny(code int32, reason metav1.StatusReason, message string) admission.Response {
	response := admission.Denied(message)
	response.Result.Code, response.Result.Reason = code, reason
	return response
}

// observe counts the answers of a handler, and logs its failures.
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
			log.FromContext(ctx).Info("request failed", "webhook", name, "error", response.Result.Message)
		}
		answers.WithLabelValues(name, answer).Inc()
		return response
	})
}

// httpErrors turns a failure into an HTTP error. The API server takes an admission response with code
// 500 as a rejection, whatever the failurePolicy. It applies the failurePolicy only if the call fails.
type httpErrors struct{ http.Handler }

// ServeHTTP implements http.Handler.
func (f httpErrors) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
		http.Error(w, "invalid admission response", http.StatusInternalServerError)
		return
	}
	if !review.Response.Allowed && review.Response.Status.Code == http.StatusInternalServerError {
		http.Error(w, review.Response.Status.Message, http.StatusInternalServerError)
		return
	}
	maps.Copy(w.Header(), answer.header)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.code)
	_, _ = w.Write(answer.body.Bytes()) // an error means that the client has disconnected
}

// buffer stores an HTTP response.
type buffer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header         { return b.header }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }
func (b *buffer) WriteHeader(code int)        { b.code = code }

// warning returns a message and its consequence, within the limits of the API server. The message is
// shortened to fit, the consequence is not. The API server drops warnings with control characters, so
// they become spaces.
func warning(message, consequence string) string {
	message = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(message, "?"))
	return text.Shorten(message, maxWarning-len(consequence)) + consequence
}

// limitWarnings returns the first warnings, and how many more there are.
func limitWarnings(warnings []string) []string {
	if len(warnings) <= maxWarnings {
		return warnings
	}
	first := warnings[: maxWarnings-1 : maxWarnings-1]
	return append(first, fmt.Sprintf("and %d more", len(warnings)-len(first)))
}
