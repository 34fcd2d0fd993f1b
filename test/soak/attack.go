// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// stepTimeout is the longest time of a step.
const stepTimeout = 30 * time.Second

// attack is one way to do harm. It runs in its slots only.
type attack struct {
	user, name string
	// rate is the number of steps a second, and workers the number of them at once.
	rate    float64
	workers int
	// step is called with 0, 1, 2 and so on.
	step func(ctx context.Context, w *world, n int) error

	mu             sync.Mutex
	steps, refused int
	// unauthorized counts the steps that RBAC forbids: the soak has a bug.
	unauthorized int
	lastError    string
}

// attacks returns all attacks, those of a user in the order in which it runs them.
func attacks() []*attack { return slices.Concat(editorAttacks(), requesterAttacks(), authorAttacks()) }

func attackNames() (names []string) {
	for _, a := range attacks() {
		names = append(names, a.name)
	}
	return names
}

// selected returns the attacks with these names, or all.
func selected(only []string) ([]*attack, error) {
	all := attacks()
	if len(only) == 0 {
		return all, nil
	}
	var some []*attack
	for _, name := range only {
		i := slices.IndexFunc(all, func(a *attack) bool { return a.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no attack %q: use %s", name, strings.Join(attackNames(), ", "))
		}
		some = append(some, all[i])
	}
	return some, nil
}

// attackAs runs the attacks of one user in turn until ctx ends.
func (w *world) attackAs(ctx context.Context, user string, all []*attack) {
	own := slices.DeleteFunc(slices.Clone(all), func(a *attack) bool { return a.user != user })
	if len(own) == 0 {
		return
	}
	for i := 0; ctx.Err() == nil && (i < len(own) || !w.settings.once); i++ {
		a := own[i%len(own)]
		w.setActive(user, a.name)
		slot, cancel := context.WithTimeout(ctx, w.settings.slot)
		a.run(slot, w)
		cancel()
	}
	w.setActive(user, "")
}

// run runs the attack until ctx ends. The steps of a later slot continue those of an earlier one.
func (a *attack) run(ctx context.Context, w *world) {
	var group sync.WaitGroup
	turns := make(chan int)
	for range a.workers {
		group.Go(func() {
			for n := range turns {
				// A step that has begun is not cut off at the end of its slot.
				one, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
				a.count(a.step(one, w, n))
				cancel()
			}
		})
	}
	a.mu.Lock()
	n := a.steps
	a.mu.Unlock()
	tick := time.NewTicker(time.Duration(float64(time.Second) / (a.rate * w.settings.intensity)))
	defer tick.Stop()
	turns <- n // each slot has a step
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-tick.C:
		}
		n++
		select {
		case <-ctx.Done():
		case turns <- n:
		}
	}
	close(turns)
	group.Wait()
}

func (a *attack) count(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.steps++
	if err == nil {
		return
	}
	a.refused++
	a.lastError = err.Error()
	if strings.Contains(a.lastError, "is forbidden: User ") {
		a.unauthorized++
	}
}

// largest is the size of the largest objects. etcd accepts 1.5 MiB.
const largest = 1_200_000

func (s settings) largest() int { return int(largest * min(1, s.intensity)) }

// shortLabels returns labels of the largest size in total, of which there are more than 20,000. With 100,000 labels
// of no value, the API server alone needs half a minute for an object.
func (s settings) shortLabels() map[string]string {
	labels := map[string]string{}
	value := strings.Repeat("v", 42)
	for i := range s.largest() / 55 {
		labels[fmt.Sprintf("l%d", i)] = value
	}
	return labels
}

// longLabels returns labels of the largest size in total, each as long as possible.
func (s settings) longLabels() map[string]string {
	labels := map[string]string{}
	part, value := strings.Repeat("a", 60), strings.Repeat("v", 63)
	for i := range s.largest() / 320 {
		labels[fmt.Sprintf("p%d.%s.%s.%s/%s", i, part, part, part, value)] = value
	}
	return labels
}
