// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"countersign.dev/countersign/api/v1alpha1"
)

const (
	bundle = "bundle"
	mapped = "example-ca"
)

var where = v1alpha1.TrustConfigMap{
	Name: mapped, Key: "ca.crt",
	NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}},
}

func namespace(name, team string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}}
}

func configMap(namespace string, labels, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: mapped, Labels: labels}, Data: data}
}

var ours = map[string]string{ManagedByLabel: ManagedBy}

// start returns a Publisher over the objects, and the count of its writes. deny, which may be nil,
// is asked before a write.
func start(t *testing.T, deny func(namespace string) error, objects ...client.Object) (*Publisher, client.Client, *atomic.Int32) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	writes := new(atomic.Int32)
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithInterceptorFuncs(interceptor.Funcs{
			Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, options ...client.ApplyOption) error {
				namespace := o.(interface{ GetNamespace() *string }).GetNamespace()
				if deny != nil {
					if err := deny(*namespace); err != nil {
						return err
					}
				}
				writes.Add(1)
				return c.Apply(ctx, o, options...)
			},
		}).Build()
	return &Publisher{Namespaces: c, Live: c, Writer: c}, c, writes
}

func TestPublish(t *testing.T) {
	dying := namespace("dying", "a")
	dying.Finalizers = []string{"kubernetes"}
	dying.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Time}

	tests := map[string]struct {
		objects []client.Object
		want    map[string]map[string]string // namespace -> data of the ConfigMap, if there is one
		count   int
		err     string
	}{
		"in the chosen namespaces, and no other": {
			objects: []client.Object{namespace("one", "a"), namespace("two", "a"), namespace("other", "b"), dying},
			want:    map[string]map[string]string{"one": {"ca.crt": bundle}, "two": {"ca.crt": bundle}},
			count:   2,
		},
		"an edit is undone": {
			objects: []client.Object{namespace("one", "a"), configMap("one", ours, map[string]string{"ca.crt": "evil"})},
			want:    map[string]map[string]string{"one": {"ca.crt": bundle}},
			count:   1,
		},
		"a ConfigMap of someone else is left as it is, and keeps no other namespace back": {
			objects: []client.Object{namespace("one", "a"), namespace("two", "a"), configMap("one", nil, map[string]string{"ca.crt": "theirs"})},
			want:    map[string]map[string]string{"one": {"ca.crt": "theirs"}, "two": {"ca.crt": bundle}},
			count:   2,
			err:     "one/example-ca: the ConfigMap exists without the label app.kubernetes.io/managed-by=countersign: delete it, or choose another name in spec.trust.configMap",
		},
		"a ConfigMap that another tool manages": {
			objects: []client.Object{namespace("one", "a"), configMap("one", map[string]string{ManagedByLabel: "Helm"}, map[string]string{"ca.crt": bundle})},
			want:    map[string]map[string]string{"one": {"ca.crt": bundle}},
			count:   1,
			err:     "one/example-ca: the ConfigMap exists without the label app.kubernetes.io/managed-by=countersign: delete it, or choose another name in spec.trust.configMap",
		},
		"no namespace is chosen": {objects: []client.Object{namespace("other", "b")}, want: map[string]map[string]string{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p, c, writes := start(t, nil, test.objects...)
			count, err := p.Publish(t.Context(), where, []byte(bundle))
			if text := errorText(err); text != test.err || count != test.count {
				t.Errorf("got %d, %q; want %d, %q", count, text, test.count, test.err)
			}
			if diff := cmp.Diff(test.want, published(t, c)); diff != "" {
				t.Errorf("ConfigMaps (-want +got):\n%s", diff)
			}
			// What is as it should be is not written again.
			writes.Store(0)
			if _, err := p.Publish(t.Context(), where, []byte(bundle)); errorText(err) != test.err {
				t.Errorf("the second time: %v", err)
			}
			if n := writes.Load(); n > 0 {
				t.Errorf("%d writes although nothing changed", n)
			}
		})
	}
}

func TestPublish_rotation(t *testing.T) {
	p, c, writes := start(t, nil, namespace("one", "a"))
	for i, pem := range []string{"first", "second"} {
		if _, err := p.Publish(t.Context(), where, []byte(pem)); err != nil {
			t.Fatal(err)
		}
		want := map[string]map[string]string{"one": {"ca.crt": pem}}
		if diff := cmp.Diff(want, published(t, c)); diff != "" || int(writes.Load()) != i+1 {
			t.Errorf("%d writes, ConfigMaps (-want +got):\n%s", writes.Load(), diff)
		}
	}
}

func TestPublish_refused(t *testing.T) {
	resource := schema.GroupResource{Resource: "configmaps"}
	forbidden := apierrors.NewForbidden(resource, mapped, fmt.Errorf("not allowed"))
	terminating := apierrors.NewForbidden(resource, mapped, fmt.Errorf("being deleted"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	const why = `configmaps "example-ca" is forbidden: not allowed (the signer needs get, create and patch on configmaps with resourceNames ["example-ca"])`

	tests := map[string]struct {
		deny       error
		namespaces int
		want       string
	}{
		"RBAC lacks the name":                    {forbidden, 1, "ns-00/example-ca: " + why},
		"the namespace is deleted in the moment": {terminating, 1, ""},
		"the namespace is gone":                  {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "ns-00"), 1, ""},
		"the message has an end": {
			apierrors.NewBadRequest("no"), 10,
			"ns-00/example-ca: no; ns-01/example-ca: no; ns-02/example-ca: no; ns-03/example-ca: no; ns-04/example-ca: no; ns-05/example-ca: no; ns-06/example-ca: no; ns-07/example-ca: no; and in 2 more namespaces",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var objects []client.Object
			for i := range test.namespaces {
				objects = append(objects, namespace(fmt.Sprintf("ns-%02d", i), "a"))
			}
			p, _, _ := start(t, func(string) error { return test.deny }, objects...)
			_, err := p.Publish(t.Context(), where, []byte(bundle))
			if got := errorText(err); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestPublish_invalidSelector(t *testing.T) {
	invalid := where
	invalid.NamespaceSelector = metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Near"}}}
	p, _, _ := start(t, nil, namespace("one", "a"))
	_, err := p.Publish(t.Context(), invalid, []byte(bundle))
	if want := `spec.trust.configMap.namespaceSelector: "Near" is not a valid label selector operator`; errorText(err) != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func published(t *testing.T, c client.Client) map[string]map[string]string {
	t.Helper()
	var list corev1.ConfigMapList
	if err := c.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]string{}
	for _, m := range list.Items {
		all[m.Namespace] = m.Data
	}
	return all
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
