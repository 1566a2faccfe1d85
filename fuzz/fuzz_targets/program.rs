// The modules of the program, as build.rs lists them.
include!(concat!(env!("OUT_DIR"), "/program.rs"));
