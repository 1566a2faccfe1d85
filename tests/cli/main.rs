//! Runs the program `udgram` as its users do. Each command or subject has a module; the name of each
//! test states what the program does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod forking;
mod harness;
mod outcome;
mod running;
mod sys;

mod addresses;
mod answers;
mod binding;
mod blocked;
mod bound_socket;
mod colors;
mod combinations;
mod credentials;
mod descriptors;
mod destination;
mod errors;
mod exec;
mod existing_socket;
mod formats;
mod handlers;
mod idle;
mod iter;
mod kernels;
mod listen;
mod ls;
mod messages;
mod notify_service;
mod null;
mod oracle;
mod pacing;
mod peek;
mod peers;
mod pipe;
mod processes;
mod queue;
mod recv;
mod relay;
mod replies;
mod reply;
mod robustness;
mod send;
mod sequences;
mod session;
mod sockopt;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod start;
mod stats;
mod table;
mod takeover;
mod talk;
mod usage;
mod wait;
mod watching;
mod window;
mod without_proc;
mod wpa_supplicant;
