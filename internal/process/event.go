// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/internal/text"
)

const (
	// podNameEnv and podUIDEnv are the environment variables with the Pod of the process. The Deployment sets
	// them from metadata.name and metadata.uid. Without them, no Events are created.
	podNameEnv = "POD_NAME"
	podUIDEnv  = "POD_UID"

	// reasonNotReady is the reason of the Event about a Pod that is not ready. The kubelet's own Event does
	// not contain the body of the probe.
	reasonNotReady = "NotReady"
	// maxEvent bounds the message of an Event, in bytes. It is the limit of the API server.
	maxEvent = 1024
)

// podEvents returns a function that creates an Event about the Pod of the process, or nil if the
// environment does not name the Pod. Errors are logged: probes call the function again when the reasons
// change.
func podEvents(ctx context.Context, cfg *rest.Config, c Config, log logr.Logger) (func(string), error) {
	pod := corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: c.Namespace, Name: os.Getenv(podNameEnv), UID: types.UID(os.Getenv(podUIDEnv)),
	}
	if pod.Name == "" || pod.UID == "" {
		return nil, nil
	}
	short := rest.CopyConfig(cfg)
	short.Timeout = callTimeout
	clientset, err := kubernetes.NewForConfig(short)
	if err != nil {
		return nil, fmt.Errorf("creating a client for Events: %w", err)
	}
	return func(reasons string) {
		event := notReady(pod, c.Name, reasons, metav1.Now())
		go func() { // not in the handler of a probe
			if _, err := clientset.CoreV1().Events(pod.Namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil {
				log.V(1).Info("creating an Event about the Pod", "error", err.Error())
			}
		}()
	}, nil
}

// notReady returns the Event about a Pod that is not ready.
func notReady(pod corev1.ObjectReference, component, reasons string, now metav1.Time) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: pod.Namespace, GenerateName: pod.Name + "."},
		InvolvedObject: pod, Type: corev1.EventTypeWarning, Reason: reasonNotReady, Message: text.Shorten(reasons, maxEvent),
		Source: corev1.EventSource{Component: component}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingController: component, ReportingInstance: pod.Name,
	}
}
