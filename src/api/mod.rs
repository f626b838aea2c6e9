//! Words: the Kubernetes objects and the document in git.
