//! Edge: git through libgit2.
