//! git → requests → notes.

pub mod desired;
pub mod drift;
pub mod live;
pub mod plan;
pub mod problem;
pub mod source;
pub mod window;
