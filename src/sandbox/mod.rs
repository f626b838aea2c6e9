//! A small Kubernetes of our own.
