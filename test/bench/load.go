// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"countersign.dev/countersign/test/tutorial"
)

const (
	// clients is the number of clients that create the requests of a load.
	clients = 32
	// progressInterval is the time between two progress lines.
	progressInterval = 2 * time.Second
	// stalled is the longest time of a load without the end of any request.
	stalled = 60 * time.Second

	protobuf = "application/vnd.kubernetes.protobuf"
	resource = "certificatesigningrequests"
)

// ownConnections returns clients that share no connection. client-go shares one between clients with equal
// configurations, so each gets its own dial function.
func ownConnections(n int, config func(i int) (*rest.Config, error)) ([]rest.Interface, error) {
	out := make([]rest.Interface, n)
	for i := range out {
		c, err := config(i)
		if err != nil {
			return nil, err
		}
		dialer := &net.Dialer{}
		c.Dial = dialer.DialContext
		c.QPS, c.ContentType, c.AcceptContentTypes = -1, protobuf, protobuf
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer = "/apis", &certificatesv1.SchemeGroupVersion, scheme.Codecs.WithoutConversion()
		if out[i], err = rest.RESTClientFor(c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// informerOf returns an informer of the requests for one signer.
func informerOf(client cache.Getter, signer string) cache.SharedIndexInformer {
	watch := cache.NewListWatchFromClient(client, resource, metav1.NamespaceAll, fields.OneTermEqualSelector("spec.signerName", signer))
	return cache.NewSharedIndexInformer(watch, &certificatesv1.CertificateSigningRequest{}, 0, cache.Indexers{})
}

// ask is a request to create.
type ask struct {
	tutorial.Request
	// token of the requester; empty if the client has its own certificate.
	token string
	// hostile requests must be denied.
	hostile bool
}

// object returns the object of a request, with a new key and its signature. It is called before a load starts, so that
// this time is not measured.
func (a ask) object(name, signer string) (*certificatesv1.CertificateSigningRequest, error) {
	request, _, err := a.PEM()
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       certificatesv1.CertificateSigningRequestSpec{Request: request, SignerName: signer, Usages: a.Usages},
	}, err
}

// request is a request that was created, and its result.
type request struct {
	hostile        bool
	planned, ended time.Time
	// failure is why it ended without a certificate; empty if it has one.
	failure string
}

// tracker records when the requests for one signer end.
type tracker struct {
	mu       sync.Mutex
	requests map[string]*request
	left     int
	done     chan struct{} // closed when none is left
}

// track starts a tracker for a signer that runs until ctx ends.
func track(ctx context.Context, client cache.Getter, signer string) (*tracker, error) {
	t := &tracker{}
	informer := informerOf(client, signer)
	strip := func(object any) (any, error) {
		if csr, ok := object.(*certificatesv1.CertificateSigningRequest); ok {
			csr.ManagedFields, csr.Spec = nil, certificatesv1.CertificateSigningRequestSpec{}
		}
		return object, nil
	}
	observe := func(object any) {
		if csr, ok := object.(*certificatesv1.CertificateSigningRequest); ok {
			t.observe(csr, time.Now())
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: observe, UpdateFunc: func(_, object any) { observe(object) }}
	if err := informer.SetTransform(strip); err != nil {
		return nil, err
	}
	if _, err := informer.AddEventHandler(handler); err != nil {
		return nil, err
	}
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil, fmt.Errorf("syncing the requests for %s: %w", signer, context.Cause(ctx))
	}
	return t, nil
}

func (t *tracker) observe(csr *certificatesv1.CertificateSigningRequest, now time.Time) {
	failure := ""
	if len(csr.Status.Certificate) == 0 {
		condition := tutorial.Condition(csr, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed)
		if condition == nil {
			return
		}
		failure = string(condition.Type) + ": " + condition.Message
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.requests[csr.Name]
	if r == nil || !r.ended.IsZero() {
		return
	}
	r.ended, r.failure = now, failure
	if t.left--; t.left == 0 {
		close(t.done)
	}
}

func (t *tracker) expect(requests map[string]*request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests, t.left, t.done = requests, len(requests), make(chan struct{})
}

// plan records when a request was to be created.
func (t *tracker) plan(name string, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests[name].planned = at
}

func (t *tracker) remaining() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.left
}

// load is a set of requests for a system.
type load struct {
	name   string // "burst", "mix" or "steady"; part of the names of the requests too
	signer string
	asks   []ask
	// pace is the time between two requests. If it is 0, each client sends its requests one after the other.
	pace time.Duration
}

// batch is the result of a load.
type batch struct {
	requests, hostile, issued, denied int
	// took is the time from the first request until the end of the last one.
	took time.Duration
	// latencies of issued requests, from their planned time until the certificate was observed; sorted.
	latencies []time.Duration
}

// run creates the requests of a load and waits until all have ended. The error names requests that have not ended, or
// that have an unexpected result.
func (l load) run(ctx context.Context, t *tracker, senders []rest.Interface, out io.Writer) (batch, error) {
	objects := make([]*certificatesv1.CertificateSigningRequest, len(l.asks))
	requests := make(map[string]*request, len(l.asks))
	for i, a := range l.asks {
		var err error
		if objects[i], err = a.object(fmt.Sprintf("%s-%05d", l.name, i), l.signer); err != nil {
			return batch{}, err
		}
		requests[objects[i].Name] = &request{hostile: a.hostile}
	}
	t.expect(requests)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sending, sendCtx := errgroup.WithContext(ctx)
	start := time.Now()
	send := func(first int) error {
		for i := first; i < len(objects); i += len(senders) {
			planned, err := l.plannedAt(sendCtx, start, i)
			if err != nil {
				return err
			}
			t.plan(objects[i].Name, planned)
			if err := create(sendCtx, senders[first], objects[i], l.asks[i].token); err != nil {
				return err
			}
		}
		return nil
	}
	for first := range senders {
		sending.Go(func() error { return send(first) })
	}
	sent := make(chan error, 1)
	go func() { sent <- sending.Wait() }()
	if err := l.wait(ctx, t, sent, start, out); err != nil {
		cancel()
		_ = sending.Wait()
		return summarize(requests, start), errors.Join(err, wrong(requests))
	}
	return summarize(requests, start), wrong(requests)
}

// plannedAt waits until the i-th request is due, and returns when that was: now, if the load has no pace.
func (l load) plannedAt(ctx context.Context, start time.Time, i int) (time.Time, error) {
	if l.pace == 0 {
		return time.Now(), nil
	}
	planned := start.Add(time.Duration(i) * l.pace)
	select {
	case <-time.After(time.Until(planned)):
		return planned, nil
	case <-ctx.Done():
		return planned, ctx.Err()
	}
}

// create creates a request. If token is empty, the credentials of the sender are used.
func create(ctx context.Context, sender rest.Interface, object *certificatesv1.CertificateSigningRequest, token string) error {
	post := sender.Post().Resource(resource).Body(object)
	if token != "" {
		post.SetHeader("Authorization", "Bearer "+token)
	}
	if err := post.Do(ctx).Error(); err != nil {
		return fmt.Errorf("creating request %s: %w", object.Name, err)
	}
	return nil
}

// wait waits until every request has ended, and prints the progress.
func (l load) wait(ctx context.Context, t *tracker, sent chan error, start time.Time, out io.Writer) error {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	left, moved := t.remaining(), time.Now()
	for {
		select {
		case <-t.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case err := <-sent:
			if err != nil {
				return err
			}
			sent = nil // receive only once
		case <-ticker.C:
			now := t.remaining()
			fmt.Fprintf(out, "   %s: %d of %d requests have ended after %s\n", l.name, len(l.asks)-now, len(l.asks), time.Since(start).Round(time.Second))
			if now != left {
				left, moved = now, time.Now()
			}
			if time.Since(moved) > stalled {
				return fmt.Errorf("%d of %d requests have not ended, and none has for %s", now, len(l.asks), stalled)
			}
		}
	}
}

func summarize(requests map[string]*request, start time.Time) batch {
	b := batch{requests: len(requests)}
	last := start
	for _, r := range requests {
		if r.hostile {
			b.hostile++
		}
		if r.ended.IsZero() {
			continue
		}
		if r.ended.After(last) {
			last = r.ended
		}
		if r.failure != "" {
			b.denied++
			continue
		}
		b.issued++
		b.latencies = append(b.latencies, r.ended.Sub(r.planned))
	}
	slices.Sort(b.latencies)
	b.took = last.Sub(start)
	return b
}

// wrong returns an error that names requests with an unexpected result.
func wrong(requests map[string]*request) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		switch r := requests[name]; {
		case r.ended.IsZero():
			errs = append(errs, fmt.Errorf("request %s has not ended", name))
		case r.hostile && r.failure == "":
			errs = append(errs, fmt.Errorf("hostile request %s was issued a certificate", name))
		case !r.hostile && r.failure != "":
			errs = append(errs, fmt.Errorf("request %s ended without a certificate: %s", name, r.failure))
		}
	}
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d more", len(errs)-3))
	}
	return errors.Join(errs...)
}

// withProgress runs do and prints progress lines with the elapsed time. If how is not nil, its text is added.
func withProgress(out io.Writer, what string, how func() string, do func() error) error {
	start, done, stopped := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-ticker.C:
				if took := now.Sub(start); took > 5*progressInterval && took%(5*progressInterval) >= progressInterval {
					continue // after five lines, print one in five
				}
				far := ""
				if how != nil {
					far = how() + " "
				}
				fmt.Fprintf(out, "   %s%s, %s so far\n", far, what, time.Since(start).Round(time.Second))
			}
		}
	}()
	defer func() { <-stopped }()
	defer close(done)
	return do()
}

// each calls do for 0 to n-1 with a number of workers, and prints the progress. It returns the first error.
func each(ctx context.Context, out io.Writer, what string, n, workers int, do func(ctx context.Context, i int) error) error {
	var next atomic.Int64
	how := func() string { return fmt.Sprintf("%d of %d", min(next.Load(), int64(n)), n) }
	return withProgress(out, what, how, func() error {
		group, ctx := errgroup.WithContext(ctx)
		work := func() error {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					return err
				}
			}
			return ctx.Err()
		}
		for range workers {
			group.Go(work)
		}
		return group.Wait()
	})
}
