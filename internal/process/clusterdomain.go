// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"flag"

	"k8s.io/apimachinery/pkg/util/validation"
)

// AddClusterDomain adds the flag of the cluster's DNS domain, and sets domain to its default. The flag
// takes lower-case names only: policies compare names with those they make of the domain.
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
		return errors.New("want a DNS name in lower case without a dot at either end, such as cluster.local: " +
			"the domain after svc in the search line of a Pod's /etc/resolv.conf")
	}
	*d = clusterDomain(s)
	return nil
}
