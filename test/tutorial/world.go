// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/test/cluster"
)

// World is a cluster with the Pods, Services and users of the page.
type World struct {
	*cluster.Cluster
	// Pods by name, as they were created.
	Pods map[string]*corev1.Pod
	// Webhook is true while the API server calls the webhook.
	Webhook bool
	// notes of the row that runs; see Result.
	notes []string
	// tokens by name of the Pod, for Pods whose token is used after they are deleted.
	tokens map[string]string
	// Key and PKCS10 of the first request.
	Key    crypto.Signer
	PKCS10 []byte
}

// NewWorld creates the Pods, Services and users of the page in a cluster.
func NewWorld(ctx context.Context, c *cluster.Cluster, progress io.Writer) (*World, error) {
	w := &World{Cluster: c, Pods: map[string]*corev1.Pod{}, tokens: map[string]string{}}
	fmt.Fprintln(progress, "-- creating Pod my-pod, Service my-svc, other Pods and Services, and the RBAC of their users")
	if err := c.CreateNode(ctx, "node-1", corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "10.0.0.11"}); err != nil {
		return nil, err
	}
	if err := errors.Join(c.CreateNamespace(ctx, Namespace, nil, "my-app"), c.CreateNamespace(ctx, "other-namespace", nil)); err != nil {
		return nil, err
	}
	for _, pod := range []struct{ name, app, account, ip string }{
		{PodName, "my-app", "my-app", podIP},
		{"my-sibling", "my-app", "my-app", "10.0.34.3"},
		{"other-pod", "other", "default", "10.0.34.4"},
	} {
		if err := w.runPod(ctx, pod.name, pod.app, pod.account, pod.ip); err != nil {
			return nil, err
		}
	}
	for _, service := range []corev1.Service{
		service(Namespace, ServiceName, corev1.ServiceSpec{ClusterIP: serviceIP, Selector: map[string]string{"app": "my-app"}}),
		service(Namespace, "web", corev1.ServiceSpec{Selector: map[string]string{"app": "web"}}),
		service(Namespace, "external", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "www.example.com", Selector: map[string]string{"app": "my-app"}}),
		service("other-namespace", "theirs", corev1.ServiceSpec{Selector: map[string]string{"app": "my-app"}}),
	} {
		if _, err := c.Clientset().CoreV1().Services(service.Namespace).Create(ctx, &service, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	return w, w.grantRequesters(ctx)
}

func service(namespace, name string, spec corev1.ServiceSpec) corev1.Service {
	if spec.Type != corev1.ServiceTypeExternalName {
		spec.Ports = []corev1.ServicePort{{Port: 443}}
	}
	return corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

// runPod creates a Pod with the status that a kubelet sets. Without an address the Pod is Pending.
func (w *World) runPod(ctx context.Context, name, app, account string, ips ...string) error {
	pod, err := w.RunPod(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{ServiceAccountName: account, NodeName: "node-1"},
	}, ips...)
	w.Pods[name] = pod
	return err
}

// grantRequesters allows every user to create requests, and one user to create them on behalf of Pods.
func (w *World) grantRequesters(ctx context.Context) error {
	rbac := w.Clientset().RbacV1()
	_, err1 := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "certificate-requester"},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get"},
		}},
	}, metav1.CreateOptions{})
	_, err2 := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "certificate-requesters"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "certificate-requester"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:authenticated"}},
	}, metav1.CreateOptions{})
	_, err3 := rbac.RoleBindings(Namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "operator-requests-for-pods"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "countersign-delegate"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: delegate}},
	}, metav1.CreateOptions{})
	return errors.Join(err1, err2, err3, w.grantApprovers(ctx))
}

// grantApprovers allows two users to approve manually, and one of them to override policy.
func (w *World) grantApprovers(ctx context.Context) error {
	rbac := w.Clientset().RbacV1()
	var errs []error
	for _, user := range []struct {
		name  string
		verbs []string
	}{{approver, []string{"approve"}}, {overrider, []string{"approve", "override-policy"}}} {
		name := "certificates-by-" + strings.TrimSuffix(user.name, "@example.com")
		_, err1 := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"get", "list"}},
				{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"certificatesigningrequests/approval"}, Verbs: []string{"update"}},
				{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"signers"}, ResourceNames: []string{SignerName}, Verbs: user.verbs},
			},
		}, metav1.CreateOptions{})
		_, err2 := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user.name}},
		}, metav1.CreateOptions{})
		errs = append(errs, err1, err2)
	}
	return errors.Join(errs...)
}

// RunPendingPod creates a Pod that has no address yet.
func (w *World) RunPendingPod(ctx context.Context, name string) error {
	return w.runPod(ctx, name, name, "default")
}
