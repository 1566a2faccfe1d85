// Includes the modules of the program, which build.rs lists.
include!(concat!(env!("OUT_DIR"), "/program.rs"));
