# SPDX-FileCopyrightText: The Countersign Authors
# SPDX-License-Identifier: Apache-2.0

# METADATA
# title: No organization
# description: >-
#   For policies that do not allow an organization. Kubernetes interprets organizations as groups.
# scope: package
# schemas:
#   - input: schema.input
package countersign.lib.organization

import rego.v2

# METADATA
# title: The subject has no organization
is_absent if input.pkcs10.subject.organizations == []

# METADATA
# title: organization-not-allowed
# description: Kubernetes interprets an organization as a group.
violations contains {"requirement": 2, "id": "organization-not-allowed", "message": msg, "value": organization, "retryable": false} if {
	some organization in input.pkcs10.subject.organizations
	msg := sprintf("organization %q is not allowed: remove it from the subject", [organization])
}
