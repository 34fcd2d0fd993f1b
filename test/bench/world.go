// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/tutorial"
)

const (
	// serviceCIDR has room for the Services of a large cluster.
	serviceCIDR = "10.96.0.0/16"
	// benchNamespace is the namespace of the null system's ServiceAccount.
	benchNamespace = "bench"
	// fillers is the number of workers that fill the cluster.
	fillers         = 64
	unrelatedSigner = "example.com/unrelated"
)

// world is the content of the cluster.
type world struct {
	*cluster.Cluster
	settings settings
	out      io.Writer
	// writers are clientsets of a cluster admin, each with its own connection.
	writers    []kubernetes.Interface
	places     []place
	requesters []requester
	// the number of objects
	pods, unrelated, policies int
}

// place is a namespace and the Service that selects its Pods.
type place struct{ namespace, clusterIP string }

// requester is a Pod that makes requests.
type requester struct {
	place
	name, ip string
	uid      types.UID
	token    string
}

// newWorld creates namespaces, Services and the RBAC of requesters. grow creates Pods.
func newWorld(ctx context.Context, c *cluster.Cluster, s settings, out io.Writer) (*world, error) {
	w := &world{Cluster: c, settings: s, out: out, places: make([]place, s.Namespaces), policies: 1}
	for range 8 {
		config := w.adminConfig()
		clients, err := ownClientset(config)
		if err != nil {
			return nil, err
		}
		w.writers = append(w.writers, clients)
	}
	if err := errors.Join(w.allowRequesters(ctx), w.allowNull(ctx), w.CreateNode(ctx, "node-1", corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "10.0.0.11"})); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "-- creating %d namespaces and %d Services\n", s.Namespaces, s.Services)
	if err := each(ctx, out, "namespaces", s.Namespaces, 16, func(ctx context.Context, i int) error {
		w.places[i].namespace = fmt.Sprintf("bench-%03d", i)
		return w.CreateNamespace(ctx, w.places[i].namespace, nil)
	}); err != nil {
		return nil, err
	}
	return w, each(ctx, out, "Services", s.Services, 16, w.service)
}

func (w *world) adminConfig() *rest.Config {
	config := w.Config()
	config.ContentType, config.AcceptContentTypes = protobuf, protobuf
	return config
}

// service creates the i-th Service. The first Service of each namespace selects its Pods, the others select none.
func (w *world) service(ctx context.Context, i int) error {
	at := &w.places[i%len(w.places)]
	name, app := "web", "web"
	if i >= len(w.places) {
		name = fmt.Sprintf("other-%d", i/len(w.places))
		app = name
	}
	created, err := w.writers[i%len(w.writers)].CoreV1().Services(at.namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": app}, Ports: []corev1.ServicePort{{Port: 443}}},
	}, metav1.CreateOptions{})
	if err == nil && name == "web" {
		at.clusterIP = created.Spec.ClusterIP
	}
	return err
}

// grow creates Pods until there are n, running and with an address. The Pods of the first call create requests with
// tokens that are bound to them.
func (w *world) grow(ctx context.Context, n int) error {
	fmt.Fprintf(w.out, "-- creating Pods until there are %d\n", n)
	from, asking := w.pods, w.requesters == nil
	if asking {
		w.requesters = make([]requester, n)
	}
	err := each(ctx, w.out, "Pods", n-from, fillers, func(ctx context.Context, i int) error {
		i += from
		among := w.places
		if asking {
			among = among[:w.settings.Busy]
		}
		at := among[i%len(among)]
		pod, err := w.pod(ctx, i, at.namespace)
		if err != nil || !asking {
			return err
		}
		token, err := w.PodToken(ctx, pod)
		w.requesters[i] = requester{place: at, name: pod.Name, ip: pod.Status.PodIP, uid: pod.UID, token: token}
		return err
	})
	w.pods = n
	return err
}

func (w *world) pod(ctx context.Context, i int, namespace string) (*corev1.Pod, error) {
	pods := w.writers[i%len(w.writers)].CoreV1().Pods(namespace)
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:   fmt.Sprintf("web-5d4f8c7b9-%05d", i),
			Labels: map[string]string{"app": "web", "app.kubernetes.io/name": "web", "pod-template-hash": "5d4f8c7b9"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d4f8c7b9", UID: "9e37a7a5-6d56-4f0c-9a36-0f5dfb0f7f0c", Controller: new(true),
			}},
		},
		Spec: corev1.PodSpec{ServiceAccountName: "default", NodeName: "node-1", Containers: []corev1.Container{{Name: "main", Image: "main"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	number := i + 1
	ip := fmt.Sprintf("10.%d.%d.%d", 128+number>>16, number>>8&255, number&255)
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
}

// addUnrelated creates requests for a signer that no system serves, each with its own key.
func (w *world) addUnrelated(ctx context.Context, n int) error {
	fmt.Fprintf(w.out, "-- creating %d requests for %s\n", n, unrelatedSigner)
	err := each(ctx, w.out, "requests", n, fillers, func(ctx context.Context, i int) error {
		object, err := ask{Request: tutorial.Request{DNSNames: []string{"unrelated.example.com"}, Usages: usages}}.object(fmt.Sprintf("unrelated-%05d", i), unrelatedSigner)
		if err != nil {
			return err
		}
		_, err = w.writers[i%len(w.writers)].CertificatesV1().CertificateSigningRequests().Create(ctx, object, metav1.CreateOptions{})
		return err
	})
	w.unrelated = n
	return err
}

// addPolicies creates policies until there are n. Only the first one matches requests.
func (w *world) addPolicies(ctx context.Context, n int) error {
	fmt.Fprintf(w.out, "-- creating policies until there are %d\n", n)
	list := struct {
		APIVersion string                    `json:"apiVersion"`
		Kind       string                    `json:"kind"`
		Items      []v1alpha1.ApprovalPolicy `json:"items"`
	}{APIVersion: "v1", Kind: "List"}
	for i := w.policies; i < n; i++ {
		policy := v1alpha1.ApprovalPolicy{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ApprovalPolicy"},
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("other-%03d", i)},
		}
		policy.Spec.Match.SignerNames = []string{fmt.Sprintf("example.com/other-%d", i)}
		policy.Spec.Rego.Builtin = "pod-serving"
		list.Items = append(list.Items, policy)
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return err
	}
	w.policies = n
	return withProgress(w.out, "kubectl create -f -", nil, func() error {
		_, err := w.Kubectl(ctx, bytes.NewReader(raw), "create", "-f", "-")
		return err
	})
}

// allowRequesters allows every Pod to create requests, and every node to request its own certificate.
func (w *world) allowRequesters(ctx context.Context) error {
	return errors.Join(
		w.grant(ctx, "bench-requesters", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:serviceaccounts"}, rbacv1.PolicyRule{
			APIGroups: []string{certificatesv1.GroupName}, Resources: []string{resource}, Verbs: []string{"create", "get"},
		}),
		w.bind(ctx, "bench-nodes", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
			rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:nodes"}),
	)
}

// allowNull grants the null system its permissions for its own signer.
func (w *world) allowNull(ctx context.Context) error {
	return errors.Join(
		w.CreateNamespace(ctx, benchNamespace, nil, nullName),
		w.grant(ctx, "bench-null", rbacv1.Subject{Kind: "ServiceAccount", Namespace: benchNamespace, Name: nullName},
			rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{resource}, Verbs: []string{"list", "watch"}},
			rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{resource + "/approval", resource + "/status"}, Verbs: []string{"update"}},
			rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"signers"}, ResourceNames: []string{nullSigner}, Verbs: []string{"approve", "sign"}},
		),
	)
}

func (w *world) grant(ctx context.Context, name string, subject rbacv1.Subject, rules ...rbacv1.PolicyRule) error {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	if _, err := w.Clientset().RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	return w.bind(ctx, name, name, subject)
}

func (w *world) bind(ctx context.Context, name, role string, subject rbacv1.Subject) error {
	_, err := w.Clientset().RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{subject},
	}, metav1.CreateOptions{})
	return err
}

// honest returns a request that a Pod is allowed to make: the name and the address of the Pod, and those of its Service.
func (r requester) honest() tutorial.Request {
	return tutorial.Request{
		DNSNames: []string{"web." + r.namespace + ".svc.cluster.local", r.name + "." + r.namespace + ".pod.cluster.local"},
		IPs:      []string{r.clusterIP, r.ip}, Usages: usages,
	}
}

// hostile returns the i-th request that a Pod is not allowed to make. neighbour is another Pod of its namespace, and
// stranger a Pod of another namespace.
func (r requester) hostile(i int, neighbour, stranger requester) tutorial.Request {
	a := r.honest()
	switch i % 7 {
	case 0:
		a.DNSNames[1] = neighbour.honest().DNSNames[1]
	case 1:
		a.DNSNames[0] = stranger.honest().DNSNames[0]
	case 2:
		a.IPs[1] = neighbour.ip
	case 3:
		a.DNSNames[0] = "*." + r.namespace + ".svc.cluster.local"
	case 4:
		a.Organization = "system:masters"
	case 5:
		a.CA = true
	case 6:
		a.Usages = append([]certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}, usages...)
	}
	return a
}

var usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth}

// byPods returns n requests by the Pods in turn. If mixed, every tenth is hostile.
func (w *world) byPods(n int, mixed bool) []ask {
	asks := make([]ask, n)
	for i := range asks {
		at := func(i int) requester { return w.requesters[i%len(w.requesters)] }
		r := at(i)
		asks[i] = ask{Request: r.honest(), token: r.token}
		if mixed && i%10 == 9 {
			// Pods are distributed over the busy namespaces in turn.
			asks[i].Request, asks[i].hostile = r.hostile(i/10, at(i+w.settings.Busy), at(i+1)), true
		}
	}
	return asks
}
