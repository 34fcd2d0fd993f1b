// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

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

	// maxBundle is how much the API server takes, in bytes, in a ConfigMap and in a ClusterTrustBundle.
	maxBundle = 1 << 20

	parallel  = 8 // namespaces at a time
	maxListed = 8 // namespaces named in an error
)

// ErrPending is in the error of a [Result] while a name is not read yet. That will be soon, and then
// Publish is called for.
var ErrPending = errors.New("not read yet")

// Result is what became of one Publish.
type Result struct {
	// Published names, for the status of the Signer, what exists by our hand; nil if nothing does. While
	// a ConfigMap of another name than the spec's is still to be removed, it names that one.
	Published *v1alpha1.PublishedTrust
	// Complete is true if all that is ours to write holds the bundle. An object of somebody else does
	// not stand against it, nor does what a quota or an admission policy refuses in a namespace, or anybody could
	// hold up a rotation in a namespace of his. Nor does what is still to be removed.
	Complete bool
	// Message says what is where. Example:
	// "ClusterTrustBundle example.com:serving:serving; ConfigMap example-serving-ca in 12 namespaces".
	Message string
	// Err is everything that is not as the spec wants it, with its fix; objects of somebody else are in it.
	Err error
}

// part is what became of one kind of object.
type part struct {
	published string // name of what exists by our hand, or may
	complete  bool
	message   string
	errs      []error
}

// Publish makes what the Signer's spec.trust asks for hold the bundle, PEM certificates, and removes
// what the Signer has published elsewhere: a ConfigMap whose name was changed is removed as
// soon as that of the new name is complete, or at once where a CA is distrusted. It writes only what differs
// from what is watched. An empty bundle publishes nothing, and removes nothing that the spec wants.
//
// A Signer that must give way to another that publishes by its name is passed without that part of its spec.
func (p *Publisher) Publish(ctx context.Context, signer *v1alpha1.Signer, bundle []byte) Result {
	nothing := func(why string, args ...any) Result {
		return Result{Published: signer.Status.Published.DeepCopy(), Err: fmt.Errorf(why, args...)}
	}
	switch {
	case signer.DeletionTimestamp != nil:
		return nothing("the Signer is being deleted, and with it what it has published")
	case len(bundle) == 0 && (signer.Spec.Trust.ClusterTrustBundle || signer.Spec.Trust.ConfigMap != nil):
		return nothing("there is no CA certificate to publish; what was published before is left as it is")
	case len(bundle) > maxBundle:
		return nothing("the CA certificates are %d bytes of PEM, and no more than %d can be published: leave out issuers from the CA's tls.crt", len(bundle), maxBundle)
	}
	ctb := p.publishBundle(ctx, signer, string(bundle))
	configMaps := p.publishConfigMaps(ctx, signer, string(bundle))
	result := Result{Complete: ctb.complete && configMaps.complete, Err: text.JoinErrors(append(ctb.errs, configMaps.errs...)...)}
	if ctb.published != "" || configMaps.published != "" {
		result.Published = &v1alpha1.PublishedTrust{ClusterTrustBundle: ctb.published, ConfigMap: configMaps.published}
	}
	result.Message = strings.Join(slices.DeleteFunc([]string{ctb.message, configMaps.message}, func(s string) bool { return s == "" }), "; ")
	return result
}

// publishBundle writes the ClusterTrustBundle of a Signer, or removes it. Its name never changes.
func (p *Publisher) publishBundle(ctx context.Context, signer *v1alpha1.Signer, bundle string) part {
	name, wanted := BundleName(signer), signer.Spec.Trust.ClusterTrustBundle
	published := signer.Status.Published != nil && signer.Status.Published.ClusterTrustBundle == name
	if !wanted && !published {
		return part{complete: true}
	}
	out := part{complete: !wanted}
	if published {
		out.published = name
	}
	state := p.bundles.State(name)
	if err := unread(kindBundle, name, state.Synced, state.Err); err != nil {
		out.errs = append(out.errs, err)
		return out
	}
	have := state.Objects[types.NamespacedName{Name: name}]
	t := target{kind: kindBundle, name: name, signer: signer, content: bundle}
	if !wanted {
		if have == nil { // the watch may not have seen it yet
			var err error
			if have, err = p.live(ctx, t); err != nil {
				out.errs = append(out.errs, fmt.Errorf("%s %s is not wanted any more, and cannot be read: %w", kindBundle, name, explain(err, t)))
				return out
			}
		}
		if have != nil && have.ownedBy(signer) {
			if err := p.remove(ctx, t, *have); err != nil {
				out.errs = append(out.errs, fmt.Errorf("%s %s is not wanted any more, and cannot be removed: %w", kindBundle, name, explain(err, t)))
				return out
			}
		}
		out.published = ""
		return out
	}
	err := p.write(ctx, t, have)
	switch foreign := (*foreignError)(nil); {
	case err == nil:
		out.complete, out.published, out.message = true, name, kindBundle+" "+name
	case errors.As(err, &foreign):
		out.complete, out.published = true, ""
		out.errs = append(out.errs, fmt.Errorf("%s %s %w: delete it, or set spec.trust.clusterTrustBundle to false", kindBundle, name, err))
	default:
		out.published = name // perhaps it was written
		out.errs = append(out.errs, fmt.Errorf("%s %s: %w", kindBundle, name, explain(err, t)))
	}
	return out
}

// publishConfigMaps writes the ConfigMaps of a Signer, and removes those that it does not want.
func (p *Publisher) publishConfigMaps(ctx context.Context, signer *v1alpha1.Signer, bundle string) part {
	out := part{complete: true}
	wanted := signer.Spec.Trust.ConfigMap
	if wanted != nil {
		out = p.keepConfigMaps(ctx, signer, *wanted, bundle)
	}
	remaining := ""
	for _, name := range p.leftovers(signer) {
		if wanted != nil && !out.complete && len(signer.Spec.Trust.Distrusted) == 0 { // clients do with the one before until there is another
			remaining = name
			continue
		}
		if err := p.removeConfigMaps(ctx, signer, name); err != nil {
			remaining = name
			out.errs = append(out.errs, err)
		}
	}
	if remaining != "" {
		out.published = remaining
	}
	return out
}

// leftovers are the names of ConfigMaps that were written for the Signer, and are not the spec's. That
// of the status comes last, and so is the one that stays there.
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

// note remembers whether there are ConfigMaps of a name.
func (p *Publisher) note(signer *v1alpha1.Signer, name string, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !there {
		delete(p.written[signer.UID], name)
		return
	}
	if p.written[signer.UID] == nil {
		p.written[signer.UID] = map[string]bool{}
	}
	p.written[signer.UID][name] = true
}

// keepConfigMaps writes the ConfigMaps of the spec's name in the namespaces that it chooses, and
// removes those in others.
func (p *Publisher) keepConfigMaps(ctx context.Context, signer *v1alpha1.Signer, wanted v1alpha1.TrustConfigMap, bundle string) part {
	name, key := wanted.Name, wanted.Key
	if key == "" {
		key = defaultKey
	}
	var out part
	if published := signer.Status.Published; published != nil && published.ConfigMap == name {
		out.published = name
	}
	fail := func(err error) part {
		out.errs = append(out.errs, err)
		return out
	}
	if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
		return fail(fmt.Errorf("spec.trust.configMap.name: %s", strings.Join(wrong, "; ")))
	}
	if wrong := validation.IsConfigMapKey(key); len(wrong) > 0 {
		return fail(fmt.Errorf("spec.trust.configMap.key: %s", strings.Join(wrong, "; ")))
	}
	state := p.configMaps.State(name)
	if err := unread(kindConfigMap, name, state.Synced, state.Err); err != nil {
		return fail(err)
	}
	namespaces, err := p.selectNamespaces(ctx, wanted.NamespaceSelector)
	if err != nil {
		return fail(err)
	}
	in := func(namespace string) (target, *seen) {
		t := target{kind: kindConfigMap, namespace: namespace, name: name, signer: signer, key: key, content: bundle}
		return t, state.Objects[types.NamespacedName{Namespace: namespace, Name: name}]
	}
	var unwanted []string
	for at, have := range state.Objects {
		if namespaces.others[at.Namespace] && have.ownedBy(signer) {
			unwanted = append(unwanted, at.Namespace)
		}
	}
	slices.Sort(unwanted)
	p.note(signer, name, true)
	written := each(namespaces.chosen, func(namespace string) error {
		t, have := in(namespace)
		return p.write(ctx, t, have)
	})
	removed := each(unwanted, func(namespace string) error {
		t, have := in(namespace)
		return p.remove(ctx, t, *have)
	})

	count, failed, unknown := len(namespaces.chosen), 0, 0
	var here []failure
	for _, f := range written {
		count--
		switch foreign := (*foreignError)(nil); {
		case gone(f.err):
		case errors.As(f.err, &foreign):
			here = append(here, failure{f.namespace, fmt.Errorf("the ConfigMap %w: delete it, or choose another name in spec.trust.configMap", f.err)})
		case refused(f.err):
			unknown++ // one from before may be there
			here = append(here, failure{f.namespace, f.err})
		default:
			failed++
			here = append(here, failure{f.namespace, explain(f.err, target{kind: kindConfigMap, name: name})})
		}
	}
	out.errs = append(out.errs, join(name, "", here))
	for i := range removed {
		removed[i].err = explain(removed[i].err, target{kind: kindConfigMap, name: name})
	}
	out.errs = append(out.errs, join(name, "not wanted there any more, and cannot be removed: ", removed))
	out.errs = slices.DeleteFunc(out.errs, func(err error) bool { return err == nil })
	out.complete = failed == 0
	out.message = fmt.Sprintf("%s %s in %d namespaces", kindConfigMap, name, count)
	if count == 1 {
		out.message = strings.TrimSuffix(out.message, "s")
	}
	out.published = ""
	if count+failed+unknown+len(removed) > 0 {
		out.published = name
	}
	return out
}

// removeConfigMaps removes all ConfigMaps of a name that are the Signer's.
func (p *Publisher) removeConfigMaps(ctx context.Context, signer *v1alpha1.Signer, name string) error {
	state := p.configMaps.State(name)
	if err := unread(kindConfigMap, name, state.Synced, state.Err); err != nil {
		return fmt.Errorf("%w; it is not wanted any more, and not removed", err)
	}
	// Live: the watch may not have seen yet what was written a moment ago, and nobody would come back to it.
	var list corev1.ConfigMapList
	if err := p.client.List(ctx, &list, client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector(metav1.ObjectNameField, name)}); err != nil {
		return fmt.Errorf("%s %s is not wanted any more, and cannot be listed: %w", kindConfigMap, name, explain(err, target{kind: kindConfigMap, name: name}))
	}
	there := map[string]seen{}
	var ours []string
	for i := range list.Items {
		if found := look(&list.Items[i]); found.ownedBy(signer) {
			there[list.Items[i].Namespace] = *found
			ours = append(ours, list.Items[i].Namespace)
		}
	}
	slices.Sort(ours)
	t := target{kind: kindConfigMap, name: name, signer: signer}
	failures := each(ours, func(namespace string) error {
		here := t
		here.namespace = namespace
		return p.remove(ctx, here, there[namespace])
	})
	for i := range failures {
		failures[i].err = explain(failures[i].err, t)
	}
	if len(failures) == 0 {
		p.note(signer, name, false)
	}
	return join(name, "not wanted any more, and cannot be removed: ", failures)
}

// refused reports whether it is the namespace's own doing that a ConfigMap cannot be written there: a quota, an admission policy, or
// what somebody has put into it beside our key. RBAC is ours to mend.
func refused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err) ||
		apierrors.IsForbidden(err) && !strings.Contains(err.Error(), " cannot ")
}

// gone reports whether the namespace went away in the meantime.
func gone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

type failure struct {
	namespace string
	err       error
}

// each does something in each namespace and returns, in their order, those that it failed in.
func each(namespaces []string, do func(namespace string) error) []failure {
	var (
		mu       sync.Mutex
		failures []failure
		group    errgroup.Group
	)
	group.SetLimit(parallel)
	for _, namespace := range namespaces {
		group.Go(func() error {
			if err := do(namespace); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, failure{namespace, err})
			}
			return nil
		})
	}
	_ = group.Wait() // failures has them
	slices.SortFunc(failures, func(a, b failure) int { return strings.Compare(a.namespace, b.namespace) })
	return failures
}

// join says where it failed and why; nil if nowhere.
func join(name, what string, failures []failure) error {
	if len(failures) == 0 {
		return nil
	}
	var causes []string // in the order of the first namespace of each
	in, whole := map[string][]string{}, map[string]string{}
	for _, f := range failures {
		// The API server names the namespace, which would make each cause another.
		cause := strings.ReplaceAll(f.err.Error(), fmt.Sprintf(" in the namespace %q", f.namespace), "")
		if in[cause] == nil {
			causes = append(causes, cause)
			whole[cause] = f.err.Error()
		}
		in[cause] = append(in[cause], f.namespace+"/"+name)
	}
	parts := make([]string, 0, len(causes))
	for _, cause := range causes {
		where := in[cause]
		if len(where) == 1 {
			cause = whole[cause]
		}
		if len(where) > maxListed {
			where = append(where[:maxListed:maxListed], fmt.Sprintf("and %d more", len(where)-maxListed))
		}
		parts = append(parts, fmt.Sprintf("%s: %s%s", strings.Join(where, ", "), what, cause))
	}
	return errors.New(strings.Join(parts, "; "))
}
