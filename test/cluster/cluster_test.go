// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/test/cluster"
)

// TestCluster uses one control plane from start to stop. The steps build on each other.
func TestCluster(t *testing.T) {
	ctx := t.Context()
	binaries(t)
	began := time.Now()
	c, err := cluster.Start(ctx, cluster.Options{Progress: os.Stderr, ControllerManager: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready in %s", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := c.Stop(); err != nil { // a second time after the last step
			t.Error(err)
		}
	})
	must(t, c.CreateNode(ctx, "node-1", corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "10.0.0.11"}))
	must(t, c.CreateNamespace(ctx, "one", map[string]string{"team": "red"}, "app"))
	pod, err := c.RunPod(ctx, newPod("p"), "10.0.0.1", "fd00::1")
	must(t, err)
	podToken, err := c.PodToken(ctx, pod)
	must(t, err)
	jane, err := c.ConfigFor("jane", "devs", "ops")
	must(t, err)

	t.Run("a Pod runs with its addresses", func(t *testing.T) {
		want := corev1.PodStatus{
			Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBestEffort,
			HostIP: "10.0.0.11", HostIPs: []corev1.HostIP{{IP: "10.0.0.11"}},
			PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		}
		if diff := cmp.Diff(want, pod.Status); diff != "" {
			t.Error(diff)
		}
		if pod.Spec.NodeName != "node-1" || pod.Spec.ServiceAccountName != "app" {
			t.Errorf("got Node %q, ServiceAccount %q", pod.Spec.NodeName, pod.Spec.ServiceAccountName)
		}
	})
	t.Run("a Pod without addresses is pending until it has some", func(t *testing.T) {
		starting, err := c.RunPod(ctx, newPod("starting"))
		must(t, err)
		if starting.Status.Phase != corev1.PodPending || starting.Status.PodIPs != nil {
			t.Errorf("got %s, %v", starting.Status.Phase, starting.Status.PodIPs)
		}
		// The label makes the Pod that RunPod returned stale. SetPodStatus must keep it.
		_, err = c.Kubectl(ctx, nil, "label", "pod", "-n", "one", "starting", "color=blue")
		must(t, err)
		running, err := c.SetPodStatus(ctx, starting, corev1.PodRunning, "10.0.0.2")
		must(t, err)
		if running.Status.Phase != corev1.PodRunning || running.Status.PodIP != "10.0.0.2" || running.Labels["color"] != "blue" {
			t.Errorf("got %+v, labels %v", running.Status, running.Labels)
		}
		impostor := starting.DeepCopy()
		impostor.UID = "0"
		_, err = c.SetPodStatus(ctx, impostor, corev1.PodFailed)
		if want := "the Pod one/starting is " + string(starting.UID) + " now, not 0"; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
	t.Run("a token that is bound to a Pod names the Pod", func(t *testing.T) {
		user := whoAmI(t, c.TokenConfig(podToken))
		if user.Username != "system:serviceaccount:one:app" {
			t.Errorf("got %q", user.Username)
		}
		for _, extra := range []struct{ key, want string }{{"pod-name", "p"}, {"pod-uid", string(pod.UID)}, {"node-name", "node-1"}} {
			key, want := extra.key, extra.want
			if got := user.Extra["authentication.kubernetes.io/"+key]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s: got %v, want %s", key, got, want)
			}
		}
	})
	t.Run("a token that is not bound names no Pod", func(t *testing.T) {
		token, err := c.ServiceAccountToken(ctx, "one", "app")
		must(t, err)
		user := whoAmI(t, c.TokenConfig(token))
		if user.Username != "system:serviceaccount:one:app" {
			t.Errorf("got %q", user.Username)
		}
		if got, found := user.Extra["authentication.kubernetes.io/pod-name"]; found {
			t.Errorf("it names the Pod %v", got)
		}
	})
	t.Run("an invalid token is rejected", func(t *testing.T) {
		clientset, err := kubernetes.NewForConfig(c.TokenConfig(podToken + "x"))
		must(t, err)
		_, err = clientset.CoreV1().Pods("one").List(ctx, metav1.ListOptions{})
		if !apierrors.IsUnauthorized(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a client certificate authenticates its user", func(t *testing.T) {
		user := whoAmI(t, jane)
		slices.Sort(user.Groups)
		if want := []string{"devs", "ops", "system:authenticated"}; user.Username != "jane" || !slices.Equal(user.Groups, want) {
			t.Errorf("got %q of %v", user.Username, user.Groups)
		}
	})
	t.Run("RBAC denies until a role allows", func(t *testing.T) {
		clientset, err := kubernetes.NewForConfig(jane)
		must(t, err)
		list := func(ctx context.Context) error {
			_, err := clientset.CoreV1().Pods("one").List(ctx, metav1.ListOptions{})
			return err
		}
		if err := list(ctx); !apierrors.IsForbidden(err) {
			t.Fatalf("got %v", err)
		}
		_, err = c.Kubectl(ctx, nil, "create", "role", "-n", "one", "pods", "--verb=list", "--resource=pods")
		must(t, err)
		_, err = c.Kubectl(ctx, nil, "create", "rolebinding", "-n", "one", "pods", "--role=pods", "--group=devs")
		must(t, err)
		eventually(t, func(ctx context.Context) (bool, error) {
			err := list(ctx)
			if apierrors.IsForbidden(err) {
				return false, nil
			}
			return true, err
		})
	})
	t.Run("a Service can have the address of the tutorial", func(t *testing.T) {
		_, err := c.Clientset().CoreV1().Services("one").Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "my-svc"},
			Spec:       corev1.ServiceSpec{ClusterIP: "192.0.2.24", Ports: []corev1.ServicePort{{Port: 443}}},
		}, metav1.CreateOptions{})
		must(t, err)
	})
	t.Run("the controller manager creates default ServiceAccounts and publishes the root CA", func(t *testing.T) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bare"}}
		_, err := c.Clientset().CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
		must(t, err)
		eventually(t, func(ctx context.Context) (bool, error) {
			_, accountErr := c.Clientset().CoreV1().ServiceAccounts("bare").Get(ctx, "default", metav1.GetOptions{})
			_, rootErr := c.Clientset().CoreV1().ConfigMaps("bare").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
			return accountErr == nil && rootErr == nil, nil
		})
	})
	t.Run("kubectl reads standard input and returns its errors", func(t *testing.T) {
		manifest := strings.NewReader(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "one"}}`)
		if out, err := c.Kubectl(ctx, manifest, "apply", "-f", "-", "-o", "name"); err != nil || string(out) != "configmap/cm\n" {
			t.Errorf("got %q, %v", out, err)
		}
		_, err := c.Kubectl(ctx, nil, "get", "pod", "-n", "one", "absent")
		if want := "kubectl get pod -n one absent: exit status 1\nError from server (NotFound): pods \"absent\" not found\n"; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
	t.Run("a kubeconfig is self-contained", func(t *testing.T) {
		for _, tc := range []struct {
			name   string
			config *rest.Config
		}{{"system:serviceaccount:one:app", c.TokenConfig(podToken)}, {"jane", jane}} {
			name, cfg := tc.name, tc.config
			path := filepath.Join(t.TempDir(), "kubeconfig")
			must(t, c.WriteKubeconfig(path, cfg))
			info, err := os.Stat(path)
			must(t, err)
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v", name, info.Mode())
			}
			out, err := c.Kubectl(ctx, nil, "--kubeconfig="+path, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
			if err != nil || string(out) != name {
				t.Errorf("got %q, %v; want %s", out, err, name)
			}
		}
	})
	t.Run("a restarted API server has its data and authenticates its users", func(t *testing.T) {
		must(t, c.StopAPIServer())
		if _, err := c.Clientset().CoreV1().Pods("one").Get(ctx, "p", metav1.GetOptions{}); err == nil {
			t.Fatal("the stopped API server answers")
		}
		must(t, c.StartAPIServer(ctx))
		got, err := c.Clientset().CoreV1().Pods("one").Get(ctx, "p", metav1.GetOptions{})
		if err != nil || got.UID != pod.UID {
			t.Errorf("got %v, %v", got, err)
		}
		if user := whoAmI(t, c.TokenConfig(podToken)); user.Username != "system:serviceaccount:one:app" {
			t.Errorf("the token is now of %q", user.Username)
		}
		if user := whoAmI(t, jane); user.Username != "jane" {
			t.Errorf("the certificate is now of %q", user.Username)
		}
		if err := c.StartAPIServer(ctx); err == nil || err.Error() != "kube-apiserver is already running" {
			t.Errorf("started twice: got %v", err)
		}
	})
	t.Run("the token of a deleted Pod becomes invalid", func(t *testing.T) {
		must(t, c.DeletePod(ctx, "one", "p"))
		if _, err := c.Clientset().CoreV1().Pods("one").Get(ctx, "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("got %v", err)
		}
		clientset, err := kubernetes.NewForConfig(c.TokenConfig(podToken))
		must(t, err)
		eventually(t, func(ctx context.Context) (bool, error) { // the API server caches tokens for seconds
			_, err := clientset.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
			return apierrors.IsUnauthorized(err), nil
		})
	})
	t.Run("the API server does not answer after Stop", func(t *testing.T) {
		must(t, c.Stop())
		if _, err := c.Clientset().CoreV1().Pods("one").List(ctx, metav1.ListOptions{}); err == nil {
			t.Error("the API server still answers")
		}
	})
}

func TestStartShowsTheLogOfWhatFailed(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"} {
		must(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho no space left >&2\nexit 3\n"), 0o700))
	}
	t.Setenv("KUBEBUILDER_ASSETS", bin)
	c, err := cluster.Start(t.Context(), cluster.Options{})
	if want := "etcd ended before it was ready: exit status 3\nno space left\n"; err == nil || err.Error() != want || c != nil {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestStartRefusesTheDataOfAnother(t *testing.T) {
	binaries(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "ca.crt"), nil, 0o600))
	_, err := cluster.Start(t.Context(), cluster.Options{Dir: dir})
	if want := "the data directory " + dir + " is not empty"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestBinariesNamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	must(t, os.WriteFile(filepath.Join(dir, "etcd"), nil, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "kubectl"), nil, 0o600)) // not executable
	must(t, os.WriteFile(filepath.Join(dir, "kube-apiserver"), nil, 0o700))
	for _, tc := range []struct {
		name, want string
		more       []string
	}{
		{
			name: "of setup-envtest",
			want: "missing kubectl: run 'export KUBEBUILDER_ASSETS=$(setup-envtest use 1.37.x -p path)', or unset it to build from source",
		},
		{
			name: "kube-controller-manager", more: []string{cluster.ControllerManager},
			want: "missing kubectl, kube-controller-manager: unset KUBEBUILDER_ASSETS to build from source, or add the binaries (setup-envtest does not install kube-controller-manager)",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := cluster.Binaries(t.Context(), os.Stderr, tc.more...)
			if want := "KUBEBUILDER_ASSETS=" + dir + ": " + tc.want; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestRootIsFoundFromBelowAndNotFromOutside(t *testing.T) {
	want, err := filepath.Abs("../..")
	must(t, err)
	if got, err := cluster.Root(); err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	t.Chdir(filepath.Join(want, "test", "controlplane")) // a nested module
	if got, err := cluster.Root(); err != nil || got != want {
		t.Errorf("from test/controlplane: got %s, %v; want %s", got, err, want)
	}
	t.Chdir(string(filepath.Separator))
	if got, err := cluster.Root(); err == nil || err.Error() != "/ is not inside the module countersign.dev/countersign" {
		t.Errorf("from /: got %s, %v", got, err)
	}
}

// binaries builds the binaries, so that later time limits do not include the build.
func binaries(t *testing.T) {
	t.Helper()
	_, err := cluster.Binaries(t.Context(), os.Stderr, cluster.ControllerManager)
	must(t, err)
}

func newPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "one", Name: name},
		Spec:       corev1.PodSpec{ServiceAccountName: "app"},
	}
}

func whoAmI(t *testing.T, cfg *rest.Config) authenticationv1.UserInfo {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(cfg)
	must(t, err)
	review, err := clientset.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	must(t, err)
	return review.Status.UserInfo
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls a condition for up to a minute.
func eventually(t *testing.T, condition wait.ConditionWithContextFunc) {
	t.Helper()
	must(t, wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, time.Minute, true, condition))
}
