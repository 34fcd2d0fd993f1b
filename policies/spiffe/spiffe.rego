# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: X.509-SVIDs for Pods
# description: >-
#   Allows only the Pod itself to request a certificate whose only name is its SPIFFE ID,
#   spiffe://<trust domain>/ns/<namespace>/sa/<ServiceAccount>. All Pods of a ServiceAccount
#   share one ID, as they share its permissions.
#   Parameters: trustDomain, which is required to allow a request; maxExpirationSeconds, the
#   longest lifetime that a request can have.
# related_resources:
#   - https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md
#   - https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md
# scope: package
# schemas:
#   - input: schema.input
package countersign.spiffe

import rego.v2

import data.countersign.lib.key
import data.countersign.lib.organization
import data.countersign.lib.request
import data.countersign.lib.subject

# METADATA
# title: Requirement 1, the subject controls the private key
# description: >-
#   The signature of the PKCS#10 request proves that its creator has the private key. The
#   rule checks that the requester is the Pod, and that no other requester used the key.
subject_controls_key if {
	subject.requester_is_pod
	key.is_first_shown
}

# METADATA
# title: Requirement 2, the subject is authorized to act in the requested context
subject_is_authorized if {
	subject.pod_is_alive
	input.pkcs10.uris == [spiffe_id]
	nothing_else_is_named
	usages_are_allowed
	request.lifetime_is_allowed
}

# METADATA
# title: The SPIFFE ID of the requester Pod
# description: Names of namespaces and ServiceAccounts do not require escaping.
spiffe_id := sprintf("spiffe://%s/ns/%s/sa/%s", [trust_domain, input.cluster.subject.pod.namespace, input.cluster.subject.pod.serviceAccountName]) if {
	subject.requester_is_pod
}

# METADATA
# title: The trust domain, undefined if the parameter is invalid
# description: >-
#   The SPIFFE-ID standard (section 2.1) allows lower-case letters, digits, dots, dashes and
#   underscores, and 255 bytes. Empty labels are refused too: crypto/x509 cannot parse them.
trust_domain := domain if {
	domain := input.parameters.trustDomain
	is_string(domain)
	count(domain) <= 255
	regex.match(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`, domain)
}

nothing_else_is_named if {
	count(input.pkcs10.dnsNames) == 0
	count(input.pkcs10.ipAddresses) == 0
	count(input.pkcs10.emailAddresses) == 0
	input.pkcs10.subject.commonName == ""
	organization.is_absent
	request.other_attributes_are_absent
}

allowed_usages := {"digital signature", "key encipherment", "client auth", "server auth"}

usages_are_allowed if {
	request.usages_are_within(allowed_usages)
	"digital signature" in input.request.usages
	has_purpose
}

has_purpose if {
	some usage in ["client auth", "server auth"]
	usage in input.request.usages
}

# Violations of the library: the Pod, the key, the organizations, the lifetime and the subject attributes.
violations contains v if some v in subject.violations

violations contains v if some v in key.violations

violations contains v if some v in organization.violations

violations contains v if some v in request.violations

# METADATA
# title: delegation-not-allowed
# description: >-
#   The requester has no Pod. Delegation is ignored: a SPIFFE ID is an identity, and only its
#   subject can request it.
violations contains {"requirement": 1, "id": "delegation-not-allowed", "message": msg, "value": input.requester.username, "retryable": false} if {
	is_null(input.requester.pod)
	msg := sprintf("requester %s is not bound to a Pod, and no one may ask for the SPIFFE ID of another: make the request from the Pod, with a token that is bound to it", [input.requester.username])
}

# METADATA
# title: trust-domain-missing
# description: The parameter trustDomain of the policy is not set, and the policy allows nothing until its owner sets it.
violations contains {"requirement": 2, "id": "trust-domain-missing", "message": msg, "value": "", "retryable": true} if {
	object.get(input.parameters, "trustDomain", null) == null
	msg := "the policy's parameter trustDomain is not set: have it set to the name of the trust domain"
}

# METADATA
# title: trust-domain-invalid
# description: The parameter trustDomain of the policy is invalid, and the policy allows nothing until its owner fixes it.
violations contains {"requirement": 2, "id": "trust-domain-invalid", "message": msg, "value": json.marshal(value), "retryable": true} if {
	value := object.get(input.parameters, "trustDomain", null)
	not value == null
	not trust_domain
	msg := sprintf("the policy's parameter trustDomain is %s, which is no trust domain name: have it corrected, to a name such as example.com", [json.marshal(value)])
}

# METADATA
# title: spiffe-id-missing
# description: The request has no URI.
violations contains {"requirement": 2, "id": "spiffe-id-missing", "message": msg, "value": "", "retryable": false} if {
	count(input.pkcs10.uris) == 0
	msg := sprintf("the request has no URI: add %s", [wanted])
}

# METADATA
# title: spiffe-id-not-single
# description: An X.509-SVID has exactly one URI. Validators must reject certificates with more.
violations contains {"requirement": 2, "id": "spiffe-id-not-single", "message": msg, "value": concat(", ", input.pkcs10.uris), "retryable": false} if {
	count(input.pkcs10.uris) > 1
	msg := sprintf("the request has %d URIs: keep only %s", [count(input.pkcs10.uris), wanted])
}

# METADATA
# title: spiffe-id-not-owned
# description: The URI is not equal to the SPIFFE ID of the Pod.
violations contains {"requirement": 2, "id": "spiffe-id-not-owned", "message": msg, "value": uri, "retryable": false} if {
	own := spiffe_id
	some uri in input.pkcs10.uris
	not uri == own
	msg := sprintf("URI %q is not the SPIFFE ID of Pod %s: ask for %s", [uri, subject.name, own])
}

# METADATA
# title: dns-name-not-allowed
# description: An X.509-SVID of this policy has the SPIFFE ID as its only name.
violations contains {"requirement": 2, "id": "dns-name-not-allowed", "message": msg, "value": name, "retryable": false} if {
	some name in input.pkcs10.dnsNames
	msg := sprintf("DNS name %q is not allowed beside a SPIFFE ID: remove it", [name])
}

# METADATA
# title: ip-address-not-allowed
# description: An X.509-SVID of this policy has the SPIFFE ID as its only name.
violations contains {"requirement": 2, "id": "ip-address-not-allowed", "message": msg, "value": ip, "retryable": false} if {
	some ip in input.pkcs10.ipAddresses
	msg := sprintf("address %s is not allowed beside a SPIFFE ID: remove it", [ip])
}

# METADATA
# title: email-not-allowed
# description: An X.509-SVID of this policy has the SPIFFE ID as its only name.
violations contains {"requirement": 2, "id": "email-not-allowed", "message": msg, "value": address, "retryable": false} if {
	some address in input.pkcs10.emailAddresses
	msg := sprintf("e-mail address %q is not allowed beside a SPIFFE ID: remove it", [address])
}

# METADATA
# title: common-name-not-allowed
# description: An X.509-SVID of this policy has the SPIFFE ID as its only name.
violations contains {"requirement": 2, "id": "common-name-not-allowed", "message": msg, "value": input.pkcs10.subject.commonName, "retryable": false} if {
	not input.pkcs10.subject.commonName == ""
	msg := sprintf("common name %q is not allowed beside a SPIFFE ID: leave the subject empty", [input.pkcs10.subject.commonName])
}

# METADATA
# title: usage-not-allowed
# description: The usage is not allowed for an X.509-SVID.
violations contains {"requirement": 2, "id": "usage-not-allowed", "message": msg, "value": usage, "retryable": false} if {
	some usage in request.usages
	not usage in allowed_usages
	msg := sprintf("usage %q is not allowed: ask only for %s", [usage, concat(", ", sort(allowed_usages))])
}

# METADATA
# title: usage-missing
# description: An X.509-SVID requires the usage digital signature, and at least one of client auth and server auth.
violations contains {"requirement": 2, "id": "usage-missing", "message": msg, "value": "digital signature", "retryable": false} if {
	not "digital signature" in input.request.usages
	msg := `usage "digital signature" is missing, which every X.509-SVID has: add it to spec.usages`
}

violations contains {"requirement": 2, "id": "usage-missing", "message": msg, "value": "client auth", "retryable": false} if {
	not has_purpose
	msg := `usages "client auth" and "server auth" are both missing: add to spec.usages what the Pod is to be, or both`
}

# The SPIFFE ID to request, as a clause for messages.
wanted := spiffe_id

wanted := "the SPIFFE ID of the Pod" if not spiffe_id
