//! Words: Postgres configuration.
