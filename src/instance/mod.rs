//! In the pod: the server's supervisor and its control API.
