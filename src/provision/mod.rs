//! A Postgres object → its children.
