//! The `udgram` program.

fn main() {}
