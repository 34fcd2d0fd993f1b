// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/certificate"

	"countersign.dev/countersign/api/v1alpha1"
	"countersign.dev/countersign/test/cluster"
	"countersign.dev/countersign/test/harness"
	"countersign.dev/countersign/test/tutorial"
)

// kubeletStore keeps a kubelet's certificate in memory.
type kubeletStore struct{ current *tls.Certificate }

func (s *kubeletStore) Current() (*tls.Certificate, error) {
	if s.current == nil {
		return nil, new(certificate.NoCertKeyError)
	}
	return s.current, nil
}

func (s *kubeletStore) Update(cert, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err == nil {
		pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
		s.current = &pair
	}
	return s.current, err
}

// kubelet requests a serving certificate as a kubelet does: with client-go's certificate manager, and the template that
// a kubelet fills in from the addresses of its Node.
func kubelet(t *testing.T, node string, dnsNames, ips []string) certificate.Manager {
	t.Helper()
	config, err := world.ConfigFor("system:node:"+node, "system:nodes")
	must(t, err)
	template := &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}},
		DNSNames: dnsNames,
	}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	manager, err := certificate.NewManager(&certificate.Config{
		ClientsetFn:      func(*tls.Certificate) (kubernetes.Interface, error) { return kubernetes.NewForConfig(config) },
		GetTemplate:      func() *x509.CertificateRequest { return template },
		SignerName:       certificatesv1.KubeletServingSignerName,
		GetUsages:        certificate.DefaultKubeletServingGetUsages,
		CertificateStore: &kubeletStore{},
	})
	must(t, err)
	manager.Start()
	t.Cleanup(manager.Stop)
	return manager
}

// requestOf waits for the request of a kubelet and returns its name.
func requestOf(t *testing.T, node string) string {
	t.Helper()
	name := ""
	must(t, harness.Eventually(t.Context(), enough, func() error {
		list, err := world.Clientset().CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{
			FieldSelector: "spec.signerName=" + certificatesv1.KubeletServingSignerName,
		})
		if err != nil {
			return err
		}
		for _, csr := range list.Items {
			if csr.Spec.Username == "system:node:"+node {
				name = csr.Name
				return nil
			}
		}
		return errors.New("the kubelet has created no request")
	}))
	return name
}

func addresses(pairs ...string) []corev1.NodeAddress {
	var out []corev1.NodeAddress
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, corev1.NodeAddress{Type: corev1.NodeAddressType(pairs[i]), Address: pairs[i+1]})
	}
	return out
}

// TestKubeletServing checks that kubelets get the certificates that they request, issued by the signer of the cluster,
// and that no requester gets a certificate for another node.
func TestKubeletServing(t *testing.T) {
	root, err := cluster.Root()
	must(t, err)
	audited := overlayOf(t, filepath.Join(root, "deploy/signers/kubelet-serving"), `patches:
  - target: {kind: ApprovalPolicy, name: kubelet-serving}
    patch: |
      - {op: replace, path: /spec/mode, value: Audit}
`)
	kubectl(t, "apply", "--server-side", "-k", audited)
	t.Cleanup(func() { remove(t, "-k", audited) })
	must(t, world.CreateNode(t.Context(), "kubelet-watched", addresses("InternalIP", "10.1.0.9")...))
	kubelet(t, "kubelet-watched", nil, []string{"10.1.0.9"})
	watched := requestOf(t, "kubelet-watched")
	if p := settled(t, "kubelet-serving"); p.Spec.Mode != v1alpha1.ModeAudit {
		t.Errorf("installed in mode %q", p.Spec.Mode)
	}
	decided(t, "kubelet-marker", tutorial.Request{DNSNames: []string{"my-pod.my-namespace.pod.cluster.local"}})
	csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(t.Context(), watched, metav1.GetOptions{})
	must(t, err)
	if len(csr.Status.Conditions) > 0 {
		t.Errorf("decided by a policy in mode Audit: %+v", csr.Status.Conditions)
	}

	kubectl(t, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(root, "deploy/signers/kubelet-serving"))
	for range 2 { // applying the other policies does not change the mode
		kubectl(t, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(root, "policies"))
		if p := settled(t, "kubelet-serving"); p.Spec.Mode != v1alpha1.ModeEnforce {
			t.Fatalf("after applying policies/: mode %q", p.Spec.Mode)
		}
	}
	held(t, watched) // no address is allowed without ipPrefixes
	apiServer, err := world.Clientset().CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	must(t, err)
	kubectl(t, "patch", "approvalpolicy", "kubelet-serving", "--type=json", "-p",
		fmt.Sprintf(`[{"op": "add", "path": "/spec/parameters/ipPrefixes", "value": ["10.1.0.0/24", "10.0.0.11/32", "%s/32", "fd00::/64"]}]`, apiServer.Spec.ClusterIP))
	settled(t, "kubelet-serving")
	if c := verdict(t, watched).Status.Conditions[0]; c.Type != certificatesv1.CertificateApproved {
		t.Errorf("in mode Enforce, with ipPrefixes: %+v", c)
	}
	for _, tc := range []struct {
		name          string
		addresses     []corev1.NodeAddress
		dnsNames, ips []string
		later         []corev1.NodeAddress // reported only while the request is held
		denied        string               // ID of the violation, if the request must be denied
		held          string               // ID of the violation, if the request must be held
	}{
		{name: "ip-only", addresses: addresses("InternalIP", "10.1.0.1"), ips: []string{"10.1.0.1"}},
		{name: "dns-only", addresses: addresses("Hostname", "dns-only", "InternalDNS", "dns-only.example.com"), dnsNames: []string{"dns-only", "dns-only.example.com"}},
		{name: "dual-stack", addresses: addresses("Hostname", "dual-stack", "InternalIP", "10.1.0.3", "InternalIP", "fd00::3"), dnsNames: []string{"dual-stack"}, ips: []string{"10.1.0.3", "fd00::3"}},
		{name: "trailing-dot", addresses: addresses("InternalDNS", "trailing-dot.example.com.", "InternalIP", "10.1.0.4"), dnsNames: []string{"trailing-dot.example.com."}, ips: []string{"10.1.0.4"}},
		{name: "no-addresses", ips: []string{"10.1.0.5"}, later: addresses("InternalIP", "10.1.0.5")},
		{name: "other-node", addresses: addresses("InternalIP", "10.1.0.6"), ips: []string{"10.0.0.11"}, denied: "ip-address-not-owned"},
		{name: "reserved", addresses: addresses("InternalDNS", "kubernetes.default.svc"), dnsNames: []string{"kubernetes.default.svc"}, denied: "dns-name-reserved"},
		{name: "api-server", addresses: addresses("InternalIP", apiServer.Spec.ClusterIP), ips: []string{apiServer.Spec.ClusterIP}, held: "ip-address-of-another"},
		{name: "thief", addresses: addresses("InternalIP", "10.1.0.1"), ips: []string{"10.1.0.1"}, held: "ip-address-of-another"},
		{name: "name-thief", addresses: addresses("Hostname", "kubelet-ip-only"), dnsNames: []string{"kubelet-ip-only"}, held: "dns-name-of-another"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			node := "kubelet-" + tc.name
			must(t, world.CreateNode(t.Context(), node, tc.addresses...))
			manager := kubelet(t, node, tc.dnsNames, tc.ips)
			request := requestOf(t, node)
			if tc.held != "" {
				held(t, request)
				if message := heldMessage(t, request); !strings.Contains(message, ": "+tc.held+":") {
					t.Errorf("held with %q", message)
				}
				return
			}
			if tc.later != nil {
				held(t, request)
				setAddresses(t, node, tc.later)
			}
			csr := verdict(t, request)
			if tc.denied != "" {
				got := tutorial.OutcomeOf(csr)
				if got.Condition != certificatesv1.CertificateDenied || got.Reason != "SubjectNotAuthorized" || !slices.Equal(got.Violations, []string{tc.denied}) {
					t.Errorf("got %+v: %+v", got, csr.Status.Conditions)
				}
				return
			}
			if c := csr.Status.Conditions[0]; c.Type != certificatesv1.CertificateApproved || c.Reason != "PolicyAllowed" {
				t.Fatalf("got %+v", c)
			}
			must(t, harness.Eventually(t.Context(), enough, func() error {
				if manager.Current() == nil {
					return errors.New("the kubelet has no certificate")
				}
				return nil
			}))
			leaf := manager.Current().Leaf
			if leaf.Subject.CommonName != "system:node:"+node || !slices.Equal(leaf.DNSNames, tc.dnsNames) || len(leaf.IPAddresses) != len(tc.ips) {
				t.Errorf("got %s for %v, %v", leaf.Subject, leaf.DNSNames, leaf.IPAddresses)
			}
		})
	}
	t.Run("a Pod that requests a kubelet certificate", func(t *testing.T) {
		csr := decided(t, "kubelet-pretender", tutorial.Request{
			CommonName: "system:node:node-1", Organization: "system:nodes", IPs: []string{"10.0.0.11"},
			SignerName: certificatesv1.KubeletServingSignerName, Usages: []certificatesv1.KeyUsage{"digital signature", "server auth"},
		})
		if got := tutorial.OutcomeOf(csr); got.Condition != certificatesv1.CertificateDenied || got.Reason != "SubjectDoesNotControlKey" {
			t.Errorf("got %+v: %+v", got, csr.Status.Conditions)
		}
	})
}

// held waits until a request is held, and checks that no condition is written to it.
func held(t *testing.T, name string) {
	t.Helper()
	must(t, harness.Eventually(t.Context(), enough, func() error {
		reasons, err := world.Events(t.Context(), name)
		if err == nil && !slices.Contains(reasons, "Held") {
			err = fmt.Errorf("no Event Held about %s", name)
		}
		return err
	}))
	csr, err := world.Clientset().CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	if len(csr.Status.Conditions) > 0 {
		t.Errorf("held and decided: %+v", csr.Status.Conditions)
	}
}

// heldMessage returns the message of the Event of a held request.
func heldMessage(t *testing.T, name string) string {
	t.Helper()
	events, err := world.Clientset().CoreV1().Events("").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Held,involvedObject.name=" + name})
	must(t, err)
	if len(events.Items) == 0 {
		return ""
	}
	return events.Items[0].Message
}

func setAddresses(t *testing.T, name string, addresses []corev1.NodeAddress) {
	t.Helper()
	node, err := world.Clientset().CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	node.Status.Addresses = addresses
	_, err = world.Clientset().CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	must(t, err)
}

// TestOtherPolicies checks that client certificates and SVIDs are approved for the requesting Pod only.
func TestOtherPolicies(t *testing.T) {
	settled(t, "pod-client")
	settled(t, "spiffe")
	client := []certificatesv1.KeyUsage{"digital signature", "client auth"}
	for _, tc := range []struct {
		name    string
		request tutorial.Request
		want    tutorial.Outcome
	}{
		{
			"client-own",
			tutorial.Request{CommonName: "system:serviceaccount:my-namespace:my-app", Usages: client, SignerName: "example.com/client"},
			tutorial.Outcome{Condition: certificatesv1.CertificateApproved, Reason: "PolicyAllowed"},
		},
		{
			"client-of-another",
			tutorial.Request{CommonName: "system:serviceaccount:kube-system:admin", Usages: client, SignerName: "example.com/client"},
			tutorial.Outcome{Condition: certificatesv1.CertificateDenied, Reason: "SubjectNotAuthorized"},
		},
		{
			"spiffe-own",
			tutorial.Request{URIs: []string{"spiffe://example.com/ns/my-namespace/sa/my-app"}, Usages: client, SignerName: "example.com/spiffe"},
			tutorial.Outcome{Condition: certificatesv1.CertificateApproved, Reason: "PolicyAllowed"},
		},
		{
			"spiffe-of-another",
			tutorial.Request{URIs: []string{"spiffe://example.com/ns/my-namespace/sa/default"}, Usages: client, SignerName: "example.com/spiffe"},
			tutorial.Outcome{Condition: certificatesv1.CertificateDenied, Reason: "SubjectNotAuthorized"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			csr := decided(t, tc.name, tc.request)
			got := tutorial.OutcomeOf(csr)
			if got.Condition != tc.want.Condition || got.Reason != tc.want.Reason {
				t.Errorf("got %+v: %+v", got, csr.Status.Conditions)
			}
			if strings.Contains(fmt.Sprint(csr.Status.Conditions), "kubelet") {
				t.Errorf("decided by another policy: %+v", csr.Status.Conditions)
			}
		})
	}
}
