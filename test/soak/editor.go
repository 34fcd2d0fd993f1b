// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"countersign.dev/countersign/test/tutorial"
)

// editorAttacks are those of a user with the role "edit" in one namespace.
func editorAttacks() []*attack {
	return []*attack{
		{user: editorUser, name: "external-ips", rate: 3, workers: 2, step: externalIPs},
		{user: editorUser, name: "large-services", rate: 3, workers: 2, step: largeServices},
		{user: editorUser, name: "many-services", rate: 100, workers: 8, step: manyServices},
		{user: editorUser, name: "large-pods", rate: 3, workers: 2, step: largePods},
		{user: editorUser, name: "same-hostname", rate: 50, workers: 4, step: sameHostname},
		{user: editorUser, name: "churn", rate: 100, workers: 4, step: churn},
		{user: editorUser, name: "recreated-pods", rate: 20, workers: 4, step: recreatedPods},
		{user: editorUser, name: "own-names", rate: 20, workers: 4, step: ownNames},
	}
}

// apply creates or replaces a Service.
func (w *world) apply(ctx context.Context, s *corev1.Service) error {
	services := w.editor.CoreV1().Services(editorNamespace)
	_, err := services.Create(ctx, s, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = services.Update(ctx, s, metav1.UpdateOptions{})
	}
	return err
}

// externalIPs has 30 Services with 85,000 addresses each, the honest Pod's among them, that change all the time.
func externalIPs(ctx context.Context, w *world, n int) error {
	s := service(fmt.Sprintf("external-%d", n%30), map[string]string{"app": "web"})
	s.Spec.ClusterIP = ""
	s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, honestIP, "10.0.35.2")
	for i := range w.settings.largest() / 14 { // 85,000
		s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, fmt.Sprintf("%d.%d.%d.%d", 11+n%90, i>>16, i>>8&0xff, i&0xff))
	}
	return w.apply(ctx, s)
}

// largeServices has 30 Services with selectors and labels of 1.2 MB.
func largeServices(ctx context.Context, w *world, n int) error {
	s := service(fmt.Sprintf("large-%d", n%30), w.settings.shortLabels())
	if n%2 == 1 {
		s.Spec.Selector, s.Labels = map[string]string{"app": "web"}, w.settings.longLabels()
	}
	s.Annotations = map[string]string{"n": fmt.Sprint(n)}
	return w.apply(ctx, s)
}

// manyServices has 3,000 Services that select the editor's Pods, and more that select the honest Pod's labels.
func manyServices(ctx context.Context, w *world, n int) error {
	s := service(fmt.Sprintf("many-%d", n%3000), map[string]string{"app": "web"})
	s.Annotations = map[string]string{"n": fmt.Sprint(n)}
	return w.apply(ctx, s)
}

// createPod creates a Pod of the editor. Every other gets an address.
func (w *world) createPod(ctx context.Context, pod *corev1.Pod, n int) error {
	pod.Spec.Containers = []corev1.Container{{Name: "main", Image: "main"}}
	pod.Spec.NodeName = "node-1"
	created, err := w.editor.CoreV1().Pods(editorNamespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil || n%2 == 1 {
		return err
	}
	_, err = w.SetPodStatus(ctx, created, corev1.PodRunning, fmt.Sprintf("10.1.%d.%d", n>>8&0xff, n&0xff))
	return err
}

// deletePod deletes a Pod of the editor at once.
func (w *world) deletePod(ctx context.Context, name string) error {
	now := int64(0)
	err := w.editor.CoreV1().Pods(editorNamespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return err
}

// largePods has 40 Pods with labels of 1.2 MB.
func largePods(ctx context.Context, w *world, n int) error {
	labels := w.settings.longLabels()
	if n%2 == 1 {
		labels = w.settings.shortLabels()
	}
	labels["app"] = "web"
	name := fmt.Sprintf("large-%d", n%40)
	if err := w.deletePod(ctx, name); err != nil {
		return err
	}
	return w.createPod(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, n)
}

// sameHostname has 1,000 Pods with one hostname and subdomain.
func sameHostname(ctx context.Context, w *world, n int) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("same-%d", n%1000), Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Hostname: "web-0", Subdomain: "web"},
	}
	if n >= 1000 {
		if err := w.deletePod(ctx, pod.Name); err != nil {
			return err
		}
	}
	return w.createPod(ctx, pod, n)
}

// churn changes a Service and a Pod: each change invalidates the facts of the namespace.
func churn(ctx context.Context, w *world, n int) error {
	if n%2 == 0 {
		s := service("churn", map[string]string{"app": "web", "n": fmt.Sprint(n % 3)})
		s.Annotations = map[string]string{"n": fmt.Sprint(n)}
		return w.apply(ctx, s)
	}
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{"n":"%d"}}}`, n%3)
	_, err := w.editor.CoreV1().Pods(editorNamespace).Patch(ctx, "running", "application/merge-patch+json", patch, metav1.PatchOptions{})
	return err
}

// recreatedPods replaces Pods of the same name, so that facts and UIDs differ.
func recreatedPods(ctx context.Context, w *world, n int) error {
	name := fmt.Sprintf("again-%d", n%20)
	if err := w.deletePod(ctx, name); err != nil {
		return err
	}
	return w.createPod(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web"}}}, n)
}

// ownNames requests 60 names of the editor's Services and their addresses with the tokens of its Pods: each name and
// each address is resolved. A Pod without an address is held.
func ownNames(ctx context.Context, w *world, n int) error {
	ask := tutorial.Request{}
	for i := range 30 {
		ask.DNSNames = append(ask.DNSNames, fmt.Sprintf("many-%d.%s.svc.cluster.local", (n*30+i)%3000, editorNamespace))
		ask.IPs = append(ask.IPs, fmt.Sprintf("10.1.0.%d", i))
	}
	as := w.running
	if n%2 == 1 {
		as = w.pending
	}
	labels := map[string]string{}
	if n%8 == 7 {
		maps.Copy(labels, w.settings.longLabels())
	}
	return w.create(ctx, as.client, ask, tutorial.SignerName, "own", labels)
}
