//! git → requests → notes.
pub mod window;
