//go:build tools

// Package cluster pins what enforces network policies on the whole node, which Kubernetes itself
// does not. Nothing here is compiled into pgitops.
package cluster

import (
	_ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
)
