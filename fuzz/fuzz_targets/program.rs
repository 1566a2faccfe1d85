// The modules of the program, which has no library: each target compiles them in.

#[path = "../../src/bin/udgram/admission.rs"]
mod admission;
#[path = "../../src/bin/udgram/cli/mod.rs"]
mod cli;
#[path = "../../src/bin/udgram/cmd/mod.rs"]
mod cmd;
#[path = "../../src/bin/udgram/color.rs"]
mod color;
#[path = "../../src/bin/udgram/endpoint.rs"]
mod endpoint;
#[path = "../../src/bin/udgram/envelope.rs"]
mod envelope;
#[path = "../../src/bin/udgram/exit.rs"]
mod exit;
#[path = "../../src/bin/udgram/input.rs"]
mod input;
#[path = "../../src/bin/udgram/invalid.rs"]
mod invalid;
#[path = "../../src/bin/udgram/json.rs"]
mod json;
#[path = "../../src/bin/udgram/notify.rs"]
mod notify;
#[path = "../../src/bin/udgram/output.rs"]
mod output;
#[path = "../../src/bin/udgram/printer.rs"]
mod printer;
#[path = "../../src/bin/udgram/process.rs"]
mod process;
#[path = "../../src/bin/udgram/progress.rs"]
mod progress;
#[path = "../../src/bin/udgram/protocol.rs"]
mod protocol;
#[path = "../../src/bin/udgram/receive.rs"]
mod receive;
#[path = "../../src/bin/udgram/reply.rs"]
mod reply;
#[path = "../../src/bin/udgram/report.rs"]
mod report;
#[path = "../../src/bin/udgram/sender.rs"]
mod sender;
#[path = "../../src/bin/udgram/serve.rs"]
mod serve;
#[path = "../../src/bin/udgram/signal.rs"]
mod signal;
#[path = "../../src/bin/udgram/stats.rs"]
mod stats;
#[path = "../../src/bin/udgram/stderr.rs"]
mod stderr;
#[path = "../../src/bin/udgram/terminal.rs"]
mod terminal;
#[path = "../../src/bin/udgram/verbosity.rs"]
mod verbosity;
