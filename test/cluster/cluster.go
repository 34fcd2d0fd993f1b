// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// ServiceCIDR is the default range of cluster IPs: the documentation range that the Kubernetes page uses.
const ServiceCIDR = "192.0.2.0/24"

// controllers of kube-controller-manager. They sign for the signers of kubernetes.io and approve nothing.
const controllers = "serviceaccount-controller,namespace-controller,garbage-collector-controller,root-ca-certificate-publisher-controller,certificatesigningrequest-signing-controller"

// auditPolicy makes the API server log approvals, lists and watches of certificate requests, and nothing else.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    resources: [{group: certificates.k8s.io, resources: [certificatesigningrequests/approval]}]
  - level: Metadata
    verbs: [list, watch]
    resources: [{group: certificates.k8s.io, resources: [certificatesigningrequests]}]
  - level: None
`

// Options of a Cluster.
type Options struct {
	// Progress gets progress lines of long steps. It can be nil.
	Progress io.Writer
	// ServiceCIDR is the range of cluster IPs. It defaults to the constant ServiceCIDR.
	ServiceCIDR string
	// ControllerManager also starts kube-controller-manager with the controllers for ServiceAccounts, namespaces,
	// garbage collection, kube-root-ca.crt and the signers of kubernetes.io.
	ControllerManager bool
	// Dir is the directory for data and logs. It must be empty or not exist, and stays after Stop. It defaults to a
	// temporary directory that Stop removes.
	Dir string
}

// Cluster is a running control plane. Its methods are safe for concurrent use, except those that start and stop.
type Cluster struct {
	bin, dir    string
	temporary   bool // dir is removed by Stop
	serviceCIDR string
	authority   *authority
	address     string // of the API server
	etcdURL     string
	admin       *rest.Config
	clientset   kubernetes.Interface

	etcd, apiServer, controllerManager *Process
}

// Start starts a control plane on free loopback ports and waits until it is ready. The error has the end of the log of
// the process that did not start. The processes outlive ctx: call Stop.
func Start(ctx context.Context, o Options) (_ *Cluster, err error) {
	var more []string
	if o.ControllerManager {
		more = append(more, ControllerManager)
	}
	bin, err := Binaries(ctx, o.Progress, more...)
	if err != nil {
		return nil, err
	}
	dir, err := dataDir(o.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, dir: dir, temporary: o.Dir == "", serviceCIDR: cmp.Or(o.ServiceCIDR, ServiceCIDR)}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	c.etcdURL, c.address = "http://127.0.0.1:"+ports[0], "127.0.0.1:"+ports[2]
	if err := c.createCredentials(); err != nil {
		return nil, err
	}
	if err := c.startEtcd(ctx, "http://127.0.0.1:"+ports[1]); err != nil {
		return nil, err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return nil, err
	}
	if o.ControllerManager {
		if err := c.StartControllerManager(ctx, controllers); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// createCredentials creates the CA of the control plane and the credentials of the cluster admin.
func (c *Cluster) createCredentials() (err error) {
	if c.authority, err = newAuthority(); err != nil {
		return err
	}
	if err := errors.Join(writePKI(c.dir, c.authority), c.writeAdmission()); err != nil {
		return err
	}
	if c.admin, err = c.ConfigFor("admin", "system:masters"); err != nil {
		return err
	}
	if c.clientset, err = kubernetes.NewForConfig(c.admin); err != nil {
		return err
	}
	return c.WriteKubeconfig(c.adminKubeconfig(), c.admin)
}

func (c *Cluster) startEtcd(ctx context.Context, peer string) (err error) {
	c.etcd, err = c.start(ctx, "etcd", []string{
		"--data-dir=" + filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--quota-backend-bytes=8589934592", // test/soak writes more than the default of 2 GiB
		"--listen-client-urls=" + c.etcdURL, "--advertise-client-urls=" + c.etcdURL,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}, c.etcdHealthy)
	return err
}

// dataDir creates the directory of one control plane. A directory with data is an error: its certificates and tokens are
// those of an earlier CA.
func dataDir(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", "controlplane-")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("the data directory %s is not empty", dir)
	}
	return dir, err
}

func (c *Cluster) etcdHealthy(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.etcdURL+"/health", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		err = errors.New("etcd is not healthy: " + response.Status)
	}
	return errors.Join(err, response.Body.Close())
}

// StartAPIServer starts the API server and waits until it is ready. A restarted API server has the same port,
// certificates and data. It is an error if it is running.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if c.apiServer != nil {
		return errors.New("kube-apiserver is already running")
	}
	_, port, err := net.SplitHostPort(c.address)
	if err != nil {
		return err
	}
	file := func(name string) string { return filepath.Join(c.dir, name) }
	if err := os.WriteFile(file("audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	c.apiServer, err = c.start(ctx, "kube-apiserver", []string{
		"--etcd-servers=" + c.etcdURL, "--bind-address=127.0.0.1", "--secure-port=" + port,
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"),
		"--client-ca-file=" + file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + file("tokens.key"),
		"--service-account-signing-key-file=" + file("tokens.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--admission-control-config-file=" + file("admission.yaml"),
		"--service-cluster-ip-range=" + c.serviceCIDR,
		"--audit-policy-file=" + file("audit-policy.yaml"), "--audit-log-path=" + c.AuditLog(),
	}, func(ctx context.Context) error {
		return c.clientset.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	return err
}

// StopAPIServer stops the API server within about ten seconds. etcd keeps its data.
func (c *Cluster) StopAPIServer() error {
	err := c.apiServer.stop()
	c.apiServer = nil
	return err
}

// StartControllerManager starts kube-controller-manager with a comma-separated list of controllers, and builds it if it is
// missing. flags are added to the default flags. It is an error if it is running.
func (c *Cluster) StartControllerManager(ctx context.Context, controllers string, flags ...string) error {
	if c.controllerManager != nil {
		return errors.New("kube-controller-manager is already running")
	}
	if _, err := Binaries(ctx, nil, ControllerManager); err != nil {
		return err
	}
	cfg, err := c.ConfigFor("system:kube-controller-manager")
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(c.dir, "controller-manager.kubeconfig")
	if err := c.WriteKubeconfig(kubeconfig, cfg); err != nil {
		return err
	}
	c.controllerManager, err = c.start(ctx, "kube-controller-manager", append([]string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--controllers=" + controllers, "--use-service-account-credentials=true", "--secure-port=0", "--leader-elect=false",
		"--service-account-private-key-file=" + filepath.Join(c.dir, "tokens.key"), "--root-ca-file=" + filepath.Join(c.dir, "ca.crt"),
		"--cluster-signing-cert-file=" + filepath.Join(c.dir, "ca.crt"), "--cluster-signing-key-file=" + filepath.Join(c.dir, "ca.key"),
	}, flags...), func(ctx context.Context) error {
		if !strings.Contains(controllers, "serviceaccount-controller") {
			return nil
		}
		return c.exists(ctx, "default", "default") // it creates the ServiceAccounts named default
	})
	return err
}

// StopControllerManager stops kube-controller-manager if it is running.
func (c *Cluster) StopControllerManager() error {
	err := c.controllerManager.stop()
	c.controllerManager = nil
	return err
}

// Processes returns the running processes of the control plane.
func (c *Cluster) Processes() []*Process {
	return slices.DeleteFunc([]*Process{c.etcd, c.apiServer, c.controllerManager}, func(p *Process) bool { return p == nil })
}

// Stop stops all processes, and removes the data unless Options has a Dir. A second call does nothing. A stopped Cluster
// cannot be started.
func (c *Cluster) Stop() error {
	err := errors.Join(c.controllerManager.stop(), c.apiServer.stop(), c.etcd.stop())
	if c.temporary {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// BinDir returns the directory of the binaries, such as kubectl.
func (c *Cluster) BinDir() string { return c.bin }

// Config returns the client configuration of a cluster admin, without client-side limits.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.admin) }

// AuditLog returns the path of the API server's audit log. Each line is an event: an approval, a list or a watch of
// certificate requests.
func (c *Cluster) AuditLog() string { return filepath.Join(c.dir, "audit.log") }

// Clientset returns a clientset of a cluster admin.
func (c *Cluster) Clientset() kubernetes.Interface { return c.clientset }

// ConfigFor returns the client configuration of a user or a node, with a client certificate.
func (c *Cluster) ConfigFor(username string, groups ...string) (*rest.Config, error) {
	certificate, key, err := c.authority.issue(pkix.Name{CommonName: username, Organization: groups}, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, err
	}
	cfg := c.TokenConfig("")
	cfg.CertData, cfg.KeyData = certificate, key
	return cfg, nil
}

// TokenConfig returns the client configuration for a bearer token.
func (c *Cluster) TokenConfig(token string) *rest.Config {
	return &rest.Config{
		Host: "https://" + c.address, BearerToken: token, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.authority.pem},
	}
}

// WriteKubeconfig writes a client configuration as a self-contained kubeconfig file that only this user can read.
func (c *Cluster) WriteKubeconfig(path string, cfg *rest.Config) error {
	const name = "countersign"
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{name: {Server: cfg.Host, CertificateAuthorityData: cfg.CAData}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{name: {
			Token: cfg.BearerToken, ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData,
		}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, path)
}

func (c *Cluster) adminKubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// Kubectl runs kubectl as a cluster admin and returns its output. The error contains its standard error. Settings and the
// discovery cache of the user are not used.
func (c *Cluster) Kubectl(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	return c.kubectl(ctx, stdin, c.adminKubeconfig(), args...)
}

// KubectlAs is Kubectl with the credentials of cfg.
func (c *Cluster) KubectlAs(ctx context.Context, cfg *rest.Config, args ...string) ([]byte, error) {
	kubeconfig, err := os.CreateTemp(c.dir, "kubeconfig-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(kubeconfig.Name()) //nolint:errcheck // with the cluster's folder at the latest
	if err := errors.Join(kubeconfig.Close(), c.WriteKubeconfig(kubeconfig.Name(), cfg)); err != nil {
		return nil, err
	}
	return c.kubectl(ctx, nil, kubeconfig.Name(), args...)
}

func (c *Cluster) kubectl(ctx context.Context, stdin io.Reader, kubeconfig string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, filepath.Join(c.bin, "kubectl"), append([]string{
		"--kubeconfig=" + kubeconfig, "--cache-dir=" + filepath.Join(c.dir, "kubectl"),
	}, args...)...)
	command.Env = append(os.Environ(), "KUBERC=off")
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = stdin, &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, tail(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}
