// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/pem"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"countersign.dev/countersign/pkcs10"
)

// TestSameKey evaluates request this of Pod my-pod, which is created at revision 100. Other requests
// with its key are in the cache.
func TestSameKey(t *testing.T) {
	key := newKey(t)
	created := map[string]uint64{"mine": 100}
	// use is a request with the key, seconds after this. It is created at one revision, and the cache has another.
	use := func(name string, seconds int, creation, revision uint64, change ...func(*certificatesv1.CertificateSigningRequest)) client.Object {
		spec := byHuman
		if name == "own" {
			spec = byPod("my-pod")
		}
		other, _ := request(t, name, spec, key, []string{"example.com"})
		other.CreationTimestamp = metav1.NewTime(at.Add(time.Duration(seconds) * time.Second))
		other.ResourceVersion = strconv.FormatUint(revision, 10)
		for _, f := range change {
			f(other)
		}
		created[name] = creation
		return other
	}
	denied := func(r *certificatesv1.CertificateSigningRequest) {
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Status: "True"}}
	}
	unsigned := func(r *certificatesv1.CertificateSigningRequest) {
		block, _ := pem.Decode(r.Spec.Request)
		block.Bytes[len(block.Bytes)-1] ^= 1
		r.Spec.Request = pem.EncodeToMemory(block)
	}
	for _, tc := range []struct {
		name      string
		others    []client.Object
		change    func(this *certificatesv1.CertificateSigningRequest)
		compacted uint64
		// Names of the requests that count, with a question mark if it is unknown whether they are earlier.
		recent, live []string
	}{
		{name: "none", others: []client.Object{use("own", -9, 10, 20)}},
		{name: "an earlier one", others: []client.Object{use("a", -1, 90, 90)}, recent: []string{"a"}, live: []string{"a"}},
		{name: "an earlier one that was decided later", others: []client.Object{use("b", -1, 90, 110, denied)}, recent: []string{"b"}, live: []string{"b"}},
		{name: "an earlier one without possession of the key", others: []client.Object{use("c", -1, 90, 90, unsigned)}, recent: []string{"c"}},
		{name: "a later copy", others: []client.Object{use("d", 1, 110, 110)}},
		{name: "a later copy that was decided", others: []client.Object{use("e", 1, 110, 115, denied)}},
		{name: "a copy in the same second", others: []client.Object{use("f", 0, 101, 101)}},
		{name: "the original in the same second", others: []client.Object{use("g", 0, 99, 99)}, recent: []string{"g"}, live: []string{"g"}},
		{name: "a copy in the same second that was decided first", others: []client.Object{use("h", 0, 101, 102, denied)}, recent: []string{"h"}},
		{name: "the original in the same second, which was decided first", others: []client.Object{use("i", 0, 99, 102, denied)}, recent: []string{"i"}, live: []string{"i"}},
		{
			name: "the same second, and the store has forgotten the revision", others: []client.Object{use("j", 0, 101, 102, denied)}, compacted: 200,
			recent: []string{"j"}, live: []string{"j?"},
		},
		{
			name: "an earlier second, and the store has forgotten the revision", others: []client.Object{use("k", -1, 90, 102, denied)}, compacted: 200,
			recent: []string{"k"}, live: []string{"k"},
		},
		{
			name: "a copy in the same second, and the request was changed after it", others: []client.Object{use("l", 0, 101, 101)},
			change: func(this *certificatesv1.CertificateSigningRequest) { this.ResourceVersion = "105" },
			recent: []string{"l"}, live: []string{"l?"},
		},
		{
			name: "a copy by an API server whose clock is behind", others: []client.Object{use("m", -1, 101, 101)},
			recent: []string{"m"},
		},
		{
			name: "the original by an API server whose clock is ahead", others: []client.Object{use("n", 1, 99, 99)},
			recent: []string{"n"}, live: []string{"n"},
		},
		{name: "a copy after an older request of the requester", others: []client.Object{use("own", -9, 80, 85, denied), use("o", -5, 90, 90)}, recent: []string{"o"}},
		{
			name:   "a copy after an older request of the requester without possession of the key",
			others: []client.Object{use("own", -9, 80, 85, unsigned), use("p", -5, 90, 90)},
			recent: []string{"p"}, live: []string{"p"},
		},
		{
			name: "a request before all requests of the requester", others: []client.Object{use("q", -10, 70, 71), use("own", -9, 80, 85), use("r", -5, 90, 90)},
			recent: []string{"q", "r"}, live: []string{"q"},
		},
		{
			name: "in the second of an older request of the requester", others: []client.Object{use("own", -9, 80, 85), use("s", -9, 81, 81)},
			recent: []string{"s"}, live: []string{"s"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			this, parsed := request(t, "mine", byPod("my-pod"), key, []string{"example.com"})
			this.ResourceVersion = "100"
			if tc.change != nil {
				tc.change(this)
			}
			s := &scene{cached: append([]client.Object{namespaceObject(), podObject("my-pod", nil), this}, tc.others...), created: created, compacted: tc.compacted}
			for _, round := range []struct {
				name string
				live bool
				want []string
			}{{"recent", false, tc.recent}, {"live", true, tc.live}} {
				if diff := cmp.Diff(round.want, usesOf(t, s, this, parsed, round.live)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", round.name, diff)
				}
			}
		})
	}
}

// usesOf returns the names in sameKey, with a question mark if it is unknown whether they are earlier.
func usesOf(t *testing.T, s *scene, this *certificatesv1.CertificateSigningRequest, parsed *pkcs10.Request, live bool) []string {
	t.Helper()
	f, err := s.gatherer(t).gather(t.Context(), this, parsed, at, live)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, use := range f.Cluster.SameKey {
		name := use.Name
		if !use.Earlier {
			name += "?"
		}
		got = append(got, name)
	}
	return got
}

// TestSameKey_crowd: a thousand copies cost no read, and neither deny the original nor hide it.
func TestSameKey_crowd(t *testing.T) {
	key := newKey(t)
	s := &scene{cached: []client.Object{namespaceObject(), podObject("my-pod", nil)}, created: map[string]uint64{"mine": 100, "own": 90}}
	for i := range 1000 {
		name := fmt.Sprintf("a-%04d", i)
		spec := byHuman
		spec.Username = name
		copied, _ := request(t, name, spec, key, []string{"example.com"})
		copied.ResourceVersion, s.created[name] = strconv.Itoa(101+i), uint64(101+i)
		s.cached = append(s.cached, copied)
	}
	this, parsed := request(t, "mine", byPod("my-pod"), key, []string{"example.com"})
	this.ResourceVersion = "100"
	s.cached = append(s.cached, this)
	if got := usesOf(t, s, this, parsed, true); got != nil {
		t.Errorf("the original: %v", got)
	}
	before := s.calls
	last, parsed := request(t, "last", byPod("my-pod"), key, []string{"example.com"})
	last.Spec.Username, last.ResourceVersion, s.created["last"] = "mallory", "2000", 2000
	if got := usesOf(t, s, last, parsed, true); !cmp.Equal(got, []string{"mine"}) {
		t.Errorf("a copy: %v, want the original", got)
	}
	if calls := s.calls - before; calls > 20 {
		t.Errorf("%d calls", calls)
	}
}

// TestSameKey_bound: more requests of the same second than are examined hold the request. They were decided
// meanwhile, so that only the API server knows which are later.
func TestSameKey_bound(t *testing.T) {
	for _, tc := range []struct {
		decided int
		want    []string
	}{{maxSameKey, nil}, {maxSameKey + 1, []string{fmt.Sprintf("a-%d?", maxSameKey)}}} {
		key := newKey(t)
		s := &scene{cached: []client.Object{namespaceObject(), podObject("my-pod", nil)}, created: map[string]uint64{"mine": 100}}
		for i := range tc.decided {
			name := fmt.Sprintf("a-%d", i)
			copied, _ := request(t, name, byHuman, key, []string{"example.com"})
			copied.ResourceVersion, s.created[name] = strconv.Itoa(200+i), 150
			copied.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Status: "True"}}
			s.cached = append(s.cached, copied)
		}
		this, parsed := request(t, "mine", byPod("my-pod"), key, []string{"example.com"})
		this.ResourceVersion = "100"
		if got := usesOf(t, s, this, parsed, true); !cmp.Equal(got, tc.want) {
			t.Errorf("%d copies: got %v, want %v", tc.decided, got, tc.want)
		}
	}
}
