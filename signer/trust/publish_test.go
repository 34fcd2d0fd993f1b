// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"countersign.dev/countersign/api/v1alpha1"
)

const (
	bundle     = "bundle"
	mapped     = "example-ca"
	bundleName = "example.com:serving:serving"
)

// newSigner asks for ConfigMaps in the namespaces of team a, and for a ClusterTrustBundle if both is set.
func newSigner(both bool, changes ...func(*v1alpha1.Signer)) *v1alpha1.Signer {
	s := &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving", UID: "signer-uid"}}
	s.Spec.SignerName = "example.com/serving"
	s.Spec.Trust.ClusterTrustBundle = both
	s.Spec.Trust.ConfigMap = &v1alpha1.TrustConfigMap{
		Name: mapped, Key: "ca.crt",
		NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}},
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

// was sets what the status says is published, beside the ConfigMaps.
func was(ctb string) func(*v1alpha1.Signer) {
	return func(s *v1alpha1.Signer) {
		s.Status.Published = &v1alpha1.PublishedTrust{ClusterTrustBundle: ctb, ConfigMap: mapped}
	}
}

func named(name string) func(*v1alpha1.Signer) {
	return func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap.Name = name }
}

func namespace(name, team string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}}
}

// theirs returns a ConfigMap of another user.
func theirs(namespace string, labels map[string]string, owners ...metav1.OwnerReference) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: mapped, UID: "theirs", Labels: labels, OwnerReferences: owners},
		Data:       map[string]string{"ca.crt": "theirs"},
	}
}

var label = map[string]string{ManagedByLabel: ManagedBy}

func ownedBy(apiVersion, name, uid string) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: apiVersion, Kind: "Signer", Name: name, UID: types.UID(uid)}
}

// fakeAPI is an API server as far as a Publisher needs it.
type fakeAPI struct {
	client.WithWatch

	mu      sync.Mutex
	refuse  func(verb, kind, namespace, name string) error // what is asked from now on
	review  func(verb string) bool                         // the answer of access reviews; nil derives it from refuse
	calls   int                                            // but for lists and watches
	reviews int                                            // access reviews
	hang    func(verb, namespace string) bool              // what is not answered until the caller gives up
	begun   map[string]watch.Interface                     // watches that began before the list, so as to miss nothing after it
}

func (f *fakeAPI) ask(verb string, o any, namespace, name string) error {
	kind := kindConfigMap
	if strings.Contains(fmt.Sprintf("%T", o), kindBundle) {
		kind = kindBundle
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if verb != "list" {
		f.calls++
	}
	if f.refuse == nil {
		return nil
	}
	return f.refuse(verb, kind, namespace, name)
}

func (f *fakeAPI) setRefuse(refuse func(verb, kind, namespace, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
}

// authorizes reports whether a refusal, if there is one, is not of the authorizer.
func (f *fakeAPI) authorizes(a *authorizationv1.ResourceAttributes) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reviews++
	if f.review != nil {
		return f.review(a.Verb)
	}
	if f.refuse == nil {
		return true
	}
	kind, verb := kindConfigMap, a.Verb
	if a.Group == certificatesv1.GroupName {
		kind = kindBundle
	}
	if verb == "attest" {
		return false // a test of ClusterTrustBundles refuses
	}
	if verb == "patch" || verb == "create" {
		verb = "apply"
	}
	err := f.refuse(verb, kind, a.Namespace, a.Name)
	return err == nil || !strings.Contains(err.Error(), " cannot ")
}

func newAPI(t *testing.T, objects ...client.Object) *fakeAPI {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	f := &fakeAPI{begun: map[string]watch.Interface{}}
	byName := func(o client.Object) []string { return []string{o.GetName()} }
	f.WithWatch = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithReturnManagedFields().
		WithIndex(&corev1.ConfigMap{}, metav1.ObjectNameField, byName).
		WithIndex(&certificatesv1.ClusterTrustBundle{}, metav1.ObjectNameField, byName).
		WithInterceptorFuncs(interceptor.Funcs{
			Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, options ...client.ApplyOption) error {
				named := o.(interface {
					GetNamespace() *string
					GetName() *string
				})
				namespace := ""
				if named.GetNamespace() != nil {
					namespace = *named.GetNamespace()
				}
				if err := f.ask("apply", o, namespace, *named.GetName()); err != nil {
					return err
				}
				if f.hang != nil && f.hang("apply", namespace) {
					<-ctx.Done()
					return ctx.Err()
				}
				return c.Apply(ctx, o, options...)
			},
			Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
				if err := f.ask("delete", o, o.GetNamespace(), o.GetName()); err != nil {
					return err
				}
				return c.Delete(ctx, o, options...)
			},
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
				if review, ok := o.(*authorizationv1.SelfSubjectAccessReview); ok {
					review.Status.Allowed = f.authorizes(review.Spec.ResourceAttributes)
					return nil
				}
				return c.Create(ctx, o, options...)
			},
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
				if err := f.ask("get", o, key.Namespace, key.Name); err != nil {
					return err
				}
				return c.Get(ctx, key, o, options...)
			},
			List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
				if name := nameIn(options); name != "" { // and not the test's own
					if err := f.ask("list", list, "", name); err != nil {
						return err
					}
					w, err := c.Watch(context.WithoutCancel(ctx), list, options...)
					if err != nil {
						return err
					}
					f.mu.Lock()
					f.begun[fmt.Sprintf("%T", list)+name] = w
					f.mu.Unlock()
				}
				return c.List(ctx, list, options...)
			},
			Watch: func(_ context.Context, _ client.WithWatch, list client.ObjectList, options ...client.ListOption) (watch.Interface, error) {
				var o client.ListOptions
				o.ApplyOptions(options)
				if o.Raw != nil && o.Raw.SendInitialEvents != nil {
					return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil) // the fake does not stream lists
				}
				f.mu.Lock()
				all := f.begun[fmt.Sprintf("%T", list)+nameIn(options)]
				f.mu.Unlock()
				return watch.Filter(all, func(e watch.Event) (watch.Event, bool) {
					object, err := meta.Accessor(e.Object)
					return e, err == nil && object.GetName() == nameIn(options)
				}), nil
			},
		}).Build()
	return f
}

func nameIn(options []client.ListOption) string {
	var o client.ListOptions
	o.ApplyOptions(options)
	if o.FieldSelector == nil {
		return ""
	}
	name, _ := o.FieldSelector.RequiresExactMatch(metav1.ObjectNameField)
	return name
}

// start runs a Publisher.
func start(t *testing.T, api *fakeAPI) (*Publisher, <-chan string) {
	t.Helper()
	changed := make(chan string, 1000)
	p := New(api, api, func(_ context.Context, signer string) { changed <- signer })
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- p.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return p, changed
}

// publish publishes, as soon as everything is read.
func publish(t *testing.T, p *Publisher, signer *v1alpha1.Signer, pem string) (result Result) {
	t.Helper()
	p.Keep([]v1alpha1.Signer{*signer})
	eventually(t, func() error {
		if result = p.Publish(t.Context(), signer, []byte(pem)); errors.Is(result.Err, ErrPending) {
			return result.Err
		}
		return nil
	})
	return result
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in 30 s: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// there is what exists: the data of ConfigMaps and the content of ClusterTrustBundles, with their owners.
func there(t *testing.T, c client.Client) map[string]string {
	t.Helper()
	var configMaps corev1.ConfigMapList
	var bundles certificatesv1.ClusterTrustBundleList
	if err := errors.Join(c.List(t.Context(), &configMaps), c.List(t.Context(), &bundles)); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	describe := func(o client.Object, content string) {
		if o.GetLabels()[ManagedByLabel] != "" {
			content += " managed-by " + o.GetLabels()[ManagedByLabel]
		}
		for _, owner := range o.GetOwnerReferences() {
			content += " of " + string(owner.UID)
			if owner.Controller != nil || owner.BlockOwnerDeletion != nil {
				content += " in its way"
			}
		}
		all[strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")] = content
	}
	for i := range configMaps.Items {
		describe(&configMaps.Items[i], strings.TrimPrefix(fmt.Sprint(configMaps.Items[i].Data), "map"))
	}
	for i := range bundles.Items {
		describe(&bundles.Items[i], bundles.Items[i].Spec.SignerName+" "+bundles.Items[i].Spec.TrustBundle)
	}
	return all
}

const (
	current = "[ca.crt:bundle] managed-by countersign of signer-uid"
	ctb     = "example.com/serving bundle managed-by countersign of signer-uid"
)

func TestPublish(t *testing.T) {
	dying := namespace("dying", "a")
	dying.Finalizers = []string{"kubernetes"}
	dying.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	long := strings.Repeat("a", 253)
	forbidden := func(verbs ...string) func(verb, kind, namespace, name string) error {
		return func(verb, kind, namespace, name string) error {
			for _, v := range verbs {
				if verb != v {
					continue
				}
				return apierrors.NewForbidden(schema.GroupResource{Resource: strings.ToLower(kind) + "s"}, name, fmt.Errorf("User %q cannot %s it", "signer", verb))
			}
			return nil
		}
	}

	in := func(namespace, verb string, err func(name string) error) func(verb, kind, namespace, name string) error {
		return func(v, _, ns, name string) error {
			if v == verb && ns == namespace {
				return err(name)
			}
			return nil
		}
	}

	type ours struct {
		signer     *v1alpha1.Signer
		namespaces []string // of its ConfigMaps
	}
	for _, test := range []struct {
		name    string
		objects []client.Object
		before  []ours // published before
		edit    func(t *testing.T, c client.Client)
		refuse  func(verb, kind, namespace, name string) error
		signer  *v1alpha1.Signer
		bundle  string // "bundle" if empty

		there     map[string]string
		published *v1alpha1.PublishedTrust
		partial   bool
		refused   bool
		message   string
		err       string
		settles   bool // publishing again sends no requests, despite refuse
	}{
		{
			name:    "in the selected namespaces only",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a"), namespace("other", "b"), dying},
			signer:  newSigner(true),
			there:   map[string]string{"one/example-ca": current, "two/example-ca": current, bundleName: ctb}, published: &v1alpha1.PublishedTrust{ClusterTrustBundle: bundleName, ConfigMap: mapped},
			message: "ClusterTrustBundle example.com:serving:serving; ConfigMap example-ca in 2 namespaces",
		},
		{
			name:    "by a Signer with a long name",
			objects: []client.Object{namespace("one", "a")},
			signer:  newSigner(true, func(s *v1alpha1.Signer) { s.Name = long }),
			there:   map[string]string{"one/example-ca": current, "example.com:serving:" + long: ctb}, published: &v1alpha1.PublishedTrust{ClusterTrustBundle: "example.com:serving:" + long, ConfigMap: mapped},
			message: "ClusterTrustBundle example.com:serving:" + long + "; ConfigMap example-ca in 1 namespace",
		},
		{
			name:    "no namespace is selected",
			objects: []client.Object{namespace("other", "b")}, signer: newSigner(false),
			there: map[string]string{}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 0 namespaces",
		},
		{
			name:    "the editor of the only namespace blocks and unblocks it: the names do not change, or propagation would start again",
			objects: []client.Object{namespace("one", "a"), theirs("one", nil)}, signer: newSigner(true),
			there:     map[string]string{"one/example-ca": "[ca.crt:theirs]", bundleName: ctb},
			published: &v1alpha1.PublishedTrust{ClusterTrustBundle: bundleName, ConfigMap: mapped}, message: "ClusterTrustBundle example.com:serving:serving; ConfigMap example-ca in 0 namespaces",
			refused: true, err: "one/example-ca: the ConfigMap exists without the label app.kubernetes.io/managed-by=countersign: delete it, or choose another name in spec.trust.configMap",
		},
		{
			name:    "a next CA",
			objects: []client.Object{namespace("one", "a")}, before: []ours{{newSigner(true), []string{"one"}}},
			signer: newSigner(true, was(bundleName)), bundle: "next",
			there: map[string]string{
				"one/example-ca": "[ca.crt:next] managed-by countersign of signer-uid", bundleName: "example.com/serving next managed-by countersign of signer-uid",
			},
			published: &v1alpha1.PublishedTrust{ClusterTrustBundle: bundleName, ConfigMap: mapped},
			message:   "ClusterTrustBundle example.com:serving:serving; ConfigMap example-ca in 1 namespace",
		},
		{
			name:    "edits are reverted; keys of other users stay",
			objects: []client.Object{namespace("one", "a")}, before: []ours{{newSigner(true), []string{"one"}}},
			edit: func(t *testing.T, c client.Client) {
				update(t, c, "one", func(o *corev1.ConfigMap) { o.Data = map[string]string{"ca.crt": "evil", "more": "x"} })
				var o certificatesv1.ClusterTrustBundle
				if err := c.Get(t.Context(), client.ObjectKey{Name: bundleName}, &o); err != nil {
					t.Fatal(err)
				}
				o.Spec.TrustBundle = "evil"
				if err := c.Update(t.Context(), &o, client.FieldOwner("editor")); err != nil {
					t.Fatal(err)
				}
			},
			signer: newSigner(true, was(bundleName)),
			there:  map[string]string{"one/example-ca": "[ca.crt:bundle more:x] managed-by countersign of signer-uid", bundleName: ctb}, published: &v1alpha1.PublishedTrust{ClusterTrustBundle: bundleName, ConfigMap: mapped},
			message: "ClusterTrustBundle example.com:serving:serving; ConfigMap example-ca in 1 namespace",
		},
		{
			name:    "a removed label or owner is restored",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a")}, before: []ours{{newSigner(false), []string{"one", "two"}}},
			edit: func(t *testing.T, c client.Client) {
				update(t, c, "one", func(o *corev1.ConfigMap) { o.Labels = nil })
				update(t, c, "two", func(o *corev1.ConfigMap) { o.OwnerReferences = nil })
			},
			signer: newSigner(false, was("")), there: map[string]string{"one/example-ca": current, "two/example-ca": current},
			published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 2 namespaces",
		},
		{
			name:    "an immutable ConfigMap is replaced",
			objects: []client.Object{namespace("one", "a")}, before: []ours{{newSigner(false), []string{"one"}}},
			edit: func(t *testing.T, c client.Client) {
				update(t, c, "one", func(o *corev1.ConfigMap) {
					o.Immutable, o.Data = new(true), map[string]string{"ca.crt": "evil", "more": "x"}
				})
			},
			signer: newSigner(false, was("")), there: map[string]string{"one/example-ca": current},
			published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
		},
		{
			name:    "the key is changed",
			objects: []client.Object{namespace("one", "a")}, before: []ours{{newSigner(false), []string{"one"}}},
			signer:    newSigner(false, was(""), func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap.Key = "roots.pem" }),
			there:     map[string]string{"one/example-ca": "[roots.pem:bundle] managed-by countersign of signer-uid"},
			published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
		},
		{
			name:      "an earlier version wrote it",
			objects:   []client.Object{namespace("one", "a"), namespace("other", "b"), theirs("one", label), theirs("other", label)},
			signer:    newSigner(false),
			there:     map[string]string{"one/example-ca": current, "other/example-ca": "[ca.crt:theirs] managed-by countersign"},
			published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
		},
		{
			name: "objects of other users are unchanged, and delay nothing",
			objects: []client.Object{
				namespace("n1", "a"), namespace("n2", "a"), namespace("n3", "a"), namespace("n4", "a"), namespace("n5", "a"), namespace("n6", "a"),
				theirs("n1", nil),
				theirs("n2", map[string]string{ManagedByLabel: "Helm"}),
				theirs("n3", label, ownedBy("countersign.dev/v1alpha1", "other", "other-uid")),
				theirs("n4", label, ownedBy("countersign.dev/v1alpha1", "serving", "old-uid")),
				theirs("n5", label, ownedBy("example.com/v1", "serving", "signer-uid")),
				&certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: bundleName}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: "example.com/serving", TrustBundle: "theirs"}},
			},
			signer: newSigner(true),
			there: map[string]string{
				"n1/example-ca": "[ca.crt:theirs]",
				"n2/example-ca": "[ca.crt:theirs] managed-by Helm",
				"n3/example-ca": "[ca.crt:theirs] managed-by countersign of other-uid",
				"n4/example-ca": "[ca.crt:theirs] managed-by countersign of old-uid",
				"n5/example-ca": "[ca.crt:theirs] managed-by countersign of signer-uid",
				"n6/example-ca": current,
				bundleName:      "example.com/serving theirs",
			},
			published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
			err: "ClusterTrustBundle example.com:serving:serving exists without the label app.kubernetes.io/managed-by=countersign: delete it, or set spec.trust.clusterTrustBundle to false; " +
				"n1/example-ca, n2/example-ca: the ConfigMap exists without the label app.kubernetes.io/managed-by=countersign: delete it, or choose another name in spec.trust.configMap; " +
				"n3/example-ca: the ConfigMap belongs to the Signer \"other\": delete it, or choose another name in spec.trust.configMap; " +
				"n4/example-ca: the ConfigMap belongs to a Signer of this name that was deleted, and is removed by the garbage collector: delete it, or choose another name in spec.trust.configMap; " +
				"n5/example-ca: the ConfigMap belongs to the \"Signer\" \"serving\": delete it, or choose another name in spec.trust.configMap",
		},
		{
			name:      "a namespace is no longer selected",
			objects:   []client.Object{namespace("one", "a"), namespace("two", "b"), namespace("three", "b"), theirs("three", nil)},
			before:    []ours{{newSigner(false), []string{"one", "two"}}},
			signer:    newSigner(false, was("")),
			there:     map[string]string{"one/example-ca": current, "three/example-ca": "[ca.crt:theirs]"},
			published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
		},
		{
			name:    "the name is changed",
			objects: []client.Object{namespace("one", "a"), namespace("two", "b")}, before: []ours{{newSigner(false), []string{"one", "two"}}},
			signer:    newSigner(false, named("new-ca"), was("")),
			there:     map[string]string{"one/new-ca": current},
			published: &v1alpha1.PublishedTrust{ConfigMap: "new-ca"}, message: "ConfigMap new-ca in 1 namespace",
		},
		{
			name:    "the name is changed, and the new one cannot be written",
			objects: []client.Object{namespace("one", "a")}, before: []ours{{newSigner(false), []string{"one"}}},
			refuse: forbidden("apply"), signer: newSigner(false, named("new-ca"), was("")),
			there:     map[string]string{"one/example-ca": current},
			published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, partial: true, message: "ConfigMap new-ca in 0 namespaces",
			err: `one/new-ca: configmaps "new-ca" is forbidden: User "signer" cannot apply it (grant the signer get, create, patch and delete on configmaps with resourceNames ["new-ca"], there or by a ClusterRole)`,
		},
		{
			name:    "the name is changed, and the old one cannot be removed",
			objects: []client.Object{namespace("one", "a")}, before: []ours{{newSigner(false), []string{"one"}}},
			refuse: forbidden("delete"), signer: newSigner(false, named("new-ca"), was("")),
			there:     map[string]string{"one/example-ca": current, "one/new-ca": current},
			published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap new-ca in 1 namespace",
			err: `one/example-ca: no longer requested, and cannot be removed: configmaps "example-ca" is forbidden: User "signer" cannot delete it (grant the signer get, create, patch and delete on configmaps with resourceNames ["example-ca"], there or by a ClusterRole)`,
		},
		{
			name:    "nothing is requested",
			objects: []client.Object{namespace("one", "a"), namespace("two", "b"), theirs("two", label)}, before: []ours{{newSigner(true), []string{"one"}}},
			signer: newSigner(false, was(bundleName), func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap = nil }),
			there:  map[string]string{"two/example-ca": "[ca.crt:theirs] managed-by countersign"},
		},
		{
			name:    "objects of another Signer are not removed",
			objects: []client.Object{namespace("one", "a"), theirs("one", label, ownedBy("countersign.dev/v1alpha1", "other", "other-uid"))},
			signer:  newSigner(false, was(""), func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap = nil }),
			there:   map[string]string{"one/example-ca": "[ca.crt:theirs] managed-by countersign of other-uid"},
		},
		{
			name:    "the namespace is deleted during the write",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a")}, signer: newSigner(false),
			refuse: func(verb, _, namespace, name string) error {
				if verb != "apply" {
					return nil
				}
				if namespace == "one" {
					return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, namespace)
				}
				terminating := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New("being deleted"))
				terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
				return terminating
			},
			there: map[string]string{}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 0 namespaces",
		},
		{
			name:    "a quota of one namespace forbids it",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a")}, signer: newSigner(false),
			refuse: in("one", "apply", func(name string) error {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New("exceeded quota: q"))
			}),
			there: map[string]string{"two/example-ca": current}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
			refused: true, err: `one/example-ca: configmaps "example-ca" is forbidden: exceeded quota: q`,
		},
		{
			name:    "every namespace refuses it",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a")}, signer: newSigner(false),
			refuse: func(verb, _, _, name string) error {
				if verb == "apply" {
					return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New("denied by policy"))
				}
				return nil
			},
			there: map[string]string{}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, partial: true, message: "ConfigMap example-ca in 0 namespaces",
			refused: true, err: `one/example-ca, two/example-ca: configmaps "example-ca" is forbidden: denied by policy`,
		},
		{
			name:    "a user changes it at each write",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a")}, signer: newSigner(false),
			refuse: in("one", "apply", func(name string) error {
				return apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, name, errors.New("the object has been modified"))
			}),
			there: map[string]string{"two/example-ca": current}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
			refused: true, err: `one/example-ca: Operation cannot be fulfilled on configmaps "example-ca": the object has been modified`,
		},
		{
			name:    "a policy engine rejects it with another code",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a")}, signer: newSigner(false),
			refuse: in("one", "apply", func(string) error { return apierrors.NewBadRequest("denied") }),
			there:  map[string]string{"two/example-ca": current}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
			refused: true, err: "one/example-ca: denied",
		},
		{
			name:    "the API server has an error in one namespace",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a")}, signer: newSigner(false),
			refuse: in("one", "apply", func(string) error { return apierrors.NewInternalError(errors.New("away")) }),
			there:  map[string]string{"two/example-ca": current}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
			partial: true, err: "one/example-ca: Internal error occurred: away",
		},
		{
			name:    "the API server is too busy",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a")}, signer: newSigner(false),
			refuse: in("one", "get", func(string) error { return apierrors.NewTooManyRequests("busy", 1) }),
			there:  map[string]string{"two/example-ca": current}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
			partial: true, err: "one/example-ca: busy",
		},
		{
			name:    "the ClusterTrustBundle of another user exists, and nothing else is requested",
			objects: []client.Object{&certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: bundleName}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: "example.com/serving", TrustBundle: "theirs"}}},
			signer:  newSigner(true, func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap = nil }),
			there:   map[string]string{bundleName: "example.com/serving theirs"}, partial: true,
			err: "ClusterTrustBundle example.com:serving:serving exists without the label app.kubernetes.io/managed-by=countersign: delete it, or set spec.trust.clusterTrustBundle to false",
		},
		{
			name:    "an immutable ConfigMap that a finalizer keeps",
			objects: []client.Object{namespace("one", "a"), namespace("two", "a")}, before: []ours{{newSigner(false), []string{"one", "two"}}},
			edit: func(t *testing.T, c client.Client) {
				update(t, c, "one", func(o *corev1.ConfigMap) {
					o.Immutable, o.Data, o.Finalizers = new(true), map[string]string{"ca.crt": "evil"}, []string{"example.com/mine"}
				})
			},
			refuse: in("one", "apply", func(name string) error { // it still exists, and the editor owns the field
				return apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, name, errors.New(`conflict with "editor": .data.ca.crt`))
			}),
			signer: newSigner(false, was("")), settles: true,
			there:     map[string]string{"one/example-ca": "[ca.crt:evil] managed-by countersign of signer-uid", "two/example-ca": current},
			published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, message: "ConfigMap example-ca in 1 namespace",
			refused: true, err: "one/example-ca: the ConfigMap is immutable or has binaryData, and a finalizer prevents its deletion: remove the finalizer",
		},
		{
			name:   "attest is forbidden",
			signer: newSigner(true, func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap = nil }),
			refuse: func(verb, _, _, name string) error {
				if verb == "apply" {
					return apierrors.NewForbidden(schema.GroupResource{Resource: "clustertrustbundles"}, name, errors.New(`user not permitted to attest for signerName "example.com/serving"`))
				}
				return nil
			},
			there: map[string]string{}, published: &v1alpha1.PublishedTrust{ClusterTrustBundle: bundleName}, partial: true,
			err: `ClusterTrustBundle example.com:serving:serving: clustertrustbundles "example.com:serving:serving" is forbidden: user not permitted to attest for signerName "example.com/serving" (grant the signer attest on signers with resourceNames ["example.com/serving"])`,
		},
		{
			name:    "reading is forbidden",
			objects: []client.Object{namespace("one", "a")}, signer: newSigner(true), refuse: forbidden("list"),
			there: map[string]string{}, partial: true,
			err: `the signer is not allowed to read ClusterTrustBundle example.com:serving:serving: grant list and watch on clustertrustbundles with resourceNames ["example.com:serving:serving"], by a ClusterRole; ` +
				`the signer is not allowed to read ConfigMap example-ca: grant list and watch on configmaps with resourceNames ["example-ca"], by a ClusterRole`,
		},
		{
			name:   "the API server does not serve ClusterTrustBundles",
			signer: newSigner(true, func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap = nil }),
			refuse: func(_, kind, _, _ string) error {
				return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "certificates.k8s.io", Kind: kind}, SearchedVersions: []string{"v1"}}
			},
			there: map[string]string{}, partial: true,
			err: `reading ClusterTrustBundle example.com:serving:serving: no matches for kind "ClusterTrustBundle" in version "certificates.k8s.io/v1" (the API server must serve ClusterTrustBundles of certificates.k8s.io/v1, as Kubernetes 1.37 does)`,
		},
		{
			name:    "an invalid selector",
			objects: []client.Object{namespace("one", "a")}, before: []ours{{newSigner(false), []string{"one"}}},
			signer: newSigner(false, was(""), func(s *v1alpha1.Signer) {
				s.Spec.Trust.ConfigMap.NamespaceSelector = metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Near"}}}
			}),
			there: map[string]string{"one/example-ca": current}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, partial: true,
			err: `spec.trust.configMap.namespaceSelector: "Near" is not a valid label selector operator`,
		},
		{
			name:    "an invalid key",
			objects: []client.Object{namespace("one", "a")}, before: []ours{{newSigner(false), []string{"one"}}},
			signer: newSigner(false, was(""), func(s *v1alpha1.Signer) { s.Spec.Trust.ConfigMap.Key = "a/b" }),
			there:  map[string]string{"one/example-ca": current}, published: &v1alpha1.PublishedTrust{ConfigMap: mapped}, partial: true,
			err: "spec.trust.configMap.key: a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
		},
		{
			name:    "too large",
			objects: []client.Object{namespace("one", "a")}, before: []ours{{newSigner(true), []string{"one"}}},
			signer: newSigner(true, was(bundleName)), bundle: strings.Repeat("x", 1<<20+1),
			there: map[string]string{"one/example-ca": current, bundleName: ctb}, published: &v1alpha1.PublishedTrust{ClusterTrustBundle: bundleName, ConfigMap: mapped}, partial: true,
			err: "the CA certificates have 1048577 bytes in PEM, and the limit is 1048576: remove issuers from tls.crt of the CA",
		},
		{
			name:    "the Signer is being deleted",
			objects: []client.Object{namespace("one", "a")},
			signer:  newSigner(true, was(bundleName), func(s *v1alpha1.Signer) { s.DeletionTimestamp = &metav1.Time{Time: time.Now()} }),
			there:   map[string]string{}, published: &v1alpha1.PublishedTrust{ClusterTrustBundle: bundleName, ConfigMap: mapped}, partial: true,
			err: "the Signer is being deleted, together with the objects that it has published",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := newAPI(t, test.objects...)
			for _, before := range test.before {
				targets := []target{}
				if before.signer.Spec.Trust.ClusterTrustBundle {
					targets = append(targets, target{kind: kindBundle, name: BundleName(before.signer)})
				}
				for _, namespace := range before.namespaces {
					where := before.signer.Spec.Trust.ConfigMap
					targets = append(targets, target{kind: kindConfigMap, namespace: namespace, name: where.Name, key: where.Key})
				}
				for _, created := range targets {
					created.signer, created.content = before.signer, bundle
					if err := api.Apply(t.Context(), created.configuration(nil), client.FieldOwner(FieldOwner)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if test.edit != nil {
				test.edit(t, api)
			}
			api.setRefuse(test.refuse)
			p, _ := start(t, api)
			pem := test.bundle
			if pem == "" {
				pem = bundle
			}
			check := func(result Result) {
				t.Helper()
				got := ""
				if result.Err != nil {
					got = result.Err.Error()
				}
				if got != test.err {
					t.Errorf("error\n%s\nwant\n%s", got, test.err)
				}
				if result.Refused != test.refused {
					t.Errorf("refused %v, want %v", result.Refused, test.refused)
				}
				if result.Complete == test.partial || result.Message != test.message {
					t.Errorf("complete %v, %q; want %v, %q", result.Complete, result.Message, !test.partial, test.message)
				}
				if diff := cmp.Diff(test.published, result.Published); diff != "" {
					t.Errorf("published (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(test.there, there(t, api)); diff != "" {
					t.Errorf("there is (-want +got):\n%s", diff)
				}
			}
			result := publish(t, p, test.signer, pem)
			check(result)
			if test.refuse != nil && !test.settles {
				return
			}
			// Publishing again sends no requests once the watches have caught up.
			test.signer.Status.Published = result.Published
			p.Keep([]v1alpha1.Signer{*test.signer})
			eventually(t, func() error {
				api.mu.Lock()
				api.calls = 0
				api.mu.Unlock()
				result = p.Publish(t.Context(), test.signer, []byte(pem))
				api.mu.Lock()
				defer api.mu.Unlock()
				if api.calls > 0 {
					return fmt.Errorf("%d calls although nothing has changed", api.calls)
				}
				return nil
			})
			check(result)
		})
	}
}

// update edits a ConfigMap as another user.
func update(t *testing.T, c client.Client, namespace string, change func(*corev1.ConfigMap)) {
	t.Helper()
	var o corev1.ConfigMap
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: mapped}, &o); err != nil {
		t.Fatal(err)
	}
	change(&o)
	if err := c.Update(t.Context(), &o, client.FieldOwner("editor")); err != nil {
		t.Fatal(err)
	}
}

func TestPublish_emptyBundle(t *testing.T) {
	api := newAPI(t, namespace("one", "a"))
	p, _ := start(t, api)
	signer := newSigner(false)
	publish(t, p, signer, bundle)
	was("")(signer)
	result := p.Publish(t.Context(), signer, nil)
	if result.Complete || result.Err == nil || result.Err.Error() != "there is no CA certificate to publish; earlier publications stay unchanged" {
		t.Errorf("got %+v", result)
	}
	if diff := cmp.Diff(map[string]string{"one/example-ca": current}, there(t, api)); diff != "" {
		t.Errorf("there is (-want +got):\n%s", diff)
	}
	// Objects that the spec does not request are removed, whatever the bundle is.
	signer.Spec.Trust.ConfigMap = nil
	if result := p.Publish(t.Context(), signer, nil); result.Err != nil || result.Published != nil {
		t.Errorf("got %+v", result)
	}
	if diff := cmp.Diff(map[string]string{}, there(t, api)); diff != "" {
		t.Errorf("there is (-want +got):\n%s", diff)
	}
}

// TestPublish_manyFailures: the message has an end.
func TestPublish_manyFailures(t *testing.T) {
	var objects []client.Object
	for i := range 10 {
		objects = append(objects, namespace(fmt.Sprintf("ns-%02d", i), "a"))
	}
	api := newAPI(t, objects...)
	api.setRefuse(func(verb, _, _, _ string) error {
		if verb == "apply" {
			return apierrors.NewBadRequest("no")
		}
		return nil
	})
	p, _ := start(t, api)
	got := publish(t, p, newSigner(false), bundle)
	want := "ns-00/example-ca, ns-01/example-ca, ns-02/example-ca, ns-03/example-ca, ns-04/example-ca, " +
		"ns-05/example-ca, ns-06/example-ca, ns-07/example-ca, and 2 more: no"
	if got.Complete || got.Err == nil || got.Err.Error() != want {
		t.Errorf("got  %+v\nwant %s", got, want)
	}
}

// TestPublish_manyCauses: the message is bounded, whatever the users of namespaces choose.
func TestPublish_manyCauses(t *testing.T) {
	var objects []client.Object
	for i := range 100 {
		objects = append(objects, namespace(fmt.Sprintf("ns-%02d", i), "a"))
	}
	api := newAPI(t, objects...)
	api.setRefuse(func(verb, _, namespace, _ string) error {
		if verb == "apply" {
			return apierrors.NewBadRequest(namespace + strings.Repeat(" quota", 1000))
		}
		return nil
	})
	p, _ := start(t, api)
	got := publish(t, p, newSigner(false), bundle).Err.Error()
	if len(got) > maxCauses*(maxCause+100) || !strings.HasSuffix(got, "; and 92 more errors") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}

// TestPublish_errors: an API server that answers with errors, or a missing permission, does not cause a request for each of
// many namespaces every 5 s. Namespaces that can be written are reached nevertheless.
func TestPublish_errors(t *testing.T) {
	var objects []client.Object
	for i := range 400 {
		objects = append(objects, namespace(fmt.Sprintf("ns-%03d", i), "a"))
	}
	api := newAPI(t, objects...)
	api.setRefuse(func(verb, _, namespace, _ string) error {
		if verb == "apply" && namespace < "ns-200" {
			return apierrors.NewInternalError(errors.New("away"))
		}
		return nil
	})
	p, _ := start(t, api)
	signer := newSigner(false)
	for range 30 {
		publish(t, p, signer, bundle)
	}
	if n := len(there(t, api)); n != 200 {
		t.Errorf("%d namespaces have the bundle, want 200", n)
	}
	eventually(t, func() error { // once the watch has caught up
		api.mu.Lock()
		api.calls = 0
		api.mu.Unlock()
		result := p.Publish(t.Context(), signer, []byte(bundle))
		if result.Complete || !strings.Contains(result.Err.Error(), "not tried, because 64 others failed") {
			t.Fatalf("%+v", result)
		}
		if limit := 2 * (maxErrors + parallel); api.calls > limit {
			return fmt.Errorf("%d requests, want at most %d", api.calls, limit)
		}
		return nil
	})
}

// TestPublish_time: an API server that does not answer ends neither a publication late, nor the removal of other objects.
func TestPublish_time(t *testing.T) {
	var objects []client.Object
	for i := range 40 {
		objects = append(objects, namespace(fmt.Sprintf("ns-%02d", i), "a"))
	}
	api := newAPI(t, objects...)
	p, _ := start(t, api)
	signer := newSigner(false)
	publish(t, p, signer, bundle)
	if n := len(there(t, api)); n != 40 {
		t.Fatalf("%d ConfigMaps", n)
	}
	// The name changes, because a CA is distrusted: the former ConfigMaps are removed in any case.
	signer.Status.Published = &v1alpha1.PublishedTrust{ConfigMap: mapped}
	signer.Spec.Trust.ConfigMap.Name = "other-ca"
	signer.Spec.Trust.Distrusted = []string{strings.Repeat("a", 64)}
	p.Keep([]v1alpha1.Signer{*signer})
	eventually(t, func() error {
		state := p.configMaps.State("other-ca")
		if !state.Synced {
			return ErrPending
		}
		return nil
	})
	api.hang = func(string, string) bool { return true }
	p.limit = 2 * time.Second
	begun := time.Now()
	result := p.Publish(t.Context(), signer, []byte(bundle))
	if took := time.Since(begun); took > p.limit+time.Second {
		t.Errorf("the publication took %v", took)
	}
	if result.Complete || result.Refused || result.Err == nil || !strings.Contains(result.Err.Error(), errTooLate.Error()) {
		t.Errorf("%+v", result)
	}
	if n := len(there(t, api)); n != 0 {
		t.Errorf("%d former ConfigMaps remain: %v", n, result.Err)
	}
}

// TestPublish_refusalsAreRemembered: namespaces that refuse the ConfigMap do not cost requests in each publication, which
// an edit in any other namespace causes.
func TestPublish_refusalsAreRemembered(t *testing.T) {
	const count = 100
	objects := []client.Object{namespace("ok", "a")}
	for i := range count {
		objects = append(objects, namespace(fmt.Sprintf("full-%03d", i), "a"))
	}
	api := newAPI(t, objects...)
	quota := func(verb, _, namespace, name string) error {
		if verb == "apply" && namespace != "ok" {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, name, errors.New("exceeded quota: q"))
		}
		return nil
	}
	api.setRefuse(quota)
	api.review = func(string) bool { return true }
	p, _ := start(t, api)
	at := time.Now()
	p.now = func() time.Time { return at }
	signer := newSigner(false)
	publication := func(pem string) (result Result, requests int) {
		p.Keep([]v1alpha1.Signer{*signer})
		api.mu.Lock()
		api.calls, api.reviews = 0, 0
		api.mu.Unlock()
		result = p.Publish(t.Context(), signer, []byte(pem))
		api.mu.Lock()
		defer api.mu.Unlock()
		return result, api.calls + api.reviews
	}
	first := publish(t, p, signer, bundle)
	if !first.Complete || !first.Refused {
		t.Fatalf("%+v", first)
	}
	eventually(t, func() error { // once the watch has caught up
		if _, requests := publication(bundle); requests > 0 {
			return fmt.Errorf("%d requests", requests)
		}
		return nil
	})
	second, requests := publication(bundle)
	if second.Err == nil || second.Err.Error() != first.Err.Error() || !second.Complete || !second.Refused || second.Message != first.Message || requests != 0 {
		t.Errorf("%d requests without any change, %+v, first %+v", requests, second, first)
	}
	if _, requests := publication(bundle + bundle); requests < 8*count {
		t.Errorf("%d requests for another bundle", requests)
	}
	at = at.Add(refusalRetry - time.Second)
	if _, requests := publication(bundle + bundle); requests > 2 { // "ok", if the watch is behind
		t.Errorf("%d requests before the retry", requests)
	}

	// Too little time to try again: they still refuse, and the publication is complete.
	at = at.Add(refusalRetry)
	p.limit = time.Nanosecond
	eventually(t, func() error {
		if result, _ := publication(bundle + bundle); !result.Complete || !result.Refused {
			return fmt.Errorf("%+v", result)
		}
		return nil
	})

	p.limit = maxPublication
	api.setRefuse(nil)
	if result, _ := publication(bundle + bundle); result.Err != nil {
		t.Errorf("after the quota was raised: %v", result.Err)
	}
	if n := len(p.refusals[nameOf{signer.UID, mapped}]); n != 0 {
		t.Errorf("%d refusals in memory", n)
	}
	if p.Keep(nil); len(p.refusals) != 0 {
		t.Errorf("refusals of a deleted Signer in memory: %v", p.refusals)
	}
}

// TestObserve_bounds: a user chooses all of the metadata of a ConfigMap. The part that is stored in memory is bounded.
func TestObserve_bounds(t *testing.T) {
	o := theirs("one", label)
	for i := range 1000 {
		o.OwnerReferences = append(o.OwnerReferences, ownedBy("countersign.dev/v1alpha1", strings.Repeat("n", 1000), fmt.Sprintf("%d%s", i, strings.Repeat("u", 1000))))
	}
	fields := `{"f:data":{"f:one":{},"f:three":{},"f:two":{}}}`
	o.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: FieldOwner, Operation: metav1.ManagedFieldsOperationApply, FieldsV1: metav1.NewFieldsV1(fields)}}
	got := observe(o)
	if len(got.owners) != maxOwners || len(got.owners[0].name) != maxOwnerText || len(got.owners[0].uid) != maxOwnerText {
		t.Errorf("%d owners, %d and %d bytes", len(got.owners), len(got.owners[0].name), len(got.owners[0].uid))
	}
	if len(got.data) != maxAppliedKeys || got.holds(newSigner(false), "one", digest{}) {
		t.Errorf("data %v", got.data)
	}
	o.ManagedFields[0].FieldsV1 = metav1.NewFieldsV1(`{"f:data":{"f:one":{}},"x":"` + strings.Repeat("x", maxFields) + `"}`)
	if got := observe(o); len(got.data) != 0 {
		t.Errorf("data of large managed fields: %v", got.data)
	}
}

// TestPublish_twoNames: the name is changed twice before the first could be removed.
func TestPublish_twoNames(t *testing.T) {
	api := newAPI(t, namespace("one", "a"))
	p, _ := start(t, api)
	signer := newSigner(false)
	signer.Status.Published = publish(t, p, signer, bundle).Published
	api.setRefuse(func(verb, _, _, _ string) error {
		if verb == "delete" {
			return apierrors.NewInternalError(errors.New("away"))
		}
		return nil
	})
	for _, name := range []string{"second-ca", "third-ca"} {
		named(name)(signer)
		result := publish(t, p, signer, bundle)
		signer.Status.Published = result.Published
		if want := (&v1alpha1.PublishedTrust{ConfigMap: mapped}); !result.Complete || !cmp.Equal(want, result.Published) {
			t.Errorf("%s: got %+v", name, result)
		}
	}
	api.setRefuse(nil)
	eventually(t, func() error {
		result := publish(t, p, signer, bundle)
		if diff := cmp.Diff(map[string]string{"one/third-ca": current}, there(t, api)); diff != "" {
			return errors.New(diff)
		}
		if want := (&v1alpha1.PublishedTrust{ConfigMap: "third-ca"}); !cmp.Equal(want, result.Published) {
			return fmt.Errorf("published %+v", result.Published)
		}
		return result.Err
	})
}

// TestPublisher_changed: changes of an object are reported for the Signers that publish it.
func TestPublisher_changed(t *testing.T) {
	api := newAPI(t, namespace("one", "a"))
	api.setRefuse(func(verb, kind, _, name string) error {
		if verb == "list" {
			return apierrors.NewForbidden(schema.GroupResource{Resource: kind}, name, errors.New(`User "signer" cannot list it`))
		}
		return nil
	})
	p, changed := start(t, api)
	signer := newSigner(true)
	p.Keep([]v1alpha1.Signer{*signer})
	if result := p.Publish(t.Context(), signer, []byte(bundle)); result.Complete || result.Err == nil {
		t.Errorf("before anything is read: %+v", result)
	}
	// reconciled publishes after each reported change, until the objects are as desired.
	reconciled := func(what string, want map[string]string) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			select {
			case name := <-changed:
				if name != "serving" {
					t.Fatalf("%s: change of %q", what, name)
				}
				if result := p.Publish(t.Context(), signer, []byte(bundle)); result.Err == nil && cmp.Equal(want, there(t, api)) {
					return
				}
			case <-deadline:
				t.Fatalf("%s: not in 10 s: %v", what, there(t, api))
			}
		}
	}
	both := map[string]string{"one/example-ca": current, bundleName: ctb}
	eventually(t, func() error {
		if result := p.Publish(t.Context(), signer, []byte(bundle)); errors.Is(result.Err, ErrPending) {
			return result.Err
		}
		return nil
	})
	api.setRefuse(nil)
	reconciled("it may read now", both)
	update(t, api, "one", func(o *corev1.ConfigMap) { o.Data["ca.crt"] = "evil" })
	reconciled("an edit", both)
	gone := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: bundleName}}
	if err := api.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	reconciled("a deletion", both)
}

// TestPublish_raced: an object that another user creates or replaces after the observation is unchanged.
func TestPublish_raced(t *testing.T) {
	signer := newSigner(false)
	created := theirs("one", nil)
	created.Data = map[string]string{"theirs": "x"} // an apply would not conflict with it
	api := newAPI(t, namespace("one", "a"), created)
	p := New(api, api, func(context.Context, string) {})
	it := target{kind: kindConfigMap, namespace: "one", name: mapped, signer: signer, key: "ca.crt", content: bundle}
	for _, test := range []struct {
		name string
		have *observed
	}{
		{"created", nil},
		{"replaced", &observed{uid: "theirs", resourceVersion: "1", labelled: true, owners: []owner{{true, "Signer", "serving", "signer-uid"}}}},
	} {
		name, have := test.name, test.have
		if last, err := p.write(t.Context(), planWrite(it, have)); last.action != actionBlocked || err != nil {
			t.Errorf("%s: writing: %+v, %v", name, last, err)
		}
		if have == nil {
			continue
		}
		if err := p.remove(t.Context(), step{action: actionDelete, target: it, have: have}); err != nil {
			t.Errorf("%s: removing: %v", name, err)
		}
	}
	if diff := cmp.Diff(map[string]string{"one/example-ca": "[theirs:x]"}, there(t, api)); diff != "" {
		t.Errorf("there is (-want +got):\n%s", diff)
	}
}
