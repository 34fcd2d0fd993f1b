// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"countersign.dev/countersign/test/cluster"
)

// The names of the Kubernetes page.
const (
	Namespace   = "my-namespace"
	PodName     = "my-pod"
	ServiceName = "my-svc"
	podIP       = "10.0.34.2"
	serviceIP   = "192.0.2.24"
	human       = "yourname@example.com"
	delegate    = "operator@example.com"
	approver    = "approver@example.com"
	overrider   = "security@example.com"
)

func podDNS(name string) string { return name + "." + Namespace + ".pod.cluster.local" }

func serviceDNS(name, namespace string) string { return name + "." + namespace + ".svc.cluster.local" }

// Outcome is what becomes of a request.
type Outcome struct {
	// Condition is Approved, Denied, or empty for a request that stays pending.
	Condition certificatesv1.RequestConditionType
	Reason    string
	// Violations that the message names, in order.
	Violations []string
	// Certificate says whether one was issued.
	Certificate bool
}

// Row is one request of the walk and the outcome that is right.
type Row struct {
	// Name of the CertificateSigningRequest.
	Name string
	// Tried and Who are for the reader.
	Tried, Who string
	// Pod makes the request with a token bound to it; or User does with a client certificate.
	Pod, User string
	Ask       Ask
	// Before and After run before and after the request is created.
	Before, After func(context.Context, *World) error
	Want          Outcome
	// Warned are the violations that a webhook warns of as the request is made.
	Warned []string
	// AtOnce is true if a webhook refuses the request as it is made.
	AtOnce bool
	// NeedsWebhook is true for what happens only where there is one.
	NeedsWebhook bool
}

// RefusedAtOnce stands for the condition of a request that the webhook did not let be made.
const RefusedAtOnce certificatesv1.RequestConditionType = "refused at once"

// Result is what became of a row's request.
type Result struct {
	Outcome
	// CSR is nil if it was refused at once.
	CSR *certificatesv1.CertificateSigningRequest
	// Said is the message of the condition, or of the refusal; empty if the request is pending.
	Said string
	// Warnings that whoever made the request has got.
	Warnings []string
	// Notes are what people did with it by hand, and what they were told.
	Notes []string
}

// World is the cluster that the rows take place in.
type World struct {
	*cluster.Cluster
	// Pods by name, as they were created.
	Pods map[string]*corev1.Pod
	// Webhook says whether the API server asks one.
	Webhook bool
	// notes are what people said in the row that runs.
	notes []string
	// tokens by Pod, of those that are used again after the Pod is gone.
	tokens map[string]string
	// Key and PKCS10 of the honest request.
	Key    crypto.Signer
	PKCS10 []byte
}

// NewWorld fills a cluster with the Pods, Services and people of the walk.
func NewWorld(ctx context.Context, c *cluster.Cluster, progress io.Writer) (*World, error) {
	w := &World{Cluster: c, Pods: map[string]*corev1.Pod{}, tokens: map[string]string{}}
	step(progress, "creating Pod my-pod, Service my-svc, their neighbours, and those who ask")
	if err := c.CreateNode(ctx, "node-1", corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "10.0.0.11"}); err != nil {
		return nil, err
	}
	if err := errors.Join(c.CreateNamespace(ctx, Namespace, nil, "my-app"), c.CreateNamespace(ctx, "other-namespace", nil)); err != nil {
		return nil, err
	}
	for _, pod := range []struct{ name, app, account, ip string }{
		{PodName, "my-app", "my-app", podIP},
		{"my-sibling", "my-app", "my-app", "10.0.34.3"},
		{"other-pod", "other", "default", "10.0.34.4"},
	} {
		if err := w.run(ctx, pod.name, pod.app, pod.account, pod.ip); err != nil {
			return nil, err
		}
	}
	for _, service := range []corev1.Service{
		service(Namespace, ServiceName, corev1.ServiceSpec{ClusterIP: serviceIP, Selector: map[string]string{"app": "my-app"}}),
		service(Namespace, "web", corev1.ServiceSpec{Selector: map[string]string{"app": "web"}}),
		service(Namespace, "external", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "www.example.com", Selector: map[string]string{"app": "my-app"}}),
		service("other-namespace", "theirs", corev1.ServiceSpec{Selector: map[string]string{"app": "my-app"}}),
	} {
		if _, err := c.Clientset().CoreV1().Services(service.Namespace).Create(ctx, &service, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	return w, w.people(ctx)
}

func service(namespace, name string, spec corev1.ServiceSpec) corev1.Service {
	if spec.Type != corev1.ServiceTypeExternalName {
		spec.Ports = []corev1.ServicePort{{Port: 443}}
	}
	return corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

// run creates a Pod as a kubelet would show it; without an address it is Pending.
func (w *World) run(ctx context.Context, name, app, account string, ips ...string) error {
	pod, err := w.RunPod(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{ServiceAccountName: account, NodeName: "node-1"},
	}, ips...)
	w.Pods[name] = pod
	return err
}

// people lets everybody ask for certificates, and one human ask on behalf of Pods.
func (w *World) people(ctx context.Context) error {
	rbac := w.Clientset().RbacV1()
	_, err1 := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "certificate-requester"},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get"},
		}},
	}, metav1.CreateOptions{})
	_, err2 := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "certificate-requesters"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "certificate-requester"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:authenticated"}},
	}, metav1.CreateOptions{})
	_, err3 := rbac.RoleBindings(Namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "operator-asks-for-pods"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "countersign-delegate"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: delegate}},
	}, metav1.CreateOptions{})
	return errors.Join(err1, err2, err3, w.approvers(ctx))
}

// approvers lets two people approve by hand, one of them whatever policy says.
func (w *World) approvers(ctx context.Context) error {
	rbac := w.Clientset().RbacV1()
	var errs []error
	for user, verbs := range map[string][]string{approver: {"approve"}, overrider: {"approve", "override-policy"}} {
		name := "certificates-by-" + strings.TrimSuffix(user, "@example.com")
		_, err1 := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"get", "list"}},
				{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"certificatesigningrequests/approval"}, Verbs: []string{"update"}},
				{APIGroups: []string{certificatesv1.GroupName}, Resources: []string{"signers"}, ResourceNames: []string{SignerName}, Verbs: verbs},
			},
		}, metav1.CreateOptions{})
		_, err2 := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
		}, metav1.CreateOptions{})
		errs = append(errs, err1, err2)
	}
	return errors.Join(errs...)
}

const (
	notAuthorized = "SubjectNotAuthorized"
	notInControl  = "SubjectDoesNotControlKey"
)

func denied(reason string, violations ...string) Outcome {
	return Outcome{Condition: certificatesv1.CertificateDenied, Reason: reason, Violations: violations}
}

var approved = Outcome{Condition: certificatesv1.CertificateApproved, Reason: "PolicyAllowed", Certificate: true}

// Rows are the requests of the walk, in order: the honest one is the first.
func Rows() []Row {
	return []Row{
		{
			Name: "my-svc.my-namespace", Tried: "its service and pod, by name and address", Pod: PodName,
			Ask: Ask{
				CommonName: podDNS(PodName), DNSNames: []string{serviceDNS(ServiceName, Namespace), podDNS(PodName)}, IPs: []string{serviceIP, podIP},
			},
			Want: approved,
		},
		{
			Name: "other-pod-name", Tried: "another pod's DNS name", Pod: PodName,
			Ask:    Ask{DNSNames: []string{podDNS("other-pod")}},
			Want:   denied(notAuthorized, "dns-name-not-owned"),
			Warned: []string{"dns-name-not-owned"},
		},
		{
			Name: "unselected-service", Tried: "a Service that does not select the pod", Pod: PodName,
			Ask:  Ask{DNSNames: []string{serviceDNS("web", Namespace)}},
			Want: denied(notAuthorized, "dns-name-not-owned"),
		},
		{
			Name: "foreign-service", Tried: "a Service in another namespace", Pod: PodName,
			Ask:  Ask{DNSNames: []string{serviceDNS("theirs", "other-namespace")}},
			Want: denied(notAuthorized, "dns-name-not-owned"),
		},
		{
			Name: "external-name", Tried: "an ExternalName Service", Pod: PodName,
			Ask:  Ask{DNSNames: []string{serviceDNS("external", Namespace)}},
			Want: denied(notAuthorized, "dns-name-not-owned"),
		},
		{
			Name: "other-pod-address", Tried: "an address of another pod", Pod: PodName,
			Ask:  Ask{DNSNames: []string{podDNS(PodName)}, IPs: []string{"10.0.34.4"}},
			Want: denied(notAuthorized, "ip-address-not-owned"),
		},
		{
			Name: "node-address", Tried: "a node address", Pod: PodName,
			Ask:  Ask{IPs: []string{"10.0.0.11"}},
			Want: denied(notAuthorized, "ip-address-not-owned"),
		},
		{
			Name: "wildcard", Tried: "a wildcard", Pod: PodName,
			Ask:  Ask{DNSNames: []string{"*." + Namespace + ".svc.cluster.local"}},
			Want: denied(notAuthorized, "wildcard-not-allowed"),
		},
		{
			Name: "replay", Tried: "the PKCS#10 bytes of my-pod, replayed", Pod: "other-pod",
			Want: denied(notInControl, "key-used-by-another", "dns-name-not-owned", "ip-address-not-owned"),
		},
		{
			Name: "sibling", Tried: "the name of a pod of the same ServiceAccount", Pod: "my-sibling",
			Ask:  Ask{DNSNames: []string{podDNS(PodName)}, IPs: []string{podIP}},
			Want: denied(notAuthorized, "dns-name-not-owned", "ip-address-not-owned"),
		},
		{
			Name: "recreated", Tried: "the token of a pod since recreated under its name", Pod: "short-lived",
			Ask: Ask{DNSNames: []string{podDNS("short-lived")}, IPs: []string{"10.0.34.5"}},
			// The API server remembers for some seconds that a token is good, although its Pod is gone.
			Before: func(ctx context.Context, w *World) error {
				if err := w.run(ctx, "short-lived", "short-lived", "default", "10.0.34.5"); err != nil {
					return err
				}
				if err := w.useToken(ctx, "short-lived"); err != nil {
					return err
				}
				if err := w.DeletePod(ctx, Namespace, "short-lived"); err != nil {
					return err
				}
				return w.run(ctx, "short-lived", "short-lived", "default", "10.0.34.5")
			},
			Want: denied(notInControl, "pod-replaced"),
		},
		{
			Name: "human", Tried: "my-pod's name, without delegation", User: human,
			Ask:  Ask{DNSNames: []string{podDNS(PodName)}},
			Want: denied(notInControl, "not-delegated"),
		},
		{
			Name: "delegate", Tried: "my-pod's name and address, with delegation", User: delegate,
			Ask:  Ask{DNSNames: []string{podDNS(PodName)}, IPs: []string{podIP}},
			Want: approved,
		},
		{
			Name: "weak-key", Tried: "RSA-1024", Pod: PodName,
			Ask:  Ask{DNSNames: []string{podDNS(PodName)}, Key: weakKey()},
			Want: denied("WeakKey"), AtOnce: true,
		},
		{
			Name: "ca", Tried: "CA:TRUE", Pod: PodName,
			Ask:  Ask{DNSNames: []string{podDNS(PodName)}, CA: true},
			Want: denied("CertificateAuthority"), AtOnce: true,
		},
		{
			Name: "masters", Tried: "organisation system:masters", Pod: PodName,
			Ask:  Ask{DNSNames: []string{podDNS(PodName)}, Organization: "system:masters"},
			Want: denied(notAuthorized, "organization-not-allowed"),
		},
		{
			Name: "usages", Tried: "usages beyond the profile", Pod: PodName,
			Ask:  Ask{DNSNames: []string{podDNS(PodName)}, Usages: append(slices.Clone(serving), certificatesv1.UsageClientAuth)},
			Want: denied(notAuthorized, "usage-not-allowed"),
		},
		{
			Name: "no-address-yet", Tried: "its address, before it has one", Pod: "starting",
			Ask: Ask{DNSNames: []string{podDNS("starting")}, IPs: []string{"10.0.34.6"}},
			Before: func(ctx context.Context, w *World) error {
				return w.run(ctx, "starting", "starting", "default")
			},
			After: func(ctx context.Context, w *World) error {
				if err := w.waitForEvent(ctx, "no-address-yet", "Held"); err != nil {
					return err
				}
				pod, err := w.SetPodStatus(ctx, w.Pods["starting"], corev1.PodRunning, "10.0.34.6")
				w.Pods["starting"] = pod
				return err
			},
			Want: approved,
		},
		{
			Name: "approved-too-early", Tried: "its address; too early an approval by hand is refused", Pod: "slow", NeedsWebhook: true,
			Ask: Ask{DNSNames: []string{podDNS("slow")}, IPs: []string{"10.0.34.7"}},
			Before: func(ctx context.Context, w *World) error {
				return w.run(ctx, "slow", "slow", "default")
			},
			After: func(ctx context.Context, w *World) error {
				if err := w.waitForEvent(ctx, "approved-too-early", "Held"); err != nil {
					return err
				}
				_, err := w.ApproveByHand(ctx, approver, "approved-too-early")
				if err == nil || !strings.Contains(err.Error(), "ip-address-unknown: nothing has address 10.0.34.7 yet") {
					return fmt.Errorf("an approval that policy does not allow: got %w", errors.Join(err, errors.New("want a refusal that names the violation")))
				}
				pod, err := w.SetPodStatus(ctx, w.Pods["slow"], corev1.PodRunning, "10.0.34.7")
				w.Pods["slow"] = pod
				return err
			},
			Want: approved, Warned: []string{"ip-address-unknown"},
		},
		{
			Name: "overridden", Tried: "its address; who may override policy approves by hand", Pod: "slower", NeedsWebhook: true,
			Ask: Ask{DNSNames: []string{podDNS("slower")}, IPs: []string{"10.0.34.8"}},
			Before: func(ctx context.Context, w *World) error {
				return w.run(ctx, "slower", "slower", "default")
			},
			After: func(ctx context.Context, w *World) error {
				if err := w.waitForEvent(ctx, "overridden", "Held"); err != nil {
					return err
				}
				_, err := w.ApproveByHand(ctx, overrider, "overridden")
				return err
			},
			Want:   Outcome{Condition: certificatesv1.CertificateApproved, Reason: "KubectlApprove", Certificate: true},
			Warned: []string{"ip-address-unknown"},
		},
		{
			Name: "not-ours", Tried: "a signerName that no policy matches", Pod: PodName,
			Ask: Ask{DNSNames: []string{podDNS(PodName)}, SignerName: "example.com/unmanaged"},
		},
	}
}

// weakKey is not for use.
func weakKey() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return key
}

// Requester of a row, for the reader.
func (r Row) Requester() string {
	if r.Pod != "" {
		return "pod " + r.Pod
	}
	return r.User
}

// Expected is the outcome of a row that is right in a world.
func (r Row) Expected(w *World) Outcome {
	if w.Webhook && r.AtOnce {
		return Outcome{Condition: RefusedAtOnce, Reason: r.Want.Reason}
	}
	return r.Want
}

// Run makes the request of a row and returns what became of it.
func (w *World) Run(ctx context.Context, row Row) (Result, error) {
	w.notes = nil
	if row.Before != nil {
		if err := row.Before(ctx, w); err != nil {
			return Result{}, err
		}
	}
	config, err := w.config(ctx, row)
	if err != nil {
		return Result{}, err
	}
	warnings := &warnings{}
	config.WarningHandler = warnings
	ask := row.Ask
	if row.Name == "replay" {
		ask.PKCS10 = w.PKCS10
	}
	csr, key, err := ask.Create(ctx, config, row.Name)
	if refusal, ok := refusedAtOnce(err); ok {
		reason, _, _ := strings.Cut(refusal, ":")
		return Result{Outcome: Outcome{Condition: RefusedAtOnce, Reason: reason}, Said: refusal}, nil
	}
	if err != nil {
		return Result{}, err
	}
	if w.Key == nil {
		w.Key, w.PKCS10 = key, csr.Spec.Request
	}
	if row.After != nil {
		if err := row.After(ctx, w); err != nil {
			return Result{}, err
		}
	}
	if csr, err = w.settle(ctx, csr, row.Want); err != nil {
		return Result{}, err
	}
	result := Result{Outcome: OutcomeOf(csr), CSR: csr, Warnings: warnings.texts, Notes: w.notes}
	if c := Condition(csr, certificatesv1.CertificateFailed, certificatesv1.CertificateDenied, certificatesv1.CertificateApproved); c != nil {
		result.Said = c.Message
	}
	return result, nil
}

// warnings collects what the API server warns of.
type warnings struct{ texts []string }

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _, text string) { w.texts = append(w.texts, text) }

// refusedAtOnce is what the webhook said, if an error is its refusal of a new request.
func refusedAtOnce(err error) (string, bool) {
	const webhook = `admission webhook "certificatesigningrequests.countersign.dev" denied the request: `
	if err == nil {
		return "", false
	}
	_, text, ok := strings.Cut(err.Error(), webhook)
	return text, ok
}

// ApproveByHand runs kubectl certificate approve as a person, and returns what it says.
func (w *World) ApproveByHand(ctx context.Context, user, csrName string) (string, error) {
	config, err := w.ConfigFor(user)
	if err != nil {
		return "", err
	}
	out, err := w.KubectlAs(ctx, config, "certificate", "approve", csrName)
	said := strings.TrimSpace(string(out))
	if err != nil {
		said = err.Error()
	}
	w.notes = append(w.notes, user+": "+said)
	return said, err
}

func (w *World) config(ctx context.Context, row Row) (*rest.Config, error) {
	if row.Pod == "" {
		return w.ConfigFor(row.User)
	}
	if token, ok := w.tokens[row.Pod]; ok {
		return w.TokenConfig(token), nil
	}
	token, err := w.PodToken(ctx, w.Pods[row.Pod])
	if err != nil {
		return nil, err
	}
	return w.TokenConfig(token), nil
}

// useToken shows the API server a token of a Pod, and has the rows of that Pod use the same.
func (w *World) useToken(ctx context.Context, pod string) error {
	token, err := w.PodToken(ctx, w.Pods[pod])
	if err != nil {
		return err
	}
	clientset, err := kubernetes.NewForConfig(w.TokenConfig(token))
	if err != nil {
		return err
	}
	w.tokens[pod] = token
	_, err = clientset.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	return err
}

// settle waits until a request has a verdict and, if it is approved, a certificate. What is
// to stay pending is given the time that a request made after it needs.
func (w *World) settle(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, want Outcome) (*certificatesv1.CertificateSigningRequest, error) {
	requests := w.Clientset().CertificatesV1().CertificateSigningRequests()
	if want.Condition == "" {
		marker := Row{Name: csr.Name + "-marker", Pod: PodName, Ask: Ask{DNSNames: []string{podDNS(PodName)}}, Want: approved}
		if _, err := w.Run(ctx, marker); err != nil {
			return nil, err
		}
		return requests.Get(ctx, csr.Name, metav1.GetOptions{})
	}
	err := Eventually(ctx, wait, func() error {
		got, err := requests.Get(ctx, csr.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		csr = got
		switch verdict := Condition(got, certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed); {
		case verdict == nil:
			return fmt.Errorf("%s has no verdict", csr.Name)
		case verdict.Type == certificatesv1.CertificateApproved && got.Status.Certificate == nil && Condition(got, certificatesv1.CertificateFailed) == nil:
			return fmt.Errorf("%s has no certificate", csr.Name)
		}
		return nil
	})
	return csr, err
}

// violationID matches the ID of a violation in a message, such as "dns-name-not-owned: ".
var violationID = regexp.MustCompile(`(?:^|[ ;])([a-z]+(?:-[a-z]+)+): `)

// OutcomeOf reads what became of a request.
func OutcomeOf(csr *certificatesv1.CertificateSigningRequest) Outcome {
	out := Outcome{Certificate: len(csr.Status.Certificate) > 0}
	verdict := Condition(csr, certificatesv1.CertificateFailed)
	if verdict == nil {
		verdict = Condition(csr, certificatesv1.CertificateApproved, certificatesv1.CertificateDenied)
	}
	if verdict == nil {
		return out
	}
	out.Condition, out.Reason = verdict.Type, verdict.Reason
	if verdict.Type == certificatesv1.CertificateDenied {
		for _, match := range violationID.FindAllStringSubmatch(verdict.Message, -1) {
			if !slices.Contains(out.Violations, match[1]) {
				out.Violations = append(out.Violations, match[1])
			}
		}
	}
	return out
}

// Events are the reasons of the Events about a request.
func (w *World) Events(ctx context.Context, csrName string) ([]string, error) {
	list, err := w.Clientset().EventsV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var reasons []string
	for i := range list.Items {
		if event := &list.Items[i]; event.Regarding.Kind == "CertificateSigningRequest" && event.Regarding.Name == csrName {
			reasons = append(reasons, event.Reason)
		}
	}
	return reasons, nil
}

func (w *World) waitForEvent(ctx context.Context, csrName, reason string) error {
	return Eventually(ctx, 25*time.Second, func() error {
		reasons, err := w.Events(ctx, csrName)
		if err == nil && !slices.Contains(reasons, reason) {
			err = fmt.Errorf("no Event %s about %s", reason, csrName)
		}
		return err
	})
}

// RunSlow creates a Pod that has no address yet.
func (w *World) RunSlow(ctx context.Context, name string) error {
	return w.run(ctx, name, name, "default")
}
