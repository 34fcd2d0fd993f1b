# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: Serving certificates for Pods
# description: >-
#   Allows a Pod, or a requester that can act on its behalf, to request a serving certificate
#   for names and addresses of the Pod.
#   Parameters: maxExpirationSeconds, the longest lifetime that a request can have;
#   allowClientAuth, true to allow the usage "client auth"; allowShortNames, true to allow
#   names of the form <service>.<namespace>.
# scope: package
# schemas:
#   - input: schema.input
package countersign.pod_serving

import rego.v2

import data.countersign.lib.delegation
import data.countersign.lib.key
import data.countersign.lib.names
import data.countersign.lib.organization
import data.countersign.lib.request
import data.countersign.lib.subject

# METADATA
# title: Requirement 1, the subject controls the private key
# description: >-
#   The signature of the PKCS#10 request proves that its creator has the private key. The
#   rule checks that the requester is the subject, and that no other requester used the key.
subject_controls_key if {
	subject.requester_speaks_for_pod
	key.is_first_shown
}

# METADATA
# title: Requirement 2, the subject is authorized to act in the requested context
subject_is_authorized if {
	subject.pod_is_alive

	# The request has names, and the Pod owns all of them.
	count(input.pkcs10.dnsNames) + count(input.pkcs10.ipAddresses) > 0
	names.are_owned
	input.pkcs10.uris == []
	input.pkcs10.emailAddresses == []

	# The subject is empty, or has one of these names as the common name.
	common_name_is_requested
	input.pkcs10.subject.organizations == []
	input.pkcs10.subject.organizationalUnits == []
	input.pkcs10.subject.other == []

	# The usages are those of a server, and the lifetime is allowed.
	request.usages_are_within(allowed_usages)
	"server auth" in input.request.usages
	has_key_usage
	request.lifetime_is_allowed
}

common_name_is_requested if input.pkcs10.subject.commonName == ""

common_name_is_requested if request.common_name_is_among_names

allowed_usages contains usage if some usage in ["digital signature", "key encipherment", "server auth"]

allowed_usages contains "client auth" if input.parameters.allowClientAuth == true

# A certificate without a key usage is valid for every usage, so the signer does not issue it.
has_key_usage if "digital signature" in input.request.usages

has_key_usage if {
	"key encipherment" in input.request.usages
	input.pkcs10.key.algorithm == "RSA"
}

# Violations of the library: the requester, the Pod, the key, the names and the subject attributes.
violations contains v if some v in subject.violations

violations contains v if some v in delegation.violations

violations contains v if some v in key.violations

violations contains v if some v in names.violations

violations contains v if some v in organization.violations

violations contains v if some v in request.violations

# METADATA
# title: names-missing
# description: The request asks for neither a DNS name nor an address.
violations contains {"requirement": 2, "id": "names-missing", "message": msg, "value": "", "retryable": false} if {
	input.pkcs10.dnsNames == []
	input.pkcs10.ipAddresses == []
	msg := "the request has no subject alternative name: add the DNS names or addresses to serve on"
}

# METADATA
# title: uri-not-allowed
# description: The cluster has no owner for a URI.
violations contains {"requirement": 2, "id": "uri-not-allowed", "message": msg, "value": uri, "retryable": false} if {
	some uri in input.pkcs10.uris
	msg := sprintf("URI %q is not allowed in a serving certificate: remove it", [uri])
}

# METADATA
# title: email-not-allowed
# description: A Pod has no e-mail address.
violations contains {"requirement": 2, "id": "email-not-allowed", "message": msg, "value": address, "retryable": false} if {
	some address in input.pkcs10.emailAddresses
	msg := sprintf("e-mail address %q is not allowed in a serving certificate: remove it", [address])
}

# METADATA
# title: common-name-not-requested
# description: The common name is not one of the requested names.
violations contains {"requirement": 2, "id": "common-name-not-requested", "message": msg, "value": input.pkcs10.subject.commonName, "retryable": false} if {
	not common_name_is_requested
	msg := sprintf("common name %q is none of the subject alternative names: leave it empty, or make it one of them", [input.pkcs10.subject.commonName])
}

# METADATA
# title: usage-not-allowed
# description: The usage is not allowed for serving certificates.
violations contains {"requirement": 2, "id": "usage-not-allowed", "message": msg, "value": usage, "retryable": false} if {
	some usage in (request.usages - allowed_usages)
	msg := sprintf("usage %q is not allowed: ask only for %s", [usage, concat(", ", sort(allowed_usages))])
}

# METADATA
# title: usage-missing
# description: A server cannot use a certificate without the usage.
violations contains {"requirement": 2, "id": "usage-missing", "message": msg, "value": "server auth", "retryable": false} if {
	not "server auth" in input.request.usages
	msg := `usage "server auth" is missing: add it to spec.usages`
}

violations contains {"requirement": 2, "id": "usage-missing", "message": msg, "value": "digital signature", "retryable": false} if {
	not has_key_usage
	msg := sprintf("usage \"digital signature\" is missing, without which a key of type %s cannot serve: add it to spec.usages", [input.pkcs10.key.algorithm])
}
