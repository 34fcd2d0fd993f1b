// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/api/v1alpha1"
)

// Values of the label outcome.
const (
	outcomeIssued  = "issued"  // the API server has the certificate
	outcomeFailed  = "failed"  // the request is marked Failed; reason is the condition's
	outcomeLeft    = "left"    // the request stays approved, with a condition of that reason
	outcomeRetried = "retried" // the request is retried; reason is that of the Signer's condition or one of those below
)

// Values of the label reason, in addition to the reasons of conditions.
const (
	retriedConflict  = "Conflict"  // another client changed the request
	retriedForbidden = "Forbidden" // RBAC does not allow to update the status, or to sign for the signerName
	retriedWrite     = "Write"     // any other error of the API server
	retriedSign      = "Sign"      // any other error of the signer
	retriedStale     = "Stale"     // the Signer has changed since it was loaded
	retriedAudit     = "Audit"     // the decision could not be recorded
)

type metrics struct {
	certificates *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	caNotAfter   *prometheus.GaugeVec
	anchors      *prometheus.GaugeVec
	rotation     *prometheus.GaugeVec
	bundle       *prometheus.GaugeVec
	condition    *prometheus.GaugeVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		certificates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "countersign_signer_certificates_total",
			Help: "Reconciled requests that are due, by Signer, outcome (issued, failed, left, retried) and reason (empty if issued). A request can be retried many times.",
		}, []string{"signer", "outcome", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "countersign_signer_signing_duration_seconds",
			Help:    "Time from the start of reconciling a due request until its certificate is written, by Signer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14), // 1 ms to 8 s
		}, []string{"signer"}),
		caNotAfter: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "countersign_signer_ca_not_after_timestamp_seconds",
			Help: "Expiration time of the CA of a Signer, or of an issuer that expires earlier, in seconds since 1970. Absent while no CA is loaded.",
		}, []string{"signer"}),
		anchors: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "countersign_signer_trust_anchors",
			Help: "CA certificates of a Signer by phase: Next, Current, Retiring.",
		}, []string{"signer", "phase"}),
		rotation: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "countersign_signer_rotation_phase",
			Help: "1 for the reason of a Signer's condition Rotating: Settled, Publishing, Propagating, Overlapping, or the reason why the CA cannot be rotated.",
		}, []string{"signer", "phase"}),
		bundle: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "countersign_signer_trust_bundle_info",
			Help: "1 for the SHA-256 of the trust bundle in PEM that a Signer publishes.",
		}, []string{"signer", "sha256"}),
		condition: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "countersign_signer_condition",
			Help: "1 if a condition of a Signer (Ready, TrustPublished, Rotating) is true, 0 otherwise, with its reason.",
		}, []string{"signer", "type", "reason"}),
	}
	for _, collector := range []prometheus.Collector{m.certificates, m.duration, m.caNotAfter, m.anchors, m.rotation, m.bundle, m.condition} {
		if err := registerer.Register(collector); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// setStatus sets the metrics of a Signer from its status.
func (m *metrics) setStatus(signer string, status *v1alpha1.SignerStatus) {
	m.forgetStatus(signer)
	if status.CA != nil {
		m.caNotAfter.WithLabelValues(signer).Set(float64(status.CA.NotAfter.Unix()))
	}
	for _, phase := range []v1alpha1.TrustAnchorPhase{v1alpha1.TrustAnchorNext, v1alpha1.TrustAnchorCurrent, v1alpha1.TrustAnchorRetiring} {
		m.anchors.WithLabelValues(signer, string(phase)).Set(0)
	}
	for _, a := range status.TrustAnchors {
		m.anchors.WithLabelValues(signer, string(a.Phase)).Inc()
	}
	for _, c := range status.Conditions {
		value := 0.0
		if c.Status == metav1.ConditionTrue {
			value = 1
		}
		m.condition.WithLabelValues(signer, c.Type, c.Reason).Set(value)
	}
	if c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionRotating); c != nil {
		m.rotation.WithLabelValues(signer, c.Reason).Set(1)
	}
	if status.BundleSHA256 != "" {
		m.bundle.WithLabelValues(signer, status.BundleSHA256).Set(1)
	}
}

// forget deletes the series of a Signer that was deleted.
func (m *metrics) forget(signer string) {
	labels := prometheus.Labels{"signer": signer}
	m.certificates.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
	m.forgetStatus(signer)
}

func (m *metrics) forgetStatus(signer string) {
	for _, gauge := range []*prometheus.GaugeVec{m.caNotAfter, m.anchors, m.rotation, m.bundle, m.condition} {
		gauge.DeletePartialMatch(prometheus.Labels{"signer": signer})
	}
}
