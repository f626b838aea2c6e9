//go:build tools

// Package deploy pins Helm, with which a test renders the chart. Nothing here is compiled into
// pgitops.
package deploy

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
