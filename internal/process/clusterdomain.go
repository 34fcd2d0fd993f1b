// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"flag"

	"k8s.io/apimachinery/pkg/util/validation"
)

// AddClusterDomain adds the flag for the DNS domain of the cluster, and sets domain to its default. The
// domain must be in lower case, since policies compare names that end with it.
func AddClusterDomain(fs *flag.FlagSet, domain *string) {
	*domain = "cluster.local"
	fs.Var((*clusterDomain)(domain), "cluster-domain", "DNS `domain` of the cluster.")
}

type clusterDomain string

// String implements flag.Value.
func (d *clusterDomain) String() string { return string(*d) }

// Set implements flag.Value.
func (d *clusterDomain) Set(s string) error {
	if len(validation.IsDNS1123Subdomain(s)) > 0 {
		return errors.New("must be a DNS name in lower case without a leading or trailing dot, such as cluster.local. " +
			"The search line of /etc/resolv.conf in a Pod has it after svc")
	}
	*d = clusterDomain(s)
	return nil
}
