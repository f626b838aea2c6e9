//! Requests → servers.
