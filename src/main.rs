//! Arguments → command; prints an error chain once; exit code.

fn main() {}
