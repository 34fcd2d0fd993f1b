// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

// hostIP is status.hostIP of every Pod.
const hostIP = "10.0.0.11"

// CreateNamespace creates a namespace, its ServiceAccount "default" and further ServiceAccounts.
func (c *Cluster) CreateNamespace(ctx context.Context, name string, labels map[string]string, serviceAccounts ...string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := c.clientset.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, account := range append([]string{"default"}, serviceAccounts...) {
		object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}
		_, err := c.clientset.CoreV1().ServiceAccounts(name).Create(ctx, object, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) { // the controller manager creates "default" too
			return err
		}
	}
	return nil
}

func (c *Cluster) exists(ctx context.Context, namespace, serviceAccount string) error {
	_, err := c.clientset.CoreV1().ServiceAccounts(namespace).Get(ctx, serviceAccount, metav1.GetOptions{})
	return err
}

// CreateNode creates a Node with addresses.
func (c *Cluster) CreateNode(ctx context.Context, name string, addresses ...corev1.NodeAddress) error {
	node, err := c.clientset.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node.Status.Addresses = addresses
	_, err = c.clientset.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// RunPod creates a Pod and sets its status as a kubelet does: Running with its addresses, or Pending without addresses. A
// container, a Node and the ServiceAccount "default" are the defaults.
func (c *Cluster) RunPod(ctx context.Context, pod *corev1.Pod, podIPs ...string) (*corev1.Pod, error) {
	pod = pod.DeepCopy()
	if len(pod.Spec.Containers) == 0 {
		pod.Spec.Containers = []corev1.Container{{Name: "main", Image: "main"}}
	}
	if pod.Spec.NodeName == "" {
		pod.Spec.NodeName = "node-1"
	}
	created, err := c.clientset.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	phase := corev1.PodRunning
	if len(podIPs) == 0 {
		phase = corev1.PodPending
	}
	return c.SetPodStatus(ctx, created, phase, podIPs...)
}

// SetPodStatus sets the phase and the addresses of a Pod and retries conflicts. A Pod with the same name and another UID
// is an error.
func (c *Cluster) SetPodStatus(ctx context.Context, pod *corev1.Pod, phase corev1.PodPhase, podIPs ...string) (updated *corev1.Pod, err error) {
	pods := c.clientset.CoreV1().Pods(pod.Namespace)
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if current.UID != pod.UID {
			return fmt.Errorf("the Pod %s/%s is %s now, not %s", pod.Namespace, pod.Name, current.UID, pod.UID)
		}
		setStatus(current, phase, podIPs)
		updated, err = pods.UpdateStatus(ctx, current, metav1.UpdateOptions{})
		return err
	})
	return updated, err
}

func setStatus(pod *corev1.Pod, phase corev1.PodPhase, podIPs []string) {
	ready := corev1.ConditionFalse
	if phase == corev1.PodRunning {
		ready = corev1.ConditionTrue
	}
	pod.Status.Phase, pod.Status.HostIP = phase, hostIP
	pod.Status.HostIPs = []corev1.HostIP{{IP: pod.Status.HostIP}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	pod.Status.PodIP, pod.Status.PodIPs = "", nil
	for i, ip := range podIPs {
		if i == 0 {
			pod.Status.PodIP = ip
		}
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
	}
}

// DeletePod deletes a Pod without a grace period and waits until it is removed.
func (c *Cluster) DeletePod(ctx context.Context, namespace, name string) error {
	pods := c.clientset.CoreV1().Pods(namespace)
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		_, err := pods.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
}

// ServiceAccountToken creates a token of a ServiceAccount that is not bound to an object.
func (c *Cluster) ServiceAccountToken(ctx context.Context, namespace, name string) (string, error) {
	return c.token(ctx, namespace, name, nil)
}

// PodToken creates the token that a kubelet mounts into a Pod. Requests with it have the extras
// authentication.kubernetes.io/pod-name and pod-uid.
func (c *Cluster) PodToken(ctx context.Context, pod *corev1.Pod) (string, error) {
	return c.token(ctx, pod.Namespace, pod.Spec.ServiceAccountName, &authenticationv1.BoundObjectReference{
		APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
	})
}

func (c *Cluster) token(ctx context.Context, namespace, name string, bound *authenticationv1.BoundObjectReference) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: bound, ExpirationSeconds: ptr.To[int64](7200),
	}}
	answer, err := c.clientset.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("creating a token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	return answer.Status.Token, nil
}
