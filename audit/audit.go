// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package audit is the record of decisions.
//
// Kubernetes deletes decided requests after an hour, so the record is the only history
// there is. A decision, to approve or deny as much as to issue or fail, is recorded before
// it is carried out, and again, by [Outcome], with what became of it. One record is one
// line of JSON.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// Decision is what was decided of a request, by what, and why.
type Decision struct {
	// ID of the decision; it stands in the condition of the request too.
	ID string `json:"id"`
	// Verdict is Approved, Denied, Held or Audited, of the approver; Issued, Failed or
	// ApprovalTooOld, of the signer; ApprovalAllowed, ApprovalRefused or ApprovalOverridden, of an approval by hand.
	Verdict string `json:"verdict"`
	// Reason is the reason of the condition; empty if there is none, as of what is issued.
	Reason string `json:"reason"`
	// Message is the message of the condition, whole.
	Message string `json:"message"`
	// Request that was decided.
	Request Request `json:"request"`
	// Requester that made it.
	Requester Requester `json:"requester"`
	// By is who approved by hand; only of the verdicts on approvals.
	By *Requester `json:"by,omitempty"`
	// Policies that were evaluated, with their revisions and every violation.
	Policies []Policy `json:"policies,omitempty"`
	// Facts are the input that the policies saw, but for the parameters, which are each policy's
	// own. With the revisions they replay the decision. Absent if it needed none.
	Facts json.RawMessage `json:"facts,omitempty"`
	// FactsSHA256 is the SHA-256, in lower-case hex, of Facts as they stand here.
	FactsSHA256 string `json:"factsSHA256,omitempty"`
	// Certificate that is to be signed; only of what is issued.
	Certificate *Certificate `json:"certificate,omitempty"`
}

// AddFacts adds what the decision rests on, as JSON; nothing if there is none.
func (d *Decision) AddFacts(raw json.RawMessage) {
	if raw == nil {
		return
	}
	sum := sha256.Sum256(raw)
	d.Facts, d.FactsSHA256 = raw, hex.EncodeToString(sum[:])
}

// Request identifies a CertificateSigningRequest and the key it asks a certificate for.
type Request struct {
	Name       string    `json:"name"`
	UID        types.UID `json:"uid"`
	SignerName string    `json:"signerName"`
	KeySHA256  string    `json:"keySHA256,omitempty"`
	DNSNames   []string  `json:"dnsNames,omitempty"`
	IPs        []string  `json:"ipAddresses,omitempty"`
}

// Requester is who made a request.
type Requester struct {
	Username string   `json:"username"`
	UID      string   `json:"uid,omitempty"`
	Groups   []string `json:"groups"`
	// Extra holds the single-valued and multi-valued extras alike.
	Extra map[string][]string `json:"extra,omitempty"`
}

// RequesterOf reads who made a request.
func RequesterOf(spec *certificatesv1.CertificateSigningRequestSpec) Requester {
	extra := make(map[string][]string, len(spec.Extra))
	for key, values := range spec.Extra {
		extra[key] = values
	}
	return Requester{Username: spec.Username, UID: spec.UID, Groups: spec.Groups, Extra: extra}
}

// Certificate is one that is about to be signed.
type Certificate struct {
	// Serial number in 32 digits of lower-case hex.
	Serial         string   `json:"serial"`
	Subject        string   `json:"subject"`
	DNSNames       []string `json:"dnsNames,omitempty"`
	IPAddresses    []string `json:"ipAddresses,omitempty"`
	URIs           []string `json:"uris,omitempty"`
	EmailAddresses []string `json:"emailAddresses,omitempty"`
	// KeySHA256 is the SHA-256 of the DER SubjectPublicKeyInfo, in lower-case hex.
	KeySHA256 string `json:"keySHA256"`
	// CAFingerprint is the SHA-256 of the DER of the CA certificate, in lower-case hex.
	CAFingerprint string    `json:"caFingerprint"`
	NotBefore     time.Time `json:"notBefore"`
	NotAfter      time.Time `json:"notAfter"`
}

// Policy is what one policy said.
type Policy struct {
	Name     string `json:"name"`
	Revision string `json:"revision"`
	// Answer is "allow", "deny", "hold", "abstain" or "error".
	Answer string `json:"answer"`
	// Audit is true if the policy is only looked at, and decides nothing.
	Audit bool `json:"audit,omitempty"`
	// Error is why there is no answer.
	Error string `json:"error,omitempty"`
	// Violations as the policy gave them.
	Violations any `json:"violations,omitempty"`
}

// Outcome says what became of carrying a decision out.
type Outcome struct {
	// DecisionID is the [Decision]'s ID.
	DecisionID string `json:"decisionID"`
	// Result is "written" if the API server took it, "refused" if it did not, and "unknown" if
	// it gave no clear answer: it may have taken it.
	Result string `json:"result"`
	// Error is what stood in the way.
	Error string `json:"error,omitempty"`
}

// Results of an [Outcome].
const (
	Written = "written"
	Refused = "refused"
	Unknown = "unknown"
)

// OutcomeOf says what became of a write to the API server that returned an error, or nil.
// Only an answer of the API server's own that blames the request means that it was refused.
func OutcomeOf(decisionID string, err error) Outcome {
	if err == nil {
		return Outcome{DecisionID: decisionID, Result: Written}
	}
	outcome := Outcome{DecisionID: decisionID, Result: Unknown, Error: err.Error()}
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Code >= 400 && status.Status().Code < 500 {
		outcome.Result = Refused
	}
	return outcome
}

// Log appends records to a writer. It is safe for concurrent use.
type Log struct {
	mu       sync.Mutex
	out      *errorKeeper
	logger   logr.Logger
	failures prometheus.Counter
}

// NewLog makes a Log that writes to w, one line a record.
func NewLog(w io.Writer) *Log {
	out := &errorKeeper{w: w}
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoding), out, zapcore.InfoLevel)
	return &Log{
		out: out, logger: zapr.NewLogger(zap.New(core, zap.ErrorOutput(zapcore.AddSync(io.Discard)))).WithName("audit"),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "countersign_audit_append_failures_total",
			Help: "Records that could not be written. A decision that is not on record is not carried out.",
		}),
	}
}

// Metrics of the Log, to be registered by whose it is.
func (l *Log) Metrics() prometheus.Collector { return l.failures }

// AppendDecision records a decision. If it fails, the decision must not be carried out.
func (l *Log) AppendDecision(d Decision) error { return l.append("decision", "decision", d) }

// AppendOutcome records what became of a decision.
func (l *Log) AppendOutcome(o Outcome) error { return l.append("outcome", "outcome", o) }

func (l *Log) append(message, key string, record any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out.err = nil
	l.logger.Info(message, key, record)
	if l.out.err != nil {
		l.failures.Inc()
		return fmt.Errorf("appending to the audit log: %w", l.out.err)
	}
	return nil
}

// errorKeeper keeps the error of a write, which a logger swallows.
type errorKeeper struct {
	w   io.Writer
	err error
}

func (k *errorKeeper) Write(p []byte) (int, error) {
	n, err := k.w.Write(p)
	if err != nil {
		k.err = err
	}
	return n, err
}

func (k *errorKeeper) Sync() error { return nil }
