// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/text"
	"countersign.dev/countersign/signer/ca"
)

const (
	actionRotate = "RotateCA"

	// reasonCreated is the reason of the Event on a Signer whose next CA was created.
	reasonCreated = "CAMade"
	// reasonNotRotated is the reason of the Event on a Signer whose annotation to rotate is ignored.
	reasonNotRotated = "NotRotated"
	// reasonKeyRemains is the reason of the Event on a Signer if a private key that is not used cannot be destroyed.
	reasonKeyRemains = "KeyRemains"

	// rotateNow is the value of the rotate annotation.
	rotateNow = "now"

	maxNote = 1024 // bytes, the API server's limit of an Event's note

	// conflictRetry is the delay after a Secret changed before it was written.
	conflictRetry = time.Second
	// errorRetry is the delay after an error, while the newest CA still signs.
	errorRetry = 5 * time.Second
	// forbiddenRetry is the delay after writing a Secret was forbidden: RBAC rules cannot be watched.
	forbiddenRetry = 2 * time.Second
)

// Keys of the Secret of a managed CA, beside tls.crt and tls.key, which are those of the newest CA.
const (
	previousCert = "previous.crt"
	previousKey  = "previous.key"
)

// Managed is the [Source] of spec.ca.managed. It creates the next CA when it is required. The Secret of a CA
// holds its certificates and the references to its keys; a change takes effect when the watch reports it.
type Managed struct {
	Secrets *Secrets
	Writer  *SecretWriter
	Keys    KeyStore
	Signers client.Writer
	Events  events.EventRecorder
}

// state is what the source has read for one Load.
type state struct {
	signer      *v1alpha1.Signer
	secret      Secret
	cas         ca.Managed
	situation   ca.Situation
	rootProblem *ca.Problem // why the root cannot be loaded
	unfit       *ca.Problem // why the newest CA cannot issue certificates of the Signer
}

// Load implements [Source].
func (m *Managed) Load(ctx context.Context, signer *v1alpha1.Signer, now time.Time, fits Fits) (Result, error) {
	s, problem, err := m.read(ctx, signer, now, fits)
	if problem != nil || err != nil {
		return Result{Problem: problem}, err
	}
	created, problem, err := m.advance(ctx, now, s)
	if problem != nil || err != nil {
		return s.notAdvanced(ctx, now, problem, err)
	}
	unusable := s.cas.Newest == nil || s.unfit != nil || s.cas.Newest.Distrusted(s.situation.Distrusted)
	if created && unusable {
		return Result{}, ErrPending // the watch reports the CA that was created
	}
	return s.result(now, fits), nil
}

// read reads the Secret of a managed CA and its root.
func (m *Managed) read(ctx context.Context, signer *v1alpha1.Signer, now time.Time, fits Fits) (*state, *ca.Problem, error) {
	spec := signer.Spec.CA.Managed
	secret, problem, err := m.Secrets.get(spec.SecretName)
	if problem != nil || err != nil {
		return nil, problem, err
	}
	if problem := checkOwnership(signer, secret); problem != nil {
		return nil, problem, nil
	}
	s := &state{signer: signer, secret: secret, situation: ca.Situation{
		Spec: spec, Current: currentAnchor(signer), Signs: signs(signer), Anchors: len(signer.Status.TrustAnchors), Distrusted: signer.Spec.Trust.Distrusted, Requested: rotationRequested(signer),
	}}
	if s.cas, problem, err = m.open(ctx, secret.Data); err != nil {
		return nil, nil, err
	}
	if problem != nil {
		return nil, ca.Problemf(problem.Reason, "%s; or delete the Secret %s, and Countersign creates a new CA", problem.Message, spec.SecretName), nil
	}
	if spec.RootRef != nil {
		if s.situation.Root, s.rootProblem, err = m.Secrets.load(spec.RootRef.Name, now); err != nil {
			return nil, nil, err
		}
	}
	if s.cas.Newest != nil {
		s.unfit = fits(s.cas.Newest)
		s.situation.Unfit = s.unfit != nil
	}
	return s, nil, nil
}

// checkOwnership returns the Problem of a Secret that does not hold the managed CA of the Signer.
func checkOwnership(signer *v1alpha1.Signer, secret Secret) *ca.Problem {
	name := signer.Spec.CA.Managed.SecretName
	switch {
	case secret.Found && secret.Type != v1alpha1.ManagedCASecretType:
		return ca.Problemf(v1alpha1.ReasonNotManaged,
			"Secret %s has type %s, not %s: set spec.ca.managed.secretName to another name, or use the CA in the Secret with spec.ca.secretRef",
			name, secret.Type, v1alpha1.ManagedCASecretType)
	case secret.Signer != "" && secret.Signer != signer.Name:
		return ca.Problemf(v1alpha1.ReasonDuplicateSecret,
			"Secret %s contains the CA of Signer %s: set spec.ca.managed.secretName to another name", name, secret.Signer)
	default:
		return nil
	}
}

// open returns the CAs of a Secret. It is the zero Managed if none has been created yet. An expired CA is not a
// Problem: the next one can be created.
func (m *Managed) open(ctx context.Context, data map[string][]byte) (ca.Managed, *ca.Problem, error) {
	if len(data[corev1.TLSCertKey]) == 0 && len(data[corev1.TLSPrivateKeyKey]) == 0 {
		return ca.Managed{}, nil, nil
	}
	newest, problem, err := m.openCA(ctx, data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if problem != nil || err != nil {
		return ca.Managed{}, problem, err
	}
	if len(data[previousCert]) == 0 {
		return ca.Managed{Newest: newest}, nil, nil
	}
	previous, problem, err := m.openCA(ctx, data[previousCert], data[previousKey])
	if problem != nil {
		problem = ca.Problemf(v1alpha1.ReasonInvalidCA, "reading %s and %s as tls.crt and tls.key: %s", previousCert, previousKey, problem.Message)
	}
	if problem != nil || err != nil {
		return ca.Managed{}, problem, err
	}
	return ca.Managed{Newest: newest, Previous: previous}, nil, nil
}

func (m *Managed) openCA(ctx context.Context, certPEM []byte, reference KeyReference) (*ca.CA, *ca.Problem, error) {
	certificates, problem := ca.ParseCertificates(certPEM)
	if problem != nil {
		return nil, problem, nil
	}
	key, problem, err := m.Keys.Open(ctx, reference)
	if problem != nil || err != nil {
		return nil, problem, err
	}
	c, problem := ca.New(certificates, key)
	return c, problem, nil
}

// advance takes the next step of the managed CA, and reports whether it created a CA.
func (m *Managed) advance(ctx context.Context, now time.Time, s *state) (created bool, _ *ca.Problem, _ error) {
	step, why, problem := s.cas.Next(now, s.situation)
	if problem != nil {
		return false, problem, nil
	}
	switch step {
	case ca.DropPrevious:
		problem, err := m.write(ctx, s, map[string][]byte{previousCert: nil, previousKey: nil})
		return false, problem, err
	case ca.Create:
		if problem, err := m.create(ctx, now, s, why); problem != nil || err != nil {
			return false, problem, err
		}
	case ca.Keep:
	}
	if s.situation.Requested { // with Keep, the next CA has been created already
		return step == ca.Create, nil, m.removeAnnotation(ctx, s.signer)
	}
	return step == ca.Create, nil, nil
}

// create creates the next CA. It creates a key only after all that can be checked before.
func (m *Managed) create(ctx context.Context, now time.Time, s *state, why string) (*ca.Problem, error) {
	if s.rootProblem != nil {
		return ca.Problemf(v1alpha1.ReasonRotationFailed, "a new CA is required, because %s, and its root cannot be used: %s", why, s.rootProblem.Message), nil
	}
	if s.situation.Requested {
		if err := m.removeAnnotation(ctx, s.signer, client.DryRunAll); err != nil {
			return ca.Problemf(v1alpha1.ReasonRotationFailed, "%v (grant the signer patch on signers of countersign.dev)", err), nil
		}
	}
	spec := s.situation.Spec
	if problem, err := m.Writer.Check(ctx, s.signer.Name, spec.SecretName, s.secret); problem != nil || err != nil {
		return problem, err
	}
	if problem := ca.CheckSpec(spec); problem != nil {
		return problem, nil
	}
	next, reference, problem, err := m.generate(ctx, now, s)
	if problem != nil || err != nil {
		return problem, err
	}
	if problem, err := m.write(ctx, s, s.replaced(now, next, reference)); problem != nil || err != nil {
		if problem != nil { // after an error, such as a timeout, the Secret may hold the reference
			m.destroy(ctx, s, reference)
		}
		return problem, err
	}
	log.FromContext(ctx).Info("Created a CA", "secret", spec.SecretName, "why", why)
	m.Events.Eventf(s.signer, nil, corev1.EventTypeNormal, reasonCreated, actionRotate, "%s", text.Shorten("created a new CA, because "+why, maxNote))
	return nil, nil
}

// generate creates a key and issues its CA certificate.
func (m *Managed) generate(ctx context.Context, now time.Time, s *state) (*ca.CA, KeyReference, *ca.Problem, error) {
	spec := s.situation.Spec
	key, reference, problem, err := m.Keys.Create(ctx, spec.KeyAlgorithm)
	if problem != nil || err != nil {
		return nil, nil, problem, err
	}
	next, problem, err := ca.Generate(ctx, now, spec, s.situation.Root, key)
	if problem != nil || err != nil {
		m.destroy(ctx, s, reference)
		return nil, nil, problem, err
	}
	return next, reference, nil, nil
}

// replaced returns the change of the Secret that makes a CA the newest. A nil value removes a key.
func (s *state) replaced(now time.Time, next *ca.CA, reference KeyReference) map[string][]byte {
	change := map[string][]byte{corev1.TLSCertKey: next.EncodeCertificates(), corev1.TLSPrivateKeyKey: reference}
	switch s.cas.Outgoing(now, s.situation.Distrusted) {
	case nil:
		change[previousCert], change[previousKey] = nil, nil
	case s.cas.Newest:
		change[previousCert], change[previousKey] = s.secret.Data[corev1.TLSCertKey], s.secret.Data[corev1.TLSPrivateKeyKey]
	default: // the previous CA stays
	}
	return change
}

// write changes keys of the Secret, and destroys the private keys that it no longer refers to.
func (m *Managed) write(ctx context.Context, s *state, change map[string][]byte) (*ca.Problem, error) {
	if problem, err := m.Writer.Write(ctx, s.signer.Name, s.situation.Spec.SecretName, s.secret, change); problem != nil || err != nil {
		return problem, err
	}
	for _, name := range []string{corev1.TLSPrivateKeyKey, previousKey} {
		reference := s.secret.Data[name]
		if len(reference) == 0 || refers(s.secret.Data, change, reference) {
			continue
		}
		m.destroy(ctx, s, reference)
	}
	return nil, nil
}

// destroy destroys a private key that no Secret refers to. After an error the key remains in its store: no Secret has
// its reference any longer, so a user must delete it.
func (m *Managed) destroy(ctx context.Context, s *state, reference KeyReference) {
	if err := m.Keys.Destroy(ctx, reference); err != nil {
		m.Events.Eventf(s.signer, nil, corev1.EventTypeWarning, reasonKeyRemains, actionRotate, "%s",
			text.Shorten(fmt.Sprintf("delete a private key that is not used from its store: %v", err), maxNote))
		log.FromContext(ctx).Error(err, "Cannot destroy the private key of a CA that is not used", "secret", s.situation.Spec.SecretName)
	}
}

// refers reports whether data refers to a private key once change is applied.
func refers(data, change map[string][]byte, reference KeyReference) bool {
	for _, name := range []string{corev1.TLSPrivateKeyKey, previousKey} {
		value, changed := change[name]
		if !changed {
			value = data[name]
		}
		if bytes.Equal(value, reference) {
			return true
		}
	}
	return false
}

// result returns the Result after the next step was taken.
func (s *state) result(now time.Time, fits Fits) Result {
	if s.unfit != nil {
		// The previous CA signs until the next one can.
		if previous := s.cas.Previous; previous != nil && previous.AnchoredBy(s.situation.Current) && fits(previous) == nil {
			return Result{Newest: previous, RotationProblem: s.unfit}
		}
		return Result{Problem: s.unfit}
	}
	out := Result{Newest: s.cas.Newest, Previous: s.cas.Previous}
	if at := s.cas.RenewAt(s.situation.Spec); at.After(now) { // at an earlier time the next CA was created, and the watch reports it
		out.RequeueAt = at
	}
	changed, problem := s.cas.Changed(now, s.situation.Spec)
	switch {
	case problem != nil:
		out.RotationProblem = problem
	case changed != "":
		out.RotationMessage = fmt.Sprintf("spec.ca.managed changed after the CA was created (%s): changes take effect at the next rotation; to rotate immediately, run 'kubectl annotate signer %s %s=%s'",
			changed, s.signer.Name, v1alpha1.RotateAnnotation, rotateNow)
	}
	return out
}

// notAdvanced returns the Result if the next step failed: the CAs as they are, if the newest one is valid.
func (s *state) notAdvanced(ctx context.Context, now time.Time, problem *ca.Problem, err error) (Result, error) {
	conflict := apierrors.IsConflict(err)
	if conflict {
		log.FromContext(ctx).V(1).Info("The Secret of the CA changed before it was written", "secret", s.situation.Spec.SecretName)
	}
	out := Result{Problem: problem}
	if problem != nil && problem.Reason == v1alpha1.ReasonSecretReadOnly {
		out.RequeueAt = now.Add(forbiddenRetry)
	}
	switch {
	case s.cas.Newest == nil && conflict:
		return Result{}, ErrPending
	case s.cas.Newest == nil || s.cas.Newest.ValidAt(now, 0) != nil:
		return out, err
	}
	out.Newest, out.Previous, out.Problem = s.cas.Newest, s.cas.Previous, nil
	switch {
	case conflict:
		out.RequeueAt = now.Add(conflictRetry)
	case err != nil:
		out.RequeueAt = now.Add(errorRetry)
		out.RotationProblem = &ca.Problem{Reason: v1alpha1.ReasonRotationFailed, Message: err.Error()}
	default:
		out.RotationProblem = problem
	}
	return out, nil
}

// rotationRequested reports whether a Signer is annotated to rotate now.
func rotationRequested(signer *v1alpha1.Signer) bool {
	return signer.Annotations[v1alpha1.RotateAnnotation] == rotateNow
}

// removeAnnotation removes the annotation that requests a rotation.
func (m *Managed) removeAnnotation(ctx context.Context, signer *v1alpha1.Signer, options ...client.PatchOption) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, v1alpha1.RotateAnnotation)
	object := &v1alpha1.Signer{}
	object.Name = signer.Name
	if err := m.Signers.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch), options...); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("removing the annotation %s: %w", v1alpha1.RotateAnnotation, err)
	}
	return nil
}

// signs returns the fingerprint of the CA that signs, or "".
func signs(signer *v1alpha1.Signer) string {
	if signer.Status.CA == nil {
		return ""
	}
	return signer.Status.CA.Fingerprint
}

// currentAnchor returns the fingerprint of the trust anchor that signs, or "".
func currentAnchor(signer *v1alpha1.Signer) string {
	for _, a := range signer.Status.TrustAnchors {
		if a.Phase == v1alpha1.TrustAnchorCurrent {
			return a.Fingerprint
		}
	}
	return ""
}
