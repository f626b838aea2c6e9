//! git → requests → notes.
