// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// maxReads is the maximum number of reads from the API server for one request, and maxRead the maximum
// size of the Pods, Services and Nodes that these reads keep, in bytes of protobuf. The Namespace and the
// Services of the subject, which requests share, are not counted.
const (
	maxReads = 128
	maxRead  = MaxSize
)

// errExcess means that a request exceeds maxReads or maxRead. The object is then unknown, and
// [Gathered.Excess] is set.
var errExcess = errors.New("the request needs too many reads")

// liveReader reads from the API server for one request. It reads each Pod, Service and Node once, and
// keeps only the fields that the request needs. It is not safe for concurrent use.
type liveReader struct {
	client.Reader
	objects map[liveKey]client.Object // nil for an object that does not exist
	reads   int
	size    int
	// oldest is the time at which the oldest read behind the facts started.
	oldest time.Time
	excess string // see Gathered
}

type liveKey struct {
	object reflect.Type
	name   types.NamespacedName
}

func newLiveReader(reader client.Reader) *liveReader {
	return &liveReader{Reader: reader, objects: map[liveKey]client.Object{}}
}

// readAt records that the facts are based on a read that started at this time.
func (r *liveReader) readAt(start time.Time) {
	if r.oldest.IsZero() || start.Before(r.oldest) {
		r.oldest = start
	}
}

func (r *liveReader) count() error {
	if r.reads >= maxReads && r.excess == "" {
		r.excess = fmt.Sprintf("more than %d objects have the names of the request: ask for fewer names", maxReads)
	}
	if r.excess != "" {
		return errExcess
	}
	r.reads++
	r.readAt(time.Now())
	return nil
}

// Get returns an object that was read before, or reads it.
func (r *liveReader) Get(ctx context.Context, key types.NamespacedName, object client.Object, options ...client.GetOption) error {
	id := liveKey{reflect.TypeOf(object), key}
	if known, ok := r.objects[id]; ok {
		return copyInto(object, known, key.Name)
	}
	if err := r.count(); err != nil {
		return err
	}
	err := r.Reader.Get(ctx, key, object, options...)
	if err == nil || apierrors.IsNotFound(err) {
		r.keep(id, object, err == nil)
	}
	return err
}

// GetFull reads an object completely, even if it was read before.
func (r *liveReader) GetFull(ctx context.Context, key types.NamespacedName, object client.Object) error {
	delete(r.objects, liveKey{reflect.TypeOf(object), key})
	return r.Get(ctx, key, object)
}

// List implements client.Reader. It always reads.
func (r *liveReader) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if err := r.count(); err != nil {
		return err
	}
	return r.Reader.List(ctx, list, options...)
}

// keep stores the fields of a Pod, Service or Node that the request needs.
func (r *liveReader) keep(id liveKey, object client.Object, exists bool) {
	if !exists {
		r.objects[id] = nil
		return
	}
	var small interface {
		client.Object
		Size() int
	}
	switch o := object.(type) {
	case *corev1.Pod:
		small = foundPod(o)
	case *corev1.Service:
		small = selectingService(o)
	case *corev1.Node:
		small = foundNode(o)
	default:
		return
	}
	if r.size += small.Size(); r.size > maxRead && r.excess == "" {
		r.excess = fmt.Sprintf("the objects that have the names of the request take more than %d bytes: remove labels, selectors or addresses from them", maxRead)
	}
	r.objects[id] = small
}

// copyInto sets object to an object of the same type. It returns the error "not found" for nil.
func copyInto(object, known client.Object, name string) error {
	switch o := object.(type) {
	case *corev1.Pod:
		if pod, ok := known.(*corev1.Pod); ok {
			*o = *pod
			return nil
		}
	case *corev1.Service:
		if service, ok := known.(*corev1.Service); ok {
			*o = *service
			return nil
		}
	case *corev1.Node:
		if node, ok := known.(*corev1.Node); ok {
			*o = *node
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: reflect.TypeOf(object).Elem().Name()}, name)
}

// foundPod returns the fields by which a Pod is found.
func foundPod(pod *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{}
	out.Namespace, out.Name, out.UID = pod.Namespace, pod.Name, pod.UID
	out.Spec.HostNetwork, out.Spec.Hostname, out.Spec.Subdomain = pod.Spec.HostNetwork, pod.Spec.Hostname, pod.Spec.Subdomain
	out.Status.Phase, out.Status.PodIPs = pod.Status.Phase, pod.Status.PodIPs
	out.DeletionTimestamp = pod.DeletionTimestamp
	return out
}

// foundNode returns the fields by which a Node is found.
func foundNode(node *corev1.Node) *corev1.Node {
	out := &corev1.Node{}
	out.Name, out.UID, out.Status.Addresses = node.Name, node.UID, node.Status.Addresses
	return out
}

// selectingService returns the fields of a Service that [serviceOf] uses.
func selectingService(service *corev1.Service) *corev1.Service {
	out := &corev1.Service{}
	out.Namespace, out.Name, out.UID, out.Labels = service.Namespace, service.Name, service.UID, service.Labels
	out.DeletionTimestamp = service.DeletionTimestamp
	out.Spec.Type, out.Spec.Selector = service.Spec.Type, service.Spec.Selector
	out.Spec.ClusterIP, out.Spec.ClusterIPs = service.Spec.ClusterIP, service.Spec.ClusterIPs
	for _, port := range service.Spec.Ports {
		out.Spec.Ports = append(out.Spec.Ports, corev1.ServicePort{Port: port.Port})
	}
	return out
}
