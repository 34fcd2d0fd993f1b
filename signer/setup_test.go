// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"countersign.dev/countersign/api/v1alpha1"
)

// TestDelayed: a user who changes objects in a loop causes at most two reconciles a second.
func TestDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		queue := workqueue.NewTypedRateLimitingQueue(rateLimiter[reconcile.Request]())
		reconciled := 0
		go func() {
			for {
				item, shutDown := queue.Get()
				if shutDown {
					return
				}
				reconciled++
				queue.Done(item)
			}
		}()
		handler := delayed(func(context.Context, client.Object) []reconcile.Request {
			return []reconcile.Request{requestFor("serving")}
		})
		for range 10_000 { // in 10 s
			handler.Update(t.Context(), event.UpdateEvent{ObjectOld: &v1alpha1.Signer{}, ObjectNew: &v1alpha1.Signer{}}, queue)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		queue.ShutDown()
		synctest.Wait()
		if reconciled < 19 || reconciled > 21 {
			t.Errorf("reconciled %d times in 10 s, want 20", reconciled)
		}
	})
}

// TestIsInput: a Signer whose conditions alone have changed is not reconciled. An error with a different text each time
// would cause a loop.
func TestIsInput(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*v1alpha1.Signer)
		want   bool
	}{
		{"a message", func(s *v1alpha1.Signer) { s.Status.Conditions[0].Message = "read tcp 10.0.0.1:40001: connection reset" }, false},
		{"a condition", func(s *v1alpha1.Signer) { s.Status.Conditions = nil }, false},
		{"the spec", func(s *v1alpha1.Signer) { s.Spec.Trust.ClusterTrustBundle = true }, true},
		{"the annotation", func(s *v1alpha1.Signer) { s.Annotations = map[string]string{v1alpha1.RotateAnnotation: "now"} }, true},
		{"the state of a rotation", func(s *v1alpha1.Signer) { s.Status.TrustAnchors = nil }, true},
		{"the published objects", func(s *v1alpha1.Signer) { s.Status.Published = &v1alpha1.PublishedTrust{ConfigMap: "x"} }, true},
		{"deletion", func(s *v1alpha1.Signer) { s.DeletionTimestamp = &metav1.Time{Time: now} }, true},
		{"created again", func(s *v1alpha1.Signer) { s.UID = "other" }, true},
	} {
		before := &v1alpha1.Signer{ObjectMeta: metav1.ObjectMeta{Name: "serving", UID: "uid", ResourceVersion: "1"}}
		before.Status.TrustAnchors = []v1alpha1.TrustAnchor{{Fingerprint: "a"}}
		before.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Message: "read tcp 10.0.0.1:40000: connection reset"}}
		after := before.DeepCopy()
		after.ResourceVersion = "2"
		test.change(after)
		if got := isInput(event.UpdateEvent{ObjectOld: before, ObjectNew: after}); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
