//! Edge: the Kubernetes client.
