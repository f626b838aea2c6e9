//! git → requests → notes.

pub mod desired;
pub mod problem;
pub mod window;
