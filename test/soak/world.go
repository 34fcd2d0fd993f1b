// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
)

const (
	honestNamespace = "honest"
	editorNamespace = "editor"
	editorUser      = "editor@example.com"
	requesterUser   = "requester@example.com"
	authorUser      = "author@example.com"
	// authorDomain is the domain of the author's signers.
	authorDomain = "author.example"
	honestIP     = "10.0.34.2"

	protobuf = "application/vnd.kubernetes.protobuf"
)

// world is the content of the cluster.
type world struct {
	*cluster.Cluster
	out      io.Writer
	settings settings
	began    time.Time // of the attacks
	honest   honest
	// clients of the three users
	editor, requester, author kubernetes.Interface
	// pods of the editor with a token each: one that runs, and one that never gets an address.
	running, pending podClient
	created          createdRequests

	mu     sync.Mutex
	active map[string]string // by user: the attack that runs
	latest []byte            // the newest PKCS#10 of the honest requester
}

// podClient is a Pod and a client with its token.
type podClient struct {
	pod    *corev1.Pod
	client kubernetes.Interface
}

func newWorld(ctx context.Context, c *cluster.Cluster, s settings, out io.Writer) (*world, error) {
	w := &world{Cluster: c, out: out, settings: s, began: time.Now(), active: map[string]string{}}
	fmt.Fprintln(out, "-- creating namespaces, Pods and the rights of the users")
	if err := errors.Join(
		c.CreateNode(ctx, "node-1", corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "10.0.0.11"}),
		c.CreateNamespace(ctx, honestNamespace, nil), c.CreateNamespace(ctx, editorNamespace, nil),
		w.grant(ctx),
	); err != nil {
		return nil, err
	}
	for user, client := range map[string]*kubernetes.Interface{editorUser: &w.editor, requesterUser: &w.requester, authorUser: &w.author} {
		config, err := c.ConfigFor(user)
		if err != nil {
			return nil, err
		}
		if *client, err = clientset(config); err != nil {
			return nil, err
		}
	}
	_, err := c.Clientset().CoreV1().Services(honestNamespace).Create(ctx, service("web", map[string]string{"app": "web"}), metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	honestPod, err1 := w.newPodClient(ctx, honestNamespace, "web-0", honestIP)
	running, err2 := w.newPodClient(ctx, editorNamespace, "running", "10.0.35.2")
	pending, err3 := w.newPodClient(ctx, editorNamespace, "pending")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	w.honest.podClient, w.running, w.pending = honestPod, running, pending
	return w, nil
}

// newPodClient runs a Pod with the label app=web and returns a client with its token.
func (w *world) newPodClient(ctx context.Context, namespace, name string, ips ...string) (podClient, error) {
	pod, err := w.RunPod(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "default"},
	}, ips...)
	if err != nil {
		return podClient{}, err
	}
	token, err := w.PodToken(ctx, pod)
	if err != nil {
		return podClient{}, err
	}
	client, err := clientset(w.TokenConfig(token))
	return podClient{pod, client}, err
}

// clientset returns a client with a connection of its own.
func clientset(config *rest.Config) (kubernetes.Interface, error) {
	config.QPS, config.ContentType, config.AcceptContentTypes = -1, protobuf, protobuf
	config.Dial = (&net.Dialer{}).DialContext
	config.Timeout, config.WarningHandler = time.Minute, rest.NoWarnings{}
	return kubernetes.NewForConfig(config)
}

// grant gives each user its rights, and the approver the right to approve for the signers of the author.
func (w *world) grant(ctx context.Context) error {
	rbac := w.Clientset().RbacV1()
	user := func(name string) rbacv1.Subject {
		return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}
	}
	approver := rbacv1.Subject{Kind: "ServiceAccount", Namespace: harness.SystemNamespace, Name: "countersign-approver"}
	serviceAccounts := rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:serviceaccounts"}
	var errs []error
	for _, role := range []struct {
		name     string
		rule     rbacv1.PolicyRule
		subjects []rbacv1.Subject
	}{
		{"soak-requester", rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create"}}, []rbacv1.Subject{user(requesterUser), serviceAccounts}},
		{"soak-author", rbacv1.PolicyRule{APIGroups: []string{"countersign.dev"}, Resources: []string{"approvalpolicies"}, Verbs: []string{"create", "update", "get", "list", "watch"}}, []rbacv1.Subject{user(authorUser)}},
		{"soak-signers", rbacv1.PolicyRule{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"signers"}, ResourceNames: []string{authorDomain + "/*"}, Verbs: []string{"approve"}}, []rbacv1.Subject{approver}},
	} {
		_, err1 := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: role.name}, Rules: []rbacv1.PolicyRule{role.rule}}, metav1.CreateOptions{})
		_, err2 := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role.name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.name}, Subjects: role.subjects,
		}, metav1.CreateOptions{})
		errs = append(errs, err1, err2)
	}
	// The rules of the role "edit", which a controller copies from these. The controller does not run here.
	for _, name := range []string{"system:aggregate-to-edit", "system:aggregate-to-view"} {
		_, err := rbac.RoleBindings(editorNamespace).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "soak-" + strings.TrimPrefix(name, "system:")},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, Subjects: []rbacv1.Subject{user(editorUser)},
		}, metav1.CreateOptions{})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// activeAttacks returns the attacks that run, in the order of their users.
func (w *world) activeAttacks() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.active) == 0 {
		return "no attack"
	}
	var names []string
	for _, user := range slices.Sorted(maps.Keys(w.active)) {
		names = append(names, w.active[user])
	}
	return strings.Join(names, " + ")
}

func (w *world) setActive(user, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name == "" {
		delete(w.active, user)
	} else {
		w.active[user] = name
	}
}

// service returns a Service without a cluster IP, of which there are few.
func service(name string, selector map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: selector, Ports: []corev1.ServicePort{{Port: 443}}},
	}
}

// createdRequests are the requests of attacks that exist, oldest first.
type createdRequests struct {
	mu    sync.Mutex
	names []string
	sizes []int
	bytes int
}

const (
	maxRequestBytes = 500 << 20
	maxRequests     = 5000
)

func (c *createdRequests) add(name string, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names, c.sizes, c.bytes = append(c.names, name), append(c.sizes, size), c.bytes+size
}

// oldest removes the oldest request from the list, if there are too many, and returns its name, "" if not.
func (c *createdRequests) oldest() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.names) == 0 || c.bytes <= maxRequestBytes && len(c.names) <= maxRequests {
		return ""
	}
	name := c.names[0]
	c.bytes -= c.sizes[0]
	c.names, c.sizes = c.names[1:], c.sizes[1:]
	return name
}

// clean deletes the oldest requests of attacks, as the cleaner of kube-controller-manager does after some time.
func (w *world) clean(ctx context.Context) {
	for ctx.Err() == nil {
		name := w.created.oldest()
		if name == "" {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if err := w.Clientset().CertificatesV1().CertificateSigningRequests().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			fmt.Fprintln(w.out, "!! deleting a request:", err)
		}
	}
}

// randomName returns a name that does not exist yet.
func randomName(prefix string) string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return prefix + "-" + hex.EncodeToString(b[:])
}
