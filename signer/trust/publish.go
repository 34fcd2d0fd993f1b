// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/internal/text"
)

const (
	defaultKey = "ca.crt"

	// maxBundle is the API server's limit of a ConfigMap and of a ClusterTrustBundle, in bytes.
	maxBundle = 1 << 20

	parallel = 8 // namespaces written at the same time
	// maxPublication limits a publication in time: the Signer is not reconciled meanwhile, so a change of its spec waits.
	// A publication is incomplete if ConfigMaps remain, and the next one writes these. Writing the ConfigMaps, and removing
	// some, takes at most half of it, so that objects that do not answer do not prevent the removal of others.
	maxPublication = 20 * time.Second

	maxErrors = 64  // errors of the API server in one publication: further objects are not tried
	maxCauses = 8   // causes in an error
	maxCause  = 512 // bytes of one cause: users of a namespace choose parts of it
	maxListed = 8   // namespaces named for a cause
)

// ErrPending is in the error of a [Result] while a name has not been read. The Publisher reports a change when it has
// been.
var ErrPending = errors.New("not read yet")

// Result is the result of [Publisher.Publish].
type Result struct {
	// Published are the names of the objects that the Signer has published, for its status; nil if there are none. The
	// name of ConfigMaps is set even if no namespace is selected or accepts them.
	// While a ConfigMap of a former name is not removed, it is the former name.
	Published *v1alpha1.PublishedTrust
	// Complete is true if every object that the Signer can write contains the bundle, and at least one object does if
	// any is requested. It does not depend on the objects, quotas and admission policies of one namespace, or on
	// removals. Otherwise a user with access to one namespace could delay a rotation. See
	// docs/decisions/0016-namespaces-do-not-delay-a-rotation.md.
	Complete bool
	// Refused is true if all errors are of namespaces that do not accept the ConfigMap.
	Refused bool
	// Message states what is published. Example:
	// "ClusterTrustBundle example.com:serving:serving; ConfigMap example-serving-ca in 12 namespaces".
	Message string
	// Err contains every difference from the spec, with its fix, on one line.
	Err error
}

// part is the result for one kind of object.
type part struct {
	published string // name of the objects that exist, or can exist
	complete  bool
	requested bool // there are objects to write
	held      bool // at least one object has the desired state
	message   string
	refusals  []error // of namespaces
	errs      []error // other errors
}

// fail returns the part with a further error.
func (p part) fail(err error) part {
	p.errs = append(p.errs, err)
	return p
}

// Publish writes a bundle, certificates in PEM, to the objects that spec.trust of a Signer requests, and removes other
// objects that the Signer has published. A ConfigMap of a former name is removed when the ConfigMaps of the new name
// are complete, or immediately if a CA is distrusted. Publish writes only objects that differ from the watched ones.
// An empty bundle publishes nothing, and removes nothing that the spec requests. Publish returns after at most
// [maxPublication].
//
// If another Signer publishes under the same name and has precedence, pass the Signer without that part of the spec.
func (p *Publisher) Publish(ctx context.Context, signer *v1alpha1.Signer, bundle []byte) Result {
	if err := checkPublishable(signer, bundle); err != nil {
		return Result{Published: signer.Status.Published.DeepCopy(), Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	ctb := p.publishBundle(ctx, signer, string(bundle))
	configMaps := p.publishConfigMaps(ctx, signer, string(bundle))
	nowhere := (ctb.requested || configMaps.requested) && !ctb.held && !configMaps.held
	failures := slices.Concat(ctb.errs, configMaps.errs)
	result := Result{
		Complete: ctb.complete && configMaps.complete && !nowhere,
		Refused:  len(failures) == 0 && len(configMaps.refusals) > 0,
		Err:      text.JoinErrors(slices.Concat(failures, configMaps.refusals)...),
	}
	if ctb.published != "" || configMaps.published != "" {
		result.Published = &v1alpha1.PublishedTrust{ClusterTrustBundle: ctb.published, ConfigMap: configMaps.published}
	}
	result.Message = strings.Join(slices.DeleteFunc([]string{ctb.message, configMaps.message}, func(s string) bool { return s == "" }), "; ")
	return result
}

// checkPublishable returns why nothing is written for a Signer.
func checkPublishable(signer *v1alpha1.Signer, bundle []byte) error {
	switch {
	case signer.DeletionTimestamp != nil:
		return errors.New("the Signer is being deleted, together with the objects that it has published")
	case len(bundle) == 0 && (signer.Spec.Trust.ClusterTrustBundle || signer.Spec.Trust.ConfigMap != nil):
		return errors.New("there is no CA certificate to publish; earlier publications stay unchanged")
	case len(bundle) > maxBundle:
		return fmt.Errorf("the CA certificates have %d bytes in PEM, and the limit is %d: remove issuers from tls.crt of the CA", len(bundle), maxBundle)
	}
	return nil
}

// publishBundle writes the ClusterTrustBundle of a Signer, or removes it. Its name never changes.
func (p *Publisher) publishBundle(ctx context.Context, signer *v1alpha1.Signer, bundle string) part {
	t := target{kind: kindBundle, name: BundleName(signer), signer: signer, content: bundle, digest: digestOf(bundle)}
	desired := signer.Spec.Trust.ClusterTrustBundle
	published := signer.Status.Published != nil && signer.Status.Published.ClusterTrustBundle == t.name
	if !desired && !published {
		return part{complete: true}
	}
	out := part{complete: !desired, requested: desired}
	if published {
		out.published = t.name
	}
	state := p.bundles.State(t.name)
	if err := p.checkRead(ctx, t, state.Synced, state.Err); err != nil {
		return out.fail(err)
	}
	have := state.Objects[types.NamespacedName{Name: t.name}]
	if !desired {
		return p.removeBundle(ctx, t, have, out)
	}
	last, err := p.write(ctx, planWrite(t, have))
	switch {
	case err != nil:
		out.published = t.name // the write can have succeeded
		return out.fail(fmt.Errorf("%s %s: %w", kindBundle, t.name, p.explain(ctx, err, t)))
	case last.action == actionBlocked:
		out.complete, out.published = true, ""
		return out.fail(fmt.Errorf("%s %s %s: delete it, or set spec.trust.clusterTrustBundle to false", kindBundle, t.name, last.reason))
	}
	return part{complete: true, requested: true, held: true, published: t.name, message: kindBundle + " " + t.name}
}

// removeBundle removes the ClusterTrustBundle of a Signer.
func (p *Publisher) removeBundle(ctx context.Context, t target, have *observed, out part) part {
	if have == nil { // the watch can lag behind
		var err error
		if have, err = p.live(ctx, t); err != nil {
			return out.fail(fmt.Errorf("%s %s is no longer requested, and cannot be read: %w", t.kind, t.name, p.explain(ctx, err, t)))
		}
	}
	if err := p.executeDelete(ctx, t, have); err != nil {
		return out.fail(fmt.Errorf("%s %s is no longer requested, and cannot be removed: %w", t.kind, t.name, p.explain(ctx, err, t)))
	}
	out.published = ""
	return out
}

func (p *Publisher) executeDelete(ctx context.Context, t target, have *observed) error {
	return p.execute(ctx, planDelete(t, have))
}

// publishConfigMaps writes the ConfigMaps of a Signer, and removes those that the spec does not request.
func (p *Publisher) publishConfigMaps(ctx context.Context, signer *v1alpha1.Signer, bundle string) part {
	out := part{complete: true}
	if desired := signer.Spec.Trust.ConfigMap; desired != nil {
		out = p.writeConfigMaps(ctx, signer, *desired, bundle)
	}
	remove, remaining := planLeftovers(signer, p.leftovers(signer), out.complete)
	for _, name := range remove {
		if err := p.removeConfigMaps(ctx, signer, name); err != nil {
			remaining = append(remaining, name)
			out.errs = append(out.errs, err)
		}
	}
	if len(remaining) > 0 {
		out.published = remaining[len(remaining)-1]
	}
	return out
}

// leftovers returns the names of ConfigMaps that were written for the Signer and are not requested by the spec. The
// name in the status is last.
func (p *Publisher) leftovers(signer *v1alpha1.Signer) []string {
	p.mu.Lock()
	names := slices.Sorted(maps.Keys(p.written[signer.UID]))
	p.mu.Unlock()
	if published := signer.Status.Published; published != nil && published.ConfigMap != "" {
		names = append(slices.DeleteFunc(names, func(name string) bool { return name == published.ConfigMap }), published.ConfigMap)
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return signer.Spec.Trust.ConfigMap != nil && signer.Spec.Trust.ConfigMap.Name == name
	})
}

// setWritten records whether there are ConfigMaps of a name.
func (p *Publisher) setWritten(signer *v1alpha1.Signer, name string, exist bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !exist {
		delete(p.written[signer.UID], name)
		return
	}
	if p.written[signer.UID] == nil {
		p.written[signer.UID] = map[string]bool{}
	}
	p.written[signer.UID][name] = true
}

// writeConfigMaps writes the ConfigMaps in the selected namespaces, and removes those in other namespaces.
func (p *Publisher) writeConfigMaps(ctx context.Context, signer *v1alpha1.Signer, desired v1alpha1.TrustConfigMap, bundle string) part {
	t := target{kind: kindConfigMap, name: desired.Name, signer: signer, key: desired.Key, content: bundle, digest: digestOf(bundle)}
	if t.key == "" {
		t.key = defaultKey
	}
	out := part{requested: true}
	if published := signer.Status.Published; published != nil && published.ConfigMap == t.name {
		out.published = t.name
	}
	if err := checkNames(t); err != nil {
		return out.fail(err)
	}
	state := p.configMaps.State(t.name)
	if err := p.checkRead(ctx, t, state.Synced, state.Err); err != nil {
		return out.fail(err)
	}
	namespaces, err := p.selectNamespaces(ctx, desired.NamespaceSelector)
	if err != nil {
		return out.fail(err)
	}
	have := map[string]*observed{}
	for at, found := range state.Objects {
		have[at.Namespace] = found
	}
	writes, deletes := planNamespaces(t, have, namespaces)
	p.setWritten(signer, t.name, true)
	written := p.writeEach(ctx, t, writes)
	removed := p.deleteEach(ctx, deletes)
	return summarize(t.name, len(writes), written, removed)
}

func checkNames(t target) error {
	if wrong := validation.IsDNS1123Subdomain(t.name); len(wrong) > 0 {
		return fmt.Errorf("spec.trust.configMap.name: %s", strings.Join(wrong, "; "))
	}
	if wrong := validation.IsConfigMapKey(t.key); len(wrong) > 0 {
		return fmt.Errorf("spec.trust.configMap.key: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// failure is the reason why an object in a namespace does not have the desired state.
type failure struct {
	namespace string
	cause     cause
	err       error
}

// cause classifies failures by their effect on the [Result].
type cause string

const (
	causeGone    cause = "Gone"    // the namespace no longer exists
	causeBlocked cause = "Blocked" // an object of another owner exists
	causeRefused cause = "Refused" // by the namespace, or other users change the object; an object of the Signer can exist
	causeFailed  cause = "Failed"  // to be retried: the publication is incomplete
)

// writeConfigMap writes one ConfigMap.
func (p *Publisher) writeConfigMap(ctx context.Context, s step) *failure {
	t := s.target
	last, err := p.write(ctx, s)
	authorized := true
	if apierrors.IsForbidden(err) && !namespaceGone(err) {
		// The review can use RBAC rules that are newer than the answer, so the write is repeated before it counts as
		// refused by the namespace.
		if authorized = p.authorized(ctx, t); authorized {
			last, err = p.write(ctx, s)
		}
	}
	switch {
	case err == nil && last.cause == causeBlocked:
		return &failure{t.namespace, causeBlocked, fmt.Errorf("the ConfigMap %s: delete it, or choose another name in spec.trust.configMap", last.reason)}
	case err == nil && last.action == actionBlocked:
		return &failure{t.namespace, last.cause, fmt.Errorf("the ConfigMap %s", last.reason)}
	case err == nil:
		return nil
	case namespaceGone(err):
		return &failure{t.namespace, causeGone, err}
	case refused(err), apierrors.IsForbidden(err) && authorized:
		return &failure{t.namespace, causeRefused, err}
	case apierrors.IsForbidden(err):
		return &failure{t.namespace, causeFailed, notAuthorized(err, t)}
	default:
		return &failure{t.namespace, causeFailed, p.explain(ctx, err, t)}
	}
}

// refused reports whether users and policies of a namespace can cause an error of the API server: they change the object
// at each try, or reject its content. Errors of the server itself, and missing permissions of the signer, are not
// refusals.
func refused(err error) bool {
	return contentRejected(err) || apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsBadRequest(err)
}

// deleteEach executes steps that delete ConfigMaps.
func (p *Publisher) deleteEach(ctx context.Context, deletes []step) []failure {
	return p.each(ctx, deletes, func(ctx context.Context, s step) *failure {
		if err := p.execute(ctx, s); err != nil {
			return &failure{s.target.namespace, causeFailed, p.explain(ctx, err, s.target)}
		}
		return nil
	})
}

// summarize returns the result of writing the ConfigMaps of a name.
func summarize(name string, count int, written, removed []failure) part {
	byCause := map[cause]int{}
	for _, f := range written {
		byCause[f.cause]++
	}
	count -= byCause[causeGone]
	held := count - byCause[causeBlocked] - byCause[causeRefused] - byCause[causeFailed]
	out := part{
		// The name does not depend on users of namespaces: a change of it starts the propagation period again.
		published: name,
		complete:  byCause[causeFailed] == 0, requested: count > 0, held: held > 0,
		message: fmt.Sprintf("%s %s in %d namespaces", kindConfigMap, name, held),
	}
	if held == 1 {
		out.message = strings.TrimSuffix(out.message, "s")
	}
	is := func(causes ...cause) []failure {
		return slices.DeleteFunc(slices.Clone(written), func(f failure) bool { return !slices.Contains(causes, f.cause) })
	}
	if err := join(name, "", is(causeBlocked, causeRefused)); err != nil {
		out.refusals = append(out.refusals, err)
	}
	for _, err := range []error{join(name, "", is(causeFailed)), join(name, notRemoved, removed)} {
		if err != nil {
			out.errs = append(out.errs, err)
		}
	}
	return out
}

const notRemoved = "no longer requested, and cannot be removed: "

// removeConfigMaps removes all ConfigMaps of a name that belong to the Signer.
func (p *Publisher) removeConfigMaps(ctx context.Context, signer *v1alpha1.Signer, name string) error {
	t := target{kind: kindConfigMap, name: name, signer: signer}
	state := p.configMaps.State(name)
	if err := p.checkRead(ctx, t, state.Synced, state.Err); err != nil {
		return fmt.Errorf("%w; it is no longer requested, and not removed", err)
	}
	// A live list: the watch can lag behind, and the name is not reconciled again once it has been removed.
	var list corev1.ConfigMapList
	if err := p.client.List(ctx, &list, client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector(metav1.ObjectNameField, name)}); err != nil {
		return fmt.Errorf("%s %s is no longer requested, and cannot be listed: %w", kindConfigMap, name, p.explain(ctx, err, t))
	}
	var deletes []step
	for i := range list.Items {
		t.namespace = list.Items[i].Namespace
		if s := planDelete(t, observe(&list.Items[i])); s.action == actionDelete {
			deletes = append(deletes, s)
		}
	}
	slices.SortFunc(deletes, byNamespace)
	failures := p.deleteEach(ctx, deletes)
	if len(failures) == 0 {
		p.setWritten(signer, name, false)
	}
	return join(name, notRemoved, failures)
}

// namespaceGone reports whether a namespace was deleted while it was written to.
func namespaceGone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

func byNamespace(a, b step) int { return strings.Compare(a.target.namespace, b.target.namespace) }

var (
	// errNotTried is the error of a step after too many errors.
	errNotTried = fmt.Errorf("not tried, because %d others failed", maxErrors)
	// errTooLate is the error of a step for which no time is left.
	errTooLate = errors.New("not tried, because the time of one publication is over: the next one follows")
)

// each executes steps, in parallel if they send requests, and returns the failures by namespace. After [maxErrors] errors
// of the API server, or half of the time of a publication, it tries no further steps. The order is random, so that all
// steps are tried in the end.
func (p *Publisher) each(ctx context.Context, steps []step, do func(context.Context, step) *failure) []failure {
	ctx, cancel := context.WithTimeout(ctx, p.limit/2)
	defer cancel()
	results := make([]*failure, len(steps))
	var group errgroup.Group
	group.SetLimit(parallel)
	var failed atomic.Int32
	request := func(s step) *failure {
		switch {
		case failed.Load() >= maxErrors:
			return &failure{s.target.namespace, causeFailed, errNotTried}
		case ctx.Err() != nil:
			return &failure{s.target.namespace, causeFailed, errTooLate}
		}
		f := do(ctx, s)
		if f != nil && f.cause == causeFailed {
			failed.Add(1)
		}
		return f
	}
	for _, i := range rand.Perm(len(steps)) { //nolint:gosec // the order can be predicted
		s := steps[i]
		if s.action == actionKeep || s.action == actionBlocked { // without a request: most of 10,000 namespaces
			results[i] = do(ctx, s)
			continue
		}
		group.Go(func() error {
			results[i] = request(s)
			return nil
		})
	}
	_ = group.Wait() // results has the failures
	var failures []failure
	for _, f := range results {
		if f != nil {
			failures = append(failures, *f)
		}
	}
	return failures
}

// join returns one error for all failures; nil if there are none. It lists the namespaces by cause, up to the limits.
func join(name, what string, failures []failure) error {
	if len(failures) == 0 {
		return nil
	}
	var causes []string // in the order of the first namespace of each
	in, full := map[string][]string{}, map[string]string{}
	for _, f := range failures {
		// The API server names the namespace: without it, equal causes are equal.
		cause := strings.ReplaceAll(f.err.Error(), fmt.Sprintf(" in the namespace %q", f.namespace), "")
		if in[cause] == nil {
			causes = append(causes, cause)
			full[cause] = f.err.Error()
		}
		in[cause] = append(in[cause], f.namespace+"/"+name)
	}
	var parts []string
	for _, cause := range causes[:min(len(causes), maxCauses)] {
		where := in[cause]
		if len(where) == 1 {
			cause = full[cause]
		}
		if len(where) > maxListed {
			where = append(where[:maxListed:maxListed], fmt.Sprintf("and %d more", len(where)-maxListed))
		}
		parts = append(parts, fmt.Sprintf("%s: %s%s", strings.Join(where, ", "), what, text.Shorten(cause, maxCause)))
	}
	if more := len(causes) - maxCauses; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more errors", more))
	}
	return errors.New(strings.Join(parts, "; "))
}
