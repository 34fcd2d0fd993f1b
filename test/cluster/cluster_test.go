// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/test/cluster"
)

func TestCluster(t *testing.T) {
	ctx := t.Context()
	c, err := cluster.Start(ctx, cluster.Options{Progress: os.Stderr, ControllerManager: true})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
	if err := c.CreateNamespace(ctx, "one", nil, "app"); err != nil {
		t.Fatal(err)
	}
	pod, err := c.RunPod(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "one", Name: "p"}, Spec: corev1.PodSpec{ServiceAccountName: "app"}}, "10.0.0.1", "fd00::1")
	if err != nil {
		t.Fatal(err)
	}

	t.Run("a Pod has the status that a kubelet gives it", func(t *testing.T) {
		if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP != "10.0.0.1" || len(pod.Status.PodIPs) != 2 {
			t.Errorf("got %+v", pod.Status)
		}
	})
	t.Run("a token bound to a Pod says so", func(t *testing.T) {
		token, err := c.PodToken(ctx, pod)
		if err != nil {
			t.Fatal(err)
		}
		user := whoAmI(t, c.TokenConfig(token))
		if user.Username != "system:serviceaccount:one:app" {
			t.Errorf("got %q", user.Username)
		}
		for key, want := range map[string]string{"pod-name": "p", "pod-uid": string(pod.UID)} {
			if got := user.Extra["authentication.kubernetes.io/"+key]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: got %v, want %s", key, got, want)
			}
		}
	})
	t.Run("a user is who the certificate says", func(t *testing.T) {
		cfg, err := c.ConfigFor("jane", "devs")
		if err != nil {
			t.Fatal(err)
		}
		if user := whoAmI(t, cfg); user.Username != "jane" || !strings.Contains(strings.Join(user.Groups, " "), "devs") {
			t.Errorf("got %+v", user)
		}
		clientset, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := clientset.CoreV1().Secrets("one").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("RBAC is not on: got %v", err)
		}
	})
	t.Run("the API server comes back with its data", func(t *testing.T) {
		if err := c.StopAPIServer(); err != nil {
			t.Fatal(err)
		}
		if err := c.StartAPIServer(ctx); err != nil {
			t.Fatal(err)
		}
		got, err := c.Clientset().CoreV1().Pods("one").Get(ctx, "p", metav1.GetOptions{})
		if err != nil || got.UID != pod.UID {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("kubectl reaches it and its errors are shown", func(t *testing.T) {
		if out, err := c.Kubectl(ctx, nil, "get", "pod", "-n", "one", "-o", "name"); err != nil || string(out) != "pod/p\n" {
			t.Errorf("got %q, %v", out, err)
		}
		if _, err := c.Kubectl(ctx, nil, "get", "pod", "-n", "one", "absent"); err == nil || !strings.Contains(err.Error(), `pods "absent" not found`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a Pod that is deleted is gone", func(t *testing.T) {
		if err := c.DeletePod(ctx, "one", "p"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Clientset().CoreV1().Pods("one").Get(ctx, "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nothing runs after Stop", func(t *testing.T) {
		stopped = true
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Clientset().CoreV1().Pods("one").List(ctx, metav1.ListOptions{}); err == nil {
			t.Error("the API server still answers")
		}
	})
}

func whoAmI(t *testing.T, cfg *rest.Config) authenticationv1.UserInfo {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	review, err := clientset.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo
}

func TestBinariesNamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, err := cluster.Binaries(t.Context(), os.Stderr)
	if want := "KUBEBUILDER_ASSETS=" + dir + " lacks kube-controller-manager: add them, or unset it to have them built"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
