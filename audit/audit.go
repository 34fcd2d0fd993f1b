// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

// Package audit writes the audit record: one line of JSON for each decision, and one for its outcome.
//
// Kubernetes deletes decided requests after an hour, so the record is the only history. The approver and
// the signer append a [Decision] before they write it to the API server, and an [Outcome] after. The webhook
// appends a Decision before it answers about a manual approval.
//
// A caller must not carry out a decision if [Log.AppendDecision] fails. The package does not keep, rotate or
// sign the record: that is up to the log pipeline that reads it.
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

	"countersign.dev/countersign/internal/text"
)

// Decision records the verdict on one request, and everything it is based on.
type Decision struct {
	// ID of the decision. The message of the condition of the request has it too.
	ID string `json:"id"`
	// Verdict is Approved, Denied, Held or Audited by the approver; Issued, Failed or ApprovalTooOld by the
	// signer; ApprovalAllowed, ApprovalRefused or ApprovalOverridden by the webhook, for a manual approval.
	Verdict string `json:"verdict"`
	// Reason of the condition, empty if there is no condition, as for Issued.
	Reason string `json:"reason"`
	// Message of the condition. It can be longer here.
	Message string `json:"message"`
	// Request that was decided.
	Request Request `json:"request"`
	// Requester that created the request.
	Requester Requester `json:"requester"`
	// By is the user that approves manually. Only set for verdicts on manual approvals.
	By *Requester `json:"by,omitempty"`
	// Policies that were evaluated, with their revisions and every violation.
	Policies []Policy `json:"policies,omitempty"`
	// Facts are the input of the policies without the parameters, which differ by policy. The decision can be
	// replayed from them and the revisions. Absent if no facts were needed.
	Facts json.RawMessage `json:"facts,omitempty"`
	// FactsSHA256 is the SHA-256, in lower-case hex, of the bytes of Facts.
	FactsSHA256 string `json:"factsSHA256,omitempty"`
	// Certificate to sign, only for Issued.
	Certificate *Certificate `json:"certificate,omitempty"`
	// Truncated lists the fields that were shortened or left out, so that a record has at most [MaxRecord]
	// bytes, such as "facts" or "policies.violations".
	Truncated []string `json:"truncated,omitempty"`
}

// AddFacts sets the facts and their digest. It does nothing if raw is nil.
func (d *Decision) AddFacts(raw json.RawMessage) {
	if raw == nil {
		return
	}
	sum := sha256.Sum256(raw)
	d.Facts, d.FactsSHA256 = raw, hex.EncodeToString(sum[:])
}

// Request identifies a CertificateSigningRequest, and its key and names.
type Request struct {
	Name       string    `json:"name"`
	UID        types.UID `json:"uid"`
	SignerName string    `json:"signerName"`
	KeySHA256  string    `json:"keySHA256,omitempty"`
	DNSNames   []string  `json:"dnsNames,omitempty"`
	IPs        []string  `json:"ipAddresses,omitempty"`
}

// Requester is the user that created a request.
type Requester struct {
	Username string   `json:"username"`
	UID      string   `json:"uid,omitempty"`
	Groups   []string `json:"groups"`
	// Extra has all extras, whether they have one value or several.
	Extra map[string][]string `json:"extra,omitempty"`
}

// RequesterOf returns the user that created a request.
func RequesterOf(spec *certificatesv1.CertificateSigningRequestSpec) Requester {
	extra := make(map[string][]string, len(spec.Extra))
	for key, values := range spec.Extra {
		extra[key] = values
	}
	return Requester{Username: spec.Username, UID: spec.UID, Groups: spec.Groups, Extra: extra}
}

// Certificate describes a certificate to sign.
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

// Policy is the result of one policy.
type Policy struct {
	Name     string `json:"name"`
	Revision string `json:"revision"`
	// Answer is "allow", "deny", "hold", "abstain" or "error".
	Answer string `json:"answer"`
	// Audit is true for a shadow policy, whose mode is Audit: it does not affect the verdict.
	Audit bool `json:"audit,omitempty"`
	// Error of the evaluation, if Answer is "error".
	Error string `json:"error,omitempty"`
	// Violations that the policy returned.
	Violations any `json:"violations,omitempty"`
}

// Outcome is the outcome of writing a decision to the API server.
type Outcome struct {
	// DecisionID is the ID of the [Decision].
	DecisionID string `json:"decisionID"`
	// Result is "written" if the API server accepted the write, "refused" if it rejected it or was not asked, and
	// "unknown" after any other error: the write may have happened.
	Result string `json:"result"`
	// Error of the write.
	Error string `json:"error,omitempty"`
}

// Results of an [Outcome].
const (
	Written = "written"
	Refused = "refused"
	Unknown = "unknown"
)

// OutcomeOf returns the outcome of a write to the API server that returned err. Only a status from 400 to 499
// means that the write was refused.
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

// NewLog returns a Log that writes one line for each record to w.
func NewLog(w io.Writer) *Log {
	out := &errorKeeper{w: w}
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoding.NewReflectedEncoder = func(w io.Writer) zapcore.ReflectedEncoder { return verbatim{w} }
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoding), out, zapcore.InfoLevel)
	return &Log{
		out: out, logger: zapr.NewLogger(zap.New(core, zap.ErrorOutput(zapcore.AddSync(io.Discard)))).WithName("audit"),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "countersign_audit_append_failures_total",
			Help: "Audit records that could not be written. A decision without a record is not carried out.",
		}),
	}
}

// Metrics returns the metrics of the Log. The caller registers them.
func (l *Log) Metrics() prometheus.Collector { return l.failures }

// AppendDecision appends a decision, shortened to [MaxRecord]. If it fails, the caller must not carry out
// the decision.
func (l *Log) AppendDecision(d Decision) error {
	raw, err := d.encode()
	return l.append("decision", raw, err)
}

// AppendOutcome appends the outcome of a decision.
func (l *Log) AppendOutcome(o Outcome) error {
	o.Error = text.Shorten(o.Error, maxMessage)
	raw, err := encode(o)
	return l.append("outcome", raw, err)
}

// append appends an encoded record. err is the error of encoding it.
func (l *Log) append(kind string, raw []byte, err error) error {
	if err != nil {
		l.failures.Inc()
		return fmt.Errorf("encoding a record for the audit log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out.err = nil
	l.logger.Info(kind, kind, encoded{raw})
	if l.out.err != nil {
		l.failures.Inc()
		return fmt.Errorf("appending to the audit log: %w", l.out.err)
	}
	return nil
}

// encoded is a record as JSON. It is encoded before it is logged: a logger writes a line for a record that
// it cannot encode, and returns no error.
type encoded struct{ raw []byte }

// verbatim writes encoded records.
type verbatim struct{ w io.Writer }

func (v verbatim) Encode(value any) error {
	record, ok := value.(encoded)
	if !ok {
		return fmt.Errorf("unsupported type %T", value)
	}
	_, err := v.w.Write(record.raw)
	return err
}

// errorKeeper keeps the error of the latest write, since a logger does not return it.
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
